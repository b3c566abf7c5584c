"""What a Python file makes of its rows between loading them and handing them to its trainer.

Owns which of these steps change what is learned: they are told, for none is done here. It knows no setting.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tiebreak.config.foreign.bindings import Bindings, Call, dotted
from tiebreak.errors import ConfigError

_HARMLESS = frozenset(["shuffle", "set_format", "with_format", "flatten_indices", "load_dataset"])
_SIDES = frozenset(["chosen", "rejected"])
_WHY = "what the code does to the rows is not done here: write them out as it leaves them, and name that file"


@dataclass
class Rows:
    """What becomes of rows: steps by name, each with what to do about it, and the splits that are taken out of them."""

    steps: dict[str, str] = field(default_factory=dict)
    splits: list[tuple[str, int]] = field(default_factory=list)
    """Each with its line."""
    loads: list[ast.Call] = field(default_factory=list)


def rows_of(node: ast.expr, user: Call, bindings: Bindings, path: Path) -> Rows:
    """Return what becomes of the rows that an argument of a call stands for.

    Raises ConfigError where columns trade places: read by their names, every pair would be the wrong way round.
    """
    rows = Rows()
    parts: list[ast.Subscript] = []
    is_divided = False
    for step in _steps(node, user, bindings):
        if isinstance(step, ast.Subscript):
            parts.append(step)
            continue
        last = dotted(step.func).rpartition(".")[2]
        is_divided = is_divided or last == "train_test_split"
        if last == "load_dataset":
            rows.loads.append(step)
        elif last not in _HARMLESS and not (isinstance(step.func, ast.Name) and bindings.is_function(step.func.id)):
            _require_sides(last, step, bindings, path)
            rows.steps[f"{last}(…) in line {step.lineno}"] = _WHY
    has_split = any(word.arg == "split" for load in rows.loads for word in load.keywords)
    for part in parts:
        key = bindings.value(part.slice)
        if not isinstance(key, str):
            rows.steps[f"[{ast.unparse(part.slice)[:40]}] in line {part.lineno}"] = _WHY
        elif not (has_split or (is_divided and key in ("train", "test"))):
            rows.splits.append((key, part.lineno))
    return rows


def _require_sides(name: str, call: ast.Call, bindings: Bindings, path: Path) -> None:
    if not name.startswith("rename_column"):
        return
    told = [bindings.value(node) for node in (*call.args, *(word.value for word in call.keywords))]
    old = set(told[0]) if told and isinstance(told[0], dict) else {str(told[0])} if told else set()
    if old & _SIDES:
        side = min(old & _SIDES)
        raise ConfigError(
            f"{path}: line {call.lineno} gives the column '{side}' another name, so it is not "
            f"what it is called; take the line out of a copy, and say which column is what with data.columns"
        )


def _steps(node: ast.AST, user: Call, bindings: Bindings) -> Iterator[ast.Call | ast.Subscript]:
    """Yield the calls and the subscripts that rows go through, not those of what a step is given beside them."""
    waiting: list[tuple[ast.AST, ast.AST | None]] = [(node, user.scope)]
    seen: set[int] = set()
    while waiting:
        node, scope = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, ast.Name):
            waiting += [(value, at) for at, value in bindings.stands_for(node.id, scope, user)]
        elif isinstance(node, ast.Subscript):
            yield node
            waiting.append((node.value, scope))
        elif isinstance(node, ast.Call):
            yield node
            if dotted(node.func).rpartition(".")[2] == "load_dataset":
                continue
            parts = [node.func.value] if isinstance(node.func, ast.Attribute) else [node.func, *node.args]
            waiting += [(part, scope) for part in parts]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [(one.value, node) for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
        elif not isinstance(node, ast.ClassDef | ast.Lambda):
            waiting += [(child, scope) for child in ast.iter_child_nodes(node)]
