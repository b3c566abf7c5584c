"""What a file holds, told by its first bytes; its name decides only where the content allows several readings.

Owns the marks of what is read and of what people name by mistake. It unpacks and parses nothing for its own sake.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from tiebreak.data.containers.delimited import header_of
from tiebreak.data.containers.json_lines import BYTE_ORDER_MARK
from tiebreak.data.containers.json_lists import RECORD_KEYS
from tiebreak.errors import DataError

Kind = Literal["lines", "json", "table", "parquet", "arrow_file", "arrow_stream"]
WANTED = "JSON lines, JSON, CSV or TSV (each plain, gzip or zstd), Parquet or Arrow"

_COLUMNAR: tuple[tuple[bytes, Kind], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow_file"),
    (b"\xff\xff\xff\xff", "arrow_stream"),
)
_FOREIGN = (
    (re.compile(rb".{4}\x00{4}\{", re.DOTALL), "weights of a model (safetensors)"),
    (re.compile(rb"GGUF[\x01-\x09]\x00"), "weights of a model (GGUF)"),
    (re.compile(rb"\xff\xfe\x00\x00|\x00\x00\xfe\xff"), "UTF-32 text (save it as UTF-8)"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[\[{\"\w]\x00|\x00[\[{\"\w]\x00"), "UTF-16 text (save it as UTF-8)"),
    (re.compile(rb"\x1f\x8b|\x28\xb5\x2f\xfd"), "an archive inside an archive (unpack it once)"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (
        re.compile(
            rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|xl/|word/|mimetypeapplication/vnd\.(?:oasis|sun))",
            re.DOTALL,
        ),
        "an Office document (save the sheet as CSV)",
    ),
    (re.compile(rb"PK\x03\x04.{0,200}/data\.pkl", re.DOTALL), "a PyTorch pickle (pickles are never loaded)"),
    (re.compile(rb"PK[\x03\x05]"), "a zip archive (unpack it)"),
    (re.compile(rb"\xd0\xcf\x11\xe0"), "an old Office document (save the sheet as CSV)"),
    (re.compile(rb"\x80[\x02-\x05]"), "a Python pickle (pickles are never loaded)"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array"),
    (re.compile(rb"SQLite format 3\x00"), "an SQLite database"),
    (re.compile(rb"Obj\x01"), "an Avro file"),
    (re.compile(rb"FEA1\x00"), "a Feather file of the first version (write it anew as Arrow)"),
    (
        re.compile(rb"BZh[1-9]1AY|\xfd7zXZ|7z\xbc\xaf|\x04\x22\x4d\x18|Rar!"),
        "an archive of another kind (use gzip or zstd)",
    ),
    (re.compile(rb".{257}ustar", re.DOTALL), "a tar archive (unpack it)"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8[79]a"), "an image"),
    (re.compile(rb"\x7fELF|MZ.{0,80}\x00", re.DOTALL), "a program"),
    (re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE), "a web page (was the download refused?)"),
    (re.compile(rb"\s*<\?xml"), "XML"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer instead of the data (run 'git lfs pull')"),
)
_SUFFIX_OF_LINES = re.compile(r"\.(jsonl?|ndjson)\b", re.IGNORECASE)
_OPENS_LIST = re.compile(rf'\{{\s*"({"|".join(RECORD_KEYS)})"\s*:\s*\[')
_OPENS_TABLE = re.compile(r'\{\s*"(?:[^"\\]|\\.){0,200}"\s*:\s*(?:\{\s*"\d+"\s*:|\[\s*["\[\d])|\{\s*"\d+"\s*:\s*\{')
"""An object whose first member is a column, or a row with its number: cut off, it tells no more."""
_PLAIN = json.JSONDecoder()


def kind_of(head: bytes, whole: bool, name: str) -> Kind:
    """Return the kind of a file from its first bytes, unpacked; `whole` says that they are all there is.

    Raises DataError where it is none that is read, saying what was found.
    """
    columnar = next((kind for magic, kind in _COLUMNAR if head.startswith(magic)), None)
    if columnar:
        return columnar
    foreign = next((what for pattern, what in _FOREIGN if pattern.match(head)), None)
    if foreign:
        raise DataError(f"{name}: holds {foreign}; wanted {WANTED}")
    text = head.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "replace").lstrip()
    if text.startswith(("{", "[")):
        return _kind_of_json(text, whole)
    lines = text.split("\n")
    if _is_json(lines[0]) or any(_is_json(line, "{") for line in lines):
        return "lines"
    is_named_table = re.search(r"\.(csv|tsv)\b", name, re.IGNORECASE) is not None
    if "\0" not in lines[0] and (header_of(lines[0]) or is_named_table):
        return "table"
    if not text or _SUFFIX_OF_LINES.search(name):
        return "lines"
    is_binary = "\0" in text or text.count("\ufffd") > len(text) // 10
    found = "binary data" if is_binary else "text that is neither JSON nor a table with a header"
    raise DataError(f"{name}: holds {found}; wanted {WANTED}")


def _is_json(line: str, begin: str = "") -> bool:
    """Whether the line is a JSON value, one that begins like this."""
    if not line.startswith(begin):
        return False
    try:
        _PLAIN.decode(line)
    except (RecursionError, ValueError):
        return False
    return True


# ----------------------------------------------------------------------------------------------- JSON lines or one JSON


def _kind_of_json(text: str, whole: bool) -> Kind:
    """A value that spans lines is a document, and so is a list, or an object that lists records, that stands alone.

    Where a value breaks tells a broken line from a broken document; at the end of `text`, it may only be cut there.
    """
    try:
        value, end = _PLAIN.raw_decode(text)
    except json.JSONDecodeError as error:
        lines_before = text.count("\n", 0, error.pos)
        if not whole and (error.pos >= len(text) - 16 or error.msg.startswith("Unterminated string")):
            begins = text[0] == "[" or _OPENS_LIST.match(text) or _OPENS_TABLE.match(text)
            is_document = lines_before > 0 or bool(begins)
        else:
            others = text.partition("\n")[2]
            second = others.lstrip("\r\n").partition("\n")[0]
            is_list = _opens_list(text) or (text[0] == "[" and whole and not others.strip())
            is_document = is_list or (lines_before >= 2 and not _is_json(second, "{"))
    except (RecursionError, ValueError):
        is_document = _opens_list(text)
    else:
        listed = isinstance(value, dict) and (
            any(isinstance(value.get(key), list) and value[key] for key in RECORD_KEYS)
            or (all(value.values()) and {type(member) for member in value.values()} in ({list}, {dict}))  # a table
        )
        stands_alone = whole and not text[end:].strip()
        is_document = "\n" in text[:end] or (stands_alone and (listed or isinstance(value, list)))
    return "json" if is_document else "lines"


def _opens_list(text: str) -> bool:
    """Whether the first line ends where a list begins: no line of JSON lines does."""
    first = text.partition("\n")[0].rstrip()
    return first == "[" or (first.endswith("[") and first[:-1].rstrip().endswith(":"))
