"""A whole source in memory: every pair of it, what was dropped, and when too much of it was.

Owns `read_pairs`, for notebooks, judges and held-out files; runs read in one pass, out of memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tiebreak.config import DataConfig, SourceConfig, command, in_quotes, reading
from tiebreak.data.formats import Pairing
from tiebreak.data.locations import locate
from tiebreak.data.reader import DataFile, open_files, records
from tiebreak.errors import DataError
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.records import Dropped, Judgement, Pair, Thumb
from tiebreak.secrecy import masked


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
    unpaired: tuple[Thumb, ...] = ()
    """Completions on their own, where no pairs were asked for."""

    @property
    def judged(self) -> tuple[Judgement, ...]:
        """All that it holds."""
        return (*self.pairs, *self.unpaired)

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped records by reason code, most frequent first."""
        return dict(Counter(item.reason for item in self.dropped).most_common())


def read_pairs(
    path: str | Path,
    format: str = "auto",
    max_dropped_share: float = 1.0,
    *,
    columns: Mapping[str, str] | None = None,
    pairing: Pairing = Pairing(),  # noqa: B008 - frozen
) -> PairFile:
    """Read every pair of a source into memory, or every completion with `pairing` none: a file, a folder, a glob, …

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
    digests = [file_digest(file.path) for file in files]
    whole = PairFile(
        str(path),
        digests[0] if len(digests) == 1 else fingerprint(digests),
        forms_of(files),
        tuple(pair for record in found for pair in record.pairs),
        tuple(record.dropped for record in found if record.dropped),
        len(found),
        sum(record.num_ties for record in found),
        tuple(thumb for record in found for thumb in record.unpaired),
    )
    read = DataConfig(
        train=source.path,
        format=source.format,
        columns=source.columns,
        pairing=pairing.choose,
        min_margin=pairing.min_margin,
    )
    see = command("check", reading(read))
    refuse_unusable(whole.path, whole.num_records, len(whole.judged), whole.dropped, max_dropped_share, see)
    return whole


def forms_of(files: Sequence[DataFile]) -> str:
    """Return the forms in which files are read, in words."""
    return ", ".join(dict.fromkeys(file.form.name if file.form else "unknown" for file in files))


def data_digests(data: DataConfig) -> dict[str, str]:
    """Return the digest of every file of a run, by its path as the user named it."""
    places = [place for source in (*data.sources, *data.heldout_sources) for place, _ in locate(source.path)]
    return {str(place): file_digest(place) for place in places}


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
