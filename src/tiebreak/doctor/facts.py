"""The table of facts: which columns there are, and what they mean.

Owns the names: of every judgement (`Rows`), of a pair (`Facts`), of a completion on its own (`ThumbFacts`). A pair
takes about 370 bytes: 192 of signatures, 52 of features, the rest keys, lengths, scores, codes; a completion 260. How
the columns of a block are filled is known to `intake`, how blocks become one table to `blocks`, what they say of the
data to the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import NUM_FEATURES
from tiebreak.doctor.texts.flaws import TEXT_RULES
from tiebreak.records import FACTS, Dropped, Source

Ints = NDArray[np.int64]
Codes = NDArray[np.int32]
Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]

Unit = Literal["pairs", "completions"]
"""What one row is of."""
MAX_KEPT = 100
"""Dropped records kept of each reason, and marks of each kind; counts stay exact."""


class Mark(NamedTuple):
    """What a rule on single texts found: the row, where it stands, and a masked excerpt."""

    code: str
    kind: str
    row: int
    source: Source
    field: str
    """prompt, or what was said of the completion: chosen, rejected, liked, disliked."""
    excerpt: str


_COMMON: dict[str, tuple[Any, int]] = {
    **dict.fromkeys(("file", "split", "dataset", "licence", "prompt_words", "prompt_characters"), (np.int32, 0)),
    **dict.fromkeys(("line", "group"), (np.int64, 0)),
    "prompt_key": (np.uint64, 0),
    "weight": (np.float32, 0),
    "split_position": (np.float64, 0),
    "features": (np.float32, NUM_FEATURES),
    "flags": (np.uint16, 0),
}
"""Type and width of the columns of every judgement; 0 is one number a row."""
_CODED = {
    "file": "file_names",
    "split": "split_names",
    "dataset": "dataset_names",
    "licence": "licence_names",
}
"""Columns of codes, and the names that they are positions in."""


def _of_side(side: str) -> dict[str, tuple[Any, int]]:
    return {f"{side}_key": (np.uint64, 0)} | dict.fromkeys((f"{side}_words", f"{side}_characters"), (np.int32, 0))


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of every judgement, whatever its kind: one entry a row in every column, in the order of reading.

    Codes are positions in the names, -1 is not stated. Rules that hold for any judgement take these.
    """

    unit: ClassVar[Unit]
    sides: ClassVar[tuple[str, ...]]
    """Its completions, as the columns name them: of each there are `_key`, `_words` and `_characters`."""
    COLUMNS: ClassVar[Mapping[str, tuple[Any, int]]]
    """Type and width of every column; 0 is one number a row."""
    CODED: ClassVar[Mapping[str, str]] = _CODED
    NUMBERS: ClassVar[tuple[str, ...]] = ("num_ties",)
    """What blocks count, and adds up."""

    file: Codes
    line: Ints
    prompt_key: Keys
    """First 64 bits of the id of the prompt as a reader sees it: no outer blanks, no hidden characters, NFC."""
    group: Ints
    """63-bit hash of the group, -1 where none is stated."""
    split: Codes
    dataset: Codes
    licence: Codes
    prompt_words: Codes
    prompt_characters: Codes
    weight: Floats
    split_position: NDArray[np.float64]
    """Position of the split key in [0, 1): the row is held out where it is below the held-out share."""
    features: Floats
    """[rows, 13]: of a pair chosen minus rejected, else of the completion."""
    signatures: near.Signatures
    """[rows, 32 times 1 + completions]: prompt and completions side by side: near-duplicates are alike in each."""
    flags: NDArray[np.uint16]
    """Bit i is set where rule i of TEXT_RULES found something."""
    file_names: tuple[str, ...]
    split_names: tuple[str, ...]
    dataset_names: tuple[str, ...]
    licence_names: tuple[str, ...]
    num_records_by_file: Mapping[str, int]
    num_ties: int
    """Comparisons that nobody won."""
    num_dropped: Mapping[str, int]
    """Dropped records by reason."""
    dropped: tuple[Dropped, ...]
    """The first MAX_KEPT of each reason."""
    num_marks: Mapping[tuple[str, str], int]
    """Texts with a flaw by rule code and kind."""
    marks: tuple[Mark, ...]
    """The first MAX_KEPT of each code and kind; `marked` names every row."""

    @property
    def num_rows(self) -> int:
        """Judgements."""
        return len(self.line)

    @property
    def num_records(self) -> int:
        """Records read, dropped ones included."""
        return sum(self.num_records_by_file.values())

    @property
    def prompt_signatures(self) -> near.Signatures:
        """The part of the signatures that speaks of prompts."""
        return self.signatures[:, : near.SLOTS]

    @property
    def num_bytes(self) -> int:
        """Memory of the columns."""
        return sum(getattr(self, name).nbytes for name in self.COLUMNS)

    @property
    def record_starts(self) -> Ints:
        """The first row of every record that gave one; rows of a record stand together."""
        new = (np.diff(self.line, prepend=-1) != 0) | (np.diff(self.file, prepend=-1) != 0)
        return np.flatnonzero(new)

    @property
    def clusters(self) -> Keys:
        """What may not be on both sides of a split: the group where one is stated, else the prompt."""
        groups = self.group.astype(np.int64).astype(np.uint64)
        return np.where(self.group >= 0, groups, self.prompt_key)

    def place(self, row: int) -> str:
        """Return the file and line where a row stands."""
        return f"{self.file_names[self.file[row]]}:{self.line[row]}"

    def marked(self, code: str) -> Ints:
        """Return the rows in whose texts a rule of TEXT_RULES found something, ascending."""
        return np.flatnonzero(self.flags & np.uint16(1 << TEXT_RULES.index(code)))


