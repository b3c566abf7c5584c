"""A configuration of another trainer to its settings: YAML, JSON, calls in Python, options in a shell script.

Owns how each is read. Nothing is run: Python is parsed, and a value that its code would compute is `COMPUTED`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.found import COMPUTED, Foreign
from tiebreak.config.foreign.names import name_of
from tiebreak.config.foreign.script import options_of
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, one_line

MAX_BYTES = 2**20
MAX_SETTINGS, MAX_DEPTH = 2_000, 3

_SECTIONS = ("lora", "lora_config", "peft", "peft_config")
_TAKES_SETTINGS = re.compile(r"\w*(Config|Arguments|Trainer)|get_peft_model|from_pretrained|load_dataset|dict")
_OBJECTS = frozenset(
    [
        "model",
        "args",
        "train_dataset",
        "eval_dataset",
        "tokenizer",
        "processing_class",
        "peft_config",
        "callbacks",
        "data_collator",
        "quantization_config",
        "compute_metrics",
        "optimizers",
        "preprocess_logits_for_metrics",
        "torch_dtype_object",
    ]
)
"""What trainers are given as objects: the settings inside are read where they are made."""


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
        found = _python(text, path)
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


def _python(text: str, path: Path) -> Foreign:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path}: not valid Python ({one_line(error)})") from None
    nodes = list(ast.walk(tree))
    constants = {
        node.targets[0].id: node.value
        for node in nodes
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
    }
    settings: dict[str, Any] = {}
    words: set[str] = set()
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if not _TAKES_SETTINGS.fullmatch(called):
            continue
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        words |= {called, *([owner.id] if isinstance(owner, ast.Name) else [])}
        placed = {"from_pretrained": ["model_name_or_path"], "load_dataset": ["dataset_name", "dataset_config"]}
        given = [*zip(placed.get(called, ()), call.args, strict=False)]
        given += [(word.arg, word.value) for word in call.keywords if word.arg]
        for name, node in given:
            value = _literal(node, constants)
            if not (value is COMPUTED and name in _OBJECTS):
                settings.setdefault(
                    "dataset_train_split" if (called, name) == ("load_dataset", "split") else name, value
                )
    return Foreign(settings, frozenset(words))


def _literal(node: ast.expr, constants: Mapping[str, ast.expr]) -> Any:
    if isinstance(node, ast.Name) and node.id in constants:
        node = constants[node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
        return node.attr
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return COMPUTED
