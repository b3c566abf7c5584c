"""What a measure gives: a value for each item, before and after, and the prompt that each belongs to.

Owns how such a row is written down, and what a change of its unit is. The before/after table, the page and the gate all
read the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tiebreak.config import MEASURES
from tiebreak.maths.stats import Estimate, clustered_mean, clustered_share

Better = Literal["higher", "lower", "neither"]
SHARE, TOKENS, RATE = "share", "tokens", "rate"
_INFINITE = 1e100


@dataclass(frozen=True)
class Row:
    """A measure of one or many items: pairs, answers, questions."""

    key: str
    """As rules call it."""
    name: str
    """As people call it."""
    unit: str
    better: Better
    prompts: Sequence[str]
    """Items of one prompt are not independent of each other."""
    before: Sequence[float]
    after: Sequence[float]
    weak: bool = False
    """Whether this is weak evidence, which is said wherever it is shown."""
    note: str = ""
    """Where the numbers come from, where the name does not say it."""
    doubt: str = ""
    """Why no rule is decided on it, however clear the numbers are."""

    def __post_init__(self) -> None:
        if not len(self.prompts) == len(self.before) == len(self.after) >= 1:
            raise ValueError(
                f"{self.key}: wanted a prompt, a value before and a value after for each item, at least one; found "
                f"{len(self.prompts)}, {len(self.before)} and {len(self.after)}"
            )
        outside = [
            x for x in (*self.before, *self.after) if self.unit == SHARE and math.isfinite(x) and not 0 <= x <= 1
        ]
        if outside:
            raise ValueError(f"{self.key}: a share lies in 0..1, found {outside[0]:g}")

    @staticmethod
    def of(
        key: str,
        prompts: Sequence[str],
        before: Sequence[float],
        after: Sequence[float],
        name: str = "",
        *,
        weak: bool = False,
        note: str = "",
        doubt: str = "",
    ) -> Row:
        """Return a row of a measure that everybody knows, called by its name unless it has another here."""
        known = MEASURES[key]
        return Row(key, name or known.name, known.unit, known.better, prompts, before, after, weak, note, doubt)

    @property
    def num_not_finite(self) -> int:
        """How many items have a value that is NaN, infinite, or so large that a sum of them would be."""
        sides = zip(self.before, self.after, strict=True)
        return sum(not (abs(before) < _INFINITE and abs(after) < _INFINITE) for before, after in sides)

    @property
    def changes(self) -> list[float]:
        """After less before of each item; of tokens, the log of the ratio."""
        pairs = zip(self.before, self.after, strict=True)
        if self.unit == TOKENS:
            return [math.log(max(after, 1.0) / max(before, 1.0)) for before, after in pairs]
        return [after - before for before, after in pairs]

    def table(self, seed: int) -> dict[str, Any]:
        """Return the row of the before/after table: both means with their intervals."""
        sides = {"before": self._estimate(self.before, seed), "after": self._estimate(self.after, seed)}
        said = {"key": self.key, "name": self.name, "unit": self.unit}
        return {**said, **{side: asdict(found) for side, found in sides.items()}}

    def _estimate(self, values: Sequence[float], seed: int) -> Estimate:
        return (clustered_share if self.unit == SHARE else clustered_mean)(values, self.prompts, seed)

    def as_dict(self) -> dict[str, Any]:
        """Return the row of measures.jsonl; what is NaN or infinite becomes null."""
        sides = {"before": self.before, "after": self.after}
        finite = {side: [x if math.isfinite(x) else None for x in values] for side, values in sides.items()}
        told = {**asdict(self), "prompts": list(self.prompts), **finite}
        return told if self.doubt else {name: value for name, value in told.items() if name != "doubt"}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Row:
        """Return a row of measures.jsonl; null is NaN. Raises KeyError, TypeError or ValueError where it is none."""
        before, after = ([math.nan if x is None else float(x) for x in row[side]] for side in ("before", "after"))
        prompts = [str(prompt) for prompt in row["prompts"]]
        key, name, unit = (str(row[name]) for name in ("key", "name", "unit"))
        note = str(row["note"]).removeprefix("weak evidence: ")  # which runs of before wrote down as well
        doubt = str(row.get("doubt", ""))
        if row["better"] not in ("higher", "lower", "neither"):
            raise ValueError(f"{row['key']}: better is higher, lower or neither, found {row['better']!r}")
        return Row(key, name, unit, row["better"], prompts, before, after, bool(row["weak"]), note, doubt)
