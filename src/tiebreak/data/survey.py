"""What the first rows of a file say together: its form, what its text columns hold, how its first record is read.

Owns when a file is asked about, because its rows admit two readings, and what is told of a reading: which columns were
read, which were not, and why one side of the first record is chosen. It knows no container and no single form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tiebreak.data.containers import blocks, rows
from tiebreak.data.formats import FORMATS, Format, Pairing, RowError, detect, read_row
from tiebreak.data.formats.annotations import columns_beside, names_that_are_texts
from tiebreak.data.formats.demonstrations import DEMONSTRATIONS, judged_columns
from tiebreak.data.formats.evidence import agreeing
from tiebreak.data.formats.form import Ambiguous, Reading, Row
from tiebreak.data.formats.guesses import proposed_columns
from tiebreak.data.formats.references import by_name
from tiebreak.data.formats.repeats import without_prompts
from tiebreak.data.formats.thousands import refuse_thousands
from tiebreak.data.missed import missed_in, remedy_for
from tiebreak.data.unfolding import columns_to_unfold, readable
from tiebreak.errors import DataError, one_line
from tiebreak.records import Message, Source
from tiebreak.secrecy import masked

MAX_ROWS = 1024
"""Rows that are looked at together: what is in none of them is not known when a file is opened."""
_SHOWN, _LOOKED_AT = 160, 2**14
"""Characters of each text of the first record: shown, and looked at, so that a secret that begins there ends there."""


@dataclass(frozen=True)
class FirstRecord:
    """How the first usable record of a file is read, in texts that are not cut."""

    source: Source
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    """Of a completion that is judged on its own, the side that it is not stays empty."""
    why: str

    def as_dict(self, mask: Callable[[str], str] = masked) -> dict[str, Any]:
        """Return the record for reports: the last message of its prompt, texts cut short, after `mask` took secrets."""
        asked = self.prompt[-1].content
        texts = {"prompt": asked, "chosen": self.chosen, "rejected": self.rejected, "why": self.why}
        cut = {name: one_line(mask(text[:_LOOKED_AT]), _SHOWN) for name, text in texts.items()}
        return {"line": self.source.line, "num_prompt_messages": len(self.prompt), **cut}


@dataclass(frozen=True)
class Look:
    """What a file's first rows showed: columns that were read and that were not, those among them that a prompt may
    need, and the first record.
    """

    read: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    first: FirstRecord | None = None
    proposed: tuple[tuple[str, str], ...] = ()
    """Where no record is read: a mapping of columns to start from."""
    remedy: tuple[tuple[str, str], ...] = ()
    """Where one is missed: a mapping, tried on the first record, by which its text stands in the prompt."""


@dataclass(frozen=True)
class Surveyed:
    """How a file is to be read: its form, None where no row is in a known one, and the columns to unfold first."""

    form: Format | None
    unfold: tuple[str, ...] = ()
    look: Look = Look()


def survey(path: Path, name: str, stated: Format | None, pairing: Pairing) -> Surveyed:
    """Look at the first rows of a file; `stated` is the form that the user named.

    The form is that of the first row that can be read, or else of the first that is recognised. Raises DataError where
    the rows admit two readings.
    """
    stream = (item for block in blocks(path, name) for item in rows(block))
    form: Format | None = None
    start: Row = {}
    sample: list[tuple[Source, Row]] = []
    while form is None and (window := list(islice(stream, MAX_ROWS))):
        found = [(source, row) for source, row in window if isinstance(row, Mapping)]
        start = start or next((row for _, row in found), {})
        unfold = columns_to_unfold([row for _, row in found], name, stated.lists if stated else None)
        sample = list(readable(found, unfold))
        form = stated or _form_of(sample, pairing)
    if form is None:
        judged = judged_columns([row for _, row in sample])
        return Surveyed(None, look=Look(proposed=tuple(judged.items()) or _proposed(start)))
    try:
        told = [row for _, row in sample]
        refuse_thousands(told, [column for ours, column in form.mapping if "score" in ours])
        form = by_name(form.settle(form, told), told)
        # Who maps the columns has said which side is which and what a completion is, and not that ties are none.
        are_named = stated is not None and stated.name not in FORMATS
        form = agreeing(form, told, are_named=are_named)
        form = form if are_named else without_prompts(form, told, pairing)
    except Ambiguous as question:
        raise DataError(f"{name}: {question}") from None
    look = _look(sample, form, pairing)
    return Surveyed(form, unfold, look if look.first else replace(look, proposed=_proposed(start)))


def _proposed(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(proposed_columns(row).items())


def _form_of(sample: Sequence[tuple[Source, Row]], pairing: Pairing) -> Format | None:
    recognised: Format | None = None
    for source, row in sample:
        imitated = pairing.choose == "good" and DEMONSTRATIONS.matches(row)
        form = DEMONSTRATIONS if imitated else detect(row)
        if form is None:
            continue
        recognised = recognised or form
        try:
            read_row(row, form, source)
        except RowError as error:
            if error.reason not in ("tie", "unpaired"):
                continue
        return form
    return recognised


# ----------------------------------------------------------------------------------------------- what is told of a file


class Noted(dict[str, Any]):
    """A row that notes which of its columns are read; who goes through all of them reads all."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.noted: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.noted.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a column, or the default."""
        self.noted.add(key)
        return super().get(key, default)

    def items(self) -> Any:
        """Return all columns."""
        self.noted.update(self)
        return super().items()

    def values(self) -> Any:
        """Return what all columns hold."""
        self.noted.update(self)
        return super().values()


