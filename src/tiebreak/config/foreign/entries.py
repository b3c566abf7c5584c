"""What a configuration of another trainer says of a data set, and the account: a source takes it, or it is left out.

Owns that nothing vanishes: whatever nobody took of an entry is named, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tiebreak.config.foreign.names import name_of
from tiebreak.errors import one_line

MISSING = "not found from here: name a file, folder or pattern, or hf:OWNER/NAME"
WHOLE = "all of it is read; data.max_pairs takes fewer pairs"
REASONS = {
    "type": "the form of the rows is told by their keys",
    "roles": "who speaks is told by the usual names (docs/data.md)",
    "response": "the chosen completion has a column of its own",
    "num_samples": WHOLE,
    "shards": WHOLE,
    "shards_idx": WHOLE,
    "weight": "wanted a number above zero",
    "folder": "a source is a file, a folder or a data set, named itself",
    "data_dir": "a source is a file, a folder or a data set, named itself",
    "prompt_format": "the chat template lays out the prompt",
    "chosen_format": "the chat template lays out the completion",
    "rejected_format": "the chat template lays out the completion",
    "file_name": "the data set of the Hub is taken",
    "ranking": "preference pairs are what is learned from",
    "kto_tag": "a column of thumbs is read by its own name; loss: {name: kto} learns from them",
    "script_url": "code of a data set is never run",
    "cloud_file_name": "wanted file_name or hf_hub_url",
    "ms_hub_url": "wanted file_name or hf_hub_url",
    "om_hub_url": "wanted file_name or hf_hub_url",
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A source, the setting that names it, what to know about it, and which of its columns is what."""

    path: str
    key: str
    note: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    """Our names, each with their column; none where the rows are to tell."""
    weight: float = 1.0

    @property
    def is_missing(self) -> bool:
        """Whether nothing of this name is there."""
        return self.note == MISSING


@dataclass
class Data:
    """The sources that a configuration names, and the account of what it says of them."""

    sources: list[Found] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Settings that stand in the sources, whole."""
    left_out: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """What they hold that no source takes, by dotted key: its value, and why."""
    unknown: dict[str, Any] = field(default_factory=dict)


class Entry:
    """An object of theirs, taken key by key; what nobody took goes into the account."""

    def __init__(self, told: Mapping[Any, Any], name: str, data: Data) -> None:
        self._told = {one_line(key, 80): value for key, value in told.items()}
        self._data = data
        self.name = one_line(name, 200)

    def get(self, key: str) -> Any:
        """Return what a key holds, and leave it."""
        return self._told.get(key)

    def take(self, *keys: str) -> Any:
        """Return what the first of the keys holds that holds something, which is taken so."""
        key = next((key for key in keys if self._told.get(key) not in (None, "")), None)
        return None if key is None else self._told.pop(key)

    def inner(self, key: str) -> Entry:
        """Take an object under a key, {} where there is none."""
        found = self._told.get(key)
        told = self._told.pop(key) if found and isinstance(found, Mapping) else {}
        return Entry(told, f"{self.name}.{key}", self._data)

    def leave(self, key: str, value: Any, why: str) -> None:
        """Count a value that was taken as left out after all."""
        self._data.left_out[f"{self.name}.{key}"] = (value, why)

    def close(self, why: Mapping[str, str] = REASONS) -> None:
        """Count all that is still there as left out, or as not known."""
        for key, value in self._told.items():
            name = name_of(key)
            if value is None:
                self.leave(key, value, "not set there")
            elif key in why:
                self.leave(key, value, why[key])
            elif name is not None:
                self.leave(key, value, ": ".join(filter(None, (name.ours, name.why))))
            else:
                self._data.unknown[f"{self.name}.{key}"] = value
        self._told = {}
