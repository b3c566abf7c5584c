"""What the tokenizer makes of the pairs: lengths, what fits, what is cut, what cannot be rendered.

Owns these counts. The decisions themselves (template, seam, EOS, truncation) are the renderer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.findings import Hit
from tiebreak.doctor.report import spread
from tiebreak.engine.positions import Context
from tiebreak.errors import RenderError
from tiebreak.records import Pair, Tokenized

Ints = NDArray[np.int64]

FULLY_TRUNCATED = 0.9
"""Share of a prompt that is cut off above which nothing of it counts as left."""
_FITS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class PairRenderer(Protocol):
    """What counting needs of a renderer."""

    def examples(self, judged: Sequence[Pair]) -> Iterator[Tokenized | RenderError]:
        """Return each pair as ids, or why it cannot be."""


@dataclass(frozen=True)
class TokenCounts:
    """One entry a pair: tokens of its parts, nothing cut; 0 where it cannot be rendered."""

    prompt: Ints
    chosen: Ints
    rejected: Ints
    refused: tuple[tuple[int, str, str], ...]
    """(pair, reason, detail) of those that cannot be rendered."""

    @classmethod
    def merged(cls, parts: Sequence[TokenCounts]) -> TokenCounts:
        """Return the counts of all parts, in their order."""
        starts = np.cumsum([0, *(len(part.prompt) for part in parts)]).tolist()
        refused = [
            (start + pair, reason, detail)
            for start, part in zip(starts, parts, strict=False)
            for pair, reason, detail in part.refused
        ]
        prompt, chosen, rejected = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("prompt", "chosen", "rejected")
        )
        return cls(prompt, chosen, rejected, tuple(refused))

    @property
    def rendered(self) -> NDArray[np.bool_]:
        """Which pairs can be rendered."""
        return self.chosen > 0

    @property
    def longest_row(self) -> Ints:
        """Tokens of the longer of prompt + chosen and prompt + rejected, one entry a pair."""
        return self.prompt + np.maximum(self.chosen, self.rejected)

    def as_dict(self, model: str, max_length: int, context: Context) -> dict[str, Any]:
        """Return the token report for JSON."""
        rows = self.longest_row[self.rendered]
        report: dict[str, Any] = {
            "model": model,
            "max_length": max_length,
            "num_too_long": int((rows > context.limit(max_length)).sum()),
            "num_refused": len(self.refused),
            "context": {
                "positions": context.most,
                "made_for": context.made_for,
                "num_beyond": 0 if context.made_for is None else int((rows > context.made_for).sum()),
            },
        }
        if not len(rows):
            return report
        edges = np.unique(np.geomspace(max(rows.min(), 1), rows.max() + 1, 25).astype(np.int64))
        # The usual limits that some pairs fit and some do not, with the next one that all fit.
        limits = [size for size in _FITS if size >= rows.min() and size < 2 * rows.max()] or [_FITS[0]]
        return report | {
            "prompt": spread(self.prompt[self.rendered], (95, 99)),
            "chosen": spread(self.chosen[self.rendered], (95, 99)),
            "rejected": spread(self.rejected[self.rendered], (95, 99)),
            "row": spread(rows, (95, 99)),
            "fits": [{"max_length": size, "share": float((rows <= size).mean())} for size in limits],
            "histogram": {"edges": edges.tolist(), "counts": np.histogram(rows, edges)[0].tolist()},
        }


def count_tokens(pairs: Sequence[Pair], renderer: PairRenderer) -> TokenCounts:
    """Return the counts of some pairs; the renderer has no limit, so that it is known what one would cut."""
    rows, refused = np.zeros((3, len(pairs)), dtype=np.int64), []
    for number, made in enumerate(renderer.examples(pairs)):
        if isinstance(made, RenderError):
            refused.append((number, made.reason, str(made)))
        else:
            rows[:, number] = (len(made.prompt_ids), *map(len, made.completions))
    return TokenCounts(rows[0], rows[1], rows[2], tuple(refused))


def token_hits(counted: TokenCounts, max_length: int, truncation: str, context: Context) -> Iterator[Hit]:
    """Yield what cannot be rendered, what a limit of `max_length` tokens drops or cuts, what the model never saw."""
    num_pairs = len(counted.prompt)
    for reason, count in Counter(reason for _, reason, _ in counted.refused).most_common():
        told = {pair: detail for pair, why, detail in counted.refused if why == reason}
        yield Hit(reason, count, "pairs", num_pairs, np.array(list(told), dtype=np.int64), excerpts=told)
    limit = context.limit(max_length)
    over = _over_limit(counted, limit, truncation)
    words = f"max_length {max_length}" if limit == max_length else f"{limit} positions, data.max_length {max_length}"
    details = dict.fromkeys(over, words)
    if context.made_for is not None:
        seen = np.minimum(counted.longest_row, limit) > context.made_for
        over |= {"beyond_context": seen & ~over["too_long"]}
        details["beyond_context"] = f"made for {context.made_for} tokens, data.max_length {max_length}"
    for code, found in over.items():
        if found.any():
            rows = np.flatnonzero(found)
            told = {row: f"{counted.longest_row[row]} tokens" for row in rows[:10].tolist()}
            yield Hit(code, len(rows), "pairs", num_pairs, rows, excerpts=told, detail=details[code])


def _over_limit(counted: TokenCounts, limit: int, truncation: str) -> dict[str, NDArray[np.bool_]]:
    """Return which pairs are too long, by what would become of them: dropped, cut, cut to nearly nothing."""
    over = np.maximum(counted.longest_row - limit, 0)
    if truncation == "drop":
        return {"too_long": over > 0}
    hopeless = over >= counted.prompt
    gone = (over > FULLY_TRUNCATED * counted.prompt) & ~hopeless
    return {"too_long": (over > 0) & hopeless, "fully_truncated": gone, "truncated": (over > 0) & ~gone & ~hopeless}
