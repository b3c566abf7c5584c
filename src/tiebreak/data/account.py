"""What became of the records of a run: the counts that the report shows, and when too much of them is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.config import DataConfig
from tiebreak.data.tokens import TokenTable
from tiebreak.errors import DataError
from tiebreak.records import UNDECIDED, Dropped, Judgement, Tokenized, TokenizedThumb

HELDOUT_PROMPT = "heldout_prompt"


@dataclass(frozen=True)
class Side:
    """What is on one side of the split, pairs or completions on their own, as text and as tokens, in the same order."""

    pairs: Sequence[Judgement]
    tokenized: Sequence[Tokenized]

    @property
    def num_prompts(self) -> int:
        """Different prompts."""
        return len({one.prompt_id for one in self.tokenized})


def refuse_empty(data: DataConfig, train: TokenTable, heldout: Side, dropped: Sequence[Dropped]) -> None:
    """Stop where a side of the split is empty."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(item.reason for item in dropped).most_common())
    cause = f" Dropped: {reasons}. The first dropped: {dropped[0].source}: {dropped[0].detail}." if dropped else ""
    name = data.train_paths
    if not len(train):
        raise DataError(f"{name}: no pair is left to train on.{cause}")
    if not heldout.pairs:
        raise DataError(f"{name}: no pair is held out to measure on: {_HOLD_OUT_MORE}.{cause}")
    if data.keeps_apart and heldout.num_prompts < 2:
        raise DataError(
            f"{name}: completions of one prompt alone are held out, and what is measured holds them against others: "
            f"{_HOLD_OUT_MORE}"
        )
    if data.pairing == "none":
        for side, found in (("to train on", train.stated("liked")), ("held out", _liked(heldout))):
            if (share := float(np.mean(found))) in (0, 1):
                only = "good" if share else "bad"
                raise DataError(
                    f"{name}: every completion {side} is {only}, and there is nothing to tell it from: bring some that "
                    f"are {'bad' if share else 'good'}" + (f", or {_HOLD_OUT_MORE}" if side == "held out" else "")
                )


_HOLD_OUT_MORE = "raise data.heldout_share, name a file as data.heldout, or bring more prompts"


def _liked(side: Side) -> NDArray[np.float64]:
    return np.array([one.liked for one in side.tokenized if isinstance(one, TokenizedThumb)], np.float64)


def refuse_dropped_share(data: DataConfig, dropped: Sequence[Dropped], num_sound: int) -> None:
    """Stop where too many records are unusable; how often a source's weight repeats the others is no matter here."""
    # Pairs on held-out prompts, and records that nobody won, are sound; they are only not to be trained on.
    unusable = [item for item in dropped if item.reason not in {HELDOUT_PROMPT, *UNDECIDED}]
    share = unusable_share(len(unusable), sum(item.reason in UNDECIDED for item in dropped), num_sound)
    if share <= data.max_dropped_share:
        return
    reason, count = Counter(item.reason for item in unusable).most_common(1)[0]
    example = next(item for item in unusable if item.reason == reason)
    raise DataError(
        f"{share:.0%} of the records would be dropped, more than data.max_dropped_share {data.max_dropped_share:g}; "
        f"most often {reason} ({count}), as at {example.source}: {example.detail}"
    )


def unusable_share(num_unusable: int, num_undecided: int, num_sound: int) -> float:
    """Return the share to hold against `data.max_dropped_share`: of sound pairs and of records that gave none.

    Unusable are dropped records, and pairs that the model cannot take; undecided ones are the reasons in UNDECIDED.
    """
    return num_unusable / max(num_unusable + num_undecided + num_sound, 1)


def account_of(data: DataConfig, train: TokenTable, heldout: TokenTable, dropped: Sequence[Dropped]) -> dict[str, Any]:
    """Return the counts of both sides for data.json."""
    tables = (train, heldout)
    return {
        "num_train_pairs": len(train),
        "num_train_prompts": train.num_prompts,
        "num_heldout_pairs": len(heldout),
        "num_weighted_pairs": int((train.weights != 1).sum()),
        "num_heldout_prompts": heldout.num_prompts,
        "num_dropped": len(dropped),
        "dropped_by_reason": dict(Counter(item.reason for item in dropped).most_common()),
        "num_truncated_pairs": sum(int((table.num_truncated > 0).sum()) for table in tables),
        "truncation": data.truncation,
        "max_length": data.max_length,
        "prompt_tokens": _spread(np.concatenate([table.prompt_lengths for table in tables])),
        "chosen_tokens": _spread(np.concatenate([table.lengths_of(good=True) for table in tables])),
        "rejected_tokens": _spread(np.concatenate([table.lengths_of(good=False) for table in tables])),
    }


def _spread(lengths: NDArray[np.int64]) -> dict[str, float]:
    if not len(lengths):  # demonstrations have no bad side
        return {"mean": 0.0, "median": 0.0, "max": 0}
    return {"mean": float(lengths.mean()), "median": float(np.median(lengths)), "max": int(lengths.max())}
