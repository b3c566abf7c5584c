"""What Tab offers in a shell: run folders, and settings by their dotted keys.

Owns these lists; what a shell does with them is typer's. Loads nothing that computes. Where nothing fits, shells offer
files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from glob import escape, iglob
from typing import Any, Literal, get_args, get_origin

from tiebreak.config import Config, Section, leaves
from tiebreak.config.losses import SECTIONS
from tiebreak.runs import Run

DEEPEST = 2
"""How many folders below the one that a word names run folders are looked for."""

Offered = list[tuple[str, str]]
"""What may stand there, and what it is."""


def run_folders(incomplete: str) -> Offered:
    """Offer the run folders whose path begins so."""
    named = escape(incomplete[: incomplete.rfind("/") + 1])
    manifest = Run(".").manifest_file.name
    patterns = (named + "*/" * depth + manifest for depth in range(1, DEEPEST + 1))
    found = (os.path.dirname(path) for pattern in patterns for path in iglob(pattern))  # noqa: PTH120, PTH207 - as typed
    return [(path, "a run") for path in sorted(found) if path.startswith(incomplete)]


def settings(*sections: str) -> Callable[[str], Offered]:
    """Return what offers the settings of some sections, or of a run: `KEY=`, and once only one fits, its values, too.

    Values are the choices of the setting, or its default. They also keep a shell from ending the word behind `KEY=`.
    """

    wanted = sections or tuple(f"{name}." for name in Config.model_fields)

    def offered(incomplete: str) -> Offered:
        known = [(key, field) for key, field in _settings() if key.startswith(wanted)]
        fitting = [(key, field) for key, field in known if f"{key}=".startswith(incomplete)]
        typed = [(key, field) for key, field in known if incomplete.startswith(f"{key}=")]
        values = [
            (f"{key}={value}", "")
            for key, field in (typed or fitting if len(fitting) < 2 else [])
            for value in (SECTIONS if key == "loss.name" else _values(field))
        ]
        return [*((f"{key}=", field.description or "") for key, field in fitting), *values]

    return offered


def _settings() -> Iterator[tuple[str, Any]]:
    """Yield every key that --set takes, and its field: also those of rules, and a judge's as its command names them."""
    for key, field in leaves():
        named = field.default if isinstance(field.default, dict) else {}
        rules = {name: value for name, value in named.items() if isinstance(value, Section)}
        for name, value in rules.items():
            yield from leaves(type(value), f"{key}.{name}.")
        if not rules:
            yield key, field
        if key.startswith("evaluation.judge."):
            yield key.removeprefix("evaluation."), field


def _values(field: Any) -> list[str]:
    if get_origin(field.annotation) is Literal:
        choices = [str(choice) for choice in get_args(field.annotation)]
        return choices if len(choices) > 1 else []  # of sections of a union, a field knows only its own name
    if bool in (field.annotation, *get_args(field.annotation)):
        return ["true", "false"]
    told = str(field.default) if isinstance(field.default, str | int | float) else ""
    return [told] if told and not told.count(" ") else []
