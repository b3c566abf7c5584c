"""Chat templates are programs by strangers: what one may cost, and how it is tried before it is trusted.

Owns both bounds, what a template reads, and the clock that it is shown. `fault_of` tries a template in a process of its
own that can be killed: that ends whatever a template does to every chat. `rendered` counts the steps of each real
rendering, in the template itself: that ends loops and growing texts for special chats only, in any thread, and sets
nothing for the process. Not covered: one single operation of jinja that takes much from little, on special chats only.
That nothing but text comes of a template is the sandbox of jinja, which transformers sets up.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, meta, nodes

from tiebreak.data import template_probe

STEPS = 4_000_000
"""Of one rendering: some seconds. A short chat takes a few dozen."""
_CHARACTERS_PER_STEP = 128
_ITEMS_PER_STEP = 16
_METER = f"{__name__}.METER"
_CLOCK = f"{__name__}.CLOCK"
_NOW = "strftime_now"
SWITCHES = ("enable_thinking", "thinking")
"""Names under which templates are told whether a model is to reason."""
GIVEN = frozenset(("messages", "tools", "documents", "add_generation_prompt"))
"""What every rendering gives a template; no setting can."""
_TRIAL_SECONDS = 120.0
"""Of the clock, for a machine so busy that five seconds of computing take minutes."""
_LOOK_SECONDS = 0.05


class Exceeded(Exception):  # noqa: N818 - named for what happened
    """A template took more steps, or made more, than any chat needs."""


# ------------------------------------------------------------------------------------------------------------ the trial


def fault_of(template: str, tokens: Mapping[str, str]) -> str | None:
    """Return what is wrong with a template that was tried on a few small chats, as 'the template …' goes on.

    Costs a quarter of a second once for each template of a process. Raises OSError where no process can be started.
    """
    return _tried(template, tuple(sorted(tokens.items())))


@functools.lru_cache(maxsize=64)
def _tried(template: str, tokens: tuple[tuple[str, str], ...]) -> str | None:
    given: bytes | None = json.dumps({"templates": [template], "tokens": dict(tokens)}).encode()
    ends = time.monotonic() + _TRIAL_SECONDS
    with subprocess.Popen(  # noqa: S603 - our own interpreter, our own file
        [sys.executable, "-P", str(Path(template_probe.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # The child needs to find jinja2 where we do, and nothing else of our environment.
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as child:
        try:
            while child.returncode is None:
                try:
                    told, wrong = child.communicate(given, timeout=_LOOK_SECONDS)
                except subprocess.TimeoutExpired:
                    given = None  # it is on its way
                    if time.monotonic() > ends or _is_too_large(child.pid):
                        child.kill()
        finally:
            child.kill()  # where this process is asked to end meanwhile
    if child.returncode < 0:
        return f"takes more than {template_probe.CPU_SECONDS} seconds, or much memory, for a chat of a few words"
    if child.returncode:
        return "cannot be tried: " + wrong.decode(errors="replace").strip().rpartition("\n")[2][:200]
    return told.decode(errors="replace") or None


def _is_too_large(pid: int) -> bool:
    """Whether a trial holds more memory than it may: some systems have no limit that it could be given."""
    import psutil  # noqa: PLC0415 - few trials take so long

    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).memory_info().rss > template_probe.MEMORY_BYTES)
    return False


# ---------------------------------------------------------------------------------------------------- what it is told


@functools.lru_cache(maxsize=64)
def names_read(source: str) -> frozenset[str]:
    """Return the names that a template takes from outside; none where it is no template."""
    try:
        return frozenset(meta.find_undeclared_variables(template_probe.sandbox().parse(source)))
    except TemplateError:
        return frozenset()


def reads_clock(source: str) -> bool:
    """Whether a template asks for the time."""
    try:
        return any(name.name == _NOW for name in template_probe.sandbox().parse(source).find_all(nodes.Name))
    except TemplateError:
        return False


def with_defaults(source: str, values: Mapping[str, str | float | bool | None]) -> str:
    """Return a template that takes these values where it is given no others: wherever it goes, they go with it."""
    told = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}\n"
        for name, value in values.items()
    )
    return source if source.startswith(told) else told + source  # one that went with an earlier policy has them


def _literal(value: str | float | bool | None) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


class _Clock(threading.local):
    """What a template in this thread is told of the time; None is the real time."""

    now: datetime | None = None

    def __call__(self, form: str) -> str:
        """Return the time in a form of strftime."""
        return (self.now or datetime.now()).strftime(form)


CLOCK = _Clock()
"""What compiled templates import."""


# ------------------------------------------------------------------------------------------------------------ the meter


def rendered(
    tokenizer: Any,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    generation: bool,
    now: datetime | None = None,
) -> str:
    """Return the chat as the tokenizer's template writes it; raises Exceeded where that takes more than `STEPS`.

    A template that reads the clock is told that it is `now`.

    The count is the same on every machine: one for a pass through a loop or a macro and for a value that is worked
    with, more for a large one. Costs about a fifth of the rendering.
    """
    template = _metered(tokenizer.get_chat_template(tools=tools))
    METER.left, CLOCK.now = STEPS, now
    try:
        # jinja compiles a parsed template as it does text, and transformers hands over what it is given.
        text: str = tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=template, tokenize=False, add_generation_prompt=generation
        )
    finally:
        METER.left, CLOCK.now = sys.maxsize, None
    return text


class _Meter(threading.local):
    """The steps that are left to the rendering in this thread; in a template an operand, for no call costs less."""

    left = sys.maxsize

    def __sub__(self, steps: int) -> bool:
        """Take steps away, and be true; raises Exceeded where too few are left."""
        self.left -= steps
        if self.left < 0:
            raise Exceeded(f"the chat template takes more than {STEPS:,} steps for one chat")
        return True

    def __getitem__(self, value: Any) -> Any:
        """Return a value, counted by its size."""
        size = 0
        if isinstance(value, str):
            size = len(value) // _CHARACTERS_PER_STEP
        elif isinstance(value, list | tuple | dict | range):
            size = len(value) // _ITEMS_PER_STEP
        elif isinstance(value, int):
            size = value.bit_length() // _CHARACTERS_PER_STEP
        self.__sub__(1 + size)
        return value

    def given(self, value: Any) -> Any:
        """Return an argument, counted by its size; a number may be a width or a count, and is as large as it says."""
        if isinstance(value, int):
            self.__sub__(abs(value) // _ITEMS_PER_STEP)
        return self[value]

    def all_given(self, values: Any) -> Any:
        """Return arguments that come as a list or a dictionary, each counted."""
        kept = values if isinstance(values, dict) else tuple(values)
        for value in kept.values() if isinstance(kept, dict) else kept:
            self.given(value)
        return kept


METER = _Meter()
"""What compiled templates import."""


@functools.lru_cache(maxsize=64)
def _metered(source: str) -> nodes.Template:
    """Return a template that counts its steps; raises what jinja raises where it is none."""
    template = template_probe.sandbox().parse(source)
    if any(name.name == "lipsum" for name in template.find_all(nodes.Name)):
        raise Exceeded("the chat template writes filler text (lipsum), which no chat needs")
    # What a template gives its own macros are no widths and counts, but may be numbers of the data.
    free = {macro.name for macro in template.find_all(nodes.Macro)} | {"caller", "loop", "format"}
    for node in list(template.find_all(nodes.Node)):  # all of them before any is changed
        match node:
            case nodes.For() | nodes.Macro() | nodes.CallBlock() | nodes.Block():
                length = sum(len(text.data) for part in node.body for text in part.find_all(nodes.TemplateData))
                node.body.insert(0, nodes.ExprStmt(_spent(length)))
                if isinstance(node, nodes.For):
                    node.iter = _counted(node.iter)
                    node.test = node.test and nodes.And(_spent(0), node.test)
            case nodes.Output() | nodes.Concat():
                node.nodes = [_read(part) for part in node.nodes]
            case nodes.Compare():
                node.expr = _read(node.expr)
                for operand in node.ops:
                    operand.expr = _read(operand.expr)
            case nodes.Add():
                node.left, node.right = _read(node.left), _read(node.right)
            case nodes.Mul():
                node.left, node.right = _given(node.left), _given(node.right)
            case nodes.Mod() | nodes.Sub() | nodes.Div() | nodes.FloorDiv() | nodes.Pow():
                node.left, node.right = _counted(node.left), _counted(node.right)
            case nodes.Getitem(arg=nodes.Slice()):
                node.node = _read(node.node)
            case nodes.Filter() | nodes.Test() | nodes.Call():
                _count_call(node, free)
    _show_clock(template)
    template.set_environment(template_probe.sandbox())
    return template


def _show_clock(template: nodes.Template) -> None:
    """Put our clock wherever a template names that of transformers, which no argument replaces."""
    for node in list(template.find_all(nodes.Node)):
        for field, value in node.iter_fields():
            if isinstance(value, list):
                setattr(node, field, [_clock_for(item) for item in value])
            elif isinstance(value, nodes.Name):
                setattr(node, field, _clock_for(value))


def _clock_for(node: Any) -> Any:
    is_clock = isinstance(node, nodes.Name) and node.name == _NOW and node.ctx == "load"
    return nodes.ImportedName(_CLOCK, lineno=node.lineno) if is_clock else node


def _count_call(node: nodes.Filter | nodes.Test | nodes.Call, free: Collection[str]) -> None:
    """Have a call count the value that it is about, a constant too or jinja would call while it compiles, and more."""
    if isinstance(node, nodes.Call):
        name = getattr(node.node, "attr", getattr(node.node, "name", ""))
        if isinstance(node.node, nodes.Getattr):
            node.node.node = _read(node.node.node)
    else:
        name = node.name
        node.node = node.node and _counted(node.node)  # None where a block of text is filtered
    if name not in free:
        node.args = [_given(argument) for argument in node.args]
        for named in node.kwargs:
            named.value = _given(named.value)
        node.dyn_args = node.dyn_args and _given(node.dyn_args, "all_given")
        node.dyn_kwargs = node.dyn_kwargs and _given(node.dyn_kwargs, "all_given")


def _spent(length: int) -> nodes.Expr:
    return nodes.Sub(nodes.ImportedName(_METER), nodes.Const(1 + length // _CHARACTERS_PER_STEP))


def _read(node: nodes.Expr) -> nodes.Expr:
    """Return an expression whose value is counted, unless that is small or was counted in parts."""
    small = nodes.Const | nodes.TemplateData | nodes.Compare | nodes.Test | nodes.Not
    return node if isinstance(node, small | nodes.Add | nodes.Concat) else _counted(node)


def _counted(node: Any) -> nodes.Expr:
    return nodes.Getitem(nodes.ImportedName(_METER), node, "load", lineno=node.lineno)


def _given(node: nodes.Expr, method: str = "given") -> nodes.Expr:
    """Return an argument that is counted; a word in the template needs none."""
    if isinstance(node, nodes.Const) and not isinstance(node.value, int):
        return node
    meter = nodes.Getattr(nodes.ImportedName(_METER), method, "load")
    return nodes.Call(meter, [node], [], None, None, lineno=node.lineno)
