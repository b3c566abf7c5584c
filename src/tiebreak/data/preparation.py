"""The data of a run: read, split, rendered, every record accounted for.

Owns the order of those stations and the counts that the report shows.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.data.reader import PairFile, read_pairs
from tiebreak.data.render import Renderer
from tiebreak.data.split import split
from tiebreak.errors import DataError, RenderError
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Dropped, Pair, Source, TokenizedPair

HELDOUT_PROMPT = "heldout_prompt"


@dataclass(frozen=True)
class Side:
    """Pairs of one side of the split, as text and as tokens, in the same order."""

    pairs: tuple[Pair, ...]
    tokenized: tuple[TokenizedPair, ...]

    @property
    def num_prompts(self) -> int:
        """Different prompts."""
        return len({pair.prompt_id for pair in self.pairs})


@dataclass(frozen=True)
class PreparedData:
    """Both sides of the split and the account of how they came about."""

    train: Side
    heldout: Side
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class SplitPairs:
    """The pairs of a run before any tokenizer has seen them."""

    files: tuple[PairFile, ...]
    train: tuple[Pair, ...]
    heldout: tuple[Pair, ...]
    dropped: tuple[Dropped, ...]


def read_split(data: DataConfig) -> SplitPairs:
    """Read and split the pairs of a run; needs no model."""
    train_file = read_pairs(data.train, data.format, data.max_dropped_share)
    pairs = train_file.pairs[: data.max_pairs]
    if data.heldout is None:
        train, heldout = split(pairs, data.heldout_share)
        return SplitPairs((train_file,), tuple(train), tuple(heldout), train_file.dropped)
    heldout_file = read_pairs(data.heldout, data.format, data.max_dropped_share)
    train, leaked = _without_prompts_of(heldout_file.pairs, pairs)
    dropped = (*train_file.dropped, *heldout_file.dropped, *leaked)
    return SplitPairs((train_file, heldout_file), tuple(train), heldout_file.pairs, dropped)


def _without_prompts_of(heldout: Sequence[Pair], pairs: Sequence[Pair]) -> tuple[list[Pair], list[Dropped]]:
    """Drop training pairs whose prompt is held out: measured on them, anything looks good."""
    taken = {pair.prompt_id for pair in heldout}
    kept = [pair for pair in pairs if pair.prompt_id not in taken]
    detail = "the prompt is also in the held-out file"
    return kept, [_drop(pair, HELDOUT_PROMPT, detail) for pair in pairs if pair.prompt_id in taken]


def prepare(data: DataConfig, found: SplitPairs, renderer: Renderer) -> PreparedData:
    """Render the pairs of a run; raises DataError where a side of the split stays empty."""
    train, train_dropped = render_side(found.train, renderer)
    heldout, heldout_dropped = render_side(found.heldout, renderer)
    dropped = [*found.dropped, *train_dropped, *heldout_dropped]
    _refuse_empty(data, train, heldout, dropped)
    _refuse_dropped_share(data, dropped, num_kept=len(train.pairs) + len(heldout.pairs))
    report = _report(data, found.files, train, heldout, dropped)
    ids = [[pair.pair_id for pair in side.pairs] for side in (train, heldout)]
    return PreparedData(train, heldout, tuple(dropped), report, fingerprint(ids))


def render_side(pairs: Sequence[Pair], renderer: Renderer) -> tuple[Side, list[Dropped]]:
    """Return what can be rendered and what cannot, with the reason."""
    kept: list[tuple[Pair, TokenizedPair]] = []
    dropped: list[Dropped] = []
    for pair in pairs:
        try:
            kept.append((pair, renderer.pair(pair)))
        except RenderError as error:
            dropped.append(_drop(pair, error.reason, str(error)))
    return Side(tuple(pair for pair, _ in kept), tuple(tokens for _, tokens in kept)), dropped


def _drop(pair: Pair, reason: str, detail: str) -> Dropped:
    return Dropped(pair.source or Source("(given in Python)", 0), reason, detail)


def _refuse_empty(data: DataConfig, train: Side, heldout: Side, dropped: Sequence[Dropped]) -> None:
    cause = f" The first dropped: {dropped[0].source}: {dropped[0].detail}." if dropped else ""
    if not train.pairs:
        raise DataError(f"{data.train}: no pair is left to train on.{cause}")
    if not heldout.pairs:
        remedy = "raise data.heldout_share, name a file as data.heldout, or bring more prompts"
        raise DataError(f"{data.train}: no pair is held out to measure on: {remedy}.{cause}")


def _refuse_dropped_share(data: DataConfig, dropped: Sequence[Dropped], num_kept: int) -> None:
    # Pairs on held-out prompts are sound; they are only not to be trained on.
    unusable = [item for item in dropped if item.reason != HELDOUT_PROMPT]
    share = len(unusable) / (len(dropped) + num_kept)
    if share <= data.max_dropped_share:
        return
    reason, count = Counter(item.reason for item in unusable).most_common(1)[0]
    example = next(item for item in unusable if item.reason == reason)
    raise DataError(
        f"{share:.0%} of the records would be dropped, more than data.max_dropped_share {data.max_dropped_share:g}; "
        f"most often {reason} ({count}), as at {example.source}: {example.detail}"
    )


def _report(
    data: DataConfig, files: Sequence[PairFile], train: Side, heldout: Side, dropped: Sequence[Dropped]
) -> dict[str, Any]:
    tokens = (*train.tokenized, *heldout.tokenized)
    num_records = sum(file.num_records for file in files)
    num_unused = num_records - len(tokens) - len(dropped)
    return {
        "files": [
            {"path": f.path, "sha256": f.digest, "format": f.format, "num_records": f.num_records} for f in files
        ],
        "num_records": num_records,
        "num_train_pairs": len(train.pairs),
        "num_train_prompts": train.num_prompts,
        "num_heldout_pairs": len(heldout.pairs),
        "num_heldout_prompts": heldout.num_prompts,
        "num_dropped": len(dropped),
        "dropped_by_reason": dict(Counter(item.reason for item in dropped).most_common()),
        "num_beyond_max_pairs": num_unused,
        "num_truncated_pairs": sum(pair.num_truncated > 0 for pair in tokens),
        "truncation": data.truncation,
        "max_length": data.max_length,
        "prompt_tokens": _spread([len(pair.prompt_ids) for pair in tokens]),
        "chosen_tokens": _spread([len(pair.chosen_ids) for pair in tokens]),
        "rejected_tokens": _spread([len(pair.rejected_ids) for pair in tokens]),
    }


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    return {"mean": statistics.fmean(lengths), "median": statistics.median(lengths), "max": max(lengths)}
