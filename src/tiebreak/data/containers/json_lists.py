"""JSON in one piece: a list of records, an object that holds such a list, or objects one after another.

Owns how a document is cut into the texts of its records without parsing it, so that memory stays flat and one broken
record costs only itself. The records are numbered from 1: many may stand on one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tiebreak.data.containers.block import MAX_LINE_BYTES, Numbered
from tiebreak.data.containers.json_lines import BYTE_ORDER_MARK
from tiebreak.data.containers.unpacking import Damaged
from tiebreak.errors import DataError

RECORD_KEYS = ("data", "rows", "records", "examples", "instances", "items", "samples", "pairs", "train", "training",
               "validation", "valid", "dev", "eval", "test")  # fmt: skip
"""Keys under which an object holds the list of its records."""

_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^,:\[\]{}\" \t\r\n]*+")
# A text ends at its quote or, where that is further on, with the buffer. Possessive, hence linear on any input.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{}]', re.DOTALL)


class _Broken(Exception):  # noqa: N818 - a finding
    """The document is no JSON between its records."""


def records(stream: Iterator[bytes], name: str) -> Iterator[Numbered]:
    """Yield the JSON text of each record of a document; raise DataError where the document itself is broken."""
    text = _Text(stream)
    try:
        number = 0
        is_list = text.peek() == b"["
        while text.peek():
            for record in _items(text) if is_list else _object(text):
                number += 1
                yield number, record, len(record)
            if is_list and text.peek():
                raise _Broken("something follows the end of the list")
    except _Broken as error:
        raise DataError(f"{name}: not JSON at line {text.line}: {error}") from None
    except Damaged as error:
        raise DataError(f"{name}:{text.line}: the file is damaged here ({error})") from None


def _items(text: _Text) -> Iterator[bytes]:
    text.expect(b"[")
    if text.peek() == b"]":
        text.expect(b"]")
        return
    yield text.value()
    while text.expect(b",", b"]") == b",":
        yield text.value()


def _object(text: _Text) -> Iterator[bytes]:
    """Yield the records that an object lists under a known key; without such a list, the object is one record."""
    text.expect(b"{")
    members: list[bytes] = []
    listed: list[str] = []
    while text.peek() != b"}" or members or listed:
        key = text.key()
        if text.peek() == b"[" and (known := key[1:-1].decode("utf-8", "replace")) in RECORD_KEYS:
            listed.append(known)
            if len(listed) > 1:
                raise _Broken(f"records under both {' and '.join(map(repr, listed))}; give each list its own file")
            yield from _items(text)
        else:
            members.append(key + b":" + text.value())
        if text.expect(b",", b"}") == b"}":
            break
    else:
        text.expect(b"}")
    if not listed:
        yield b"{" + b",".join(members) + b"}"


class _Text:
    """The bytes of a document from a stream, taken piece by piece; `line` is where the next piece stands."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.line = 1
        while len(self._buffer) < len(BYTE_ORDER_MARK) and self._refill():
            pass
        self._buffer = self._buffer.removeprefix(BYTE_ORDER_MARK)

    def peek(self) -> bytes:
        """Return the next byte that is no space, b"" at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._at)
            self._advance(space.end() if space else self._at)
            if self._at < len(self._buffer) or not self._refill():
                return self._buffer[self._at : self._at + 1]

    def expect(self, *wanted: bytes) -> bytes:
        """Take the next byte, which is one of `wanted`."""
        found = self.peek()
        if found not in wanted:
            names = " or ".join(f"'{byte.decode()}'" for byte in wanted)
            raise _Broken(
                f"found {ascii(found)[1:]}, wanted {names}" if found else f"the file is cut off before {names}"
            )
        self._advance(self._at + 1)
        return found

    def key(self) -> bytes:
        """Take the key of a member and its colon."""
        if self.peek() != b'"':
            raise _Broken("wanted a key in double quotes")
        key = self.value()
        self.expect(b":")
        return key

    def value(self) -> bytes:
        """Take the next value, whole: up to the bracket, quote or comma that ends it."""
        first = self.peek()
        length = self._nested() if first and first in b'[{"' else self._scalar()
        if not length:
            raise _Broken(f"found {ascii(first)[1:]}, wanted a value" if first else "the file is cut off")
        self._refuse_long(length)
        taken = self._buffer[self._at : self._at + length]
        self._advance(self._at + length)
        return taken

    def _nested(self) -> int:
        """Return the length of the list, object or text that begins here."""
        depth, at = 0, 0
        while True:
            for token in _TOKEN.finditer(self._buffer, self._at + at):
                kind = token[0][:1]
                if kind == b'"' and not token[1]:
                    break
                at = token.end() - self._at
                depth += (kind in b"[{") - (kind in b"]}")
                if not depth:
                    return at
            self._refuse_long(len(self._buffer) - self._at)
            if not self._refill():
                raise _Broken("the file is cut off within the record that begins here")

    def _scalar(self) -> int:
        while True:
            word = _SCALAR.match(self._buffer, self._at)
            end = word.end() if word else self._at
            if end < len(self._buffer) or not self._refill():
                return end - self._at
            self._refuse_long(len(self._buffer))

    def _refuse_long(self, num_bytes: int) -> None:
        if num_bytes > MAX_LINE_BYTES:
            raise _Broken(
                f"a record is longer than {MAX_LINE_BYTES // 2**20} MiB; write one record per line (JSON lines)"
            )

    def _refill(self) -> bool:
        """Read on, at least as much again as is held, so that a long record is not copied again and again."""
        held = self._buffer[self._at :]
        parts, wanted = [held], max(len(held), 1)
        for chunk in self._stream:
            parts.append(chunk)
            wanted -= len(chunk)
            if wanted <= 0:
                break
        self._buffer, self._at = b"".join(parts), 0
        return len(self._buffer) > len(held)

    def _advance(self, to: int) -> None:
        self.line += self._buffer.count(b"\n", self._at, to)
        self._at = to
