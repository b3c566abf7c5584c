"""Sources of preference pairs: blocks of rows to records, each with its line, each used or dropped with a reason.

Owns which form a file is read in, and the account: every record of a file gives pairs or is dropped with one reason,
and the counts add up. It knows no container (`containers`) and no form (`formats`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig, SourceConfig
from tiebreak.data.containers import Block, blocks, rows
from tiebreak.data.formats import FORMATS, Format, Pairing, RowError, detect, read_row
from tiebreak.data.formats.cells import keys_of, kind_of
from tiebreak.data.formats.checks import check_media
from tiebreak.data.formats.columns import CONSTANT, KEYS, PROMPT_KEYS, SIDE_KEYS, columns_form
from tiebreak.data.formats.demonstrations import DEMONSTRATIONS, STATED
from tiebreak.data.formats.form import as_options
from tiebreak.data.formats.guesses import UNKNOWN, proposed_columns
from tiebreak.data.formats.ratings import paired_ratings
from tiebreak.data.formats.thumbs import paired_thumbs
from tiebreak.data.locations import held_out_by_name, locate
from tiebreak.data.split import is_heldout
from tiebreak.data.survey import MAX_ROWS, Look, survey
from tiebreak.data.unfolding import columns_read_as_lists, unfolded
from tiebreak.errors import DataError, nearest
from tiebreak.fingerprint import file_digest, fingerprint, unit_interval
from tiebreak.records import Dropped, Judgement, Pair, Preference, Record, Source
from tiebreak.secrecy import masked

TRAIN, HELDOUT = "train", "heldout"
_JUDGED = frozenset(KEYS) - {*PROMPT_KEYS[1:], *SIDE_KEYS}
"""Names of a mapping without which a row is no judgement."""


@dataclass(frozen=True)
class DataFile:
    """One file of a source, and how its rows are read; `form` is None where no row is in a known one."""

    path: Path
    name: str
    form: Format | None
    pairing: Pairing = Pairing()  # noqa: RUF009 - frozen
    side: str | None = None
    """TRAIN or HELDOUT where the configuration names files for both; else the rows themselves may say."""
    weight: float = 1.0
    """Times that each of its training pairs is used."""
    by_name: bool = False
    """Whether it is held out because its own name says so."""
    spec: str = ""
    """What the user named, where that names this file alone."""
    unfold: tuple[str, ...] = ()
    """Columns whose lists and objects are written as text."""
    look: Look = Look()  # noqa: RUF009 - frozen
    """What its first rows showed."""
    stated: str = ""
    """A fingerprint of all that the user said of the source that it is of, but where that is."""

    def blocks(self) -> Iterator[Block]:
        """Return the file's records in chunks, unread."""
        return blocks(self.path, self.name)

    def holds_out(self, one: Judgement, share: float) -> bool:
        """Whether a judgement of it is held out: where the configuration names no files for both sides, by its hash."""
        return is_heldout(one, share) if self.side is None else self.side != TRAIN

    def times(self, one: Judgement) -> int:
        """Return how often a judgement is trained on: the whole part of the weight, and once more by its hash."""
        whole = int(self.weight)
        rest = self.weight - whole
        return whole + (rest > 0 and unit_interval(fingerprint(["weight", one.example_id])) < rest)

    def as_dict(self, num_records: int, mask: Callable[[str], str] = masked) -> dict[str, Any]:
        """Return what reports say of a file that so many records were read from; `mask` takes secrets out of texts."""
        return {
            "path": self.spec,
            "sha256": file_digest(self.path),
            "format": self.form.name if self.form else "unknown",
            "num_records": num_records,
            "held_out_by_name": self.by_name,
            "columns_read": list(self.look.read),
            "columns_unread": list(self.look.unread),
            "columns_missed": list(self.look.missed),
            "columns_proposed": dict(self.look.proposed),
            "first_record": self.look.first.as_dict(mask) if self.look.first else None,
        }


# ------------------------------------------------------------------------------------------------------------- opening


def pairing_of(data: DataConfig) -> Pairing:
    """Return how judged completions become pairs, by the settings of data."""
    return Pairing(data.pairing, data.min_margin, data.turns)


