"""A conversation and two ways to go on: ShareGPT, Axolotl, ms-swift, OpenPipe, and the Alpaca form."""

from __future__ import annotations

import json

import pytest

from tiebreak.data.formats import RowError, detect, read_row
from tiebreak.records import Message, Source

HUMAN = {"from": "human", "value": "Why?"}
GOOD = {"from": "gpt", "value": "Because."}
BAD = {"from": "gpt", "value": "No."}
USER = {"role": "user", "content": "Why?"}
YES = {"role": "assistant", "content": "Because."}
NO = {"role": "assistant", "content": "No."}
SWIFT = {"messages": [USER, YES], "rejected_response": "No."}
ALPACA = {"instruction": "Why?", "chosen": "Because.", "rejected": "No."}
SYSTEM = Message("system", "Be brief.")


def read(row):
    form = detect(row)
    assert form is not None, "the row has no known form"
    (pair,) = read_row(row, form, Source("a", 1)).pairs
    return pair


def sharegpt(*turns, **changes):
    return {"conversations": list(turns) or [HUMAN], "chosen": GOOD, "rejected": BAD} | changes


SAME_PAIR = {
    "sharegpt": (sharegpt(), "sharegpt"),
    "sharegpt with user and assistant": (
        sharegpt({"from": "user", "value": "Why?"}, chosen=YES, rejected={"from": "assistant", "value": "No."}),
        "sharegpt",
    ),
    "sharegpt with texts": (sharegpt(chosen="Because.", rejected="No."), "sharegpt"),
    "sharegpt that ends with chosen": (sharegpt(HUMAN, GOOD), "sharegpt"),
    "axolotl": ({"messages": [USER], "chosen": YES, "rejected": NO}, "axolotl"),
    "axolotl, older name": ({"conversation": [USER], "chosen": YES, "rejected": NO}, "axolotl"),
    "axolotl with texts": ({"messages": [USER], "chosen": "Because.", "rejected": "No."}, "axolotl"),
    "axolotl with lists of one": ({"messages": [USER], "chosen": [YES], "rejected": [NO]}, "axolotl"),
    "whole dialogues beside messages": (
        {"messages": [USER, YES], "prompt": "Why?", "chosen": [USER, YES], "rejected": [USER, NO]}, "trl",
    ),
    "whole dialogues beside messages, no prompt": (
        {"messages": [USER, YES], "chosen": [USER, YES], "rejected": [USER, NO]}, "trl",
    ),
    "ms-swift": (SWIFT, "rejected_response"),
    "ms-swift with a list": ({"messages": [USER, YES], "rejected_response": [NO]}, "rejected_response"),
    "ms-swift with whole messages": ({"messages": [USER, YES], "rejected_messages": [USER, NO]}, "rejected_response"),
    "ms-swift with the last message": ({"messages": [USER, YES], "rejected_messages": [NO]}, "rejected_response"),
    "ms-swift, query and response": (
        {"query": "Why?", "response": "Because.", "rejected_response": "No.", "history": []}, "rejected_response",
    ),
    "openpipe": ({"messages": [USER, YES], "rejected_message": NO, "split": "TRAIN"}, "rejected_response"),
    "alpaca": (ALPACA, "alpaca"),
    "alpaca with nothing beside": (ALPACA | {"input": "", "system": None, "history": None}, "alpaca"),
    "alpaca, older": ({"instruction": "Why?", "output": ["Because.", "No."]}, "alpaca"),
    "alpaca with the question as input": (ALPACA | {"instruction": "", "input": "Why?"}, "alpaca"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "form"), SAME_PAIR.values(), ids=SAME_PAIR)
def test_every_form_gives_the_same_pair(row, form):
    assert detect(row).name == form
    pair = read(row)
    assert pair.prompt == (Message("user", "Why?"),)
    assert (pair.chosen, pair.rejected) == (Message("assistant", "Because."), Message("assistant", "No."))


def test_instruction_and_input_stand_on_lines_of_their_own():
    assert read(ALPACA | {"instruction": "Translate.", "input": "Guten Tag"}).prompt[0].content == (
        "Translate.\nGuten Tag"
    )


def test_history_and_system_come_before_the_last_question():
    rounds = [["Hi", "Hello"], ["Sure?", "Yes"]]
    rows = (
        ALPACA | {"history": rounds, "system": "Be brief."},
        {"query": "Why?", "response": "Because.", "rejected_response": "No.", "history": rounds, "system": "Be brief."},
    )
    for row in rows:
        pair = read(row)
        assert pair.prompt[0] == SYSTEM
        assert [message.content for message in pair.prompt[1:]] == ["Hi", "Hello", "Sure?", "Yes", "Why?"]


