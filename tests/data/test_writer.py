"""Rows to files: whole or not at all, and read back the same."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from pyarrow import parquet

from tiebreak.data import writer
from tiebreak.data.writer import SUFFIXES, rows_to
from tiebreak.errors import DataError

ROWS = [{"prompt": "Wie geht's? ✓", "chosen": "=1+1", "rejected": ""}, {"prompt": "b", "chosen": "c", "rejected": "\n"}]


def written(path, rows):
    with rows_to(path) as append:
        for row in rows:
            append(row)
    return path


def read_back(path):
    if path.name.endswith(".parquet"):
        return parquet.read_table(path).to_pylist()
    content = path.read_bytes()
    if path.name.endswith(".gz"):
        content = gzip.decompress(content)
    if path.name.endswith(".zst"):
        import pyarrow as pa

        content = pa.input_stream(pa.BufferReader(content), compression="zstd").read()
    if path.name.endswith(".json"):
        return json.loads(content)
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_holds_the_rows(tmp_path, suffix):
    assert read_back(written(tmp_path / f"new folder/pairs{suffix}", ROWS)) == ROWS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_row_gives_an_empty_file_of_its_kind(tmp_path, suffix):
    assert read_back(written(tmp_path / f"pairs{suffix}", [])) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_rows_give_the_same_bytes(tmp_path, suffix):
    first, second = (written(tmp_path / f"{name}{suffix}", ROWS).read_bytes() for name in "ab")
    assert first == second


def test_parquet_takes_more_rows_than_it_keeps_in_memory(tmp_path):
    rows = [{"prompt": str(number)} for number in range(5000)]
    assert read_back(written(tmp_path / "pairs.parquet", rows)) == rows


def test_parquet_keeps_fields_that_only_some_rows_have_or_refuses(tmp_path):
    rows = [{"a": "x"}, {"a": "y", "b": [{"c": 1}, {"d": "z"}]}]
    found = read_back(written(tmp_path / "pairs.parquet", rows))
    assert found == [{"a": "x", "b": None}, {"a": "y", "b": [{"c": 1, "d": None}, {"c": None, "d": "z"}]}]
    with pytest.raises(DataError, match=r"not come back the same .* write \.jsonl"):
        written(tmp_path / "mixed.parquet", [{"a": "x"}, {"a": 1}])
    assert not (tmp_path / "mixed.parquet").exists()


def test_parquet_has_a_place_for_fields_that_come_late(tmp_path):
    rows = [{"a": "x", "c": [{"d": None}]}] * 3000 + [{"a": "y", "b": 1, "c": [{"d": [{"e": 1}], "f": "z"}]}] * 3
    found = read_back(written(tmp_path / "late.parquet", rows))
    assert found[0] == {"a": "x", "c": [{"d": None, "f": None}], "b": None}
    assert found[-1] == {"a": "y", "c": [{"d": [{"e": 1}], "f": "z"}], "b": 1}
    assert len(found) == 3003


def test_parquet_holds_few_rows_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "IN_MEMORY_BYTES", 1000)
    rows = [{"prompt": "x" * 300, "n": number} for number in range(50)]
    assert read_back(written(tmp_path / "pairs.parquet", rows)) == rows
    assert parquet.ParquetFile(tmp_path / "pairs.parquet").num_row_groups == 13


def call(**arguments):
    calls = [{"type": "function", "function": {"name": "f", "arguments": arguments}}]
    return {"chosen": [{"role": "assistant", "content": "", "tool_calls": calls}]}


@pytest.mark.parametrize(
    "rows",
    [
        [call(n=1), call(n=2.5)],
        [call(city="Rome"), call(ticker="X")],
        [call(city="Rome"), call(city="Rome", of=None)],
        [call()],
        [call(n=10**20)],
        [{"n": 2**53 + 1}, {"n": 0.5}],
        [{"a": [1]}, {"a": {"b": 1}}],
        [{"a": {}}],
    ],
    ids=["int and float", "other names", "a null", "no argument", "large", "a large score", "list and object", "empty"],
)
def test_parquet_refuses_in_one_line_what_would_come_back_changed(tmp_path, rows):
    with pytest.raises(DataError, match=r"write \.jsonl") as refusal:
        written(tmp_path / "pairs.parquet", rows)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_tools_as_text_and_calls_as_they_are(tmp_path):
    tools = [[{"name": "f", "parameters": {"properties": {}}}], [{"name": "g", "n": 1}, {"n": 2.5, "m": 10**20}]]
    rows = [call(tools=["a", "b"]) | {"tools": tools[0], "input": {"tools": tools[1]}}]
    (found,) = read_back(written(tmp_path / "pairs.parquet", rows))
    assert [json.loads(found["tools"]), json.loads(found["input"]["tools"])] == tools
    assert found["chosen"] == rows[0]["chosen"]


def test_rows_that_cannot_wait_are_told_with_the_place_where_they_would(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.tempfile, "SpooledTemporaryFile", lambda _: Full())
    with pytest.raises(DataError, match=r"cannot hold temporary data .*TMPDIR"):
        written(tmp_path / "pairs.parquet", ROWS)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_file_never_appears(tmp_path):
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(KeyboardInterrupt), rows_to(path) as append:
        append(ROWS[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.txt", "pairs"])
def test_an_unknown_kind_is_refused_in_one_line(tmp_path, name):
    with pytest.raises(DataError, match="wanted one that ends with") as error, rows_to(tmp_path / name):
        pass
    assert "\n" not in str(error.value)


def test_a_place_that_cannot_be_written_to_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), rows_to(tmp_path / "file" / "pairs.jsonl"):
        pass