def open_data(data: DataConfig) -> list[DataFile]:
    """Return every file of a run: those to train on, then those that are held out, where such are named.

    No two have the same name, so that file and line say where a record stands. Of the files of a folder or a pattern,
    those that are called test, dev or the like are held out; raises DataError where data.heldout names others.
    """
    pairing, sides = (
        pairing_of(data),
        (TRAIN, HELDOUT) if data.heldout else (None, HELDOUT),
    )
    files = [
        replace(file, side=side)
        for side, sources in zip(sides, (data.sources, data.heldout_sources), strict=True)
        for source in sources
        for file in open_files(source, pairing)
    ]
    if by_name := [file for file in files if file.by_name]:
        if data.heldout:
            raise DataError(
                f"{by_name[0].name}: is held out by its name, and data.heldout names {data.heldout}; name the files to "
                "train on, or a pattern that only they match"
            )
        # Where some are held out, nothing more is split off.
        files = [replace(file, side=HELDOUT if file.by_name else TRAIN) for file in files]
        files.sort(key=lambda file: file.by_name)
    # Files of one name are called by their paths, and a file that is named twice by which time it is.
    names = Counter(file.name for file in files)
    times: Counter[str] = Counter()
    for index, file in enumerate(files):
        name = file.name if names[file.name] == 1 else str(file.path)
        times[name] += 1
        files[index] = replace(file, name=name if times[name] == 1 else f"{name} ({times[name]})")
    return files


def training_files(files: Iterable[DataFile]) -> tuple[DataFile, ...]:
    """Return those to train on."""
    return tuple(file for file in files if file.side != HELDOUT)


def open_files(source: SourceConfig, pairing: Pairing = Pairing()) -> list[DataFile]:  # noqa: B008 - frozen
    """Return the files that a source names, with the form of each.

    Raises DataError where nothing is found, the form is unknown, or a mapping of columns makes no pair.
    """
    stated: Format | None = None
    if source.columns:
        try:
            stated = replace(columns_form(source.columns), lists=columns_read_as_lists(source.columns))
        except ValueError as error:
            raise DataError(f"data.columns: {error}") from None
    elif source.format != "auto":
        forms = FORMATS | ({STATED.name: STATED} if pairing.choose == "good" else {})
        if source.format not in forms:
            known = f"choose from auto, {', '.join(forms)}.{nearest(source.format, forms)}"
            raise DataError(f"format '{source.format}' is not known; {known}")
        stated = forms[source.format]
    places = locate(source.path)
    held_out = held_out_by_name(places)
    files = []
    for path, name in places:
        found = survey(path, name, stated, pairing)
        files.append(
            DataFile(
                path,
                name,
                found.form,
                pairing,
                weight=source.weight,
                by_name=path in held_out,
                spec=source.path if len(places) == 1 else str(path),
                unfold=found.unfold,
                look=found.look,
                stated=fingerprint(source.model_dump(mode="json", exclude={"path"})),
            )
        )
    return files


def is_told_alike(source: SourceConfig, pairing: Pairing = Pairing()) -> bool:  # noqa: B008 - frozen
    """Whether each file that a source names has the columns that it maps, or is in the form that it states."""
    if source.columns is None:
        return all(file.look.first is not None for file in open_files(source, pairing))
    wanted = [column for ours, column in source.columns.items() if ours in _JUDGED and column[:1] != CONSTANT]
    for path, name in locate(source.path):
        stream = (row for block in blocks(path, name) for _, row in rows(block) if isinstance(row, Mapping))
        known = {key for row in islice(stream, MAX_ROWS) for key in row}
        if not all(column in known or column.partition(".")[0] in known for column in wanted):
            return False
    return True


# ------------------------------------------------------------------------------------------------------------- reading


def records(file: DataFile) -> Iterator[Record]:
    """Yield what became of each record of a file; thumbs come paired, after all others."""
    return settled((record for block in file.blocks() for record in read_block(block, file)), file.pairing)


