"""A table of tokenised pairs reads like the tuple that it was made of, in memory or from a file without a name."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.data.scratch import Rows, Scratch
from tiebreak.data.tokens import BLOCK, TokenSink, TokenTable
from tiebreak.errors import TiebreakError
from tiebreak.records import TokenizedPair, num_unique_tokens


def named(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def pair(number: int, prompt=(1, 2), chosen=(3,), rejected=(4, 5, 6), cut: int = 0) -> TokenizedPair:
    return TokenizedPair(named(number), named(number // 2), tuple(prompt), tuple(chosen), tuple(rejected), cut)


def numbered(num: int) -> list[TokenizedPair]:
    return [pair(n, range(n % 5 + 1), [2**31 - 1 - n], range(n % 3 + 2), cut=n % 4) for n in range(num)]


ids = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9)


@given(st.lists(st.tuples(ids, ids, ids, st.integers(0, 99)).filter(lambda item: item[1] != item[2]), max_size=12))
def test_what_is_put_in_comes_out(items):
    pairs = [pair(number, *item) for number, item in enumerate(items)]
    table = TokenTable.of(pairs)
    assert list(table) == pairs
    assert [table[index] for index in range(len(table))] == pairs


@pytest.mark.parametrize("num", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_blocks_leave_no_seam(num):
    assert list(TokenTable.of(iter(numbered(num)))) == numbered(num)


def test_items_are_made_of_plain_integers():
    made = TokenTable.of(numbered(3))[2]
    assert {type(number) for number in (*made.prompt_ids, *made.chosen_ids, made.num_truncated)} == {int}


def test_a_table_is_a_sequence():
    pairs, table = numbered(10), TokenTable.of(numbered(10))
    assert len(table) == 10
    assert table[-1] == pairs[-1]
    assert table[np.int64(3)] == pairs[3]
    assert pairs[4] in table
    assert table.index(pairs[4]) == 4
    assert list(reversed(table)) == pairs[::-1]
    assert (*table,) == tuple(pairs)
    assert not TokenTable.of([])
    for beyond in (10, -11):
        with pytest.raises(IndexError):
            table[beyond]


@pytest.mark.parametrize("cut", [slice(2, 5), slice(None, None, -1), slice(7, 100), slice(5, 2), slice(1, None, 3)])
def test_a_slice_holds_what_a_tuple_would(cut):
    part = TokenTable.of(numbered(10))[cut]
    assert isinstance(part, TokenTable)
    assert list(part) == numbered(10)[cut]
    assert part.prompt_lengths.tolist() == [len(item.prompt_ids) for item in numbered(10)[cut]]


def test_pairs_are_selected_by_place_or_by_mask():
    pairs, table = numbered(6), TokenTable.of(numbered(6))
    assert list(table.selected([4, 0, 4])) == [pairs[4], pairs[0], pairs[4]]
    assert list(table.selected(np.arange(6) % 2 == 0)) == pairs[::2]
    assert list(table.selected([])) == []


def test_parts_of_tables_join_in_their_order():
    pairs, table = numbered(20), TokenTable.of(numbered(20))
    joined = TokenTable.joined([table[12:15], table[:0], table.selected([3, 1]), table[::-5]])
    assert list(joined) == [*pairs[12:15], pairs[3], pairs[1], *pairs[::-5]]
    assert list(table) == pairs
    assert list(TokenTable.joined([])) == []


def test_lengths_need_no_pair():
    pairs, table = numbered(30), TokenTable.of(numbered(30))
    assert table.completion_lengths(0).tolist() == [len(item.chosen_ids) for item in pairs]
    assert table.completion_lengths(1).tolist() == [len(item.rejected_ids) for item in pairs]
    assert table.num_unique_tokens.tolist() == [num_unique_tokens(item) for item in pairs]
    assert table.num_truncated.tolist() == [item.num_truncated for item in pairs]


def test_names_and_prompts_need_no_pair():
    pairs, table = numbered(9), TokenTable.of(numbered(9))
    assert [table.example_id(index) for index in range(9)] == [item.example_id for item in pairs]
    assert [table.prompt_id(index) for index in range(9)] == [item.prompt_id for item in pairs]
    assert table.num_prompts == 5
    assert table[:2].num_prompts == 1
    assert TokenTable.of([]).num_prompts == 0


def test_names_that_end_in_zero_bytes_stay_what_they_are():
    names = ["00" * 32, "00" * 31 + "01", "01" + "00" * 31]
    pairs = [TokenizedPair(name, name, (1,), (2,), (3,)) for name in names]
    assert list(TokenTable.of(pairs)) == pairs
    assert TokenTable.of(pairs).num_prompts == 3


@pytest.mark.parametrize("name", ["a", "", "g" * 64, "A" * 64, "0" * 63, "0" * 66])
def test_a_name_that_is_no_fingerprint_is_refused(name):
    with pytest.raises(ValueError, match="hexadecimal"):
        TokenTable.of([TokenizedPair(name, named(1), (1,), (2,), (3,))])


def test_digests_are_of_what_a_table_holds_and_not_of_where_it_lies(tmp_path):
    pairs = numbered(30)
    table, other = TokenTable.of(pairs), on_disk(pairs, tmp_path, 100)
    part, again = TokenTable.of([*pairs[5:], *pairs[:5]]), other.selected([*range(5, 30), *range(5)])
    assert (table.digest(), table.ids_digest()) == (other.digest(), other.ids_digest())
    assert (part.digest(), part.ids_digest()) == (again.digest(), again.ids_digest())
    assert part.ids_digest() != table.ids_digest()
    recut = TokenTable.of([pair(0, (1, 2, 3), (4,), (5,))]), TokenTable.of([pair(0, (1, 2), (3, 4), (5,))])
    assert recut[0].ids_digest() != recut[1].ids_digest()


def test_a_table_crosses_to_another_process():
    assert list(pickle.loads(pickle.dumps(TokenTable.of(numbered(4))))) == numbered(4)


# ------------------------------------------------------------------------------------------------------ beyond memory


def on_disk(pairs, folder, in_memory_bytes: int = 0) -> TokenTable:
    halves = [TokenTable.of(pairs[: len(pairs) // 2]), TokenTable.of(pairs[len(pairs) // 2 :])]
    return TokenTable.joined(halves, folder, in_memory_bytes)


@pytest.mark.parametrize("in_memory_bytes", [0, 100, 1000, 10_000])
def test_a_table_on_disk_reads_like_one_in_memory(tmp_path, in_memory_bytes):
    pairs = numbered(50)
    table = on_disk(pairs, tmp_path, in_memory_bytes)
    assert list(table) == pairs
    assert list(table[10:20]) == pairs[10:20]
    assert table.num_unique_tokens.tolist() == [num_unique_tokens(item) for item in pairs]
    assert list(TokenTable.joined([table[5:], table[:5]])) == [*pairs[5:], *pairs[:5]]


def test_nothing_of_it_has_a_name(tmp_path):
    table = on_disk(numbered(50), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(table) == 50
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_the_file_is_given_back_with_the_table(tmp_path):
    def held() -> int:
        links = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
        return sum(str(link.readlink()).startswith(str(tmp_path)) for link in links if link.exists())

    def mapped() -> int:
        return Path("/proc/self/maps").read_text(encoding="utf-8").count(str(tmp_path))

    table = on_disk(numbered(50), tmp_path)
    assert mapped() > 0
    del table
    assert (held(), mapped()) == (0, 0)


def test_a_full_disk_is_an_error_of_ours(tmp_path, monkeypatch):
    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(TiebreakError, match=r"No space left on device\); make room"):
        on_disk(numbered(3), tmp_path)


def test_a_folder_that_is_missing_is_an_error_of_ours(tmp_path):
    with pytest.raises(TiebreakError, match="No such file"):
        on_disk(numbered(3), tmp_path / "missing")


NUMBERS = pa.schema([("number", pa.int32())])


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 255), max_size=20), max_size=9), st.integers(0, 200))
def test_scratch_returns_what_was_appended(parts, in_memory_bytes):
    with Scratch(NUMBERS, in_memory_bytes=in_memory_bytes) as scratch:
        for part in parts:
            scratch.append(pa.RecordBatch.from_pydict({"number": part}, NUMBERS))
        found = scratch.table()
    assert found["number"].to_pylist() == [number for part in parts for number in part]


def test_rows_say_where_they_stand_and_come_as_batches_of_their_own():
    table = pa.concat_tables([pa.table({"number": pa.array(part, pa.int32())}) for part in ([0, 1], [2], [3, 4, 5])])
    rows = Rows(table).chosen([5, 0, 2])
    assert [rows.located(index) for index in range(3)] == [(2, 2), (0, 0), (1, 0)]
    assert [number for batch in rows.batches() for number in batch["number"].to_pylist()] == [5, 0, 2]
    assert not rows.is_whole()
    assert sum(batch.num_rows for batch in rows.batches()) == 3
    assert Rows(table).is_whole()


@pytest.mark.parametrize("in_memory_bytes", [0, 10**6])
def test_two_sinks_can_be_filled_from_one_stream(tmp_path, in_memory_bytes):
    pairs = numbered(40)
    with TokenSink(tmp_path, in_memory_bytes) as even, TokenSink(tmp_path, in_memory_bytes) as odd:
        for start in range(0, 40, 10):
            even.append(TokenTable.of(pairs[start : start + 10][::2]))
            odd.append(TokenTable.of(pairs[start : start + 10])[1::2])
        tables = even.table(), odd.table()
    assert [list(table) for table in tables] == [pairs[::2], pairs[1::2]]