def test_a_system_column_gives_way_to_a_system_turn():
    own = {"from": "system", "value": "Be brief."}
    assert read(sharegpt(own, HUMAN)).prompt[0] == SYSTEM
    assert read(sharegpt(system="Be brief.")).prompt[0] == SYSTEM
    assert read(sharegpt(own, HUMAN, system="Be kind.")).prompt == (SYSTEM, Message("user", "Why?"))
    assert read(SWIFT | {"system": "Be brief."}).prompt[0] == SYSTEM


def told(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


def made(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def test_function_calls_and_observations_become_tool_calls_and_tool_messages():
    turns = [
        HUMAN,
        {"from": "function_call", "value": told("look_up", word="why")},
        {"from": "observation", "value": '{"meaning": "cause"}'},
    ]
    tools = [{"name": "look_up", "parameters": {}}]
    pair = read(sharegpt(*turns, tools=json.dumps(tools)))
    assert pair.prompt[1] == Message("assistant", "", tool_calls=(made("look_up", word="why"),))
    assert pair.prompt[2] == Message("tool", '{"meaning": "cause"}')
    assert pair.tools == tuple(tools)


def test_a_completion_may_be_a_function_call():
    calls = json.dumps([{"name": "a", "arguments": {}}, {"name": "b", "arguments": {"x": 1}}])
    pair = read(sharegpt(chosen={"from": "function_call", "value": calls}))
    assert pair.chosen.tool_calls == (made("a"), made("b", x=1))


def test_the_tool_turns_of_ms_swift_join_into_one_message():
    turns = [
        USER,
        {"role": "assistant", "content": "I look it up."},
        {"role": "tool_call", "content": told("a")},
        {"role": "tool_call", "content": told("b")},
        {"role": "tool_response", "content": "1"},
        {"role": "tool_response", "content": "2"},
        YES,
    ]
    pair = read({"messages": turns, "rejected_response": "No."})
    assert [message.role for message in pair.prompt] == ["user", "assistant", "tool", "tool"]
    assert pair.prompt[1] == Message("assistant", "I look it up.", tool_calls=(made("a"), made("b")))


REFUSED = {
    "unknown speaker": (sharegpt({"from": "narrator", "value": "x"}), "unknown_role"),
    "value is a number": (sharegpt({"from": "human", "value": 3}), "wrong_type"),
    "a call that is no JSON": (sharegpt(HUMAN, {"from": "function_call", "value": "look_up()"}, HUMAN), "wrong_type"),
    "a call without a name": (sharegpt(HUMAN, {"from": "function_call", "value": "{}"}, HUMAN), "wrong_type"),
    "a call that is nested too deeply": (
        sharegpt(HUMAN, {"from": "function_call", "value": "[" * 100_000}, HUMAN), "wrong_type",
    ),
    "an observation of nothing": (sharegpt(HUMAN, GOOD, {"from": "observation", "value": "x"}), "tool_mismatch"),
    "conversation ends with the assistant": (sharegpt(HUMAN, {"from": "gpt", "value": "Well."}), "turn_order"),
    "conversation is empty": (sharegpt(conversations=[]), "no_prompt"),
    "conversations is null": (sharegpt(conversations=None), "wrong_type"),
    "chosen is a human": (sharegpt(chosen=HUMAN), "no_completion"),
    "messages end with the user": ({"messages": [USER], "rejected_response": "No."}, "no_completion"),
    "rejected messages of another prompt": (
        {"messages": [USER, YES], "rejected_messages": [{"role": "user", "content": "How?"}, NO]}, "prompts_differ",
    ),
    "rejected messages are empty": ({"messages": [USER, YES], "rejected_messages": []}, "no_completion"),
    "rejected is the same": ({"messages": [USER, YES], "rejected_response": "Because."}, "identical"),
    "history is text": (ALPACA | {"history": "Hi"}, "wrong_type"),
    "history with a half round": (ALPACA | {"history": [["Hi"]]}, "wrong_type"),
    "instruction is a number": (ALPACA | {"instruction": 3}, "wrong_type"),
    "nothing asked": (ALPACA | {"instruction": ""}, "empty_turn"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_row_that_is_no_pair_is_refused_with_its_reason(row, reason):
    with pytest.raises(RowError) as refusal:
        read(row)
    assert refusal.value.reason == reason
    assert "\n" not in refusal.value.detail


def test_votes_on_an_instruction_are_not_the_alpaca_form():
    row = {"instruction": "Why?", "input": "", "response1": "Because.", "response2": "No.", "votes": [1, 1, 2]}
    assert detect(row).name == "votes"
