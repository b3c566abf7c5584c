"""A configuration of another trainer to its settings: YAML, JSON, calls in Python, options in a shell script.

Owns which of these a file is, and how a tree is read. Nothing is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.code import settings_of
from tiebreak.config.foreign.found import Foreign
from tiebreak.config.foreign.names import name_of
from tiebreak.config.foreign.script import options_of
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, one_line

MAX_BYTES = 2**20
MAX_SETTINGS, MAX_DEPTH = 2_000, 3

_SECTIONS = ("lora", "lora_config", "peft", "peft_config")


def read_foreign(path: Path) -> Foreign:
    """Return the settings of a file; raises ConfigError where it is none of what is read."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; wanted a configuration of another trainer")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: is larger than a configuration ({MAX_BYTES // 2**20} MiB)")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({one_line(error)})") from None
    suffix = path.suffix.lower()
    if suffix == ".py":
        found = settings_of(text, path)
    elif suffix in (".sh", ".bash"):
        found = options_of(text, path)
    else:
        found = _tree(text, path)
    if not found.settings:
        raise ConfigError(
            f"{path}: holds no settings; wanted YAML, JSON, a .py file with DPOConfig(…), or a .sh script"
        )
    return found


def _tree(text: str, path: Path) -> Foreign:
    try:
        tree = json.loads(text) if path.suffix.lower() == ".json" else parse_yaml(text, str(path), as_pyyaml=True)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid JSON ({one_line(error)})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: wanted settings with their values, found {type(tree).__name__}")
    settings = dict(islice(_flat(tree), MAX_SETTINGS + 1))
    if len(settings) > MAX_SETTINGS:
        raise ConfigError(f"{path}: holds more settings than a configuration ({MAX_SETTINGS})")
    return Foreign(settings, frozenset())


def _flat(tree: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield settings with their values; a section that is no setting itself is opened."""
    for key, value in tree.items():
        is_section = name_of(str(key)) is None or key in _SECTIONS
        if isinstance(value, Mapping) and value and is_section and depth < MAX_DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value
