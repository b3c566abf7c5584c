"""What so few held-out pairs, or so few answers, cannot tell: causes that this run would not have shown.

Where an interval holds both what a cause looks like and what none does, nothing is named, and that is no praise.
"""

from __future__ import annotations

from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.diagnosis.lessons import maybe_shuffled
from tiebreak.diagnosis.signals import Mean, Signals


def unsettled(signals: Signals) -> str | None:
    """Return in one line which causes could not be told from none; None where all that was measured settles it."""
    if not signals.measures:
        return None
    found = []
    if share := maybe_shuffled(signals):
        found.append(
            f"{share.num} held-out pairs cannot tell shuffled labels from learned ones: won in {share.value:.0%}, an "
            f"interval of ± {50 * (share.high - share.low):.0f} points"
        )
    if not any(key.startswith("answers/") for key in signals.measures):
        found.append("no answers were measured, which would show broken ones, lost ends and a collapse")
    for key, rule, says in _HARMS:
        measure = signals.measures.get(key)
        if measure is None or (key == "answers/unfinished" and not signals.sees_ends):
            continue
        grown = measure.at_end if key == "kl_token" else measure.change
        bound = DEFAULT_RULES[rule].value if key == "kl_token" else DEFAULT_RULES[rule].margin
        if bound is not None and (grown is None or _spans(grown, bound, falls=key == "chosen_logps")):
            told = "one prompt gives no interval" if grown is None else f"{grown:.2f}, and {bound:g} is the bound"
            found.append(
                f"{len(measure.after)} {'pairs' if key == 'chosen_logps' else 'answers'} cannot tell {says}: {told}"
            )
    return "; ".join(found) or None


_HARMS = (
    ("kl_token", "kl", "whether the policy went too far (KL in nats a token of its answers)"),
    ("chosen_logps", "chosen", "whether chosen completions were displaced (nats a token)"),
    ("answers/repetition", "repetition", "whether answers came to repeat themselves (share)"),
    ("answers/unfinished", "unfinished", "whether answers forgot how to end (share)"),
)


def _spans(mean: Mean, bound: float, *, falls: bool) -> bool:
    """Whether a mean may be on either side of a bound."""
    return mean.low <= -bound < mean.high if falls else mean.low <= bound < mean.high
