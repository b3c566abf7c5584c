"""Tables to rows: CSV, TSV, Parquet, Arrow; a record that does not fit costs itself, and damage is told in one line."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import tiebreak
from bounds import hang_after
from tiebreak.data.containers import MAX_LINE_BYTES, blocks, rows
from tiebreak.data.formats import RowError
from tiebreak.errors import DataError


def read(path, size: int = 256) -> list[tuple[int, object]]:
    """Number and row of each record; a RowError as its reason."""
    found = [(source, row) for block in blocks(path, path.name, size) for source, row in rows(block)]
    assert all(source.file == path.name for source, _ in found)
    return [(source.line, row.reason if isinstance(row, RowError) else row) for source, row in found]


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


def table(**columns) -> pa.Table:
    return pa.table(columns)


def as_parquet(made: pa.Table, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(made, file, **options)
    return file.getvalue()


def as_arrow(made: pa.Table, new=pa.ipc.new_file, **options) -> bytes:
    file = io.BytesIO()
    with new(file, made.schema, **options) as writer:
        writer.write_table(made, max_chunksize=2)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------- CSV and TSV


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_a_table_is_read_back_as_it_was_written(saved, delimiter, pack):
    written = [
        {"prompt": 'a "b",\t;|', "chosen": "x\ny\r\n\n", "rejected": "é"},
        {"prompt": "", "chosen": "1", "rejected": " "},
    ]
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, written[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(written)
    found = read(saved(pack(b"\xef\xbb\xbf" + file.getvalue().encode()), "pairs"))
    assert found == [(2, written[0]), (6, written[1])]


def test_a_bad_record_of_a_table_costs_itself_only(saved):
    content = b'a,b\n1,2\n1\n1,2,3\n\n1,\x00\n1,\xff\n"1" x,2\n1,"2\n2,3\n\xc3\xa9,"4\n4"\n'
    assert read(saved(content, "x.csv")) == [
        (2, {"a": "1", "b": "2"}), (3, "bad_row"), (4, "bad_row"), (6, "bad_row"), (7, "bad_unicode"), (8, "bad_row"),
        (9, "bad_row"), (10, {"a": "2", "b": "3"}), (11, {"a": "é", "b": "4\n4"}),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_costs_one_line(saved):
    content = b"a,b\n" + b'1,"2\n' + b"3,4\n" * 50_000
    found = read(saved(content))
    assert found[0] == (2, "bad_row")
    assert found[1:] == [(number, {"a": "3", "b": "4"}) for number in range(3, 50_003)]


def test_reading_a_table_is_linear_whatever_its_quotes_are(saved):
    for line in (b'1,"2\n', b'1,""2\n', b'"""\n', b'",",\n', b'1,"2""\n', b'"\n'):
        with hang_after():
            found = read(saved(b"a,b\n" + line * 5_000 + b"1,2\n" * 50_000))
        assert found


def test_cells_are_capped_like_lines(saved):
    limit = csv.field_size_limit()
    wide = b"x" * 1_000_000
    content = b"a,b\n1," + wide + b"\n1," + b"x" * MAX_LINE_BYTES + b"\n1,2\n"
    assert read(saved(content)) == [
        (2, {"a": "1", "b": wide.decode()}),
        (3, "line_too_long"),
        (4, {"a": "1", "b": "2"}),
    ]
    assert csv.field_size_limit() == limit


def test_a_cell_is_text_whatever_it_holds(saved):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["prompt", "tools"], ["[1, 2]", "{}"], ["[]", ""]])
    assert [row for _, row in read(saved(file.getvalue().encode()))] == [
        {"prompt": "[1, 2]", "tools": "{}"},
        {"prompt": "[]", "tools": ""},
    ]


def test_a_table_of_function_calls_is_read_as_texts(tmp_path):
    lines = ["prompt,chosen,rejected", 'a,"{""n"": 0}",[1]', 'b,"{""n"": 1}",[2]']
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found = tiebreak.read_pairs(tmp_path / "a.csv")
    assert [(pair.chosen.content, pair.rejected.content) for pair in found.pairs] == [
        ('{"n": 0}', "[1]"), ('{"n": 1}', "[2]"),
    ]  # fmt: skip