def read_block(block: Block, file: DataFile) -> list[Record]:
    """Return what became of each record of a block. Pure, so that worker processes can do it."""
    found: list[Record] = []
    for source, row in rows(block):
        try:
            if isinstance(row, RowError):
                raise row
            told = unfolded(row, file.unfold) if isinstance(row, Mapping) else row
            form = file.form or detect(told)
            if form is None:  # no row of the file could be read: its own fault is told
                if not isinstance(told, Mapping):
                    raise RowError(
                        "unknown_format", f"found {kind_of(told)}, wanted an object; docs/data.md shows every form"
                    )
                check_media(told)
                proposed = dict(file.look.proposed)
                is_judged = DEMONSTRATIONS.matches(told) and UNKNOWN not in proposed.values()
                if DEMONSTRATIONS.matches(told) and not is_judged:
                    raise RowError(
                        "unknown_format",
                        "nothing says how good the completion is: a demonstration, from which loss sft_unpaired learns "
                        "(--pairing good)",
                    )
                start = as_options(proposed if is_judged else proposed_columns(told))
                hint = f"name them, as docs/data.md shows; a start: {start}"
                raise RowError("unknown_format", f"found the keys {keys_of(told)} of no known form; {hint}")
            reading = read_row(told, form, source, file.pairing)
        except RowError as bad:
            found.append(Record(source, dropped=Dropped(source, bad.reason, bad.detail, bad.preference)))
            continue
        pairs, thumbs, rated = reading.pairs, reading.thumbs, reading.rated
        if file.side is not None:
            pairs = tuple(replace(pair, origin=replace(pair.origin, split=file.side)) for pair in pairs)
            thumbs = tuple(replace(thumb, origin=replace(thumb.origin, split=file.side)) for thumb in thumbs)
            rated = tuple(replace(one, origin=replace(one.origin, split=file.side)) for one in rated)
        found.append(Record(source, pairs, thumbs, rated, reading.num_ties))
    return [_apart(record, file.pairing) for record in found] if file.pairing.keeps_apart else found


def _apart(record: Record, pairing: Pairing) -> Record:
    """Return a record whose pairs and thumbs are completions on their own, each of them once."""
    # Of what ties neither is the good one; good alone is what was called so.
    tied = [pair for pair in record.pairs if _is_tied(pair.preference) and pairing.choose != "good"]
    apart = (one for pair in record.pairs if pair not in tied for one in pair.apart)
    found = (*record.thumbs, *apart, *record.unpaired)
    record = replace(record, num_ties=record.num_ties + len(tied))
    if tied and not found and not record.rated:
        bad = Dropped(record.source, "tie", "equal scores or votes on both sides", tied[0].preference)
        return Record(record.source, num_ties=record.num_ties, dropped=bad)
    once = {one.example_id: one for one in reversed(found) if one.liked or pairing.choose != "good"}
    if found and not once and not record.rated:
        bad = Dropped(
            record.source, "not_good", "its completion is a bad one, and the good ones alone are learned from"
        )
        return Record(record.source, num_ties=record.num_ties, dropped=bad)
    return replace(record, pairs=(), thumbs=(), unpaired=tuple(reversed(once.values())))


def _is_tied(said: Preference) -> bool:
    """Whether scores or votes say that neither is the better one."""
    return said.soft_label == 0.5 or (said.chosen_score is not None and said.chosen_score == said.rejected_score)


def settled(found: Iterable[Record], pairing: Pairing) -> Iterator[Record]:
    """Yield records as they come, and at the end those whose completions had to wait for a partner."""
    waiting: list[Record] = []
    for record in found:
        if record.waits:
            waiting.append(record)
        else:
            yield record
    by_thumbs = paired_thumbs([thumb for record in waiting for thumb in record.thumbs], pairing)
    by_scores = paired_ratings([one for record in waiting for one in record.rated], pairing)
    made: dict[Source | None, list[Pair]] = {}
    for pair in (*by_thumbs[0], *by_scores[0]):
        made.setdefault(pair.source, []).append(pair)
    alone = {item.source: item for item in (*by_thumbs[1], *by_scores[1])}
    for number, record in enumerate(waiting):
        own = (*record.pairs, *made.get(record.source, ()))
        ties = record.num_ties + (by_thumbs[2] + by_scores[2] if number == 0 else 0)
        if not own and record.source in alone:
            yield Record(record.source, num_ties=ties, dropped=alone[record.source])
        else:
            kept = replace(record, pairs=own, num_ties=ties)
            yield _apart(kept, pairing) if pairing.keeps_apart else kept
