"""Prompts of a source, whatever its rows are made for: rows that ask alone, and rows whose completions were judged.

Owns the account of such a source: a record gives prompts or is dropped with one reason, and a prompt counts once.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from tiebreak.data.containers import blocks, rows
from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.data.formats.annotations import columns_beside
from tiebreak.data.formats.form import Row
from tiebreak.data.formats.unanswered import is_about_answers, prompts_in, read_asked
from tiebreak.data.locations import held_out_by_name, locate
from tiebreak.data.render import Renderer
from tiebreak.data.survey import MAX_ROWS, Noted
from tiebreak.data.tokens import prompt_digest
from tiebreak.data.unfolding import columns_to_unfold, unfolded
from tiebreak.errors import DataError, RenderError
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.records import Asked, Dropped, Source


@dataclass(frozen=True)
class PromptFile:
    """What a source asks: each prompt once, where it stands first."""

    path: str
    digest: str
    asked: tuple[Asked, ...]
    dropped: tuple[Dropped, ...]
    num_records: int
    num_repeated: int
    """Prompts that were there before, to whoever reads them."""
    num_answered: int
    """Prompts whose row holds an answer."""
    held_out: frozenset[str]
    """Hashes of prompts in files that are held out by their own names."""

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped records by reason code, most frequent first."""
        return dict(Counter(item.reason for item in self.dropped).most_common())


def read_prompts(path: str, max_dropped_share: float = 1.0) -> PromptFile:
    """Read the prompts of a source into memory: a file, a folder, a pattern, bundled, a data set of the Hub.

    Raises DataError where nothing is found, no prompt is in it, or more than `max_dropped_share` (0..1) of its records
    are unusable.
    """
    places = locate(path)
    by_name = held_out_by_name(places)
    asked: dict[str, Asked] = {}
    dropped: list[Dropped] = []
    held_out: set[str] = set()
    num_records = num_prompts = num_answered = 0
    for file, name in places:
        for found in _records(file, name):
            num_records += 1
            if isinstance(found, Dropped):
                dropped.append(found)
                continue
            for one in found:
                num_prompts += 1
                num_answered += one.has_answer
                asked.setdefault(one.prompt_id, one)
                if file in by_name:
                    held_out.add(one.prompt_id)
    if not num_records:
        raise DataError(f"{path}: the file holds no record; wanted one prompt per line")
    if not asked or len(dropped) / num_records > max_dropped_share:
        first = dropped[0]
        many = f"{len(dropped)} of {num_records} records hold no usable prompt"
        share = f"{many}, more than data.max_dropped_share {max_dropped_share:g}"
        told = share if asked else "no record of the file holds a usable prompt"
        raise DataError(f"{first.source}: {first.detail} ({first.reason}); {told}")
    digests = [file_digest(file) for file, _ in places]
    digest = digests[0] if len(digests) == 1 else fingerprint(digests)
    told_once = tuple(asked.values())
    return PromptFile(
        path,
        digest,
        told_once,
        tuple(dropped),
        num_records,
        num_prompts - len(asked),
        num_answered,
        frozenset(held_out),
    )


@dataclass(frozen=True)
class Barred:
    """Prompts that nothing is trained on."""

    ids: frozenset[str] = frozenset()
    """Their content hashes."""
    groups: frozenset[str] = frozenset()
    """Groups that they belong to, whose other prompts are out, too."""
    digests: tuple[bytes, ...] = ()
    """Of the token ids that a model is shown, as of `TokenTable.prompt_digests`."""


def read_barred(path: str, renderer: Renderer) -> Barred:
    """Read prompts that nothing is to be trained on; raises DataError where a row of the file holds none."""
    asked = read_prompts(path, max_dropped_share=0).asked
    digests = []
    for one in asked:
        with contextlib.suppress(RenderError):  # a pair on it cannot be rendered either
            digests.append(prompt_digest(np.array(renderer.prompt(one.prompt, one.tools), np.int32)))
    groups = (one.origin.group for one in asked)
    return Barred(
        frozenset(one.prompt_id for one in asked),
        frozenset(name for name in groups if name is not None),
        tuple(digests),
    )


def _records(path: Path, name: str) -> Iterator[list[Asked] | Dropped]:
    """Yield the prompts of each record of a file, or why it has none."""
    stream = (item for block in blocks(path, name) for item in rows(block))
    first = list(islice(stream, MAX_ROWS))
    unfold = columns_to_unfold([row for _, row in first if isinstance(row, Mapping)], name)
    for source, row in chain(first, stream):
        try:
            if isinstance(row, RowError):
                raise row
            yield _prompts(unfolded(row, unfold) if isinstance(row, Mapping) else row, source)
        except RowError as bad:
            yield Dropped(source, bad.reason, bad.detail, bad.preference)


def _prompts(row: Any, source: Source) -> list[Asked]:
    """Return the prompts of a row; which of its completions is the better one is no matter here. Raises RowError."""
    form = detect(row)
    if form is None:
        return [read_asked(row, source)]
    noted = Noted(row)
    try:
        reading = read_row(row, form, source, Pairing(choose="all"), noted)
    except RowError as bad:
        if not is_about_answers(bad):
            raise
        return [read_asked(row, source)]
    return prompts_in(reading, row, _left(row, noted), source)


def _left(row: Row, noted: Noted) -> dict[str, Any]:
    """Return the columns that a form did not read."""
    read = noted.noted | columns_beside(row)
    return {name: value for name, value in row.items() if name not in read and value is not None}