def _look(sample: Sequence[tuple[Source, Row]], form: Format, pairing: Pairing) -> Look:
    read: dict[str, None] = {}
    held: dict[str, None] = {}
    missed: dict[str, None] = {}
    first: FirstRecord | None = None
    documents = names_that_are_texts([row for _, row in sample])
    for source, row in sample:
        held |= dict.fromkeys(name for name, value in row.items() if value not in (None, "", [], {}))
        noted = Noted(row)
        try:
            reading = read_row(row, form, source, pairing, noted)
        except RowError:
            continue
        beside = columns_beside(row)
        read |= dict.fromkeys(name for name in row if name in noted.noted or name in beside)
        missed |= dict.fromkeys(missed_in(row, reading, documents))
        first = first or _first(source, row, reading, form)
    lost = {path.partition(".")[0] for path in missed if "." not in path}
    known = tuple(name for name in held if name in read and name not in lost)
    unread = tuple(name for name in held if name not in known)
    remedy: tuple[tuple[str, str], ...] = ()
    if missed and first:
        row = next(row for source, row in sample if source == first.source)
        remedy = remedy_for([row for _, row in sample], tuple(missed), row, first.prompt, form)
    return Look(known, unread, tuple(missed), first, remedy=remedy)


def _first(source: Source, row: Row, reading: Reading, form: Format) -> FirstRecord:
    why = form.why(row)
    if reading.pairs:
        pair = reading.pairs[0]
        if pair.preference.chosen_score is not None and pair.preference.rejected_score is not None:
            why = f"score {pair.preference.chosen_score:g} over {pair.preference.rejected_score:g}"
        return FirstRecord(source, pair.prompt, _said(pair.chosen), _said(pair.rejected), why)
    if reading.thumbs:
        thumb = reading.thumbs[0]
        sides = (_said(thumb.completion), "") if thumb.liked else ("", _said(thumb.completion))
        return FirstRecord(source, thumb.prompt, *sides, why)
    return FirstRecord(source, reading.rated[0].prompt, _said(reading.rated[0].completion), "", why)


def _said(message: Message) -> str:
    """Return what a message says: reasoning, content, the names of the tools that it calls."""
    calls = [f"calls {(call.get('function') or call).get('name')}" for call in message.tool_calls]
    return "\n".join(text for text in (message.reasoning, message.content, *calls) if text.strip())
