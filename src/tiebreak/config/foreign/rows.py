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
_PAIR = ("prompt", "chosen", "rejected")
_WHY = "what the code does to the rows is not done here: write them out as it leaves them, and name that file"


@dataclass
class Rows:
    """What becomes of rows: steps by name, each with what to do about it, and the splits that are taken out of them."""

    steps: dict[str, str] = field(default_factory=dict)
    splits: list[tuple[str, int]] = field(default_factory=list)
    """Each with its line."""
    loads: list[ast.Call] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    """Where columns get names that the trainer reads: each of these names, and what the column is called before."""
    renamed_in: int = 0
    """The line of the first such step."""


def rows_of(node: ast.expr, user: Call, bindings: Bindings, path: Path) -> Rows:
    """Return what becomes of the rows that an argument of a call stands for.

    Raises ConfigError where columns trade places: read by their names, every pair would be the wrong way round.
    """
    rows = Rows()
    parts: list[ast.Subscript] = []
    renames: list[ast.Call] = []
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
            renames += [step] if last.startswith("rename_column") else []
    _take_renames(rows, renames[::-1], bindings)
    has_split = any(word.arg == "split" for load in rows.loads for word in load.keywords)
    for part in parts:
        key = bindings.value(part.slice)
        if not isinstance(key, str):
            rows.steps[f"[{ast.unparse(part.slice)[:40]}] in line {part.lineno}"] = _WHY
        elif not (has_split or (is_divided and key in ("train", "test"))):
            rows.splits.append((key, part.lineno))
    return rows


def _take_renames(rows: Rows, renames: list[ast.Call], bindings: Bindings) -> None:
    """Take the renames that give columns the names of a pair, in the order in which they are done; others stay told.

    A column that no step renames is taken by its own name: who has none of it is told so when the file is read.
    """
    before: dict[str, str] = {}
    steps = [(call, _renamed(call, bindings)) for call in renames]
    for _, told in steps:
        if told is None:
            return
        origin = {old: before.pop(old, old) for old in told}
        before |= {new: origin[old] for old, new in told.items()}
    is_lost = any(old in _PAIR and old not in before for old in before.values())
    if is_lost or not any(name in before for name in _PAIR):
        return
    rows.columns = {name: before.get(name, name) for name in _PAIR}
    rows.renamed_in = renames[0].lineno
    for call, told in steps:
        if told is not None and set(told.values()) <= {*_PAIR}:
            rows.steps.pop(f"{dotted(call.func).rpartition('.')[2]}(…) in line {call.lineno}", None)


def _renamed(call: ast.Call, bindings: Bindings) -> dict[str, str] | None:
    """Return the new name of each column that a step renames, None where its code computes them."""
    named = {str(word.arg): bindings.value(word.value) for word in call.keywords}
    places = ("original_column_name", "new_column_name") if len(call.args) + len(named) > 1 else ("column_mapping",)
    told = [*(bindings.value(node) for node in call.args), *(named[name] for name in places if name in named)]
    if len(told) == 1 and isinstance(told[0], dict):
        told = [list(told[0]), list(told[0].values())]
    elif len(told) == 2:
        told = [[one] for one in told]
    if len(told) != 2 or not all(isinstance(name, str) for names in told for name in names):
        return None
    return dict(zip(*told, strict=True))


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
