"""The verb check: what a file of pairs holds, before any model is trained on it.

Owns the account that `tiebreak check` shows. The audit of contents builds on it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tiebreak.data.reader import PairFile, read_pairs
from tiebreak.data.split import split
from tiebreak.records import Pair

NUM_EXAMPLES = 3


def check(path: str, format: str = "auto", heldout_share: float = 0.1) -> dict[str, Any]:
    """Return counts, reasons with examples, lengths in words, and how the split would fall; needs no model."""
    found = read_pairs(path, format)
    train, heldout = split(found.pairs, heldout_share)
    return {
        "path": found.path,
        "sha256": found.digest,
        "format": found.format,
        "num_records": found.num_records,
        "num_pairs": len(found.pairs),
        "num_prompts": _num_prompts(found.pairs),
        "num_duplicates": len(found.pairs) - len({pair.pair_id for pair in found.pairs}),
        "num_dropped": len(found.dropped),
        "dropped_by_reason": _reasons(found),
        "words": {
            "prompt": _spread([sum(len(m.content.split()) for m in pair.prompt) for pair in found.pairs]),
            "chosen": _spread([len(pair.chosen.content.split()) for pair in found.pairs]),
            "rejected": _spread([len(pair.rejected.content.split()) for pair in found.pairs]),
        },
        "chosen_longer_share": statistics.fmean(
            len(pair.chosen.content) > len(pair.rejected.content) for pair in found.pairs
        ),
        "split": {"heldout_share": heldout_share, "num_train_pairs": len(train), "num_heldout_pairs": len(heldout)},
    }


def _reasons(found: PairFile) -> list[dict[str, Any]]:
    return [
        {
            "reason": reason,
            "count": count,
            "examples": [f"{item.source}: {item.detail}" for item in found.dropped if item.reason == reason][
                :NUM_EXAMPLES
            ],
        }
        for reason, count in found.reasons.items()
    ]


def _num_prompts(pairs: Sequence[Pair]) -> int:
    return len({pair.prompt_id for pair in pairs})


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    return {"mean": round(statistics.fmean(lengths), 1), "median": statistics.median(lengths), "max": max(lengths)}
