"""The rows of one file in one form: which forms there are to write, and what pairs that share a prompt become.

Owns what a row of a file depends on besides its own pair. What a form can say of one pair, or of one completion on its
own, is the form's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from tiebreak.data.formats import RowError, alone
from tiebreak.data.formats.writing import WRITERS, Writer, WrittenRow
from tiebreak.errors import DataError, nearest
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Pair, Thumb


def writer_of(form: str) -> Writer:
    """Return the writer of a form, or raise DataError with the forms there are."""
    if form not in WRITERS:
        raise DataError(
            f"--to {form}: is no form that can be written; choose {', '.join(WRITERS)}.{nearest(form, WRITERS)}"
        )
    return WRITERS[form]


class Written(Protocol):
    """The rows of one file, as they come: of pairs, or of completions on their own."""

    def write(self, judged: Any, /) -> list[WrittenRow]:
        """Return the rows that one of them adds, or raise RowError `not_expressible`."""

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many lost something beside them, by its name in `BESIDE`."""


def sheet_of(form: str, *, apart: bool) -> Written:
    """Return the sheet of a form for pairs, or for completions that are kept `apart`; DataError where it holds none."""
    writer = writer_of(form)
    if not apart:
        return Sheet(writer)
    if form not in alone.FORMS:
        raise DataError(
            f"--to {form}: its rows are pairs, and data.pairing none leaves each completion on its own; choose "
            f"{' or '.join(alone.FORMS)}"
        )
    return ThumbSheet()


class ThumbSheet:
    """The rows of completions on their own: a row each, that says all of it."""

    left_out: Mapping[str, int] = MappingProxyType({})
    """Completions that lost something: none."""

    def write(self, thumb: Thumb) -> list[WrittenRow]:
        """Return the row of a completion, or raise RowError `not_expressible`."""
        return [alone.write_thumb(thumb)]


class Sheet:
    """The rows of one file: what a writer says of each pair, given what the file says already.

    Where completions stand alone (thumbs), one cannot be both liked and disliked, and no row is written twice.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._left_out: Counter[str] = Counter()
        self._num_pairs: Counter[str] = Counter()
        self._liked: dict[str, bool] = {}
        self._written: set[str] = set()

    def write(self, pair: Pair) -> list[WrittenRow]:
        """Return the rows that a pair adds, or raise RowError `not_expressible`."""
        rows = self._writer.write(pair)
        if "pairing" not in self._writer.carries:
            chosen, rejected = (fingerprint([pair.prompt_id, side.as_dict()]) for side in (pair.chosen, pair.rejected))
            if not self._liked.get(chosen, True) or self._liked.get(rejected, False):
                detail = f"in the '{self._writer.name}' form one completion would be both liked and disliked"
                raise RowError("not_expressible", detail)
            self._liked |= {chosen: True, rejected: False}
            self._num_pairs[pair.prompt_id] += 1
            new = {name: row for row in rows if (name := fingerprint(row)) not in self._written}
            self._written.update(new)
            rows = list(new.values())
        self._left_out.update(self._writer.left_out(pair))
        return rows

    @property
    def left_out(self) -> dict[str, int]:
        """Pairs that lost something beside them, by its name in `BESIDE`; only a pair alone on its prompt is sure."""
        num_paired_anew = sum(count for count in self._num_pairs.values() if count > 1)
        return dict(self._left_out) | ({"pairing": num_paired_anew} if num_paired_anew else {})
