"""The data sets that a configuration of another trainer names, to sources as `data.train` takes them.

Owns where their files are looked for. It opens none but LLaMA-Factory's list of data sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.values import listed

_TRAIN = ("dataset", "datasets", "dataset_name", "train_dataset", "dataset_path", "data_path", "train_file",
          "train_files", "train_data", "data_files")  # fmt: skip
_HELDOUT = ("eval_dataset", "val_dataset", "test_datasets", "validation_dataset", "eval_file", "validation_file")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_LOADERS = frozenset({"json", "csv", "parquet", "arrow", "text"})


@dataclass(frozen=True)
class Found:
    """A source, the setting that names it, and what to know about it."""

    path: str
    key: str
    note: str = ""

    @property
    def is_missing(self) -> bool:
        """Whether nothing of this name is there."""
        return self.note == MISSING


MISSING = "not found from here: name a file, folder or pattern, or hf:OWNER/NAME"


def sources(settings: Mapping[str, Any], folder: Path, *, heldout: bool = False) -> list[Found]:
    """Return what is trained on, or what is held out."""
    found = []
    for key in _HELDOUT if heldout else _TRAIN:
        for item in listed(settings.get(key)) if not isinstance(settings.get(key), Mapping) else [settings[key]]:
            found += [Found(*one) for one in _of(item, key, settings, folder)]
    test = settings.get("dataset_test_split")
    if heldout and not found and isinstance(test, str):
        named = {**settings, "dataset_train_split": test}
        found = [Found(one.path, "dataset_test_split") for one in sources(named, folder) if one.path.startswith("hf:")]
    return list(dict.fromkeys(found))


def _of(item: Any, key: str, settings: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str, str]]:
    split = settings.get("dataset_train_split") or settings.get("dataset_split")
    config = settings.get("dataset_config")
    if isinstance(item, Mapping):
        files = item.get("data_files")
        split, config = item.get("split"), item.get("name") if item.get("path") else None
        item = files if files else item.get("path") or item.get("dataset") or item.get("name")
        if isinstance(item, Mapping):
            item = item.get("train") or next(iter(item.values()), None)
        if isinstance(item, list):
            for one in item:
                yield _place(str(one), split, None, folder, key)
            return
    if not isinstance(item, str) or (item in _LOADERS and settings.get("data_files")):
        return
    known = _listed_by_name(item, settings, folder)
    if known:
        yield known[0], key, known[1]
    else:
        yield _place(item, split, config, folder, key)


def _place(text: str, split: Any, config: Any, folder: Path, key: str) -> tuple[str, str, str]:
    """Return a source for a file or a data set of the Hub, the key, and what to know."""
    name, _, number = (
        text.removeprefix("hf::").removeprefix("HF::").removeprefix("ms::").removeprefix("MS::").partition("#")
    )
    note = f"all of it, not {number} rows" if number else ""
    for place in (Path(name), folder / name):
        with suppress(OSError, ValueError):  # a name that no file can have
            if place.exists():
                return str(place), key, note
    if _HUB.fullmatch(name) and Path(name).suffix.lower() not in (".jsonl", ".json", ".csv", ".parquet"):
        where = f":{config}" if isinstance(config, str) and config != "default" else ""
        where += f"@{split}" if isinstance(split, str) and re.fullmatch(r"[\w.-]+", split) and split != "train" else ""
        return f"hf:{name}{where}", key, note
    return name, key, MISSING


def _listed_by_name(name: str, settings: Mapping[str, Any], folder: Path) -> tuple[str, str] | None:
    """Return what LLaMA-Factory's dataset_info.json says of a name."""
    stated = Path(str(settings.get("dataset_dir") or "data"))
    for place in (stated, folder / stated):
        try:
            entry = json.loads((place / "dataset_info.json").read_text(encoding="utf-8")).get(name)
        except (OSError, ValueError, RecursionError, AttributeError):
            continue
        if isinstance(entry, Mapping):
            if isinstance(entry.get("file_name"), str):
                return str(place / entry["file_name"]), f"'{name}' in {place / 'dataset_info.json'}"
            hub = entry.get("hf_hub_url")
            if isinstance(hub, str) and _HUB.fullmatch(hub):
                return f"hf:{hub}", f"'{name}' in {place / 'dataset_info.json'}"
    return None
