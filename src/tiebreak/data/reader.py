"""Sources of preference pairs: blocks of rows to records, each with its line, each used or dropped with a reason.

Owns which form a file is read in, and the account: every record of a file gives pairs or is dropped with one reason,
and the counts add up. It knows no container (`containers`) and no form (`formats`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tiebreak.config import DataConfig, SourceConfig, command, in_quotes, reading
from tiebreak.data.containers import Block, blocks, rows
from tiebreak.data.formats import FORMATS, Format, Pairing, RowError, detect, read_row
from tiebreak.data.formats.columns import columns_form
from tiebreak.data.formats.pieces import keys_of, kind_of
from tiebreak.data.formats.thumbs import paired_thumbs
from tiebreak.data.locations import held_out_by_name, locate
from tiebreak.errors import DataError, nearest
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.records import Dropped, Pair, Record, Source
from tiebreak.secrecy import masked

TRAIN, HELDOUT = "train", "heldout"


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

    def blocks(self) -> Iterator[Block]:
        """Return the file's records in chunks, unread."""
        return blocks(self.path, self.name)

    def as_dict(self, num_records: int) -> dict[str, Any]:
        """Return what reports say of a file that so many records were read from."""
        form = self.form.name if self.form else "unknown"
        return {
            "path": self.spec,
            "sha256": file_digest(self.path),
            "format": form,
            "num_records": num_records,
            "held_out_by_name": self.by_name,
        }


