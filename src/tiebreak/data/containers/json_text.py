"""The bytes of a JSON document, taken piece by piece without parsing them: brackets, keys, whole values.

Owns where a value ends and on which line it stands. It knows nothing of records.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tiebreak.data.containers.block import MAX_LINE_BYTES
from tiebreak.data.containers.json_lines import BYTE_ORDER_MARK

_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb"[^,:\[\]{}\" \t\r\n]*+")
# A text ends at its quote or, where that is further on, with the buffer. Possessive, hence linear on any input.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{}]', re.DOTALL)


class Broken(Exception):  # noqa: N818 - a finding
    """The document is no JSON between its records."""


class Text:
    """The bytes of a document from a stream, taken piece by piece; `line` is where the next piece stands."""

    def __init__(self, stream: Iterator[bytes]) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self._limit = MAX_LINE_BYTES
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
            raise Broken(
                f"found {ascii(found)[1:]}, wanted {names}" if found else f"the file is cut off before {names}"
            )
        self._advance(self._at + 1)
        return found

    def key(self) -> bytes:
        """Take the key of a member and its colon."""
        if self.peek() != b'"':
            raise Broken("wanted a key in double quotes")
        key = self.value()
        self.expect(b":")
        return key

    def items(self) -> Iterator[bytes]:
        """Take a list, one value after the other."""
        self.expect(b"[")
        if self.peek() == b"]":
            self.expect(b"]")
            return
        yield self.value()
        while self.expect(b",", b"]") == b",":
            yield self.value()

    def members(self) -> Iterator[tuple[bytes, bytes]]:
        """Take an object, one key with its value after the other."""
        self.expect(b"{")
        if self.peek() == b"}":
            self.expect(b"}")
            return
        yield self.key(), self.value()
        while self.expect(b",", b"}") == b",":
            yield self.key(), self.value()

    def value(self, limit: int = MAX_LINE_BYTES) -> bytes:
        """Take the next value, whole: up to the bracket, quote or comma that ends it, at most `limit` bytes."""
        self._limit = limit
        first = self.peek()
        length = self._nested() if first and first in b'[{"' else self._scalar()
        if not length:
            raise Broken(f"found {ascii(first)[1:]}, wanted a value" if first else "the file is cut off")
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
                raise Broken("the file is cut off within the record that begins here")

    def _scalar(self) -> int:
        while True:
            word = _SCALAR.match(self._buffer, self._at)
            end = word.end() if word else self._at
            if end < len(self._buffer) or not self._refill():
                return end - self._at
            self._refuse_long(len(self._buffer))

    def _refuse_long(self, num_bytes: int) -> None:
        if num_bytes > self._limit:
            raise Broken(f"a record is longer than {self._limit // 2**20} MiB; write one record per line (JSON lines)")

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
