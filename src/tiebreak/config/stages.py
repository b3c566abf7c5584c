"""The stages of a configuration: what all of them share, what each says for itself, and which one it starts from.

Owns the key `stages`. Each stage is a whole `Config`; what becomes of them is known to `campaigns`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config.loading import assign, build_config, parsed, read_yaml
from tiebreak.config.settings import Config
from tiebreak.errors import ConfigError, nearest

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_WHOLE = ("loss", "adapter")
"""Sections of which a stage has its own or the shared one: settings of two losses do not mix."""


@dataclass(frozen=True)
class Stage:
    """One stage of a policy."""

    name: str
    config: Config
    """With a folder of its own; `model` is that of the first stage."""
    start: str | None
    """The stage that it starts from; None for the model of the configuration."""


def load_stages(path: Path | str | None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> list[Stage]:
    """Return the stages of a YAML file, none where it has no key `stages`.

    A dotted key of `overrides` changes all stages, or the one whose name stands before it (`sft.training.epochs`).
    Raises ConfigError, naming the key.
    """
    tree = {} if path is None else read_yaml(path)
    if "stages" not in tree:
        return []
    told = tree.pop("stages")
    if "sweep" in tree:
        raise ConfigError(f"{path}: has stages and a sweep, which is of one run; take one of them out")
    if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
        raise ConfigError(f"{path}: stages: wanted a list of sections, each with a name")
    names = [_name(str(path), one, place) for place, one in enumerate(told)]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{path}: stages: two are called {repeated}")
    given = list(parsed(overrides))
    output = tree.setdefault("output", {})
    folder = str(output.get("dir") or Path("runs") / Path(str(path)).stem) if isinstance(output, dict) else ""
    for key, value in given:
        folder = str(value) if key == "output.dir" else folder
    for key, _ in given:
        _refuse_key(str(path), key, names)
    found = []
    for place, (name, own) in enumerate(zip(names, told, strict=True)):
        merged = _merged(copy.deepcopy(tree), {key: own[key] for key in own if key not in ("name", "from")})
        for key, value in given:
            first, _, rest = key.partition(".")
            if first in names and rest:
                key = rest if first == name else ""  # noqa: PLW2901 - of this stage, or of another one
            if key:
                assign(merged, key, value)
        start = _start(str(path), own, name, names[:place])
        if start is not None and isinstance(own.get("model"), dict) and own["model"].keys() & {"name", "base"}:
            raise ConfigError(f"{path}: stages: {name} starts from the result of {start}; leave out its model.name")
        assign(merged, "output.dir", str(Path(folder) / f"{place + 1}-{name}"))
        found.append(Stage(name, build_config(merged, where=f"{path}, stage {name}"), start))
    return found


def _refuse_key(path: str, key: str, names: Sequence[str]) -> None:
    """Raise ConfigError for a key of the command line that no stage would read."""
    stage, _, rest = key.partition(".")
    if stage == "stages" or (stage in names and rest in ("", "name", "from")):
        raise ConfigError(f"{path}: --set {key}: which stages there are, and where each starts, is said in the file")
    if stage in names and rest == "output.dir":
        raise ConfigError(f"{path}: --set {key}: {stage} has a folder below output.dir of all; set that")
    if stage in names[1:] and rest in ("model.name", "model.base", "model.revision"):
        raise ConfigError(
            f"{path}: --set {key}: {stage} starts from the result of another stage, or of the first model"
        )


def _name(path: str, told: Mapping[str, Any], place: int) -> str:
    name = told.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{path}: stages: number {place + 1} is called {name!r}; wanted a name like sft or dpo-2")
    if name in Config.model_fields:
        raise ConfigError(f"{path}: stages: {name} is a section of settings, and cannot be a stage's name")
    if isinstance(told.get("output"), dict) and "dir" in told["output"]:
        raise ConfigError(f"{path}: stages: {name} has a folder below output.dir of all; leave out its own")
    return name


def _start(path: str, told: Mapping[str, Any], name: str, before: Sequence[str]) -> str | None:
    """Return the stage that this one starts from: the one before, unless it says another one, or null."""
    if "from" not in told:
        return before[-1] if before else None
    start: str | None = told["from"]
    if start == name:
        raise ConfigError(f"{path}: stages: {name} starts from itself; name an earlier stage, or null for the model")
    if start is not None and start not in before:
        close = nearest(str(start), before)
        raise ConfigError(f"{path}: stages: {name} starts from {start!r}, which is no stage before it.{close}")
    return start


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of one stage: its own on top of those that all share, key by key."""
    found: dict[str, Any] = dict(shared)
    for key, value in own.items():
        below = found.get(key)
        if key not in _WHOLE and isinstance(below, Mapping) and isinstance(value, Mapping):
            found[key] = _merged(below, value)
        else:
            found[key] = value
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in found.items()}
