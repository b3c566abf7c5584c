"""How numbers are shown to people, in the terminal, on the page and in the model card alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def shown(estimate: Mapping[str, Any], unit: str) -> str:
    """Return a mean with its interval, like `72.5 % (61.0 … 83.1)`."""
    mean, low, high = (estimate[key] for key in ("mean", "low", "high"))
    is_share = unit in ("share", "rate")
    if is_share:
        mean, low, high = 100 * mean, 100 * low, 100 * high
    digits, suffix = (1, " %") if is_share else (1, "") if unit == "tokens" else (3, "")
    text, least, most = (f"{value:.{digits}f}" for value in (mean, low, high))
    return f"{text}{suffix}" if least == most else f"{text}{suffix} ({least} … {most})"


def alone(mean: float, unit: str) -> str:
    """Return a mean without its interval, like `72.5 %`."""
    return shown({"mean": mean, "low": mean, "high": mean}, unit)


def effect(size: float, unit: str) -> str:
    """Return how large a change is, like `3.1 points`; of tokens the factor whose logarithm it is."""
    if unit == "tokens":
        return f"a factor of {math.exp(size):.2f}"
    return f"{100 * size:.1f} points" if unit == "share" else f"{size:.3f} {unit}"


def duration(seconds: float) -> str:
    """Return seconds as people say them, like `4 min 10 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def gibibytes(num_bytes: float) -> str:
    """Return bytes in GiB, like `2.4 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB"
