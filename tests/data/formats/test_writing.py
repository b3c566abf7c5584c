"""Pairs written and read again are the same pairs, or they are not written."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bounds import hang_after
from tiebreak.data.formats import FORMATS, RowError, detect, read_row
from tiebreak.data.formats.checks import check_pair
from tiebreak.data.formats.writing import BESIDE, FLAT_COLUMNS, NEEDED, WRITERS, traits
from tiebreak.records import Message, Origin, Pair, Preference, Source, Vote

HERE = Source("rows.jsonl", 1)
WHY, YES, NO = Message("user", "Why?"), Message("assistant", "Because."), Message("assistant", "No.")
PLAIN = Pair((WHY,), YES, NO, source=HERE)


def again(row):
    """Return what a row reads back as, through JSON, in the form that is detected."""
    row = json.loads(json.dumps(row, allow_nan=False))
    form = detect(row)
    assert form is not None, "a written row has no known form"
    return form.name, read_row(row, form, HERE)


def call(number):
    function = {"name": f"tool_{number}", "arguments": {"x": number}}
    return {"id": f"call_{number}", "type": "function", "function": function}


MARKS = st.sampled_from(
    ["\n\nHuman: a", "\n\nAssistant:", "\n\nHuman: a\n\nAssistant:", "<|im_start|>user", "[]", '{"a": 1}', "### Input:"]
)
TEXT = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | MARKS, min_size=1, max_size=3).map(
    "".join
)
WORDS = TEXT.filter(str.strip)
NAMES = st.none() | st.sampled_from(["Ann", "Bo"])


@st.composite
def prompts(draw):
    messages = []
    if draw(st.booleans()):
        messages.append(Message(draw(st.sampled_from(["system", "system", "developer"])), draw(WORDS)))
    if draw(st.integers(0, 5)) == 0:
        messages.append(Message("assistant", draw(WORDS)))
    for number in range(draw(st.integers(0, 2))):
        messages += [Message("user", draw(WORDS), draw(NAMES)), *draw(rounds(number))]
    return (*messages, Message("user", draw(WORDS)))


@st.composite
def rounds(draw, number):
    if draw(st.booleans()):
        return [Message("assistant", draw(WORDS))]
    calling = Message("assistant", draw(TEXT | st.just("")), None, (call(number),))
    answer = Message("tool", draw(TEXT), draw(NAMES), (), draw(st.sampled_from([None, f"call_{number}"])))
    return [calling, answer, Message("assistant", draw(WORDS))]


COMPLETIONS = st.one_of(
    WORDS.map(lambda text: Message("assistant", text)),
    st.builds(lambda thought, text: Message("assistant", text, reasoning=thought), WORDS, st.just("") | TEXT),
    st.builds(lambda text: Message("assistant", text, None, (call(9), call(8))), st.just("") | TEXT),
)
SCORE = st.none() | st.floats(-10, 10)
VOTES = st.lists(
    st.builds(Vote, st.sampled_from(["chosen", "rejected", "tie"]), st.sampled_from(["", "ann"])), max_size=3
)
PREFERENCES = st.builds(Preference, SCORE, SCORE, SCORE, st.floats(0, 5), st.none() | st.floats(0, 1), VOTES.map(tuple))
NAME = st.none() | st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)
TOOLS = st.lists(st.fixed_dictionaries({"name": st.text(max_size=3), "parameters": st.just({})}), max_size=2)
SYSTEM = st.none() | WORDS.map(lambda text: Message("system", text))
PLAIN_PROMPTS = st.builds(lambda system, text: (*filter(None, [system]), Message("user", text)), SYSTEM, WORDS)
PLAIN_COMPLETIONS = WORDS.map(lambda text: Message("assistant", text))
BESIDE_PAIRS = (
    st.just(HERE),
    st.just(Preference()) | PREFERENCES,
    st.just(Origin()) | st.builds(Origin, NAME, NAME, NAME, NAME),
)
PLAIN_PAIRS = st.builds(Pair, PLAIN_PROMPTS, PLAIN_COMPLETIONS, PLAIN_COMPLETIONS, st.just(()), *BESIDE_PAIRS)
PAIRS = PLAIN_PAIRS | st.builds(Pair, prompts(), COMPLETIONS, COMPLETIONS, TOOLS.map(tuple), *BESIDE_PAIRS)


def usable(pair):
    try:
        check_pair(pair)
    except RowError:
        return False
    return True


def bare(message, carries):
    """The message without what a form may leave out, told in this test's own words."""
    calls = [
        (item["function"]["name"], item["function"]["arguments"], item.get("id") if "call_ids" in carries else None)
        for item in message.tool_calls
    ]
    name = message.name if "names" in carries else None
    text = message.content if "blanks" in carries else message.content.strip()
    thought = message.reasoning
    return message.role, text, thought, name, calls, message.tool_call_id if "call_ids" in carries else None


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=120, deadline=None)
@given(PAIRS.filter(usable))
def test_a_pair_written_and_read_again_is_the_same_pair(name, pair):
    writer = WRITERS[name]
    try:
        rows = writer.write(pair)
    except RowError as refusal:
        assert refusal.reason == "not_expressible"
        assert "\n" not in refusal.detail
        return
    assert json.loads(json.dumps(rows)) == rows
    readings = [again(row)[1] for row in rows]
    found = [item for reading in readings for item in (*reading.pairs, *reading.thumbs)]
    sides = [message for item in found for message in _sides(item)]
    assert [bare(message, writer.carries) for message in sides] == [
        bare(message, writer.carries) for message in (pair.chosen, pair.rejected)
    ]
    for item in found:
        assert [bare(m, writer.carries) for m in item.prompt] == [bare(m, writer.carries) for m in pair.prompt]
        assert item.tools == pair.tools
        assert item.origin == (pair.origin if "origin" in writer.carries else Origin())
        if isinstance(item, Pair):
            assert item.preference == _kept(pair.preference, writer.carries)


