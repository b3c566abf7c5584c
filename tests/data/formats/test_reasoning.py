"""Reasoning beside the content: read under each name that servers give it, compared, written back, never dropped."""

from __future__ import annotations

import json

import pytest

from tiebreak.data.formats import RowError, detect, read_row
from tiebreak.data.formats.writing import NEEDED, WRITERS
from tiebreak.doctor.intake import facts_of
from tiebreak.records import Message, Pair, Record, Source

HERE = Source("rows.jsonl", 1)
THOUGHT, WORDS = "Seven hills, so Rome.", "It is Rome."
FORMS_OF_IT = {
    "reasoning_content": {"content": WORDS, "reasoning_content": THOUGHT},
    "reasoning": {"content": WORDS, "reasoning": THOUGHT},
    "thinking": {"content": WORDS, "thinking": THOUGHT},
    "two names of one text": {"content": WORDS, "reasoning": THOUGHT, "reasoning_content": THOUGHT},
    "a part that thinks": {"content": [{"type": "thinking", "thinking": THOUGHT}, {"type": "text", "text": WORDS}]},
    "a part that reasons": {"content": [{"type": "reasoning", "text": THOUGHT}, {"type": "text", "text": WORDS}]},
    "nested parts": {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]},
            {"type": "text", "text": WORDS},
        ]
    },
    "blocks": {"content": WORDS, "thinking_blocks": [{"type": "thinking", "thinking": THOUGHT, "signature": "x"}]},
    "blocks beside their text": {
        "content": WORDS,
        "reasoning_content": THOUGHT,
        "thinking_blocks": [{"type": "thinking", "thinking": THOUGHT}],
    },
    "details": {"content": WORDS, "reasoning_details": [{"type": "reasoning.text", "text": THOUGHT}]},
}


def row(side, **others):
    rejected = {"role": "assistant", "content": "It is Oslo."} | others
    return {
        "prompt": [{"role": "user", "content": "Which?"}],
        "chosen": [{"role": "assistant"} | side],
        "rejected": [rejected],
    }


def read(found):
    [pair] = read_row(found, detect(found), HERE).pairs
    return pair


@pytest.mark.parametrize("side", FORMS_OF_IT.values(), ids=FORMS_OF_IT)
def test_reasoning_is_kept_beside_the_content_under_whatever_name_it_comes(side):
    assert read(row(side)).chosen == Message("assistant", WORDS, reasoning=THOUGHT)


def test_a_log_and_a_list_of_completions_keep_it_too():
    log = {
        "messages": [
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": WORDS, "reasoning_content": THOUGHT, "alternatives": ["It is Oslo."]},
        ]
    }
    rated = {"prompt": "Which?", "completions": [{"text": WORDS, "reasoning_content": THOUGHT}, {"text": "Oslo."}]}
    assert read(log).chosen.reasoning == read(rated | {"scores": [2, 1]}).chosen.reasoning == THOUGHT


def test_completions_that_differ_in_their_reasoning_alone_are_a_pair():
    pair = read(row({"content": WORDS, "thinking": THOUGHT}, content=WORDS, thinking="A guess."))
    other = read(row({"content": WORDS, "thinking": THOUGHT}, content=WORDS, thinking="Another guess."))
    assert (pair.chosen.reasoning, pair.rejected.reasoning) == (THOUGHT, "A guess.")
    assert pair.pair_id != other.pair_id
    facts = facts_of([Record(HERE, (pair,))])
    assert facts.chosen_key[0] != facts.rejected_key[0]
    assert facts.chosen_words[0] == len(f"{THOUGHT} {WORDS}".split())


def test_the_same_reasoning_and_content_is_identical():
    with pytest.raises(RowError) as refusal:
        read(row({"content": WORDS, "thinking": THOUGHT}, content=WORDS, reasoning=THOUGHT))
    assert refusal.value.reason == "identical"