def test_tables_put_one_after_another_give_the_rows_of_both(saved):
    assert read(saved(b"a,b\n1,2\na,b\n3,4\n")) == [
        (2, {"a": "1", "b": "2"}),
        (3, "bad_row"),
        (4, {"a": "3", "b": "4"}),
    ]


def test_a_header_is_checked(saved):
    with pytest.raises(DataError, match=r"^x\.csv:2: the header names the column 'a' twice$"):
        read(saved(b"\na,b,a\n1,2,3\n", "x.csv"))
    with pytest.raises(DataError, match=r"^x\.csv:1: the header is not UTF-8; save the file as UTF-8$"):
        read(saved(b"a,\xe9\n1,2\n", "x.csv"))
    assert read(saved(b"only\n1\n\n2\n", "x.csv")) == [(2, {"only": "1"}), (4, {"only": "2"})]
    assert read(saved(b"a,b\n", "x.csv")) == []


# --------------------------------------------------------------------------------------------------- Parquet and Arrow

COLUMNS = table(
    prompt=[[{"role": "user", "content": "é"}], [], None],
    chosen=["a", "b\n", None],
    score=[0.5, None, float("inf")],
    index=pa.array(["x", "y", "x"]).dictionary_encode(),
)
WRITTEN = {
    "parquet": as_parquet(COLUMNS),
    "parquet in groups": as_parquet(COLUMNS, row_group_size=1, compression="zstd"),
    "arrow file": as_arrow(COLUMNS),
    "arrow file, packed": as_arrow(COLUMNS, options=pa.ipc.IpcWriteOptions(compression="lz4")),
    "arrow stream": as_arrow(COLUMNS, new=pa.ipc.new_stream),
}


@pytest.mark.parametrize("size", [1, 2, 256])
@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_columns_become_rows_numbered_from_one(saved, content, size):
    assert read(saved(content), size) == list(enumerate(COLUMNS.to_pylist(), 1))


def test_rows_of_columns_are_json_values(saved):
    made = table(
        text=["a", "b"],
        when=pa.array([1, 2], pa.timestamp("ns")),
        day=[datetime(2024, 5, 6, tzinfo=UTC).date(), None],
        price=[Decimal("1.50"), None],
        raw=[b"caf\xc3\xa9", b"\xff"],
        inner=[{"t": datetime(2024, 5, 6, tzinfo=UTC), "raw": [b"x"]}, None],
        pairs=pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
    )
    for content in (as_parquet(made), as_arrow(made)):
        (_, first), (_, second) = read(saved(content))
        json.dumps([first, second], allow_nan=False)
        assert first | {"when": None, "inner": None} == {
            "text": "a", "when": None, "day": "2024-05-06", "price": "1.50", "raw": "café", "inner": None,
            "pairs": {"k": 1},
        }  # fmt: skip
        assert first["when"].startswith("1970-01-01T00:00:00")
        assert first["inner"] == {"t": "2024-05-06T00:00:00+00:00", "raw": ["x"]}
        assert second["raw"] is None


def test_a_key_that_only_other_rows_have_is_not_in_a_row_of_columns(saved):
    """A column has one structure, so that a table fills in null where a row said nothing."""
    calls = [{"name": "find", "arguments": {"town": "Bergby"}}, {"name": "all", "arguments": {"zone": 2}}]
    chats = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": calls}], [{"role": "user"}]]
    made = table(
        said=chats,
        meta=pa.array([{"a": 1}, {"b": {"c": [{"d": 1}, {"e": 2}]}}]),
        wide=pa.array([[{"t": 1}], [{"u": 2}]], pa.large_list(pa.struct([("t", pa.int8()), ("u", pa.int64())]))),
        known=pa.array([[("k", None)], []], pa.map_(pa.string(), pa.int64())),
        score=[None, 1.5],
    )
    for content in (as_parquet(made), as_arrow(made)):
        assert read(saved(content)) == [
            (1, {"said": chats[0], "meta": {"a": 1}, "wide": [{"t": 1}], "known": {"k": None}, "score": None}),
            (2, {"said": chats[1], "meta": {"b": {"c": [{"d": 1}, {"e": 2}]}}, "wide": [{"u": 2}],
                 "known": {}, "score": 1.5}),
        ]  # fmt: skip


