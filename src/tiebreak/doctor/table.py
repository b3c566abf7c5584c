"""The table of facts: which columns there are, what they mean, and what a pair costs in memory.

Owns the names. A pair takes about 360 bytes: 192 of signatures, 40 of features, the rest keys, lengths, scores, codes.
How the columns are filled is known to `facts`, what they say of the data to the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import NUM_FEATURES
from tiebreak.doctor.texts.flaws import TEXT_RULES
from tiebreak.records import Dropped, Source

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]

MAX_KEPT = 100
"""Dropped records kept of each reason, and marks of each kind; counts stay exact."""


class Mark(NamedTuple):
    """What a rule on single texts found: the row of the pair, where it stands, and a masked excerpt."""

    code: str
    kind: str
    pair: int
    source: Source
    field: str
    """prompt, chosen or rejected."""
    excerpt: str


@dataclass(frozen=True, eq=False)
class Facts:
    """One entry a pair in every column, in the order of reading; codes are positions in the names, -1 is not stated."""

    file: Codes
    line: Ints
    prompt_key: Keys
    """First 64 bits of `Pair.prompt_id`."""
    chosen_key: Keys
    """Content hash of the completion as it stands; equal completions have equal keys on both sides."""
    rejected_key: Keys
    chosen_norm: Keys
    """The same after case, spacing and punctuation are taken away."""
    rejected_norm: Keys
    group: Ints
    """63-bit hash of the group, -1 where none is stated."""
    split: Codes
    dataset: Codes
    licence: Codes
    prompt_words: Codes
    chosen_words: Codes
    rejected_words: Codes
    prompt_characters: Codes
    chosen_characters: Codes
    rejected_characters: Codes
    chosen_score: Floats
    """NaN where none is stated, as in the next three."""
    rejected_score: Floats
    margin: Floats
    soft_label: Floats
    weight: Floats
    split_position: NDArray[np.float64]
    """Position of the split key in [0, 1): the pair is held out where it is below the held-out share."""
    features: Floats
    """[pairs, 10], chosen minus rejected."""
    pair_signatures: near.Signatures
    """[pairs, 96]: prompt, chosen and rejected side by side, so that near-duplicates are alike in each."""
    flags: NDArray[np.uint16]
    """Bit i is set where rule i of TEXT_RULES found something."""
    vote_item: Ints
    """One entry a vote: the row of the pair; below 0 for dropped records, one number each."""
    vote_annotator: Codes
    vote_value: Floats
    """1 for one completion, 0 for the other, 0.5 for a tie. Which of the two is 1 goes by their keys and not by who
    won, or agreement by chance would be overestimated."""
    file_names: tuple[str, ...]
    split_names: tuple[str, ...]
    dataset_names: tuple[str, ...]
    licence_names: tuple[str, ...]
    annotator_names: tuple[str, ...]
    num_records_by_file: Mapping[str, int]
    num_tied_dropped: int
    """Dropped records whose stated scores are equal."""
    num_ties: int
    """Comparisons that nobody won."""
    num_dropped: Mapping[str, int]
    """Dropped records by reason."""
    dropped: tuple[Dropped, ...]
    """The first MAX_KEPT of each reason."""
    num_marks: Mapping[tuple[str, str], int]
    """Texts with a flaw by rule code and kind."""
    marks: tuple[Mark, ...]
    """The first MAX_KEPT of each code and kind; `marked` names every pair."""

    @property
    def num_pairs(self) -> int:
        """Rows."""
        return len(self.line)

    @property
    def num_records(self) -> int:
        """Records read, dropped ones included."""
        return sum(self.num_records_by_file.values())

    @property
    def prompt_signatures(self) -> near.Signatures:
        """The part of the signatures that speaks of prompts."""
        return self.pair_signatures[:, : near.SLOTS]

    @property
    def num_bytes(self) -> int:
        """Memory of the columns."""
        return sum(getattr(self, name).nbytes for name in COLUMNS)

    def marked(self, code: str) -> Ints:
        """Return the pairs in whose texts a rule of TEXT_RULES found something, ascending."""
        return np.flatnonzero(self.flags & np.uint16(1 << TEXT_RULES.index(code)))


_SIDES = ("prompt", "chosen", "rejected")
COLUMNS: dict[str, tuple[Any, int]] = {
    **dict.fromkeys(("file", "split", "dataset", "licence", "vote_annotator"), (np.int32, 0)),
    **dict.fromkeys(("line", "group", "vote_item"), (np.int64, 0)),
    **dict.fromkeys(("prompt_key", "chosen_key", "rejected_key", "chosen_norm", "rejected_norm"), (np.uint64, 0)),
    **dict.fromkeys((f"{side}_{unit}" for side in _SIDES for unit in ("words", "characters")), (np.int32, 0)),
    **dict.fromkeys(("chosen_score", "rejected_score", "margin", "soft_label", "weight"), (np.float32, 0)),
    "split_position": (np.float64, 0),
    "features": (np.float32, NUM_FEATURES),
    "pair_signatures": (np.uint16, 3 * near.SLOTS),
    "flags": (np.uint16, 0),
    "vote_value": (np.float32, 0),
}
"""Type and width of every column; 0 is one number a row."""
CODED = {
    "file": "file_names",
    "split": "split_names",
    "dataset": "dataset_names",
    "licence": "licence_names",
    "vote_annotator": "annotator_names",
}
"""Columns of codes, and the names that they are positions in."""
