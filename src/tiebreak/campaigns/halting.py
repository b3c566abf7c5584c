"""Why a loop of rounds ends before its last one: a table of reasons.

Owns these reasons. Each is a pure function of what the ledger says and of `rounds.stop`; the first that holds ends the
loop, after the round is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tiebreak.config.rounds import RoundsStop
from tiebreak.errors import one_line

Rounds = Sequence[dict[str, Any]]
Reason = Callable[[Rounds, RoundsStop], str | None]


def worse(rounds: Rounds, stop: RoundsStop) -> str | None:
    """Certainly worse than the round before."""
    rate = _rate(rounds[-1], "vs_previous")
    if not stop.worse or rate is None or rate["high"] >= 0.5:
        return None
    return (
        f"its answers win against those before in {rate['mean']:.1%} (at most {rate['high']:.1%}) of held-out prompts"
    )


def no_progress(rounds: Rounds, stop: RoundsStop) -> str | None:
    """Not told from the round before, several times in a row."""
    if stop.patience is None or len(rounds) < stop.patience:
        return None
    rates = [_rate(one, "vs_previous") for one in rounds[-stop.patience :]]
    if any(rate is None or rate["low"] > 0.5 for rate in rates):
        return None
    return f"{stop.patience} rounds in a row are not certainly better than the one before each"


def kl(rounds: Rounds, stop: RoundsStop) -> str | None:
    """Too far from the first model."""
    told = (rounds[-1].get("measured") or {}).get("kl_first")
    if stop.kl is None or told is None or max(told["mean"], told["k3"]) <= stop.kl:
        return None
    both = f"{told['mean']:.1f} nats an answer by k1, {told['k3']:.1f} by k3"
    return f"KL to the first model is {both}, and at most {stop.kl:g} is wanted"


def judge(rounds: Rounds, stop: RoundsStop) -> str | None:
    """A judge that no longer says what it said at first."""
    agreement = rounds[-1].get("judge", {}).get("agreement_with_first")
    if stop.judge_drift is None or agreement is None or agreement >= stop.judge_drift:
        return None
    return (
        f"the judge agrees with its first word on {agreement:.1%} of the same pairs, less than {stop.judge_drift:.0%}"
    )


REASONS: dict[str, Reason] = {one.__name__: one for one in (worse, no_progress, kl, judge)}
"""In the order in which they are asked."""


def why_end(rounds: Rounds, stop: RoundsStop) -> dict[str, str] | None:
    """Return the reason to end after the last of these rounds, by name and in words; None where there is none."""
    for name, reason in REASONS.items():
        if says := reason(rounds, stop):
            return {"why": name, "says": one_line(f"round {rounds[-1]['round']}: {says}")}
    return None


def _rate(entry: dict[str, Any], against: str) -> dict[str, Any] | None:
    rate: dict[str, Any] | None = (entry.get("measured") or {}).get(against, {}).get("rate")
    return rate
