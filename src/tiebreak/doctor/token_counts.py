"""What the tokenizer makes of judgements: lengths, what fits, what is cut, what cannot be rendered.

Owns these counts. The decisions themselves (template, seam, EOS, truncation) are the renderer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import Unit
from tiebreak.doctor.findings import Hit
from tiebreak.doctor.report import spread
from tiebreak.doctor.texts.flaws import masked
from tiebreak.engine.positions import Context
from tiebreak.errors import RenderError
from tiebreak.records import Judgement, Tokenized

Ints = NDArray[np.int64]

FULLY_TRUNCATED = 0.9
"""Share of a prompt that is cut off above which nothing of it counts as left."""
_FITS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class ExampleRenderer(Protocol):
    """What counting needs of a renderer."""

    def examples(self, judged: Sequence[Judgement]) -> Iterator[Tokenized | RenderError]:
        """Return each judgement as ids, or why it cannot be."""


@dataclass(frozen=True)
class TokenCounts:
    """One entry a row: tokens of its parts, nothing cut; 0 where it cannot be rendered."""

    prompt: Ints
    completions: Mapping[str, Ints]
    """By side, in the order of the sides."""
    refused: tuple[tuple[int, str, str], ...]
    """(row, reason, detail) of those that cannot be rendered."""

    @classmethod
    def merged(cls, parts: Sequence[TokenCounts]) -> TokenCounts:
        """Return the counts of all parts, in their order."""
        starts = np.cumsum([0, *(len(part.prompt) for part in parts)]).tolist()
        refused = [
            (start + row, reason, detail)
            for start, part in zip(starts, parts, strict=False)
            for row, reason, detail in part.refused
        ]
        sides = {side: np.concatenate([part.completions[side] for part in parts]) for side in parts[0].completions}
        return cls(np.concatenate([part.prompt for part in parts]), sides, tuple(refused))

    @property
    def rendered(self) -> NDArray[np.bool_]:
        """Which rows can be rendered."""
        return self.prompt > 0

    @property
    def longest_row(self) -> Ints:
        """Tokens of the prompt and its longest completion, one entry a row."""
        return np.asarray(self.prompt + np.max(list(self.completions.values()), axis=0))

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
        # The usual limits that some rows fit and some do not, with the next one that all fit.
        limits = [size for size in _FITS if size >= rows.min() and size < 2 * rows.max()] or [_FITS[0]]
        return report | {
            "prompt": spread(self.prompt[self.rendered], (95, 99)),
            **{side: spread(counted[self.rendered], (95, 99)) for side, counted in self.completions.items()},
            "row": spread(rows, (95, 99)),
            "fits": [{"max_length": size, "share": float((rows <= size).mean())} for size in limits],
            "histogram": {"edges": edges.tolist(), "counts": np.histogram(rows, edges)[0].tolist()},
        }


def count_tokens(judged: Sequence[Judgement], sides: Sequence[str], renderer: ExampleRenderer) -> TokenCounts:
    """Return the counts of some judgements; the renderer has no limit, so that it is known what one would cut."""
    rows, refused = np.zeros((1 + len(sides), len(judged)), dtype=np.int64), []
    for number, made in enumerate(renderer.examples(judged)):
        if isinstance(made, RenderError):
            refused.append((number, made.reason, masked(str(made))))
        else:
            rows[:, number] = [len(made.prompt_ids), *map(len, made.completions)]
    return TokenCounts(rows[0], dict(zip(sides, rows[1:], strict=True)), tuple(refused))


def token_hits(counted: TokenCounts, unit: Unit, max_length: int, truncation: str, context: Context) -> Iterator[Hit]:
    """Yield what cannot be rendered, what a limit of `max_length` tokens drops or cuts, what the model never saw."""
    num_rows = len(counted.prompt)
    for reason, count in Counter(reason for _, reason, _ in counted.refused).most_common():
        told = {row: detail for row, why, detail in counted.refused if why == reason}
        yield Hit(reason, count, unit, num_rows, np.array(list(told), dtype=np.int64), excerpts=told)
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
            yield Hit(code, len(rows), unit, num_rows, rows, excerpts=told, detail=details[code])


def _over_limit(counted: TokenCounts, limit: int, truncation: str) -> dict[str, NDArray[np.bool_]]:
    """Return which rows are too long, by what would become of them: dropped, cut, cut to nearly nothing."""
    over = np.maximum(counted.longest_row - limit, 0)
    if truncation == "drop":
        return {"too_long": over > 0}
    hopeless = over >= counted.prompt
    gone = (over > FULLY_TRUNCATED * counted.prompt) & ~hopeless
    return {"too_long": (over > 0) & hopeless, "fully_truncated": gone, "truncated": (over > 0) & ~gone & ~hopeless}