@dataclass(frozen=True, eq=False)
class ThumbFacts(Rows):
    """One entry a completion that was judged on its own."""

    unit = "completions"
    sides = ("completion",)
    COLUMNS: ClassVar[Mapping[str, tuple[Any, int]]] = {
        **_COMMON,
        **_of_side("completion"),
        "liked": (np.bool_, 0),
        "signatures": (np.uint16, 2 * near.SLOTS),
    }

    completion_key: Keys
    """Content hash of the completion, as of the prompt."""
    completion_words: Codes
    completion_characters: Codes
    liked: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Facts(Rows):
    """One entry a pair."""

    unit = "pairs"
    sides = ("chosen", "rejected")
    COLUMNS: ClassVar[Mapping[str, tuple[Any, int]]] = {
        **_COMMON,
        **_of_side("chosen"),
        **_of_side("rejected"),
        **dict.fromkeys(("chosen_norm", "rejected_norm"), (np.uint64, 0)),
        **dict.fromkeys(("chosen_score", "rejected_score", *FACTS), (np.float32, 0)),
        "signatures": (np.uint16, 3 * near.SLOTS),
        "vote_item": (np.int64, 0),
        "vote_annotator": (np.int32, 0),
        "vote_value": (np.float32, 0),
    }
    CODED: ClassVar[Mapping[str, str]] = _CODED | {"vote_annotator": "annotator_names"}
    NUMBERS: ClassVar[tuple[str, ...]] = ("num_ties", "num_tied_dropped")

    chosen_key: Keys
    """Content hash of the completion, as of the prompt; equal completions have equal keys on both sides."""
    rejected_key: Keys
    chosen_norm: Keys
    """The same after case, spacing and punctuation are taken away."""
    rejected_norm: Keys
    chosen_words: Codes
    rejected_words: Codes
    chosen_characters: Codes
    rejected_characters: Codes
    chosen_score: Floats
    """NaN where none is stated, as in the next five."""
    rejected_score: Floats
    margin: Floats
    soft_label: Floats
    chosen_win_rate: Floats
    rejected_win_rate: Floats
    vote_item: Ints
    """One entry a vote: the row of the pair; below 0 for dropped records, one number each."""
    vote_annotator: Codes
    vote_value: Floats
    """1 for one completion, 0 for the other, 0.5 for a tie. Which of the two is 1 goes by their keys and not by who
    won, or agreement by chance would be overestimated."""
    annotator_names: tuple[str, ...]
    num_tied_dropped: int
    """Dropped records whose stated scores are equal."""

    @property
    def votes(self) -> tuple[Ints, Ints]:
        """How many votes each pair has for chosen and for rejected."""
        cast = (self.vote_item >= 0) & (self.vote_value != 0.5)
        items, first = self.vote_item[cast], self.vote_value[cast] == 1
        turned = (self.chosen_key > self.rejected_key)[items]
        wins = np.bincount(items[first != turned], minlength=self.num_rows)
        return wins, np.bincount(items[first == turned], minlength=self.num_rows)

    @property
    def strength(self) -> NDArray[np.float64]:
        """How clearly each pair was decided: the votes' majority, else the margin stated, else one; never below 0."""
        wins, losses = self.votes
        scores = self.chosen_score.astype(np.float64) - self.rejected_score
        margin = np.where(np.isnan(self.margin), scores, self.margin)
        known = np.where(np.isnan(margin), 1.0, margin)
        return np.maximum(np.where(wins + losses > 0, wins - losses, known), 0.0)