def _sides(item):
    return (item.chosen, item.rejected) if isinstance(item, Pair) else (item.completion,)


def _kept(preference, carries):
    if "votes" in carries:
        return preference
    if "preference" not in carries:
        return Preference()
    kept = replace(preference, votes=())
    if kept.margin is None and None not in (kept.chosen_score, kept.rejected_score):
        return replace(kept, margin=kept.chosen_score - kept.rejected_score)
    return kept


@settings(max_examples=200, deadline=None)
@given(PAIRS.filter(usable))
def test_our_own_form_loses_nothing(pair):
    (row,) = WRITERS["tiebreak"].write(pair)
    name, reading = again(row)
    assert reading.pairs == (pair,)
    assert name == ("tiebreak" if {"preference", "origin"} & row.keys() else "openai")
    assert WRITERS["tiebreak"].left_out(pair) == ()


OWN_FORM = {
    "openai": "openai", "tiebreak": "openai", "trl": "trl", "trl_text": "trl", "hh": "hh", "sharegpt": "sharegpt",
    "alpaca": "alpaca", "rejected_response": "rejected_response", "axolotl": "axolotl", "thumbs": "thumbs",
    "flat": "trl",
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_written_row_is_detected_as_its_own_form(name):
    rows = WRITERS[name].write(PLAIN)
    assert {again(row)[0] for row in rows} == {OWN_FORM[name]}
    assert OWN_FORM[name] in FORMATS


def test_the_rows_are_those_that_the_others_read():
    prompt, good, bad = ({"role": m.role, "content": m.content} for m in (WHY, YES, NO))
    wanted = {
        "openai": [{"input": {"messages": [prompt]}, "preferred_output": [good], "non_preferred_output": [bad]}],
        "trl": [{"prompt": [prompt], "chosen": [good], "rejected": [bad]}],
        "trl_text": [{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}],
        "hh": [{"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}],
        "sharegpt": [
            {
                "conversations": [{"from": "human", "value": "Why?"}],
                "chosen": {"from": "gpt", "value": "Because."},
                "rejected": {"from": "gpt", "value": "No."},
            }
        ],
        "alpaca": [{"instruction": "Why?", "input": "", "chosen": "Because.", "rejected": "No."}],
        "rejected_response": [{"messages": [prompt, good], "rejected_response": "No."}],
        "axolotl": [{"messages": [prompt], "chosen": good, "rejected": bad}],
        "thumbs": [
            {"prompt": [prompt], "completion": [good], "label": True},
            {"prompt": [prompt], "completion": [bad], "label": False},
        ],
    }
    assert {name: WRITERS[name].write(PLAIN) for name in wanted} == wanted


def test_tool_calls_are_told_in_the_words_of_each_form():
    calling = Message(
        "assistant", "", None, ({"type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},)
    )
    pair = Pair((WHY, calling, Message("tool", "one")), YES, calling, ({"name": "f"},))
    (sharegpt,) = WRITERS["sharegpt"].write(pair)
    assert sharegpt["conversations"][1] == {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
    assert sharegpt["conversations"][2] == {"from": "observation", "value": "one"}
    assert sharegpt["rejected"]["from"] == "function_call"
    assert json.loads(sharegpt["tools"]) == [{"name": "f"}]
    (swift,) = WRITERS["rejected_response"].write(pair)
    assert [turn["role"] for turn in swift["messages"]] == ["user", "tool_call", "tool", "assistant"]
    assert [turn["role"] for turn in swift["rejected_messages"]] == ["user", "tool_call", "tool", "tool_call"]
    (trl,) = WRITERS["trl"].write(pair)
    assert trl["rejected"] == [{"role": "assistant", "content": "", "tool_calls": list(calling.tool_calls)}]


CHANGED = {
    "system": {"prompt": (Message("system", "Be brief."), WHY)},
    "developer": {"prompt": (Message("developer", "Be brief."), WHY)},
    "history": {"prompt": (WHY, YES, WHY)},
    "tools": {"tools": ({"name": "f"},)},
    "tool_calls": {"chosen": Message("assistant", "", None, (call(1),))},
    "reasoning": {"chosen": Message("assistant", "Because.", reasoning="Why so?")},
    "preference": {"preference": Preference(soft_label=0.9)},
    "votes": {"preference": Preference(votes=(Vote("tie"),))},
    "origin": {"origin": Origin(split="test")},
    "names": {"prompt": (Message("user", "Why?", "Ann"),)},
    "call_ids": {"chosen": Message("assistant", "", None, (call(1),))},
    "blanks": {"chosen": Message("assistant", "Because. ")},
}


@pytest.mark.parametrize("trait", CHANGED)
@pytest.mark.parametrize("name", WRITERS)
def test_what_a_form_cannot_carry_is_refused_or_said_to_be_left_out(name, trait):
    pair, writer = replace(PLAIN, **CHANGED[trait]), WRITERS[name]
    assert trait in traits(pair)
    if trait in BESIDE and trait not in writer.carries:
        assert trait in writer.left_out(pair)
    missing = [words for need, words in NEEDED.items() if need in traits(pair) and need not in writer.carries]
    if missing:
        with pytest.raises(RowError, match=missing[0]) as refusal:
            writer.write(pair)
        assert refusal.value.reason == "not_expressible"
    else:
        assert writer.write(pair)


def test_every_trait_is_needed_or_beside_and_every_writer_carries_known_ones():
    assert {*CHANGED, "pairing"} == {*NEEDED, *BESIDE}  # the pairing is lost between pairs, not of one
    assert traits(PLAIN) == frozenset()
    assert all(writer.carries <= {*NEEDED, *BESIDE} for writer in WRITERS.values())
    assert all(writer.name == name and writer.title for name, writer in WRITERS.items())


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("hh", replace(PLAIN, chosen=Message("assistant", "I say:\n\nHuman: no"))),
        ("trl_text", replace(PLAIN, prompt=(Message("user", "\n\nHuman: a\n\nAssistant:"),))),
        ("sharegpt", replace(PLAIN, chosen=Message("assistant", "I call.", None, (call(1),)))),
        ("alpaca", replace(PLAIN, prompt=(YES, WHY))),
    ],
)
def test_a_pair_that_would_read_back_as_another_is_refused(name, pair):
    with pytest.raises(RowError) as refusal:
        WRITERS[name].write(pair)
    assert refusal.value.reason == "not_expressible"


def test_a_text_that_only_looks_like_a_turn_is_written():
    pair = replace(PLAIN, chosen=Message("assistant", "Human: yes\nAssistant: yes"))
    (row,) = WRITERS["hh"].write(pair)
    assert again(row)[1].pairs == (pair,)


@settings(max_examples=100, deadline=None)
@given(PLAIN_PAIRS.filter(usable))
def test_the_flat_form_goes_through_csv(pair):
    try:
        rows = WRITERS["flat"].write(pair)
    except RowError:
        assume(False)
    assert all(tuple(row) == FLAT_COLUMNS for row in rows)
    assume(not any("\0" in str(value) for value in rows[0].values()))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, FLAT_COLUMNS)
    table.writeheader()
    table.writerows(rows)
    (row,) = csv.DictReader(io.StringIO(text.getvalue(), newline=""))
    (found,) = again(row)[1].pairs
    assert (found.prompt, found.chosen, found.rejected) == (pair.prompt, pair.chosen, pair.rejected)
    assert (found.preference, found.origin) == (_kept(pair.preference, {"preference"}), pair.origin)


def test_a_megabyte_of_marks_is_read_and_written_in_linear_time():
    text = "\n\nHuman" * 125_000 + "\n" * 100_000
    pair = replace(PLAIN, chosen=Message("assistant", text + "a"))
    for name in WRITERS:
        with hang_after():
            assert WRITERS[name].write(pair)
