"""Rows to files: whole or not at all, and read back the same."""

from __future__ import annotations

import gzip
import json

import pytest

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
        from pyarrow import parquet

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
    late = [{"a": "x"}] * 3000 + [{"a": "y", "b": 1}]
    with pytest.raises(DataError, match=r"different shapes .* write \.jsonl"):
        written(tmp_path / "late.parquet", late)
    assert not (tmp_path / "late.parquet").exists()


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
