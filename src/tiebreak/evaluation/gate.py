"""The verdict: pass, fail or inconclusive. Unknown is not a pass.

Owns the thresholds. This first gate has one check: held-out preference accuracy against chance.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tiebreak.maths.stats import Estimate

Verdict = Literal["pass", "fail", "inconclusive"]
CHANCE = 0.5
MIN_PROMPTS = 20
"""Fewer prompts than this never pass: resampling a handful says little about the prompts that were not asked."""


@dataclass(frozen=True)
class Decision:
    """A verdict with the numbers that it stands on."""

    verdict: Verdict
    reason: str
    threshold: float
    accuracy: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def decide(accuracy: Estimate) -> Decision:
    """Judge held-out accuracy (a tie one half, prompts resampled) against chance.

    pass: the lower bound is above one half, on enough prompts. fail: the upper bound is not above one half.
    """
    interval = f"95 % interval {accuracy.low:.1%} to {accuracy.high:.1%}"
    shown = f"{accuracy.mean:.1%} ({interval}, {accuracy.num_clusters} prompts)"
    if accuracy.high <= CHANCE:
        return Decision("fail", f"held-out accuracy {shown} is not above 50 %", CHANCE, accuracy)
    if accuracy.num_clusters < MIN_PROMPTS:
        need = f"at least {MIN_PROMPTS} held-out prompts are needed to pass"
        return Decision("inconclusive", f"held-out accuracy {shown}: {need}", CHANCE, accuracy)
    if accuracy.low > CHANCE:
        return Decision("pass", f"held-out accuracy {shown} lies above 50 %", CHANCE, accuracy)
    return Decision(
        "inconclusive", f"held-out accuracy {shown} may be chance: the interval holds 50 %", CHANCE, accuracy
    )