def test_no_or_blank_reasoning_leaves_the_id_of_a_pair_as_it_was():
    plain = read(row({"content": WORDS}))
    assert read(row({"content": WORDS, "reasoning_content": None, "thinking": " \n"})).pair_id == plain.pair_id
    assert plain.chosen.as_dict() == {"role": "assistant", "content": WORDS}


def test_a_turn_may_reason_and_call_or_reason_and_say_nothing():
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    calling = read(row({"content": None, "reasoning": THOUGHT, "tool_calls": [call]})).chosen
    assert (calling.content, calling.reasoning, calling.tool_calls) == ("", THOUGHT, (call,))
    assert read(row({"content": None, "reasoning": THOUGHT})).chosen == Message("assistant", "", reasoning=THOUGHT)


REFUSED = {
    "two reasonings": ({"content": WORDS, "reasoning": THOUGHT, "thinking": "Other."}, "tells two reasonings"),
    "an object": ({"content": WORDS, "reasoning": {"effort": "high"}}, r"chosen\[0\]\.reasoning.*found an object"),
    "parts without text": ({"content": WORDS, "reasoning_details": [{"type": "encrypted"}]}, "reasoning_details"),
    "a refusal": ({"content": None, "refusal": "I will not."}, r"chosen\[0\]\.refusal"),
    "sound": ({"content": None, "audio": {"transcript": "Rome"}}, r"chosen\[0\].* has 'audio'"),
    "a plan": ({"content": WORDS, "tool_plan": "I look first."}, r"chosen\[0\]\.tool_plan"),
}


@pytest.mark.parametrize(("side", "words"), REFUSED.values(), ids=REFUSED)
def test_what_an_assistant_said_elsewhere_is_refused_by_its_name(side, words):
    with pytest.raises(RowError, match=words) as refusal:
        read(row(side))
    assert refusal.value.reason == "wrong_type"


def test_only_an_assistant_reasons():
    asked = row({"content": WORDS}) | {"prompt": [{"role": "user", "content": "Which?", "thinking": "Hm."}]}
    with pytest.raises(RowError, match="only an assistant reasons"):
        read(asked)


def test_a_call_in_the_first_form_of_openai_is_a_tool_call():
    calling = read(row({"content": None, "function_call": {"name": "look", "arguments": '{"at": 1}'}})).chosen
    assert calling.tool_calls == ({"type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},)


@pytest.mark.parametrize("name", WRITERS)
def test_a_form_writes_reasoning_so_that_it_reads_back_or_refuses_the_pair(name):
    history = (Message("user", "Hi"), Message("assistant", "Ho", reasoning="A greeting."), Message("user", "Which?"))
    chosen, rejected = Message("assistant", WORDS, reasoning=THOUGHT), Message("assistant", WORDS, reasoning="No idea.")
    for prompt in (history[-1:], history):
        pair, writer = Pair(prompt, chosen, rejected), WRITERS[name]
        if "reasoning" not in writer.carries:
            with pytest.raises(RowError, match=NEEDED["reasoning"]):
                writer.write(pair)
            continue
        rows = json.loads(json.dumps(writer.write(pair)))
        readings = [read_row(found, detect(found), HERE) for found in rows]
        if name == "thumbs":
            assert [r.thumbs[0].completion for r in readings] == [chosen, rejected]
        else:
            assert [(p.prompt, p.chosen, p.rejected) for r in readings for p in r.pairs] == [(prompt, chosen, rejected)]


def test_a_call_and_the_reasoning_before_it_survive_a_form_that_tells_calls_as_turns():
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    chosen = Message("assistant", "", None, (call,), reasoning=THOUGHT)
    pair = Pair((Message("user", "Which?"),), chosen, Message("assistant", "No.", reasoning="Hm."))
    [found] = WRITERS["rejected_response"].write(pair)
    assert (read(found).chosen, read(found).rejected) == (chosen, pair.rejected)
