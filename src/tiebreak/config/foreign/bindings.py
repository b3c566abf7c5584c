"""What the names of a Python file stand for, as far as that can be told without running it.

Owns when a name stands for one value, and which calls are behind an expression. It knows no trainer.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tiebreak.config.foreign.found import COMPUTED

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LIBRARIES = frozenset(
    [*sys.stdlib_module_names, "accelerate", "bitsandbytes", "datasets", "deepspeed", "huggingface_hub", "numpy",
     "pandas", "peft", "rich", "torch", "tqdm", "transformers", "trl", "unsloth", "wandb"]
)  # fmt: skip
"""Whose functions leave what a trainer is given as its call made it."""
_LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)


@dataclass(frozen=True)
class Call:
    """A call, by the dotted name of what is called."""

    name: str
    node: ast.Call
    scope: ast.AST | None
    """The function that it stands in."""
    is_repeated: bool
    """Whether a loop makes it."""

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.node.lineno


class Bindings:
    """The calls of a file, and what is bound to each of its names, in any scope."""

    def __init__(self, tree: ast.Module) -> None:
        self.calls: list[Call] = []
        self._times: Counter[str] = Counter()
        self._literals: dict[str, ast.expr] = {}
        self._sources: dict[str, list[tuple[ast.AST | None, ast.AST]]] = defaultdict(list)
        self._changes: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.from_files = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and (node.level or (node.module or "").partition(".")[0] not in _LIBRARIES)
            for alias in node.names
        }
        """Functions of the user's own other files, by the names that they have here."""
        self.set_on: list[tuple[ast.expr, str, int]] = []
        """Each attribute that is set: of what, its name, and the line."""
        waiting: list[tuple[ast.AST, ast.AST | None, bool]] = [(tree, None, False)]
        while waiting:
            node, scope, in_loop = waiting.pop()
            self._see(node, scope)
            if isinstance(node, ast.Call):
                self.calls.append(Call(dotted(node.func), node, scope, in_loop))
            scope = node if isinstance(node, (*_FUNCTIONS, ast.Lambda)) else scope
            in_loop = in_loop or isinstance(node, _LOOPS)
            waiting += [(child, scope, in_loop) for child in ast.iter_child_nodes(node)]
        self.calls.sort(key=lambda call: (call.line, call.node.col_offset))

    def _see(self, node: ast.AST, scope: ast.AST | None) -> None:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            self._times[node.id] += 1
        elif isinstance(node, ast.arg):
            self._times[node.arg] += 1
        elif isinstance(node, ast.alias):
            self._times[(node.asname or node.name).partition(".")[0]] += 1
        elif isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            self._times[node.name] += 1
            self._sources[node.name].append((scope, node))
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value, scope, is_literal=True)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            self._bind(node.target, node.value, scope, is_literal=True)
        elif isinstance(node, ast.AugAssign):
            self._bind(node.target, node.value, scope)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            self._bind(node.target, node.iter, scope)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._bind(node.optional_vars, node.context_expr, scope)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            self._see_statement(node.value, scope)
        elif isinstance(node, ast.Call):
            self._see_copy(node)

    def _bind(self, target: ast.expr, value: ast.expr, scope: ast.AST | None, *, is_literal: bool = False) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            same = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            values = value.elts if same and isinstance(value, ast.Tuple | ast.List) else [value] * len(target.elts)
            for one, its in zip(target.elts, values, strict=True):
                self._bind(one, its, scope, is_literal=is_literal and same)
        elif isinstance(target, ast.Name):
            self._sources[target.id].append((scope, value))
            if is_literal:
                self._literals[target.id] = value
        elif isinstance(target, ast.Attribute | ast.Subscript):
            if isinstance(target.value, ast.Name):
                self._times[target.value.id] += 1  # what is bound to the name is another one now
            if isinstance(target, ast.Attribute):
                self.set_on.append((target.value, target.attr, target.lineno))
            elif not isinstance(target.value, ast.Name) and isinstance(
                target.slice, ast.Constant
            ):  # vars(args)["beta"] = …
                self.set_on.append((target.value, str(target.slice.value), target.lineno))

    def _see_statement(self, call: ast.Call, scope: ast.AST | None) -> None:
        """A method that is called for its effect: `common.update(…)`, `model.add_adapter(…)`."""
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            name = call.func.value.id
            self._times[name] += 1
            self._sources[name].append((scope, call))
            self._changes[name] += [(word.arg, call.lineno) for word in call.keywords if word.arg]

    def _see_copy(self, call: ast.Call) -> None:
        """`setattr(args, "beta", …)` and `replace(args, beta=…)`."""
        first = call.args[0] if call.args else None
        called = dotted(call.func).rpartition(".")[2]
        if called == "replace" and isinstance(first, ast.Name):
            self._changes[first.id] += [(word.arg, call.lineno) for word in call.keywords if word.arg]
        elif first is not None and called == "setattr" and len(call.args) == 3:
            key = call.args[1]
            named = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else "setattr"
            self.set_on.append((first, named, call.lineno))

    def changes(self, name: str) -> list[tuple[str, int]]:
        """Return what calls change of what a name stands for, by attribute, each with its line."""
        return self._changes[name]

    def is_function(self, name: str) -> bool:
        """Whether a name is a function of the file, so that what it returns can be followed."""
        return any(isinstance(node, _FUNCTIONS) for _, node in self._sources.get(name, ()))

    def stands_for(self, name: str, scope: ast.AST | None, user: Call) -> list[tuple[ast.AST | None, ast.AST]]:
        """Return what a name in a scope stands for where `user` is called, each with the scope that it is from."""
        made = self._sources.get(name, [])
        made = [one for one in made if one[0] is scope] or made
        if scope is user.scope and not user.is_repeated:
            made = [one for one in made if one[0] is not scope or getattr(one[1], "lineno", 0) <= user.line]
        return made

    def named(self, call: Call) -> list[str]:
        """Return the names that a call is bound to."""
        return [name for name, made in self._sources.items() if any(node is call.node for _, node in made)]

    def bound(self, node: ast.expr) -> ast.expr | None:
        """Return what an expression stands for; None where a name is bound more than once, or by no literal."""
        for _ in range(9):
            if not isinstance(node, ast.Name):
                return node
            if self._times[node.id] != 1 or node.id not in self._literals:
                return None
            node = self._literals[node.id]
        return None

    def value(self, node: ast.expr) -> Any:
        """Return a literal, also by a name that is bound once; else `COMPUTED`."""
        found = self.bound(node)
        if found is None:
            return COMPUTED
        if isinstance(found, ast.Attribute) and isinstance(found.value, ast.Name) and found.value.id == "torch":
            return found.attr
        try:
            return ast.literal_eval(found)
        except (ValueError, TypeError, RecursionError, MemoryError):
            return COMPUTED

    def behind(self, node: ast.AST, user: Call) -> list[Call]:
        """Return the calls that an expression is made of, by whatever names; not what another trainer was given.

        What is bound after its user, which no loop makes again, is not what that one was given.
        """
        found: dict[int, Call] = {}
        known = {id(call.node): call for call in self.calls}
        waiting: list[tuple[ast.AST, ast.AST | None]] = [(node, user.scope)]
        seen: set[int] = set()
        while waiting:
            node, scope = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            call = known.get(id(node))
            if call is not None:
                found[id(node)], scope = call, call.scope
                if call.name.endswith("Trainer"):
                    continue
            if isinstance(node, _FUNCTIONS):
                scope = node
            if isinstance(node, ast.Name):
                waiting += [(value, at) for at, value in self.stands_for(node.id, scope, user)]
            waiting += [(child, scope) for child in ast.iter_child_nodes(node)]
        return list(found.values())