def test_text_of_columns_that_is_no_utf8_costs_its_row_only(saved):
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
    for content in (as_parquet(table(a=broken)), as_arrow(table(a=broken), new=pa.ipc.new_stream)):
        assert read(saved(content)) == [(1, {"a": "a"}), (2, "bad_unicode"), (3, {"a": "c"})]


def test_a_row_of_columns_is_capped_like_a_line(saved):
    made = table(a=["x", "y" * (MAX_LINE_BYTES + 1), "z"])
    for content in (as_parquet(made), as_arrow(made)):
        assert read(saved(content)) == [(1, {"a": "x"}), (2, "line_too_long"), (3, {"a": "z"})]


def test_a_column_that_is_given_twice_and_a_table_without_columns_are_refused(saved):
    with pytest.raises(DataError, match=r"^pairs\.jsonl: the table has no column$"):
        read(saved(as_arrow(pa.table({}))))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(DataError, match=r"^pairs\.jsonl: the column 'a' is given twice$"):
        read(saved(as_arrow(twice)))


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_cut_columns_are_refused(saved, content):
    for kept in (13, len(content) // 2, len(content) - 9):
        with pytest.raises(DataError, match=r"^pairs\.jsonl:\d: the file is damaged here \(.+\)$"):
            read(saved(content[:kept]))


def test_columns_in_an_archive_are_refused(saved):
    with pytest.raises(DataError, match=r"^pairs\.jsonl: is arrow stream inside an archive; unpack it$"):
        read(saved(gzip.compress(WRITTEN["arrow stream"])))


# --------------------------------------------------------------------------------- as spreadsheets and pandas write CSV


def as_csv(rows: list[list], **how) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, **how).writerows(rows)
    return file.getvalue().encode()


SHEET = [["prompt", "chosen", "rejected"], ["a; b", "x\ny", "é"], ["c", "d", ""]]


@pytest.mark.parametrize(
    "content",
    [
        as_csv(SHEET, delimiter=";"),
        b"sep=;\r\n" + as_csv(SHEET, delimiter=";"),
        b'\xef\xbb\xbf"sep=\t"\n' + as_csv(SHEET, delimiter="\t"),
        as_csv(SHEET, delimiter="\t").decode().encode("utf-16"),
        b"\xfe\xff" + as_csv(SHEET).decode().encode("utf-16-be"),
        as_csv(SHEET, lineterminator="\r", quoting=csv.QUOTE_ALL),
        as_csv([[*row, "", ""] for row in SHEET]) + b",,,,\r\n,,,,\r\n",
        as_csv([[*row, *[""] * (number % 2)] for number, row in enumerate(SHEET)]) + b" , \n",
    ],
    ids=["semicolons", "sep", "sep with a mark", "UTF-16", "UTF-16 BE", "CR", "empty columns and rows", "ragged"],
)
def test_what_spreadsheets_write_is_read(saved, content):
    header, *cells = SHEET
    assert [row for _, row in read(saved(content, "sheet.csv"))] == [
        dict(zip(header, row, strict=True)) for row in cells
    ]


def test_a_decimal_comma_is_a_point_where_it_can_be_nothing_else(saved):
    cells = [["text", "score_chosen", "votes", "chosen"], ["1,5", "4,5", "1,000", "2,5"], ["a", "-3", "2,500", "1,5"]]
    assert [row for _, row in read(saved(as_csv(cells, delimiter=";")))] == [
        {"text": "1,5", "score_chosen": "4.5", "votes": "1,000", "chosen": "2,5"},
        {"text": "a", "score_chosen": "-3", "votes": "2,500", "chosen": "1,5"},
    ]


def test_lines_are_read_in_utf16_too_and_damage_is_told(saved):
    text = '{"a": "é"}\n{"a": 2}\n'
    assert read(saved(text.encode("utf-16"))) == [(1, {"a": "é"}), (2, {"a": 2})]
    with pytest.raises(DataError, match="the text is not UTF-16 any more"):
        read(saved(text.encode("utf-16") + b"x"))
