"""A few numbers as a line of blocks, as high as they are, and the held-out accuracy of a run as it grows.

Owns how many there is room for. Where an encoding has no blocks, digits stand in their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

BLOCKS, DIGITS = "▁▂▃▄▅▆▇█", "12345678"


def sparkline(values: Sequence[float], width: int = 20, encoding: str | None = "utf-8") -> str:
    """Return finite numbers as blocks from the lowest to the highest of them, in the middle where all are equal.

    Of more numbers than there is room for, the first, the last, and some between at even distances are taken.
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) > width > 1:
        known = [known[round(place * (len(known) - 1) / (width - 1))] for place in range(width)]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = BLOCKS if (encoding or "utf-8").lower().replace("-", "").startswith("utf") else DIGITS
    room = high - low
    return "".join(steps[min(7, int(8 * ((value - low) / room)))] if room else steps[3] for value in known)


class HeldOutCurve:
    """What probes of held-out pairs gave so far, in a line."""

    def __init__(self) -> None:
        self._accuracies: list[float] = []
        self._losses: list[float] = []

    def takes(self, numbers: Mapping[str, float]) -> bool:
        """Take the numbers of a probe; say whether these are of one."""
        for key, values in (("heldout/rewards/accuracies", self._accuracies), ("heldout/loss", self._losses)):
            if key in numbers:
                values.append(numbers[key])
        return any(key.startswith(("heldout/", "sampled/")) for key in numbers)

    def within(self, room: int, encoding: str | None) -> str:
        """Return the line, without what there is no room for; empty before the first probe."""
        told = ""
        if self._accuracies:
            told = f"held out {sparkline(self._accuracies, 16, encoding)} acc {_way('{:.0%}', self._accuracies)}"
        if self._losses and len(more := f"{told} · loss {_way('{:.3f}', self._losses)}") <= room:
            told = more
        return told


def _way(form: str, values: Sequence[float]) -> str:
    return " → ".join(form.format(value) for value in (values[0], values[-1])[: len(values)])
