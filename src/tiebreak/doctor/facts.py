"""The table of facts: which columns there are, what they mean, how the tables of many blocks become one.

Owns the names. A pair takes about 370 bytes: 192 of signatures, 52 of features, the rest keys, lengths, scores, codes.
How the columns of a block are filled is known to `intake`, what they say of the data to the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """First 64 bits of the id of the prompt as a reader sees it: no outer blanks, no hidden characters, NFC."""
    chosen_key: Keys
    """Content hash of the completion, as of the prompt; equal completions have equal keys on both sides."""
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
    """NaN where none is stated, as in the next five."""
    rejected_score: Floats
    margin: Floats
    soft_label: Floats
    chosen_win_rate: Floats
    rejected_win_rate: Floats
    weight: Floats
    split_position: NDArray[np.float64]
    """Position of the split key in [0, 1): the pair is held out where it is below the held-out share."""
    features: Floats
    """[pairs, 13], chosen minus rejected."""
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

    @property
    def record_starts(self) -> Ints:
        """The row of the first pair of every record that gave one; pairs of a record stand together."""
        new = (np.diff(self.line, prepend=-1) != 0) | (np.diff(self.file, prepend=-1) != 0)
        return np.flatnonzero(new)

    @property
    def votes(self) -> tuple[Ints, Ints]:
        """How many votes each pair has for chosen and for rejected."""
        cast = (self.vote_item >= 0) & (self.vote_value != 0.5)
        items, first = self.vote_item[cast], self.vote_value[cast] == 1
        turned = (self.chosen_key > self.rejected_key)[items]
        wins = np.bincount(items[first != turned], minlength=self.num_pairs)
        return wins, np.bincount(items[first == turned], minlength=self.num_pairs)

    @property
    def strength(self) -> NDArray[np.float64]:
        """How clearly each pair was decided: the votes' majority, else the margin stated, else one; never below 0."""
        wins, losses = self.votes
        scores = self.chosen_score.astype(np.float64) - self.rejected_score
        margin = np.where(np.isnan(self.margin), scores, self.margin)
        known = np.where(np.isnan(margin), 1.0, margin)
        return np.maximum(np.where(wins + losses > 0, wins - losses, known), 0.0)

    def marked(self, code: str) -> Ints:
        """Return the pairs in whose texts a rule of TEXT_RULES found something, ascending."""
        return np.flatnonzero(self.flags & np.uint16(1 << TEXT_RULES.index(code)))


_SIDES = ("prompt", "chosen", "rejected")
COLUMNS: dict[str, tuple[Any, int]] = {
    **dict.fromkeys(("file", "split", "dataset", "licence", "vote_annotator"), (np.int32, 0)),
    **dict.fromkeys(("line", "group", "vote_item"), (np.int64, 0)),
    **dict.fromkeys(("prompt_key", "chosen_key", "rejected_key", "chosen_norm", "rejected_norm"), (np.uint64, 0)),
    **dict.fromkeys((f"{side}_{unit}" for side in _SIDES for unit in ("words", "characters")), (np.int32, 0)),
    **dict.fromkeys(("chosen_score", "rejected_score", "weight", *FACTS), (np.float32, 0)),
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


# --------------------------------------------------------------------------------------------------- of many blocks


class Growing:
    """A column to which blocks are appended in place; a quarter of its memory at most is not yet used."""

    def __init__(self, dtype: Any, width: int = 0) -> None:
        self._shape = (width,) if width else ()
        self._values = np.empty((0, *self._shape), dtype)
        self._length = 0

    def append(self, values: NDArray[Any]) -> None:
        """Add rows at the end."""
        length = self._length + len(values)
        if length > len(self._values):
            # realloc: large arrays are moved by the page table, not copied, so no second copy is ever in memory.
            self._values.resize((max(length, len(self._values) * 5 // 4, 1024), *self._shape), refcheck=False)
        self._values[self._length : length] = values
        self._length = length

    def whole(self) -> NDArray[Any]:
        """Return all rows; the column is used up by that."""
        self._values.resize((self._length, *self._shape), refcheck=False)
        return self._values


class Names:
    """Codes for texts, given in the order in which they come."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def known(self) -> tuple[str, ...]:
        """The text of each code."""
        return tuple(self._codes)

    def codes(self, texts: Iterable[str | None]) -> NDArray[np.int32]:
        """Return the code of each text, -1 for None."""
        return np.array([-1 if text is None else self._code(text) for text in texts], np.int32)

    def recoded(self, codes: NDArray[np.int32], names: Sequence[str]) -> NDArray[np.int32]:
        """Return codes that mean here what `codes` mean in `names`."""
        ours = np.array([*(self._code(name) for name in names), -1], np.int32)  # the last one is that of -1
        return np.asarray(ours[codes])

    def _code(self, text: str) -> int:
        return self._codes.setdefault(text, len(self._codes))


def room(items: Iterable[Any], counts: Mapping[Any, int], group: Callable[[Any], Any]) -> list[Any]:
    """Return the items for whose group there is room below MAX_KEPT, where `counts` of it have gone before."""
    taken: Counter[Any] = Counter()
    found = []
    for item in items:
        taken[group(item)] += 1
        if counts.get(group(item), 0) + taken[group(item)] <= MAX_KEPT:
            found.append(item)
    return found


def merged(blocks: Iterable[Facts]) -> Facts:
    """Return the facts of all blocks, in their order; a generator of blocks is held once and not twice."""
    columns = {name: Growing(dtype, width) for name, (dtype, width) in COLUMNS.items()}
    names = {name: Names() for name in CODED.values()}
    files: Counter[str] = Counter()
    num_dropped: Counter[str] = Counter()
    num_marks: Counter[tuple[str, str]] = Counter()
    dropped: list[Dropped] = []
    marks: list[Mark] = []
    num_ties = num_tied_dropped = num_pairs = num_unused_votes = 0
    for block in blocks:
        for name, column in columns.items():
            values = getattr(block, name)
            if name in CODED:
                values = names[CODED[name]].recoded(values, getattr(block, CODED[name]))
            elif name == "vote_item":
                values = np.where(values < 0, values - num_unused_votes, values + num_pairs)
            column.append(values)
        dropped += room(block.dropped, num_dropped, lambda item: item.reason)
        marks += [mark._replace(pair=mark.pair + num_pairs) for mark in room(block.marks, num_marks, lambda m: m[:2])]
        files.update(block.num_records_by_file)
        num_dropped.update(block.num_dropped)
        num_marks.update(block.num_marks)
        num_ties += block.num_ties
        num_tied_dropped += block.num_tied_dropped
        num_pairs += block.num_pairs
        num_unused_votes -= int(block.vote_item.min(initial=0))
    arrays: dict[str, Any] = {name: column.whole() for name, column in columns.items()}
    tables: dict[str, Any] = {name: found.known for name, found in names.items()}
    return Facts(
        **arrays,
        **tables,
        num_records_by_file=dict(files),
        num_ties=num_ties,
        num_tied_dropped=num_tied_dropped,
        num_dropped=dict(num_dropped),
        dropped=tuple(dropped),
        num_marks=dict(num_marks),
        marks=tuple(marks),
    )
