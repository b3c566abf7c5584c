"""How numbers are shown to people, in the terminal, on the page and in the model card alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from tiebreak.reporting.visible import visible

NOTHING = "–"
INTERVALS = (
    "Intervals of the table: 95 %, whole prompts resampled. Those of rules are wider: they allow for one prompt more, "
    "at the end of what is possible or was seen, and verdicts stand on them."
)


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


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count(value: Any) -> str:
    """Return a number as people read it, like `1,193` or `950.2`."""
    if not is_number(value):
        return NOTHING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")


def percent(share: Any) -> str:
    """Return a share like `12.5 %`; neither a little nor nearly all is rounded away."""
    if not is_number(share):
        return NOTHING
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return "> 99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.1f} %"


def numbered(number: Any, noun: str) -> str:
    """Return `1 pair`, `2 pairs`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def amount(found: Mapping[str, Any]) -> str:
    """Return how much a finding found, like `4 pairs (0.3 %)`."""
    many = numbered(found.get("count"), visible(found.get("of") or "records", 40).removesuffix("s"))
    return f"{many} ({percent(found['share'])})" if is_number(found.get("share")) else many


def rounded(value: float) -> float:
    """Return a number with six digits: more, no curve shows."""
    return float(f"{value:.6g}")


def moment(told: Any) -> str:
    """Return a time as people read it, like `2026-11-30 15:14 UTC`; what is no time stays what it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:\+00:00|Z)", str(told))
    return f"{found[1]} {found[2]} UTC" if found else str(told)
