"""Identity by content: fingerprints of values and files, and seeds derived from names.

Owns how anything is identified. Two things with the same fingerprint are the same thing, whatever their path or order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOADED = time.time()
"""When this process loaded the first of our modules: text of ours that is younger may not be what is at work."""


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of `value`; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of the bytes of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def files_named(value: object) -> dict[str, str]:
    """Return the digest of each file that a JSON value names anywhere, by its name; other text names none."""
    if isinstance(value, str):
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            return {value: file_digest(Path(value))} if Path(value).is_file() else {}
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return {name: digest for one in inside for name, digest in files_named(one).items()}


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for one named purpose, so that two purposes never share a random stream."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unit_interval(digest: str) -> float:
    """Map a hexadecimal fingerprint to [0, 1), uniformly."""
    return int(digest[:13], 16) / 16**13
