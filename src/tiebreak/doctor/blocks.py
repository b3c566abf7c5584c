"""The facts of many blocks as one table, in memory that is not held twice.

Owns how columns grow, how codes of several blocks become one, and how few of the examples are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import MAX_KEPT, Mark, Rows
from tiebreak.records import Dropped

R = TypeVar("R", bound=Rows)
_COUNTERS = ("num_records_by_file", "num_dropped", "num_marks")


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


def merged(kind: type[R], blocks: Iterable[R]) -> R:
    """Return the facts of all blocks, in their order; a generator of blocks is held once and not twice."""
    columns = {name: Growing(dtype, width) for name, (dtype, width) in kind.COLUMNS.items()}
    names = {name: Names() for name in kind.CODED.values()}
    totals: dict[str, Counter[Any]] = {name: Counter() for name in _COUNTERS}
    numbers = Counter(dict.fromkeys(kind.NUMBERS, 0))
    dropped: list[Dropped] = []
    marks: list[Mark] = []
    num_rows = num_unused_votes = 0
    for block in blocks:
        for name, column in columns.items():
            values = getattr(block, name)
            if name in kind.CODED:
                values = names[kind.CODED[name]].recoded(values, getattr(block, kind.CODED[name]))
            elif name == "vote_item":
                num_here = -int(values.min(initial=0))
                values = np.where(values < 0, values - num_unused_votes, values + num_rows)
                num_unused_votes += num_here
            column.append(values)
        dropped += room(block.dropped, totals["num_dropped"], lambda item: item.reason)
        some = room(block.marks, totals["num_marks"], lambda mark: mark[:2])
        marks += [mark._replace(row=mark.row + num_rows) for mark in some]
        for name, total in totals.items():
            total.update(getattr(block, name))
        numbers.update({name: getattr(block, name) for name in kind.NUMBERS})
        num_rows += block.num_rows
    arrays: dict[str, Any] = {name: column.whole() for name, column in columns.items()}
    tables: dict[str, Any] = {name: found.known for name, found in names.items()}
    counted: dict[str, Any] = {name: dict(total) for name, total in totals.items()} | dict(numbers)
    return kind(**arrays, **tables, **counted, dropped=tuple(dropped), marks=tuple(marks))
