"""A configuration of another trainer in ours: every line with its origin, and by name all that was left behind.

Owns the order in which it is taken over, and the text of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.account import Account
from tiebreak.config.foreign.found import Line
from tiebreak.config.foreign.reading import read_foreign
from tiebreak.config.foreign.trainers import Trainer, recognised
from tiebreak.config.loading import build_config
from tiebreak.config.yaml_text import parse_yaml, write_yaml
from tiebreak.errors import one_line, require_name
from tiebreak.secrecy import masked


@dataclass(frozen=True)
class Translation:
    """Our configuration as text, and what became of each of their settings."""

    text: str
    trainer: str
    lines: tuple[Line, ...]
    left_out: Mapping[str, str]
    """Their settings, each with the reason; also what they take unsaid and no setting here says."""
    unknown: tuple[str, ...]
    has_data: bool
    """Whether the pairs are named, by something that is there."""

    def told(self) -> list[str]:
        """Return what of their configuration is not in ours, one line each."""
        lines = [f"  {key}: left out, {why}" for key, why in self.left_out.items()]
        return [f"a configuration of {self.trainer}: {len(self.lines)} settings, {len(lines)} left out", *lines] + [
            f"  {key}: not known, left out" for key in self.unknown
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the account for JSON."""
        return {
            "trainer": self.trainer,
            "taken": [dict(vars(line)) for line in self.lines],
            "left_out": dict(self.left_out),
            "unknown": list(self.unknown),
        }


def translated(path: str | Path, trainer: str | None = None, train: str | list[str] | None = None) -> Translation:
    """Return the configuration of another trainer as one of ours, proven to load; `train` takes the place of its data.

    Raises ConfigError where it cannot be read, is of another task than preference pairs, or has another objective.
    """
    require_name(path, "the configuration")
    file = Path(path)
    found = read_foreign(file)
    whose = recognised(found, trainer, file)
    account = Account(found, whose, file)
    account.take_names()
    if whose.learns:
        account.take_loss()
        account.take_batch()
    account.take_length()
    account.take_moves()
    account.take_sharing(file.parent)
    account.take_data(file.parent, train)
    account.take_defaults()
    account.take_steps()
    account.take_warmup()
    account.take_reference()
    account.take_quantization()
    lines = account.sorted_lines()
    text = "\n".join(_text(lines, account, whose, file)) + "\n"
    build_config(parse_yaml(text, str(file)), where=f"{file}, translated")
    return Translation(text, whose.title, tuple(lines), account.left_out, tuple(account.unknown), account.has_data)


def _text(lines: list[Line], account: Account, trainer: Trainer, path: Path) -> Iterator[str]:
    yield _comment(f"Written by 'tiebreak init' from {path}, a configuration of {trainer.title}.")
    opened: list[str] = []
    for line in lines:
        *sections, last = line.key.split(".")
        for depth, section in enumerate(sections):
            if opened[: depth + 1] != sections[: depth + 1]:
                opened = sections[: depth + 1]
                yield f"{'  ' * depth}{section}:"
        yield f"{'  ' * len(sections)}{last}: {write_yaml(line.value, inline=True)}  {_comment(line.origin)}"
    for title, entries in (
        ("Left out:", [f"{account.shown(key)} ({why})" for key, why in account.left_out.items()]),
        ("Not known, and left out:", [account.shown(key) for key in account.unknown]),
    ):
        if entries:
            yield _comment(title)
            yield from (_comment(f"  {entry}", indent=2) for entry in entries)


def _comment(text: str, indent: int = 0) -> str:
    return f"# {' ' * indent}{masked(one_line(text))}"
