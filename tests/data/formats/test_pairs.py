"""OpenAI's, HH-RLHF's, TRL's and our own form: what each accepts; everything else is refused with a reason."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiebreak.data.formats import FORMATS, Pairing, RowError, detect, read_row
from tiebreak.records import Message, Origin, Pair, Preference, Source, Vote

HERE = Source("rows.jsonl", 1)
USER = {"role": "user", "content": "Why?"}
GOOD = {"role": "assistant", "content": "Because."}
BAD = {"role": "assistant", "content": "No."}
TEXTS = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "why"}}}


def read(row):
    form = detect(row)
    assert form is not None, "the row has no known form"
    (pair,) = read_row(row, form, HERE).pairs
    return pair


def openai(**changes):
    row = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
    return row | changes


SAME_PAIR = {
    "text": TEXTS,
    "messages": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "text prompt, message completions": {"prompt": "Why?", "chosen": [GOOD], "rejected": [BAD]},
    "message prompt, text completions": {"prompt": [USER], "chosen": "Because.", "rejected": "No."},
    "whole dialogues": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "whole dialogues and a prompt": {"prompt": "Why?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "text parts": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}], **{
        key: [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
        for key, text in (("chosen", "Because."), ("rejected", "No."))
    }},
    "one message a side": {"prompt": "Why?", "chosen": GOOD, "rejected": BAD},
    "completions that go on from the prompt": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "a blank system text": TEXTS | {"system": " "},
    "openai": openai(),
    "openai with one message a side": openai(preferred_output=GOOD, non_preferred_output=BAD),
    "tiebreak": openai(origin={"split": "train"}),
    "hh with a prompt": {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " Because.", "rejected": " No."},
    "hh": {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
    "more keys than needed": TEXTS | {"id": 3, "score_chosen": float("nan"), "tools": None},
}  # fmt: skip


@pytest.mark.parametrize("row", SAME_PAIR.values(), ids=SAME_PAIR)
def test_every_form_of_a_row_gives_the_same_pair(row):
    pair = read(row)
    assert pair.prompt == (Message("user", "Why?"),)
    assert (pair.chosen.content, pair.rejected.content) == ("Because.", "No.")
    assert pair.pair_id == read(TEXTS).pair_id
    assert pair.source == HERE


def test_each_form_is_detected_by_its_keys():
    found = {name: detect(row).name for name, row in SAME_PAIR.items()}
    others = {
        "openai": "openai", "openai with one message a side": "openai", "tiebreak": "tiebreak", "hh": "hh",
        "hh with a prompt": "hh",
    }  # fmt: skip
    assert found == dict.fromkeys(SAME_PAIR, "trl") | others
    assert detect({"messages": []}) is None
    assert detect([1]) is None


def test_hh_dialogues_are_split_into_turns_without_the_blanks_around_them():
    start = "\n\nHuman: One\n\nAssistant: Two\n\nHuman:  Three\nlines\n\n"
    pair = read({"chosen": start + "\n\nAssistant: Yes ", "rejected": start + "\n\nAssistant:No"})
    assert [(m.role, m.content) for m in pair.prompt] == [
        ("user", "One"),
        ("assistant", "Two"),
        ("user", "Three\nlines"),
    ]
    assert (pair.chosen.content, pair.rejected.content) == ("Yes", "No")


def test_the_text_of_messages_is_left_as_it_is():
    text = "  two spaces\r\n\ttab\u2028line \u202e \x00 \x1b[31m <|im_end|> é e\u0301 "
    pair = read({"prompt": text, "chosen": text + "a", "rejected": text + "b"})
    assert (pair.prompt[0].content, pair.chosen.content, pair.rejected.content) == (text, text + "a", text + "b")


def test_tools_and_tool_calls_are_kept():
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    calling = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    answer = {"role": "tool", "content": "found", "tool_call_id": "1", "name": "look_up"}
    pair = read(openai(input={"messages": [USER, calling, answer], "tools": tools}))
    assert pair.tools == tuple(tools)
    assert pair.prompt[1] == Message("assistant", "", tool_calls=(CALL,))
    assert pair.prompt[2] == Message("tool", "found", name="look_up", tool_call_id="1")


def test_a_completion_may_be_a_tool_call_without_text():
    pair = read({"prompt": "Why?", "chosen": [{"role": "assistant", "tool_calls": [CALL]}], "rejected": [BAD]})
    assert pair.chosen.tool_calls == (CALL,)


def turn(role, content="x"):
    return {"role": role, "content": content}


def prompt(*messages):
    return TEXTS | {"prompt": list(messages)}


REFUSED = {
    "chosen is null": (TEXTS | {"chosen": None}, "wrong_type"),
    "chosen is a number": (TEXTS | {"chosen": 3, "rejected": 4}, "wrong_type"),
    "chosen is true": (TEXTS | {"chosen": True, "rejected": False}, "wrong_type"),
    "rejected is an empty object": (TEXTS | {"chosen": GOOD, "rejected": {}}, "wrong_type"),
    "chosen is a list of numbers": (TEXTS | {"chosen": [1], "rejected": ["b"]}, "wrong_type"),
    "sides of different types": (TEXTS | {"chosen": [GOOD]}, "wrong_type"),
    "prompt is a number": (TEXTS | {"prompt": 3}, "wrong_type"),
    "prompt is null": (TEXTS | {"prompt": None}, "no_prompt"),
    "prompt is an empty list": (TEXTS | {"prompt": []}, "no_prompt"),
    "prompt is empty": (TEXTS | {"prompt": ""}, "empty_turn"),
    "prompt is blank": (TEXTS | {"prompt": " \n\t"}, "empty_turn"),
    "chosen is empty": (TEXTS | {"chosen": ""}, "empty_completion"),
    "rejected is blank": (TEXTS | {"rejected": " \n"}, "empty_completion"),
    "both sides the same": (TEXTS | {"chosen": "No."}, "identical"),
    "unknown role": (prompt(turn("narrator")), "unknown_role"),
    "no role": (prompt({"content": "x"}), "unknown_role"),
    "role is a list": (prompt({"role": ["user"], "content": "x"}), "unknown_role"),
    "no content": (prompt({"role": "user"}), "wrong_type"),
    "content is null": (prompt(turn("user", None)), "wrong_type"),
    "content is a number": (prompt(turn("user", 5)), "wrong_type"),
    "content is an empty list": (prompt(turn("user", [])), "wrong_type"),
    "content holds an image": (prompt(turn("user", [{"type": "image_url", "image_url": "x"}])), "wrong_type"),
    "name is a number": (prompt(turn("user") | {"name": 5}), "wrong_type"),
    "tool_calls is text": (prompt(turn("user"), turn("assistant") | {"tool_calls": "x"}, turn("user")), "wrong_type"),
    "tools is text": (TEXTS | {"tools": "look_up"}, "wrong_type"),
    "tools is the text of an object": (TEXTS | {"tools": "{}"}, "wrong_type"),
    "pictures beside the text": (TEXTS | {"images": ["cat.png"]}, "wrong_type"),
    "turns after the completions differ": (
        {"prompt": [USER], "chosen": [turn("assistant"), USER, GOOD], "rejected": [turn("assistant", "y"), USER, BAD]},
        "prompts_differ",
    ),
    "a score of our own that is text": (openai(preference={"chosen_score": "5"}), "wrong_type"),
    "a weight of our own below zero": (openai(preference={"weight": -1}), "wrong_type"),
    "a vote of our own for nobody": (openai(preference={"votes": [{"choice": "left"}]}), "wrong_type"),
    "votes of our own that are text": (openai(preference={"votes": "left"}), "wrong_type"),
    "a group of our own that is a number": (openai(origin={"group": 3}), "wrong_type"),
    "half a surrogate pair in a group": (openai(origin={"group": "\ud800"}), "bad_unicode"),
    "prompt ends with an assistant turn": (prompt(turn("user"), turn("assistant")), "turn_order"),
    "only a greeting": (prompt(turn("assistant")), "turn_order"),
    "two greetings": (prompt(turn("assistant"), turn("assistant"), turn("user")), "turn_order"),
    "two user turns in a row": (prompt(turn("user"), turn("user")), "turn_order"),
    "only a system message": (prompt(turn("system")), "turn_order"),
    "system message in the middle": (prompt(turn("user"), turn("system"), turn("user")), "turn_order"),
    "a tool answers nobody": (prompt(turn("tool")), "turn_order"),
    "a tool answers the user": (prompt(turn("user"), turn("tool")), "turn_order"),
    "dialogue ends with a user turn": ({"chosen": [USER, GOOD, USER], "rejected": [USER, BAD, USER]}, "no_completion"),
    "completion is a user turn": ({"prompt": "x", "chosen": [USER], "rejected": [BAD]}, "no_completion"),
    "completion is an empty list": ({"prompt": "x", "chosen": [], "rejected": []}, "no_completion"),
    "dialogue without a prompt": ({"chosen": [GOOD], "rejected": [BAD]}, "no_prompt"),
    "prompts differ": ({"chosen": [USER, GOOD], "rejected": [turn("user", "How?"), BAD]}, "prompts_differ"),
    "stated prompt differs": ({"prompt": "How?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "prompts_differ"),
    "text without prompt": ({"chosen": "a", "rejected": "b"}, "no_prompt"),
    "half a surrogate pair": (TEXTS | {"chosen": "\ud83d"}, "bad_unicode"),
    "half a surrogate pair in a name": (prompt(turn("user") | {"name": "\udc80"}), "bad_unicode"),
    "half a surrogate pair in a tool": (TEXTS | {"tools": [{"name": "\udc80"}]}, "bad_unicode"),
    "not a number in a tool": (TEXTS | {"tools": [{"limit": float("nan")}]}, "bad_json"),
    "openai without input": (openai(input=None), "wrong_type"),
    "openai without messages": (openai(input={}), "wrong_type"),
    "openai with an empty list": (openai(input={"messages": []}), "no_prompt"),
    "openai with two outputs": (openai(preferred_output=[GOOD, GOOD]), "no_completion"),
    "openai with text": (openai(preferred_output="Because."), "wrong_type"),
    "hh with one human turn": ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "no_completion"),
    "hh with only an answer": ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}, "no_prompt"),
    "hh with an empty answer": (
        {"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant: b"}, "empty_completion",
    ),
    "hh with an empty turn": (
        {"chosen": "\n\nHuman:\n\nAssistant: a", "rejected": "\n\nHuman:\n\nAssistant: b"}, "empty_turn",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("row", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_row_that_is_no_pair_is_refused_with_its_reason(row, reason):
    with pytest.raises(RowError) as refusal:
        read(row)
    assert refusal.value.reason == reason
    assert refusal.value.detail
    assert "\n" not in refusal.value.detail


@pytest.mark.parametrize("row", [None, 3, "text", [1, 2], True], ids=repr)
def test_a_row_is_an_object(row):
    with pytest.raises(RowError) as refusal:
        read_row(row, FORMATS["trl"], HERE)
    assert refusal.value.reason == "not_an_object"


def test_a_row_in_another_form_than_its_file_is_refused():
    with pytest.raises(RowError, match="'openai' form of the file: keys 'prompt', 'chosen', 'rejected'") as refusal:
        read_row(TEXTS, FORMATS["openai"], HERE)
    assert refusal.value.reason == "wrong_format"


def test_a_prompt_may_begin_with_a_greeting_as_in_the_documents_of_together():
    pair = read(prompt(turn("system"), turn("assistant", "How can I help?"), turn("user")))
    assert [message.role for message in pair.prompt] == ["system", "assistant", "user"]


def test_turns_that_both_completions_share_belong_to_the_prompt():
    pair = read({"prompt": "Hi", "chosen": [turn("assistant"), USER, GOOD], "rejected": [turn("assistant"), USER, BAD]})
    assert [message.content for message in pair.prompt] == ["Hi", "x", "Why?"]
    assert (pair.chosen.content, pair.rejected.content) == ("Because.", "No.")


def test_a_system_column_comes_before_a_prompt_without_a_system_message():
    assert read(TEXTS | {"system": "Be brief."}).prompt == (Message("system", "Be brief."), Message("user", "Why?"))
    own = prompt(turn("system", "Be kind."), USER) | {"system": "Be brief."}
    assert read(own).prompt[0] == Message("system", "Be kind.")
    whole = {"chosen": [USER, GOOD], "rejected": [USER, BAD], "system": "Be brief."}
    assert [message.role for message in read(whole).prompt] == ["system", "user"]


def test_tools_may_be_the_text_of_a_list():
    assert read(TEXTS | {"tools": '[{"name": "look_up"}]'}).tools == ({"name": "look_up"},)
    assert read(TEXTS | {"tools": ""}).tools == ()


def test_our_own_form_gives_back_every_field():
    votes = (Vote("chosen", "ann"), Vote("tie"), Vote("rejected", "bo"))
    pair = Pair(
        (Message("user", "Why?", name="Ann"),), Message("assistant", "Because."), Message("assistant", "No."),
        ({"name": "look_up"},), HERE, Preference(4.5, 2, 2.5, 0.5, 0.75, votes), Origin("facts", "MIT", "test", "g 1"),
    )  # fmt: skip
    assert read(pair.as_dict()) == pair
    assert read(json.loads(json.dumps(pair.as_dict()))) == pair
    scored = replace(pair, preference=Preference(4.5, 2))
    assert read(scored.as_dict()) == scored


@pytest.mark.parametrize(("first", "then"), [("tiebreak", "openai"), ("openai", "tiebreak")])
def test_a_file_may_hold_rows_with_and_without_what_we_write_beside_a_pair(first, then):
    rows = {"openai": openai(), "tiebreak": openai(preference={"weight": 2.0})}
    form = detect(rows[first])
    assert form.name == first
    assert [read_row(rows[name], form, HERE).pairs[0].preference.weight for name in ("openai", "tiebreak")] == [1, 2]


def test_an_object_of_another_meaning_under_our_names_is_left_alone():
    row = openai(preference={"winner": "a"}, origin="web")
    assert detect(row).name == "openai"
    assert read(row).preference == Preference()


KEYS = [
    "prompt", "chosen", "rejected", "input", "messages", "preferred_output", "non_preferred_output", "tools", "role",
    "content", "tool_calls", "tool_call_id", "name", "type", "text",
]  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters()), st.sampled_from(["user", "text"]),
    st.sampled_from(["assistant", "system", "tool", "\n\nHuman: a\n\nAssistant: b", "\n\nAssistant: c"]),
)  # fmt: skip
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"]), "content": st.text(max_size=3)},
        optional={"tool_calls": st.lists(st.just(CALL), max_size=1), "name": LEAVES},
    ),
    max_size=4,
)
VALUES = st.one_of(
    MESSAGES,
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
        max_leaves=8,
    ),
)
ROWS = st.one_of(
    st.fixed_dictionaries({"chosen": VALUES, "rejected": VALUES}, optional={"prompt": VALUES, "tools": VALUES}),
    st.fixed_dictionaries(
        {
            "input": st.fixed_dictionaries({"messages": VALUES}),
            "preferred_output": VALUES,
            "non_preferred_output": VALUES,
        }
    ),
)


@settings(max_examples=400, deadline=None)
@given(ROWS)
def test_any_row_becomes_a_pair_or_a_row_error(row):
    try:
        pair = read(row)
    except RowError as refusal:
        assert refusal.reason.replace("_", "").isalpha()
        return
    assert isinstance(pair, Pair)
    (again,) = read_row(pair.as_openai(), FORMATS["openai"], HERE).pairs
    assert again.pair_id == pair.pair_id
    assert again.prompt_id == pair.prompt_id


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (["Step one.", "Right."], ["Step one.", "Wrong."], "wrong_type"),
        (["Step one.", "Two.", "Right."], ["Step one.", "Wrong."], "wrong_type"),
        (["Step one."], ["Step one.", "Wrong."], "wrong_type"),
        (["Right.", "Well."], ["Well.", "Wrong."], "identical"),
        (["Right."], ["Wrong.", "Right."], "identical"),
    ],
)
def test_lists_that_share_a_text_are_no_alternatives(chosen, rejected, reason):
    row = {"prompt": "Why?", "chosen": chosen, "rejected": rejected}
    mapped = {"q": "Why?", "good": chosen, "bad": rejected}
    for one, columns in ((row, None), (mapped, {"prompt": "q", "chosen": "good", "rejected": "bad"})):
        for choose in ("best_worst", "all", "none"):
            with pytest.raises(RowError) as refused:
                read_row(one, detect(one, columns), Source("rows.jsonl", 1), Pairing(choose))
            assert refused.value.reason == reason


def test_two_steps_are_read_as_the_refusal_says():
    row = {"prompt": "Why?", "chosen": ["Step one. ", "Right."], "rejected": ["Step one. ", "Wrong."]}
    columns = {"prompt": "prompt", "prefix": "chosen.0", "chosen": "chosen.1", "rejected": "rejected.1"}
    (pair,) = read_row(row, detect(row, columns), Source("rows.jsonl", 1)).pairs
    assert (pair.chosen.content, pair.rejected.content) == ("Step one. Right.", "Step one. Wrong.")
