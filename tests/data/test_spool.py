"""Pairs that went through a spool are the pairs that were put in, whatever they hold and wherever they lay."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.data.spool import PairSpool, line_of, pair_of
from tiebreak.records import Message, Origin, Pair, Preference, Source, Vote

texts = st.text(st.characters(exclude_categories=[]), max_size=12)  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.lists(st.dictionaries(texts, json_values, max_size=3), max_size=2).map(tuple)
maybe = st.none() | texts
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)


def messages(roles) -> st.SearchStrategy[Message]:
    return st.builds(Message, roles, texts, maybe, objects, maybe)


preferences = st.builds(
    Preference,
    numbers,
    numbers,
    numbers,
    st.floats(0, 1e9),
    st.none() | st.floats(0, 1),
    st.lists(st.builds(Vote, st.sampled_from(["chosen", "rejected", "tie"]), texts), max_size=3).map(tuple),
)
pairs = st.builds(
    Pair,
    st.lists(messages(st.sampled_from(["system", "user", "tool", "assistant"])), min_size=1, max_size=3).map(tuple),
    messages(st.just("assistant")),
    messages(st.just("assistant")),
    objects,
    st.none() | st.builds(Source, texts, st.integers(0, 10**12)),
    preferences,
    st.builds(Origin, maybe, maybe, maybe, maybe),
)


def plain(number: int) -> Pair:
    source = Source("pairs.jsonl", number + 1)
    return Pair(
        (Message("user", f"Why {number}?"),), Message("assistant", "é\n"), Message("assistant", "no"), (), source
    )


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_a_pair_survives_as_a_line(pair):
    line = line_of(pair)
    back = pair_of(line)
    assert back == pair
    assert (back.pair_id, back.prompt_id, back.split_key) == (pair.pair_id, pair.prompt_id, pair.split_key)
    assert b"\n" not in line


def test_what_is_not_a_number_survives_inside_tools():
    tools = ({"limit": math.nan, "most": math.inf},)
    back = pair_of(line_of(Pair((Message("user", "a"),), Message("assistant", "b"), Message("assistant", "c"), tools)))
    assert math.isnan(back.tools[0]["limit"])
    assert back.tools[0]["most"] == math.inf


@pytest.mark.parametrize("in_memory_bytes", [0, 150, 10**6])
def test_a_spool_reads_like_the_tuple_that_it_was_made_of(tmp_path, in_memory_bytes):
    wanted = [plain(number) for number in range(7)]
    spool = PairSpool.of(iter(wanted), tmp_path, in_memory_bytes)
    assert list(spool) == wanted
    assert len(spool) == 7
    assert (spool[0], spool[-1], spool[np.int64(3)]) == (wanted[0], wanted[6], wanted[3])
    assert list(spool[5:1:-2]) == wanted[5:1:-2]
    assert list(spool[2:6][1:]) == wanted[3:6]
    assert list(spool.selected([6, 0])) == [wanted[6], wanted[0]]
    assert list(spool.selected(np.arange(7) > 4)) == wanted[5:]
    assert wanted[2] in spool
    assert list(tmp_path.iterdir()) == []


def test_an_index_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError):
        PairSpool.of([plain(0)])[1]


def test_an_empty_spool_is_empty():
    assert list(PairSpool.of([])) == []
    assert not PairSpool.of([])
    assert list(PairSpool.of([]).selected([])) == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_texts_on_disk_are_not_held_in_memory(tmp_path):
    def anonymous_bytes() -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    before = anonymous_bytes()
    long = "x" * 2**20
    made = (
        Pair((Message("user", f"{n}{long}"),), Message("assistant", "a"), Message("assistant", "b")) for n in range(64)
    )
    spool = PairSpool.of(made, tmp_path, in_memory_bytes=2**20)
    assert anonymous_bytes() - before < 24 * 2**20
    assert spool[63].prompt[0].content == f"63{long}"
