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
from tiebreak.config.foreign.found import Foreign, shown
from tiebreak.config.foreign.names import name_of
from tiebreak.config.foreign.script import options_of
from tiebreak.config.foreign.values import nothing
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, one_line

MAX_BYTES = 2**20
MAX_SETTINGS, MAX_DEPTH = 2_000, 3

_OWN = "dpo"
_STAGES = frozenset(["sft", "pt", "pretrain", "reward", "rm", "reward_model", "ppo", "grpo", "kto", "orpo"])
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
    unread: dict[str, str] = {}
    if isinstance(tree.get(_OWN), dict):
        for key in [key for key, value in tree.items() if str(key) in _STAGES and isinstance(value, dict)]:
            unread[key] = f"a section of another stage than {_OWN}"
            del tree[key]
    settings = dict(islice(_flat(tree), MAX_SETTINGS + 1))
    if len(settings) > MAX_SETTINGS:
        raise ConfigError(f"{path}: holds more settings than a configuration ({MAX_SETTINGS})")
    _require_one_value(settings, path)
    return Foreign(settings, frozenset(), unread)


def _require_one_value(settings: Mapping[str, Any], path: Path) -> None:
    """Refuse two values of one setting from two sections: neither is more meant than the other."""
    seen: dict[tuple[int, str], str] = {}
    for key, value in settings.items():
        name, last = name_of(key), key.rpartition(".")[2].lower()
        if name is None or name.ours is None:
            continue
        is_sum = name.value is nothing  # of parts: each by its own name
        first = seen.setdefault((id(name), last if is_sum else ""), key)
        is_apart = first.rpartition(".")[0] != key.rpartition(".")[0]
        if is_apart and value != settings[first] and None not in (value, settings[first]):
            told = f"{first}: {shown(first, settings[first])}, and {key}: {shown(key, value)}"
            raise ConfigError(f"{path}: {told}; which one is meant cannot be told: keep one section, in a copy")


def _flat(tree: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield settings with their values; a section that is no setting itself is opened."""
    for key, value in tree.items():
        is_section = name_of(str(key)) is None or key in (*_SECTIONS, _OWN)
        if isinstance(value, Mapping) and value and is_section and depth < MAX_DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value
