"""Tool messages answer a call that was made, and only then are they a chat."""

from __future__ import annotations

import pytest

from tiebreak.data.formats import RowError, detect, read_row
from tiebreak.records import Source

USER = {"role": "user", "content": "Weather?"}
TEXT = {"role": "assistant", "content": "Let me see."}
ANSWER = {"role": "tool", "content": "rain"}


def call(*ids):
    function = {"name": "weather", "arguments": "{}"}
    calls = [{"type": "function", "function": function} | ({"id": name} if name else {}) for name in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answer(name):
    return ANSWER | {"tool_call_id": name}


def read(*prompt):
    row = {"prompt": list(prompt), "chosen": "Rain.", "rejected": "Sun."}
    (pair,) = read_row(row, detect(row), Source("a", 1)).pairs
    return pair


ANSWERED = {
    "by its id": [USER, call("1"), answer("1")],
    "two calls, two answers": [USER, call("1", "2"), answer("2"), answer("1")],
    "no ids anywhere": [USER, call(None), ANSWER],
    "a call without an id, an answer with one": [USER, call(None), answer("1")],
    "an answer without an id": [USER, call("1"), ANSWER],
    "an empty answer": [USER, call("1"), answer("1") | {"content": ""}],
    "a call of an earlier turn": [USER, call("1"), answer("1"), TEXT, USER, call("2"), answer("2")],
    "Hermes, a call as text": [USER, TEXT | {"content": '<tool_call>\n{"name": "weather"}\n</tool_call>'}, ANSWER],
    "ReAct, a call as text": [USER, TEXT | {"content": "Action: weather\nAction Input: {}"}, ANSWER],
}
UNANSWERED = {
    "nothing was called": [USER, TEXT, ANSWER],
    "nothing was called in this turn": [USER, call("1"), answer("1"), TEXT, USER, TEXT, answer("1")],
    "an unknown id": [USER, call("1"), answer("2")],
    "one of two ids is unknown": [USER, call("1", "2"), answer("1"), answer("3")],
}


@pytest.mark.parametrize("prompt", ANSWERED.values(), ids=ANSWERED)
def test_a_tool_message_that_answers_a_call_is_read(prompt):
    assert len(read(*prompt).prompt) == len(prompt)


@pytest.mark.parametrize("prompt", UNANSWERED.values(), ids=UNANSWERED)
def test_a_tool_message_that_answers_no_call_is_refused(prompt):
    with pytest.raises(RowError) as refusal:
        read(*prompt)
    assert refusal.value.reason == "tool_mismatch"


def test_a_picture_in_a_message_is_refused_in_plain_words():
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "cat.png"}}]
    with pytest.raises(RowError, match=r"'prompt\[0\].content\[1\]' is a part of type 'image_url'; only text"):
        read(USER | {"content": parts})


def test_an_empty_list_of_pictures_is_no_picture():
    row = {"prompt": "Why?", "chosen": "a", "rejected": "b", "images": [], "videos": None}
    assert len(read_row(row, detect(row), Source("a", 1)).pairs) == 1


def test_a_thumb_is_looked_at_like_a_pair():
    for changes, reason in (
        ({"completion": " "}, "empty_completion"),
        ({"prompt": ""}, "empty_turn"),
        ({"completion": "\ud800"}, "bad_unicode"),
        ({"prompt": [TEXT]}, "turn_order"),
    ):
        row = {"prompt": "Why?", "completion": "Because.", "label": True} | changes
        with pytest.raises(RowError) as refusal:
            read_row(row, detect(row), Source("a", 1))
        assert refusal.value.reason == reason