def expanded(call: ast.Call, bindings: Bindings) -> tuple[list[tuple[str, ast.expr]], list[str]]:
    """Return the keywords of a call, those of a literal `**dict` among them, and which of these could not be read."""
    given: list[tuple[str, ast.expr]] = []
    unread: list[str] = []
    for word in call.keywords:
        if word.arg:
            given.append((word.arg, word.value))
            continue
        items = list(_items(word.value, bindings))
        unread += [ast.unparse(word.value)[:40]] if None in items else []
        given += dict(item for item in items if item is not None).items()  # of two in one dict, the last
    return given, unread


def _items(node: ast.expr, bindings: Bindings, depth: int = 0) -> Iterator[tuple[str, ast.expr] | None]:
    """Yield the items of a dict, and None for what cannot be told."""
    found = bindings.bound(node)
    if isinstance(found, ast.Call) and dotted(found.func) == "dict" and not found.args:
        pairs: list[tuple[ast.expr | None, ast.expr]] = [
            (ast.Constant(word.arg) if word.arg else None, word.value) for word in found.keywords
        ]
    elif isinstance(found, ast.Dict):
        pairs = list(zip(found.keys, found.values, strict=True))
    else:
        yield None
        return
    for key, value in pairs:
        if key is None and depth < 5:
            yield from _items(value, bindings, depth + 1)
        elif isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value, value
        else:
            yield None


def dotted(node: ast.expr) -> str:
    """Return the name of what is called: `PeftModel.from_pretrained`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts += [node.id] if isinstance(node, ast.Name) else []
    return ".".join(reversed(parts))
