"""Commands to paste: each reads data just as it was read before, whatever the shell makes of its names.

Owns which settings of data have an option of their own, which of them each command reads, and how words are quoted;
and the defaults of options that are no settings.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from tiebreak.config.data import DataConfig
from tiebreak.config.settings import Config, ModelConfig
from tiebreak.config.yaml_text import write_yaml

CHAT_TOKENS, KEPT_FORM, PLANNED_GPU = 256, "tiebreak", "h200"
"""Defaults of what commands and functions take that are no settings: most tokens of an answer in `chat`, the form of
what `clean` keeps, the kind of GPU that `plan` reckons with."""
FLAGS = {
    "format": "--format",
    "columns": "--column",
    "pairing": "--pairing",
    "min_margin": "--min-margin",
    "heldout": "--heldout",
    "heldout_share": "--heldout-share",
    "max_length": "--max-length",
    "model": "--model",
}
"""The option of each setting that has one; all others are said with --set."""

_FORM = ("format", "columns", "pairing", "min_margin", "turns")
_LIMITS = ("truncation", "max_dropped_share")
_RENDERED = ("revision", "chat_template", "chat_template_arguments", "chat_template_date")
"""What a model's tokens depend on, besides its name."""
_MODEL = ("model", *(f"model.{name}" for name in _RENDERED))
_READ_BY = {
    "check": (*_FORM, "heldout", "heldout_share", "max_length", *_LIMITS, *_MODEL),
    "clean": (*_FORM, "heldout"),
    "convert": _FORM,
    "init": (*_FORM, "heldout", *_LIMITS, "allow", "max_pairs", *_MODEL),
}


def reading(data: DataConfig, model: ModelConfig | None = None) -> dict[str, Any]:
    """Return how data is read, for JSON: where from, and each setting that is not its default.

    Of a model whose tokens are counted, its name, and what its tokens depend on besides under `model.…`.
    """
    said: dict[str, Any] = {
        "train": data.train,
        **data.model_dump(mode="json", exclude={"store"}, exclude_defaults=True),
    }
    return (
        said
        if model is None
        else said | {"model": model.name} | {f"model.{k}": v for k, v in rendered_by(model).items()}
    )


def rendered_by(model: ModelConfig) -> dict[str, Any]:
    """Return the settings of a model that its tokens depend on, besides its name, where they are not the default."""
    return model.model_dump(mode="json", include=set(_RENDERED), exclude_defaults=True)


def command(verb: str, read: Mapping[str, Any], *then: str) -> str:
    """Return the command line of a verb on data that was read like this (`reading`); `then` follows the data."""
    train = read.get("train")
    sources = [{"path": train}] if isinstance(train, str) else list(train or ())
    words = ["tiebreak", verb]
    if all(isinstance(one, Mapping) and one.keys() == {"path"} for one in sources):
        words += [_path(str(one["path"])) for one in sources]
    else:
        words += ["--set", f"data.train={_json(sources)}"]
    words += [*then]
    words += [word for name in _READ_BY[verb] if read.get(name) is not None for word in _said(name, read[name])]
    return " ".join(map(quoted, words))


def train_with(file: str, settings: Mapping[str, Any]) -> str:
    """Return the command that trains with the settings of a file, and others by dotted key on top: a line for each."""
    said = (quoted(f"{key}={write_yaml(value, inline=True)}") for key, value in settings.items())
    return " \\\n  --set ".join([f"tiebreak train {quoted(_path(file))}", *said])


def settings_of(config: Config) -> dict[str, Any]:
    """Return by dotted key, as plain values, each setting that is not its default; on an empty file they make it."""
    said: dict[str, Any] = {}
    for name, section in config:
        if section is None:
            continue
        usual = getattr(Config(), name)
        default = usual.model_dump(mode="json") if type(usual) is type(section) else {}
        for key, value in section.model_dump(mode="json").items():
            if key not in default or value != default[key]:
                said[f"{name}.{key}"] = value
    return said


def _said(name: str, value: Any) -> Iterator[str]:
    if name == "columns" and isinstance(value, Mapping):
        if any(text != str(text).strip() or "=" in name for name, text in value.items()):
            yield from ("--set", f"data.columns={_json(value)}")
        else:
            yield from (word for ours, theirs in value.items() for word in (FLAGS[name], f"{ours}={theirs}"))
    elif name in FLAGS:
        yield from (FLAGS[name], str(value))
    else:
        yield from ("--set", f"{name if name.startswith('model.') else f'data.{name}'}={_json(value)}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _path(name: str) -> str:
    return f"./{name}" if name.startswith("-") else name


def quoted(word: str) -> str:
    """Return a word as a shell takes it for itself; what cannot be seen or typed is spelled in bash's $'…'."""
    if word.isprintable() and "  " not in word:
        return shlex.quote(word)
    spelled = re.sub(r"[\\']", lambda found: "\\" + found[0], word)
    shown = (char if char.isprintable() and char != " " else _bytes(char) for char in spelled)
    return f"$'{''.join(shown)}'"


def _bytes(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def in_quotes(line: str) -> str:
    """Return a command in quotes that it does not hold itself, for the middle of a sentence."""
    mark = next((mark for mark in "'\"`" if mark not in line), "")
    return f"{mark}{line}{mark}"
