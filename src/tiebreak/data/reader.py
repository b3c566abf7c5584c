"""Files of preference pairs: bytes to records with line numbers.

Owns decompression, decoding, line limits and JSON. Every line of a file ends as a pair, as a `Dropped` with a reason,
or as a blank line; the counts add up.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast

from tiebreak.config import BUNDLED_PAIRS
from tiebreak.data.formats import FORMATS, Format, RowError, detect, read_row
from tiebreak.errors import DataError, nearest
from tiebreak.fingerprint import file_digest
from tiebreak.records import Dropped, Pair, Source

MAX_LINE_BYTES = 16 * 2**20
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class PairFile:
    """What a file held: `num_records` = pairs kept + records dropped."""

    path: str
    digest: str
    format: str
    pairs: tuple[Pair, ...]
    dropped: tuple[Dropped, ...]

    @property
    def num_records(self) -> int:
        """Lines that are not blank."""
        return len(self.pairs) + len(self.dropped)

    @property
    def reasons(self) -> dict[str, int]:
        """Dropped records by reason code, most frequent first."""
        return dict(Counter(item.reason for item in self.dropped).most_common())


def read_pairs(path: str | Path, format: str = "auto", max_dropped_share: float = 1.0) -> PairFile:
    """Read every pair of a JSONL file, gzipped or not, whatever its name says.

    `format` is a name of `FORMATS` or auto, which takes the form of the first usable row. Raises DataError where the
    file is missing, holds no pair, or more than `max_dropped_share` of its records are unusable.
    """
    file = _locate(path)
    form = _known_format(format)
    pairs: list[Pair] = []
    dropped: list[Dropped] = []
    with _opened(file) as handle:
        for source, line in _lines(handle, file.name):
            try:
                row = _parsed(line)
                row_form = form or _detected(row)
                pairs.append(read_row(row, row_form, source))
                form = row_form
            except RowError as bad:
                dropped.append(Dropped(source, bad.reason, bad.detail))
    found = PairFile(str(path), file_digest(file), form.name if form else "unknown", tuple(pairs), tuple(dropped))
    _refuse_unusable(found, max_dropped_share)
    return found


def data_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file of pairs, by the names that `read_pairs` takes."""
    return file_digest(_locate(path))


def _locate(path: str | Path) -> Path:
    if str(path) == BUNDLED_PAIRS:
        return cast(Path, resources.files("tiebreak") / "bundled" / "pairs.jsonl")
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{file}: is a folder; name one JSONL file of preference pairs")
    if not file.exists():
        near = nearest(file.name, [item.name for item in file.parent.iterdir()]) if file.parent.is_dir() else ""
        raise DataError(f"{file}: no such file.{near}")
    return file


def _known_format(name: str) -> Format | None:
    if name == "auto":
        return None
    if name not in FORMATS:
        raise DataError(
            f"format '{name}' is not known; choose from auto, {', '.join(FORMATS)}.{nearest(name, FORMATS)}"
        )
    return FORMATS[name]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as opened:
        try:
            handle = opened.enter_context(file.open("rb"))
            magic = handle.read(2)
            handle.seek(0)
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from None
        yield cast(IO[bytes], gzip.GzipFile(fileobj=handle)) if magic == GZIP_MAGIC else handle


def _lines(handle: IO[bytes], name: str) -> Iterator[tuple[Source, bytes]]:
    """Yield each line that is not blank; one that is too long comes cut, so that memory stays bounded."""
    number = 0
    try:
        while line := handle.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                _skip_rest_of_line(handle, line)
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield Source(name, number), line
    except (OSError, EOFError, zlib.error) as error:  # gzip raises all three for a damaged archive
        raise DataError(f"{name}:{number + 1}: the file is damaged here ({error})") from None


def _skip_rest_of_line(handle: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = handle.readline(MAX_LINE_BYTES)


def _parsed(line: bytes) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise RowError("line_too_long", f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise RowError("bad_unicode", f"byte {error.start + 1} of the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RowError("bad_json", f"not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise RowError("bad_json", "nested too deeply") from None
    except ValueError:  # an integer with more digits than Python converts
        raise RowError("bad_json", "holds a number that is too long") from None


def _unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(items)
    if len(row) < len(items):
        twice = next(key for key, count in Counter(key for key, _ in items).items() if count > 1)
        raise RowError("duplicate_key", f"key {twice!r:.60} is given twice")
    return row


def _detected(row: Any) -> Format:
    form = detect(row)
    if form is not None:
        return form
    found = f"keys {', '.join(map(repr, list(row)[:8]))}" if isinstance(row, dict) else f"a {type(row).__name__}"
    forms = "; ".join(f"{known.name} {known.example}" for known in FORMATS.values())
    raise RowError("unknown_format", f"found {found:.200}; wanted one of: {forms}")


def _refuse_unusable(found: PairFile, max_dropped_share: float) -> None:
    if not found.num_records:
        raise DataError(f"{found.path}: the file holds no record; wanted one preference pair per line")
    share = len(found.dropped) / found.num_records
    if found.pairs and share <= max_dropped_share:
        return
    first = found.dropped[0]
    if not found.pairs:
        raise DataError(f"{first.source}: {first.detail} ({first.reason}; no record of the file is usable)")
    raise DataError(
        f"{first.source}: {first.detail} ({first.reason}); {len(found.dropped)} of {found.num_records} records are "
        f"unusable, more than data.max_dropped_share {max_dropped_share:g}; see 'tiebreak check {found.path}'"
    )
