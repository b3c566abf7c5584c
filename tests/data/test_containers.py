"""Files to rows: whatever the packing, every record once, with its number; damage and rubbish in one line."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import subprocess
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from tiebreak.data.containers import MAX_BLOCK_BYTES, MAX_LINE_BYTES, Block, blocks, rows
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError

ROWS = [
    {"prompt": "Why?", "chosen": 'Be"cause\n\\ [{', "rejected": "No. ]}"},
    {"prompt": [{"role": "user", "content": "Où? 😀"}], "chosen": "Là.", "rejected": "\u2028"},
    {"prompt": "", "chosen": "a,b;c\td", "rejected": "x", "score": 0.5, "tools": None},
]
PLAIN = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def read(path, size: int = 256) -> list[tuple[int, object]]:
    """Number and row of each record; a RowError as its reason."""
    found = [(source, row) for block in blocks(path, path.name, size) for source, row in rows(block)]
    assert all(source.file == path.name for source, _ in found)
    return [(source.line, row.reason if isinstance(row, RowError) else row) for source, row in found]


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


# ------------------------------------------------------------------------------------------------------- JSON lines

WRAPPED = {
    "plain": PLAIN,
    "no line feed at the end": PLAIN.rstrip(),
    "byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "gzip": gzip.compress(PLAIN),
    "gzip in two members": gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:]),
    "gzip of CRLF with a byte order mark": gzip.compress(b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n")),
    "zstd": zstd(PLAIN),
    "zstd in two frames": zstd(PLAIN[:50]) + zstd(PLAIN[50:]),
    "zstd after a skippable frame": b"\x5a\x2a\x4d\x18\x03\0\0\0abc" + zstd(PLAIN),
    "UTF-8 written out": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
}


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv", "pairs", "pairs.parquet"])
@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_neither_wrapping_nor_name_changes_the_rows(saved, content, name):
    assert read(saved(content, name)) == list(enumerate(ROWS, 1))


def test_blank_lines_count_in_line_numbers_and_are_no_records(saved):
    content = b"\n \t\r\n" + b'{"a": 1}\n' + b"\n\x0b\n" + b'{"a": 2}\n\n  '
    assert read(saved(content)) == [(3, {"a": 1}), (6, {"a": 2})]


@pytest.mark.parametrize(
    "content", [b"", b"\n \r\n", b"\xef\xbb\xbf", gzip.compress(b""), zstd(b""), b"[]"],
    ids=["empty", "blank", "BOM", "gzip", "zstd", "list"],
)  # fmt: skip
def test_a_file_without_records_gives_no_block(saved, content):
    assert list(blocks(saved(content), "x")) == []


BAD_LINES = {
    "truncated JSON": (b'{"prompt": "Why?", "chos', "bad_json"),
    "trailing comma": (b'{"prompt": "Why?",}', "bad_json"),
    "Python repr": (b"{'prompt': 'Why?', 'rejected': None}", "bad_json"),
    "two objects": (b'{"a": 1}{"a": 2}', "bad_json"),
    "words": (b"once upon a time", "bad_json"),
    "a second byte order mark": (b'\xef\xbb\xbf{"a": 1}', "bad_json"),
    "a number of 5000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "bad_json"),
    "NaN": (b'{"a": NaN}', "bad_json"),
    "Infinity": (b'{"a": [-Infinity]}', "bad_json"),
    "lists nested 5000 deep": (b"[" * 5000 + b"]" * 5000, "bad_json"),
    "lists nested 201 deep": (b"[" * 201 + b"]" * 201, "bad_json"),
    "objects nested 5000 deep": (b'{"a":' * 5000 + b"1" + b"}" * 5000, "bad_json"),
    "deep and never closed": (b"[" * 100_000, "bad_json"),
    "a control character": (b'{"a": "\x01"}', "bad_json"),
    "a NUL": (b'{"a": "\x00"}', "bad_json"),
    "a key twice": (b'{"a": 1, "a": 1}', "duplicate_key"),
    "a key twice, once escaped": (b'{"a": 1, "\\u0061": 1}', "duplicate_key"),
    "a key twice inside": (b'{"x": [{"y": 1, "y": 2}]}', "duplicate_key"),
    "half a surrogate pair": (b'{"a": "\\ud83d half"}', "bad_unicode"),
    "half a surrogate pair as a key": (b'{"\\uDE00": 1}', "bad_unicode"),
    "invalid UTF-8": (b'{"a": "\xff\xfe"}', "bad_unicode"),
    "Latin-1": ('{"a": "Où"}'.encode("latin-1"), "bad_unicode"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "bad_unicode"),
    "longer than the cap": (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "line_too_long"),
    "one byte longer than the cap": (b'{"a": "' + b"x" * (MAX_LINE_BYTES - 8) + b'"}', "line_too_long"),
}


@pytest.mark.parametrize(
    "pack", [bytes, lambda content: gzip.compress(content, 1), zstd], ids=["plain", "gzip", "zstd"]
)
@pytest.mark.parametrize(("bad", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_costs_itself_only(saved, bad, reason, pack):
    for at in (0, 1, 2):
        lines = [b'{"good": 1}', b'{"good": 2}']
        lines.insert(at, bad)
        if at == 0 and bad.startswith((b"\xff\xfe", b"\xef\xbb")):
            continue  # at the start of a file these are marks of the file
        found = read(saved(pack(b"\n".join(lines))))
        wanted = [(number, {"good": good}) for number, good in zip({1, 2, 3} - {at + 1}, (1, 2), strict=True)]
        assert found == sorted([*wanted, (at + 1, reason)], key=lambda item: item[0])


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_told_in_one_short_line_that_can_be_pickled(saved, bad, reason):
    (block,) = blocks(saved(b'{"good": 1}\n' + bad + b"\n"), "x")
    _, (_, error) = rows(pickle.loads(pickle.dumps(block)))
    assert isinstance(error, RowError)
    assert error.reason == reason
    assert 5 < len(error.detail) < 200
    assert error.detail.isprintable()


ODD_LINES = {
    "a line exactly as long as the cap": b'{"a": "' + b"x" * (MAX_LINE_BYTES - 9) + b'"}',
    "lists nested 200 deep": b"[" * 200 + b"]" * 200,
    "many brackets side by side": b'{"a": [' + b"[], " * 5000 + b"{}]}",
    "a million keys": b"{" + b", ".join(b'"%d": 1' % key for key in range(1_000_000)) + b"}",
    "a large integer": b'{"a": 123456789012345678901234567890}',
    "a whole surrogate pair": b'{"a": "\\ud83d\\ude00", "b": "\\\\ud83d"}',
    "separators inside text": '{"a": "\u2028\u0085\u000b"}'.replace("\x0b", "\\u000b").encode(),
    "null": b"null",
    "a list": b"[1, 2]",
    "text": b'"text"',
}


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
def test_an_odd_line_is_read_as_json_reads_it(saved, line):
    assert read(saved(b'{"a": 1}\n' + line)) == [(1, {"a": 1}), (2, json.loads(line))]


def test_a_block_ends_when_its_records_are_large_and_keeps_their_order(saved):
    large = b'{"a": "' + b"x" * MAX_BLOCK_BYTES + b'"}\n'
    found = list(blocks(saved(b'{"a": 1}\n' + large + b"1\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\n2\n"), "x"))
    assert [len(block) for block in found] == [2, 3]
    assert [source.line for source, _ in rows(found[1])] == [3, 4, 5]
    assert [row if isinstance(row, int) else row.reason for _, row in rows(found[1])] == [1, "line_too_long", 2]


def test_a_block_holds_at_most_the_wanted_number_of_records(saved):
    path = saved(b"1\n" * 1000)
    assert [len(block) for block in blocks(path, "x", 300)] == [300, 300, 300, 100]
    assert len(list(blocks(path, "x", 1))) == 1000


# ------------------------------------------------------------------------------------------------------------ JSON


def documents(of: list) -> dict[str, bytes]:
    text = json.dumps(of)
    one_a_line = ",\n".join(json.dumps(row) for row in of)
    return {
        "on one line": text.encode(),
        "pretty": json.dumps(of, indent=4, ensure_ascii=False).encode(),
        "one record a line": f"[\n{one_a_line}\n]\n".encode(),
        "brackets on the lines of records": f"[{one_a_line}]".encode(),
        "object on one line": f'{{"version": [1, {{"a": "]"}}], "data": {text}, "more": "x"}}\n'.encode(),
        "pretty object": json.dumps({"rows": of, "about": {"data": [1]}}, indent=1).encode(),
        "list in an object, its key on a line of its own": f'{{"examples":\n{text}}}'.encode(),
        "objects one after another": "\n".join(json.dumps(row, indent=2) for row in of).encode(),
        "byte order mark and CRLF": b"\xef\xbb\xbf" + json.dumps(of, indent=4).replace("\n", "\r\n").encode(),
        "blank lines before": b"\n\n  " + json.dumps(of, indent=4).encode() + b"\n\n",
    }


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("content", documents(ROWS).values(), ids=documents(ROWS))
def test_a_document_gives_its_records_numbered_from_one(saved, content, pack):
    assert read(saved(pack(content), "pairs.json")) == list(enumerate(ROWS, 1))


@pytest.mark.parametrize("name", documents(ROWS))
def test_a_large_document_is_read_in_pieces(saved, name):
    many = [{"number": number, "text": '\\"{[' * 20, "n": [None, 1.5e3, -1]} for number in range(10_000)]
    assert [row for _, row in read(saved(documents(many)[name]))] == many


def test_a_single_object_is_one_record_on_one_line_or_on_many(saved):
    for indent in (None, 2):
        assert read(saved(json.dumps(ROWS[1], indent=indent).encode())) == [(1, ROWS[1])]


def test_scalars_in_a_list_are_records_of_their_own(saved):
    content = b'[1, "x, ]", null,\n -2.5e-3, [1, [2]], true]'
    assert [row for _, row in read(saved(content))] == json.loads(content)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"a": 1,}', "bad_json"),
        (b"{'a': None}", "bad_json"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": NaN}', "bad_json"),
        (b'{"a": "\\ud83d"}', "bad_unicode"),
        (b'{"a": "\xff"}', "bad_unicode"),
        (b'{"a": [1], 2: 3}', "bad_json"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "bad_json"),
        (b"nul", "bad_json"),
    ],
)
def test_a_bad_record_of_a_document_costs_itself_only(saved, bad, reason):
    content = b'[\n{"good": 1},\n' + bad + b',\n{"good": 2}\n]'
    assert read(saved(content)) == [(1, {"good": 1}), (2, reason), (3, {"good": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[\n{"a": 1},\n{"a": 2}', r"not JSON at line 3: the file is cut off before ',' or '\]'"),
        (b'[\n{"a": 1},\n{"a": "b', "not JSON at line 3: the file is cut off within the record that begins here"),
        (b'[\n{"a": 1},\n]', r"not JSON at line 3: found '\]', wanted a value"),
        (b'[\n{"a": 1}\n{"a": 2}\n]', r"not JSON at line 3: found '\{', wanted ',' or '\]'"),
        (b'[\n{"a": 1}\n]\n[]', "not JSON at line 4: something follows the end of the list"),
        (b'{\n"train": [],\n"test": [\n1]}', "lists records under both 'train' and 'test'; save each"),
        (b'{\n"data": [\n1],\n2: 3}', "not JSON at line 4: wanted a key in double quotes"),
        (b'{\n"data": [\n1],\n"x" 3}', "not JSON at line 4: found '3', wanted ':'"),
        (b'[\n1,\n{"a": [1}]},\n2]', r"not JSON at line 3: found '\}', wanted ',' or '\]'"),
        (b'[\n"' + b"x" * (MAX_LINE_BYTES + 99) + b'"]', "not JSON at line 2: a record is longer than 16 MiB"),
    ],
)  # fmt: skip
def test_a_broken_document_is_refused_with_the_line_after_its_good_records(saved, content, message):
    with pytest.raises(DataError, match=rf"^pairs\.jsonl: {message}"):
        read(saved(content))


def test_the_records_before_damage_come_first(saved):
    for content, num_good in ((b"[\n1,\n2,\n3,\n]", 3), (gzip.compress(b'{"a": 1}\n' * 9)[:-4], 9)):
        for size in (1, 2, 256):
            found = blocks(saved(content), "x", size)
            taken = []
            with pytest.raises(DataError):
                taken.extend(source.line for block in found for source, _ in rows(block))
                for block in found:
                    taken.extend(source.line for source, _ in rows(block))
        found, taken = blocks(saved(content), "x", 2), []
        with pytest.raises(DataError):
            while True:
                taken.extend(source.line for source, _ in rows(next(found)))
        assert taken == list(range(1, num_good + 1))


# ------------------------------------------------------------------------------------------- JSON lines or a document?


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        (b'{\n{}\n{"a": 1}\n', [1, 2, 3]),
        (b'{"a":\n{"a": 1}\n{"a": 2}\n', [1, 2, 3]),
        (b'{"a": "x",\n{"a": 1}\n', [1, 2]),
        (b'{"a": "x\n{"a": 1}\n', [1, 2]),
        (b"[1, 2]\n[3]\n", [1, 2]),
        (b'{"data": [1]}\n{"data": [2]}\n', [1, 2]),
        (b"not JSON\n{}\n", [1, 2]),
        (b"a,b\n{}\n", [1, 2]),
        (b'"text"\n1\n', [1, 2]),
    ],
)
def test_lines_stay_lines_whatever_the_first_one_is(saved, content, numbers):
    assert [number for number, _ in read(saved(content, "x"))] == numbers


# ------------------------------------------------------------------------------------------------- what refuses a file


@pytest.mark.parametrize("kept", [2, 9, 12, 200, -9, -1])
def test_a_cut_archive_is_refused_with_the_line(saved, kept):
    lines = b"".join(
        json.dumps({"number": number, "hash": hash((number, 1))}).encode() + b"\n" for number in range(9999)
    )
    for packed in (gzip.compress(lines), zstd(lines)):
        with pytest.raises(DataError, match=r"^pairs\.jsonl:\d+: the file is damaged here \(.+\)$"):
            read(saved(packed[:kept] if kept > 3 or packed[0] == 0x1F else packed[:5]))


def test_a_damaged_archive_of_a_document_or_a_table_is_refused_with_the_line(saved):
    for content in (b"[\n" + b"1,\n" * 9999 + b"1]", b"a,b\n" + b"1,2\n" * 9999):
        with pytest.raises(DataError, match=r"^pairs\.jsonl:\d+: the file is damaged here \(.+\)$"):
            read(saved(gzip.compress(content)[:-5]))


class Canary:
    """Unpickling it would be seen."""

    def __reduce__(self):
        return (pytest.exit, ("a pickle was loaded",))


FOREIGN = {
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3",
    "an Office document": b"PK\x03\x04\x14\x00\x06\x00" + b"\x00" * 22 + b"[Content_Types].xml",
    "an Office document (save the sheet as CSV)": b"PK\x03\x04" + b"\x00" * 26 + b"docProps/app.xml",
    "an Office document (save": b"PK\x03\x04"
    + b"\x00" * 26
    + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
    "a PyTorch pickle": b"PK\x03\x04\x00\x00\x08\x08" + b"\x00" * 22 + b"archive/data.pkl",
    "a zip archive": b"PK\x03\x04\x14\x00" + b"\x00" * 30 + b"a.jsonl",
    "an old Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "a Python pickle": pickle.dumps(Canary()),
    "weights of a model (safetensors)": (64).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}',
    "weights of a model (GGUF)": b"GGUF\x03\x00\x00\x00" + b"\x00" * 16,
    "UTF-16 text": '{"a": 1}\n'.encode("utf-16-le"),
    "UTF-16 text (2)": "a,b\n1,2\n".encode("utf-16-be"),
    "UTF-32 text": '{"a": 1}\n'.encode("utf-32"),
    "an archive inside an archive": gzip.compress(gzip.compress(PLAIN)),
    "a tar archive": gzip.compress(b"a.jsonl".ljust(257, b"\0") + b"ustar\x0000"),
    "an SQLite database": b"SQLite format 3\x00" + b"\x10\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "a NumPy array": b"\x93NUMPY\x01\x00",
    "an image": b"\x89PNG\r\n\x1a\n",
    "a program": b"\x7fELF\x02\x01\x01",
    "an archive of another kind": b"BZh91AY&SY",
    "a web page": b"<!doctype HTML><html>\n",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "binary data": bytes(range(128, 256)) * 10,
    "text that is neither JSON nor a table": b"# About these data\n\nThey are good.\n",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_file_of_another_kind_is_refused_by_what_it_holds(saved, what):
    with pytest.raises(DataError) as raised:
        read(saved(FOREIGN[what], "pairs"))
    assert str(raised.value).startswith(f"pairs: holds {what.split(' (2')[0].split(' (3')[0]}")
    assert "; wanted JSON lines, JSON, CSV or TSV (each plain, gzip or zstd), Parquet or Arrow" in str(raised.value)


def test_text_under_the_name_of_json_lines_is_read_line_by_line(saved):
    assert read(saved(b"once\nupon\n", "x.jsonl.gz")) == [(1, "bad_json"), (2, "bad_json")]


def test_what_is_no_ordinary_file_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in (
        (tmp_path / "pipe", "is a pipe, not a file"),
        (tmp_path, "is a folder, not a file"),
        (tmp_path / "loop", r"cannot be read \(Too many levels of symbolic links\)"),
        (tmp_path / "none", r"cannot be read \(No such file or directory\)"),
        (tmp_path / "\0", r"cannot be read \(.*null byte\)"),
    ):
        with pytest.raises(DataError, match=message):
            list(blocks(path, "x"))


# -------------------------------------------------------------------------------------------------------------- memory

MEASURED = """
import resource, sys
from pathlib import Path
from tiebreak.data.containers import blocks, rows
def peak():  # of this process alone: a child's count begins with its parent's
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line).split()[1])
if sys.argv[2] == "arrow":
    import pyarrow.parquet
