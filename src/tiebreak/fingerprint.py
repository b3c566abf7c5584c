"""Identity by content: fingerprints of values and files, and seeds derived from names.

Owns how anything is identified. Two things with the same fingerprint are the same thing, whatever their path or order.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(value: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of `value`; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of the bytes of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for one named purpose, so that two purposes never share a random stream."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def unit_interval(digest: str) -> float:
    """Map a hexadecimal fingerprint to [0, 1), uniformly."""
    return int(digest[:13], 16) / 16**13
