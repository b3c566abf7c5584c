"""What a review came to, in words for people. Owns the sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from tiebreak.reporting.numbers import shown
from tiebreak.review.evidence import Results, Share
from tiebreak.review.outcome import PAIRS, UNDECIDED, Outcome
from tiebreak.review.results import NARROW


def lines(outcome: Outcome) -> Iterator[str]:
    """Yield what the votes come to; what is not known is said to be unknown."""
    found = outcome.results
    b, a = found.sides["b"], found.sides["a"]
    yield (
        f"{found.num_judged_items} of {found.num_items} items judged, on {found.num_prompts} prompts; "
        f"{found.num_votes} votes"
    )
    if found.left_out:
        yield f"not asked: {', '.join(f'{num} {reason}' for reason, num in found.left_out.items())}"
    if found.excluded:
        yield f"do not count: {found.num_excluded} votes ({', '.join(found.excluded)})"
    if found.win_rate is None:
        yield f"{b} against {a}: nobody voted"
    else:
        yield f"{b} wins against {a}: {_share(found.win_rate)}, a tie is one half"
        yield f"ties: {_share(found.ties)}, of them both bad: {_share(found.both_bad)}"
    yield from _reliance(found)
    if found.more_items is not None:
        narrow = f"±{100 * NARROW:.0f} points"
        yield f"{found.more_items} more items would narrow it to {narrow}" if found.more_items else f"within {narrow}"
    for one in found.people:
        fast = f", {one.num_fast} too fast" if one.num_fast else ""
        skipped = f", {one.num_skipped} skipped" if one.num_skipped else ""
        wins = f"; {b} wins {_share(one.win_rate)}" if one.win_rate else ""
        left = f"; left {_share(one.left)}" if one.left else ""
        own = f"; with oneself {_share(one.self_agreement)}" if one.self_agreement else ""
        out = " (does not count)" if one.excluded else ""
        yield f"  {one.name}{out}: {one.num_done} of {one.num_showings} done{skipped}{fast}{wins}{left}{own}"
    yield f"{PAIRS}: {outcome.num_pairs} pairs; {UNDECIDED}: {outcome.num_undecided}"
    if outcome.run is not None:
        yield f"{outcome.run}: its evaluation holds this win rate now"
    elif found.win_rate is not None:
        yield f"no evidence for a gate: {outcome.not_evidence}"
    if outcome.run is not None and found.doubts:
        yield f"decides nothing there: {'; '.join(found.doubts)}"


def _reliance(found: Results) -> Iterator[str]:
    if found.alpha is None:
        yield f"agreement: not known, {found.alpha_lacks}"
    else:
        alpha = found.alpha
        yield (
            f"agreement: alpha {alpha.value:.2f} ({alpha.low:.2f} … {alpha.high:.2f}) over {alpha.num} items; "
            "1 is agreement, 0 what chance gives"
        )
    if found.self_agreement is not None:
        yield f"with oneself, sides swapped: {_share(found.self_agreement)} of {found.self_agreement.num}"
    if found.position_bias is not None:
        biased = f"; position bias: {', '.join(found.biased)}" if found.biased else ""
        yield f"the left one was chosen: {_share(found.position_bias)}{biased}"


def _share(share: Share | None) -> str:
    if share is None:
        return "not known"
    told = asdict(share)
    return shown({"mean": told["value"], "low": told["low"], "high": told["high"]}, "share")
