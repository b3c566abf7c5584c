"""Columns that grow a block at a time, and codes for texts that repeat.

Owns how many small tables become one without being held twice. Knows nothing of what the columns mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
