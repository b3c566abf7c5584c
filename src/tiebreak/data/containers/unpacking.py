"""A file to its plain bytes: opened once, unpacked where it is gzip or zstd, read in bounded chunks.

Owns decompression, recognised by content and never by name, and what of a text says by itself how it is written:
UTF-16 with its mark, lines that end in a carriage return alone. It knows nothing of what the bytes mean.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import stat
import zlib
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from io import FileIO
from itertools import chain
from pathlib import Path

from tiebreak.errors import DataError, one_line

CHUNK_BYTES = 2**20
BLANK_BYTES = 4 * 2**20
"""Blanks without a word between them; a file with more holds no records there, and a few bytes pack any number."""
UNPACKED_TIMES, UNPACKED_FREE_BYTES = 200, 64 * 2**20
"""How much larger than itself an archive may unpack, once it is that much: text packs to a tenth or twentieth."""
_ZSTD_CHUNK_BYTES = 2**17

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")


class Damaged(Exception):  # noqa: N818 - a finding, not a slip
    """The bytes cannot be unpacked further; the reader of lines knows where that is."""


def refuse_irregular(path: Path) -> None:
    """Raise DataError where `path` is no ordinary file: a pipe would block, a device would never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None
    if not stat.S_ISREG(mode):
        what = next((what for test, what in _IRREGULAR if test(mode)), "a device")
        raise DataError(f"{path}: is {what}, not a file")


_IRREGULAR = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def reason_of(error: Exception) -> str:
    """Return what the system or a library says of a failed call, in one printable line."""
    said = one_line(getattr(error, "strerror", None) or error, 200)
    return "".join(character if character.isprintable() else "?" for character in said)


def is_packed(path: Path) -> bool:
    """Whether the file is gzip or zstd, by its first bytes."""
    with path.open("rb", buffering=0) as handle:
        return _packing_of(handle) is not None


def _packing_of(handle: FileIO) -> str | None:
    start = os.pread(handle.fileno(), 4, 0)
    if start.startswith(_GZIP):
        return "gzip"
    return "zstd" if start == _ZSTD or _ZSTD_SKIPPABLE.match(start) else None


def as_lines(stream: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a stream as UTF-8 with line feeds, where its beginning says surely that it is UTF-16 or has none.

    Spreadsheets write such text ("Unicode text", "Macintosh"). Raises Damaged where it goes on otherwise.
    """
    head, damage = b"", None
    try:
        while len(head) < _SEEN_BYTES and (chunk := next(stream, b"")):
            head += chunk
    except Damaged as found:  # what came before it is read first
        damage = found
    rest: Iterator[bytes] = chain([head] if head else [], stream)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not head.startswith(codecs.BOM_UTF32_LE):
        rest = _from_utf16(rest)
    elif b"\0" not in head and len(re.findall(rb"\r(?!\n)", head)) > head.count(b"\n"):
        rest = (chunk.replace(b"\r", b"\n") for chunk in rest)
    yield from rest
    if damage:
        raise damage


_SEEN_BYTES = 2**16


def _from_utf16(stream: Iterable[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        for chunk in stream:
            yield decoder.decode(chunk).encode("utf-8")
        decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise Damaged(f"the text is not UTF-16 any more: {reason_of(error)}") from None


def _bounded(stream: Iterator[bytes], path: Path, size: int) -> Iterator[bytes]:
    """Yield a stream that was packed in `size` bytes; raises DataError where it is of a size to make others wait."""
    most = max(UNPACKED_FREE_BYTES, UNPACKED_TIMES * size)
    num_bytes = num_blank = 0
    for chunk in stream:
        num_bytes += len(chunk)
        num_blank = num_blank + len(chunk) if chunk.isspace() else 0
        if num_blank > BLANK_BYTES:
            raise DataError(f"{path}: holds more than {BLANK_BYTES // 2**20} MiB of blanks in a row; take them out")
        if num_bytes > most:
            raise DataError(
                f"{path}: unpacks to more than {UNPACKED_TIMES} times its size, as no text does; unpack it first if it "
                "is what you mean"
            )
        yield chunk


def chunks(path: Path) -> Generator[bytes, None, None]:
    """Yield the bytes of a file, unpacked, a bounded piece at a time; no archive can fill the memory, or take a day.

    Raises DataError where it cannot be opened or goes on without end, Damaged where reading or unpacking fails.
    """
    refuse_irregular(path)
    try:
        handle = path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason_of(error)})") from None
    with handle:
        try:
            packing, size = _packing_of(handle), os.fstat(handle.fileno()).st_size
            if packing == "gzip":
                with gzip.GzipFile(fileobj=handle) as unpacked:
                    # read1 gives what came before damage; read would lose it.
                    yield from _bounded(iter(partial(unpacked.read1, CHUNK_BYTES), b""), path, size)
            elif packing == "zstd":
                # Arrow's reader takes several frames and notices a cut file; that of `zstandard` ends silently there.
                import pyarrow as pa  # noqa: PLC0415 - heavy, and only zstd files need it

                with pa.CompressedInputStream(pa.PythonFile(handle, mode="r"), "zstd") as stream:
                    yield from _bounded(iter(partial(stream.read, _ZSTD_CHUNK_BYTES), b""), path, size)
            else:
                yield from _bounded(iter(partial(handle.read, CHUNK_BYTES), b""), path, size)
        except (OSError, EOFError, zlib.error) as error:  # a damaged archive raises any of the three
            raise Damaged(reason_of(error)) from None