@dataclass(frozen=True)
class PairFile:
    """What a source held: `num_records` = records that gave pairs + records dropped."""

    path: str
    digest: str
    format: str
    pairs: tuple[Pair, ...]
    dropped: tuple[Dropped, ...]
    num_records: int
    num_ties: int = 0

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped records by reason code, most frequent first."""
        return dict(Counter(item.reason for item in self.dropped).most_common())


# ------------------------------------------------------------------------------------------------------------- opening


def open_data(data: DataConfig) -> list[DataFile]:
    """Return every file of a run: those to train on, then those that are held out, where such are named.

    No two have the same name, so that file and line say where a record stands. Of the files of a folder or a pattern,
    those that are called test, dev or the like are held out; raises DataError where data.heldout names others.
    """
    pairing, sides = Pairing(data.pairing, data.min_margin), (TRAIN, HELDOUT) if data.heldout else (None, HELDOUT)
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
            stated = columns_form(source.columns)
        except ValueError as error:
            raise DataError(f"data.columns: {error}") from None
    elif source.format != "auto":
        if source.format not in FORMATS:
            known = f"choose from auto, {', '.join(FORMATS)}.{nearest(source.format, FORMATS)}"
            raise DataError(f"format '{source.format}' is not known; {known}")
        stated = FORMATS[source.format]
    places = locate(source.path)
    held_out = held_out_by_name(places)
    return [
        DataFile(
            path,
            name,
            stated or _form_of(path, name),
            pairing,
            weight=source.weight,
            by_name=path in held_out,
            spec=source.path if len(places) == 1 else str(path),
        )
        for path, name in places
    ]


def _form_of(path: Path, name: str) -> Format | None:
    """Return the form of the first row that can be read, or else of the first that is recognised."""
    recognised: Format | None = None
    for block in blocks(path, name):
        for source, row in rows(block):
            form = None if isinstance(row, RowError) else detect(row)
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
            form = file.form or detect(row)
            if form is None:  # no row of the file could be read: its own fault is told
                held = f"keys {keys_of(row)}" if isinstance(row, Mapping) else kind_of(row)
                hint = "docs/data.md shows every form, data.columns maps any other"
                raise RowError("unknown_format", f"found {held:.200}; {hint}")
            reading = read_row(row, form, source, file.pairing)
        except RowError as bad:
            found.append(Record(source, dropped=Dropped(source, bad.reason, bad.detail, bad.preference)))
            continue
        pairs, thumbs = reading.pairs, reading.thumbs
        if file.side is not None:
            pairs = tuple(replace(pair, origin=replace(pair.origin, split=file.side)) for pair in pairs)
            thumbs = tuple(replace(thumb, origin=replace(thumb.origin, split=file.side)) for thumb in thumbs)
        found.append(Record(source, pairs, thumbs, reading.num_ties))
    return found


def settled(found: Iterable[Record], pairing: Pairing) -> Iterator[Record]:
    """Yield records as they come, and at the end those whose thumbs had to wait for a partner."""
    waiting: list[Record] = []
    for record in found:
        if record.thumbs:
            waiting.append(record)
        else:
            yield record
    pairs, dropped, num_ties = paired_thumbs([thumb for record in waiting for thumb in record.thumbs], pairing)
    made: dict[Source | None, list[Pair]] = {}
    for pair in pairs:
        made.setdefault(pair.source, []).append(pair)
    alone = {item.source: item for item in dropped}
    for number, record in enumerate(waiting):
        own = (*record.pairs, *made.get(record.source, ()))
        ties = record.num_ties + (num_ties if number == 0 else 0)
        if not own and record.source in alone:
            yield Record(record.source, num_ties=ties, dropped=alone[record.source])
        else:
            yield replace(record, pairs=own, num_ties=ties)


# ----------------------------------------------------------------------------------------------------------- whole file


def read_pairs(
    path: str | Path,
    format: str = "auto",
    max_dropped_share: float = 1.0,
    *,
    columns: Mapping[str, str] | None = None,
    pairing: Pairing = Pairing(),  # noqa: B008 - frozen
) -> PairFile:
    """Read every pair of a source into memory: a file, a folder, a glob, 'bundled' or a hub data set.

    `format` is a name of `FORMATS` or auto, which takes the form of the first usable row of each file. Raises DataError
    where nothing is found, no pair is in it, or more than `max_dropped_share` of its records are unusable.
    """
    try:
        source = SourceConfig(path=str(path), format=format, columns=dict(columns) if columns else None)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{masked(str(path))}: {'.'.join(map(str, first['loc']))}: {said}") from None
    files = open_files(source, pairing)
    found = [record for file in files for record in records(file)]
    whole = PairFile(
        str(path),
        data_digest(str(path)),
        forms_of(files),
        tuple(pair for record in found for pair in record.pairs),
        tuple(record.dropped for record in found if record.dropped),
        len(found),
        sum(record.num_ties for record in found),
    )
    read = DataConfig(
        train=source.path,
        format=source.format,
        columns=source.columns,
        pairing=pairing.choose,
        min_margin=pairing.min_margin,
    )
    see = command("check", reading(read))
    refuse_unusable(whole.path, whole.num_records, len(whole.pairs), whole.dropped, max_dropped_share, see)
    return whole


def forms_of(files: Sequence[DataFile]) -> str:
    """Return the forms in which files are read, in words."""
    return ", ".join(dict.fromkeys(file.form.name if file.form else "unknown" for file in files))


def data_digest(path: str) -> str:
    """Return the digest of the bytes behind a source that `read_pairs` accepts; of several files, of all of them."""
    digests = [file_digest(file) for file, _ in locate(path)]
    return digests[0] if len(digests) == 1 else fingerprint(digests)


def refuse_unusable(
    path: str, num_records: int, num_pairs: int, dropped: Sequence[Dropped], max_dropped_share: float, see: str
) -> None:
    """Raise DataError where a source holds no pair, or too many of its records are dropped; `see` tells more."""
    if not num_records:
        raise DataError(f"{path}: the file holds no record; wanted one preference pair per line")
    if num_pairs and len(dropped) / num_records <= max_dropped_share:
        return
    first = dropped[0]
    if not num_pairs:
        raise DataError(
            f"{first.source}: {first.detail} ({first.reason}; no record of the file is usable); see {in_quotes(see)}"
        )
    raise DataError(
        f"{first.source}: {first.detail} ({first.reason}); {len(dropped)} of {num_records} records are "
        f"unusable, more than data.max_dropped_share {max_dropped_share:g}; see {in_quotes(see)}"
    )