before = peak()
try:
    print(sum(1 for block in blocks(Path(sys.argv[1]), "x") for _ in rows(block)), end=" ")
except Exception as error:
    print(type(error).__name__, end=" ")
print((peak() - before) // 1024)
"""


def memory(path, *more: str) -> tuple[str, int]:
    """What reading a file gave, and the MiB that it took."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), *(more or ("",))], capture_output=True, text=True, check=True
    )
    count, num_mib = done.stdout.split()
    return count, int(num_mib)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_is_bounded_by_the_cap_of_a_line(saved):
    bomb = b'{"a": "' + b"x" * 100_000_000 + b'"}\n'
    for content, count in ((bomb, "3"), (gzip.compress(bomb, 1), "3"), (zstd(bomb), "3")):
        around = content if content is bomb else b""
        file = b"1\n" + around + b"2\n" if around else content
        found, num_mib = memory(saved(file), "arrow")
        assert found == (count if around else "DataError")  # unpacked, it is some hundred times as large
        assert num_mib < 120


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_stays_flat_over_many_records(saved):
    row = {"prompt": "p" * 200, "chosen": "c" * 300, "rejected": "r" * 300}
    lines = json.dumps(row).encode() + b"\n"
    many = io.BytesIO()
    columns = pa.table({key: [value] * 100_000 for key, value in row.items()})
    pq.write_table(columns, many, use_dictionary=False, compression="none")
    files = {
        "lines": lines * 100_000,
        "list": b"[" + b",".join([lines] * 100_000) + b"]",
        "table": b"prompt,chosen,rejected\n" + b",".join(value.encode() for value in row.values()) + b"\n",
        "parquet": many.getvalue(),
    }
    files["table"] = files["table"] + files["table"].split(b"\n")[1].join([b"", b"\n"]) * 99_999
    for kind, content in files.items():
        found, num_mib = memory(saved(content), "arrow")
        assert found == "100000"
        assert num_mib < (70 if kind == "parquet" else 30)  # 80 MB of text, and Arrow has a pool of its own


def test_a_block_can_be_read_in_another_process(saved):
    (block,) = blocks(saved(PLAIN), "x")
    assert pickle.loads(pickle.dumps(block)) == block
    assert list(rows(Block("x"))) == []
