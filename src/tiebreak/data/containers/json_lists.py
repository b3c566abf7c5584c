"""JSON in one piece: a list of records, an object that holds such a list, a table, or objects one after another.

Owns how a document is cut into the texts of its records without parsing it, so that memory stays flat and one broken
record costs only itself. The records are numbered from 1: many may stand on one line.
"""

from __future__ import annotations

from collections.abc import Iterator

from tiebreak.data.containers import json_tables
from tiebreak.data.containers.block import Numbered
from tiebreak.data.containers.json_text import Broken, Text
from tiebreak.data.containers.unpacking import Damaged
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

RECORD_KEYS = ("data", "rows", "records", "examples", "instances", "items", "samples", "pairs", "train", "training",
               "validation", "valid", "dev", "eval", "test")  # fmt: skip
"""Keys under which an object holds the list of its records."""


def records(stream: Iterator[bytes], name: str) -> Iterator[Numbered]:
    """Yield the JSON text of each record of a document; raise DataError where the document itself is broken."""
    text = Text(stream)
    try:
        number = 0
        is_list = text.peek() == b"["
        while text.peek():
            for record in _list(text) if is_list else _object(text):
                number += 1
                yield number, record, len(record) if isinstance(record, bytes) else 0
            if is_list and text.peek():
                raise Broken("something follows the end of the list")
    except Broken as error:
        raise DataError(f"{name}: not JSON at line {text.line}: {error}") from None
    except _Several as error:
        raise DataError(f"{name}: {error}") from None
    except json_tables.Unnamed as error:
        raise DataError(f"{name}: {error}; in pandas, write {json_tables.WANTED}") from None
    except Damaged as error:
        raise DataError(f"{name}:{text.line}: the file is damaged here ({error})") from None


class _Several(Exception):  # noqa: N818 - a finding
    """A document that lists records under several keys: nobody says which are to be learned."""


def _list(text: Text) -> Iterator[bytes]:
    for number, item in enumerate(text.items()):
        if number == 0 and item.startswith(b"["):
            raise json_tables.Unnamed("a list of lists: their columns have no names")
        yield item


def _object(text: Text) -> Iterator[bytes | RowError]:
    """Yield the records that an object lists under a known key or holds as a table; else, the object is one record."""
    text.expect(b"{")
    members: list[tuple[bytes, bytes]] = []
    listed: list[str] = []
    while text.peek() != b"}" or members or listed:
        key = text.key()
        if text.peek() == b"[" and (known := key[1:-1].decode("utf-8", "replace")) in RECORD_KEYS:
            listed.append(known)
            if len(listed) > 1:
                both = " and ".join(map(repr, listed))
                raise _Several(
                    f"lists records under both {both}; save each list in a file of its own, and name the one that is "
                    "not to be trained on as data.heldout"
                )
            yield from json_tables.named(text.items(), dict(members).get(b'"columns"'))
        else:
            held = sum(len(value) for _, value in members)
            members.append((key, text.value(json_tables.MAX_BYTES - held)))
        if text.expect(b",", b"}") == b"}":
            break
    else:
        text.expect(b"}")
    if not listed:
        yield from json_tables.records(members)
