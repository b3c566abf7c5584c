"""The nouns: what they refuse to be, and how they are identified."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.data.formats import FORMATS, read_row
from tiebreak.records import Dropped, Message, Pair, Source, TokenizedPair, longest_row, num_unique_tokens

WHY = (Message("user", "Why?"),)
YES, NO = Message("assistant", "yes"), Message("assistant", "no")


def tokenized(**changes) -> TokenizedPair:
    ids = {"prompt_ids": (1, 2), "chosen_ids": (3, 0), "rejected_ids": (4, 5, 0)}
    return TokenizedPair("a", "b", **ids | changes)


def test_a_pair_needs_a_prompt_and_two_assistant_messages():
    with pytest.raises(ValueError, match="at least one prompt message"):
        Pair((), YES, NO)
    for chosen, rejected in ((Message("user", "yes"), NO), (YES, Message("system", "no"))):
        with pytest.raises(ValueError, match="both completions are assistant messages"):
            Pair(WHY, chosen, rejected)


def test_a_tokenized_pair_needs_tokens_everywhere_and_two_different_completions():
    for empty in ("prompt_ids", "chosen_ids", "rejected_ids"):
        with pytest.raises(ValueError, match="at least one token"):
            tokenized(**{empty: ()})
    with pytest.raises(ValueError, match="the same tokens"):
        tokenized(rejected_ids=(3, 0))


def test_a_tokenized_pair_counts_the_prompt_once():
    assert num_unique_tokens(tokenized()) == 7
    assert longest_row(tokenized()) == 5


def test_records_are_frozen():
    for record in (WHY[0], Pair(WHY, YES, NO), Source("a", 1), tokenized()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, dataclasses.fields(record)[0].name, "changed")


def test_the_ids_follow_the_content_and_not_the_source():
    here, there = (Pair(WHY, YES, NO, source=Source("a.jsonl", line)) for line in (1, 2))
    assert (here.pair_id, here.prompt_id) == (there.pair_id, there.prompt_id)


CHANGED = {
    "another prompt": (Pair((Message("user", "Why"),), YES, NO), False),
    "another role": (Pair((Message("system", "Why?"),), YES, NO), False),
    "prompt in two turns": (Pair((*WHY, YES, *WHY), YES, NO), False),
    "a tool": (Pair(WHY, YES, NO, ({"name": "a"},)), False),
    "a name": (Pair((Message("user", "Why?", name="Ann"),), YES, NO), False),
    "another chosen": (Pair(WHY, Message("assistant", "Yes"), NO), True),
    "a tool call": (Pair(WHY, Message("assistant", "yes", tool_calls=({"id": "1"},)), NO), True),
    "swapped sides": (Pair(WHY, NO, YES), True),
}


@pytest.mark.parametrize(("changed", "same_prompt"), CHANGED.values(), ids=CHANGED)
def test_any_change_of_content_changes_the_id(changed, same_prompt):
    assert changed.pair_id != Pair(WHY, YES, NO).pair_id
    assert (changed.prompt_id == Pair(WHY, YES, NO).prompt_id) == same_prompt


def test_the_order_of_keys_in_a_tool_does_not_change_the_id():
    assert Pair(WHY, YES, NO, ({"a": 1, "b": 2},)).pair_id == Pair(WHY, YES, NO, ({"b": 2, "a": 1},)).pair_id


def test_absent_fields_of_a_message_are_left_out():
    assert YES.as_dict() == {"role": "assistant", "content": "yes"}
    full = Message("tool", "x", name="n", tool_call_id="1")
    assert full.as_dict() == {"role": "tool", "content": "x", "name": "n", "tool_call_id": "1"}


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
TOOLS = st.lists(st.dictionaries(st.text(max_size=3), st.integers() | WORDS, min_size=1, max_size=3), max_size=2)


@given(system=st.none() | WORDS, prompt=WORDS, sides=st.lists(WORDS, min_size=2, max_size=2, unique=True), tools=TOOLS)
def test_the_openai_form_of_a_pair_reads_back_as_the_pair(system, prompt, sides, tools):
    messages = ([] if system is None else [Message("system", system)]) + [Message("user", prompt)]
    source = Source("a.jsonl", 1)
    pair = Pair(tuple(messages), *(Message("assistant", text) for text in sides), tuple(tools), source)
    assert read_row(pair.as_openai(), FORMATS["openai"], source).pairs == (pair,)


def test_a_dropped_record_says_where_it_stood_and_why():
    item = Dropped(Source("a.jsonl", 41), "empty_completion", "'chosen' is empty")
    assert str(item.source) == "a.jsonl:41"
    assert item.as_dict() == {
        "file": "a.jsonl", "line": 41, "reason": "empty_completion", "detail": "'chosen' is empty",
    }  # fmt: skip
