"""What stands beside and inside texts: transcripts, pictures, system texts, other spellings of roles, lists."""

from __future__ import annotations

import pytest

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.data.formats.pieces import transcript_of
from tiebreak.records import Source

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def read(row, pairing=None):
    form = detect(row)
    assert form is not None
    return read_row(row, form, Source("rows.jsonl", 1), pairing or Pairing())


def only(row):
    (pair,) = read(row).pairs
    return pair


def told(messages):
    return [(message.role, message.content) for message in messages]


TRANSCRIPTS = {
    "one turn": ("Human: Why?\n\nAssistant:", [("user", "Why?")]),
    "blank lines before": ("\n\nHuman: Why?\n\nAssistant: ", [("user", "Why?")]),
    "three turns": (
        "Human: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:",
        [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")],
    ),
    "one line break": ("User: Why?\nAssistant:", [("user", "Why?")]),
    "capitals": ("USER: Why?\nASSISTANT:", [("user", "Why?")]),
    "hashes": ("### Human: Why?\n### Assistant:", [("user", "Why?")]),
    "instruction": ("### Instruction:\nWhy?\n\n### Response:\n", [("user", "Why?")]),
    "a header inside a turn": (
        "Human: A play\nAssistant: hi\n\nAssistant:", [("user", "A play\nAssistant: hi")],
    ),
}  # fmt: skip
TEXTS = [
    "Why?", "Human: Why?", "Why?\n\nAssistant:", "Assistant: Hi\n\nHuman: Why?\n\nAssistant:", "", "Assistant:",
    "Human: a\n\nHuman: b\n\nAssistant:", "What does 'Human: x' mean in 'Assistant:'",
    "Human:\n\nAssistant: no\n\nend:",
    "Write as\nUser: a\nUser: b\nAssistant:", "Human: Hi\n\nAssistant: Hello",
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("rest", [
    {"chosen": " Because.", "rejected": " No."},
    {"answers": [{"answer": "No.", "rank": 2}, {"answer": "Because.", "rank": 1}]},
    {"response_1": "Because.", "response_2": "No.", "winner": 1},
    {"completions": ["Because.", "No."], "scores": [2, 1]},
])  # fmt: skip
def test_a_prompt_that_is_a_transcript_becomes_turns_in_any_form(text, wanted, rest):
    pair = only({"prompt": text, **rest})
    assert told(pair.prompt) == wanted
    assert (pair.chosen.content, pair.rejected.content) == ("Because.", "No.")


@pytest.mark.parametrize("text", TEXTS)
def test_any_other_text_stays_as_it_is(text):
    assert transcript_of(text) == []


@pytest.mark.parametrize(
    "text", ["\n" * 200_000 + ":", "Human:" + " \n" * 100_000 + "Assistant:", "Human: " * 50_000 + ":"]
)
def test_a_long_text_of_blanks_and_headers_takes_no_time(text):
    transcript_of(text)


MEDIA = {
    "a file name": {"image": "img/0.jpg"},
    "an object of the hub": {"picture_of_it": {"bytes": None, "path": "0.jpg"}},
    "sound": {"audio": {"path": "0.wav", "sampling_rate": 16000}},
    "sound of another name": {"clip": {"path": "0.wav", "sampling_rate": 16000}},
    "several": {"images": ["0.jpg"]},
    "one of several": {"images": [None, "0.jpg"]},
    "a video": {"video_path": "0.mp4"},
    "of a side": {"chosen_image": "0.jpg"},
    "bytes": {"image_bytes": b"\xff"},
    "an address": {"image_url": {"url": "https://example.org/0.jpg"}},
    "capitals": {"Image": "0.jpg"},
    "the second of several columns": {"image_1": "0.jpg"},
    "a number without a line": {"image2": "0.jpg"},
    "a number before the kind": {"img_0_url": "https://example.org/0"},
    "a number after the kind": {"image_url_0": "https://example.org/0"},
    "by its format, as Pick-a-Pic has it": {"jpg_0": b"\xff"},
    "by its format, as WebDataset has it": {"png": "iVBORw0KGgo="},
}
NO_MEDIA = [
    {"image": None}, {"image": ""}, {"images": []}, {"images": [None]}, {"image": {"bytes": None, "path": None}},
    {"has_image": "true"}, {"num_images": 0}, {"image_description": "A cat."}, {"imagery": "words"}, {"image": "None"},
    {"path": "a/b"}, {"file": {"path": "a.py"}}, {"image_0_uid": "a1"}, {"image_1": None}, {"num_images_2": "7"},
    {"figure_1": "A drawing of a cat."}, {"picturesque": "yes, it is"},
]  # fmt: skip


@pytest.mark.parametrize("more", MEDIA.values(), ids=MEDIA)
@pytest.mark.parametrize("row", [PAIR, {"question": "Why?", "response_1": "a", "response_2": "b", "winner": 1}])
def test_a_row_with_a_picture_or_sound_is_refused_by_its_name(more, row):
    (name,) = more
    with pytest.raises(RowError, match=f"the row has '{name}'") as refusal:
        read(row | more)
    assert refusal.value.reason == "wrong_type"


@pytest.mark.parametrize("more", NO_MEDIA)
def test_an_empty_cell_is_no_picture_nor_is_a_word_about_one(more):
    assert only(PAIR | more).chosen.content == "Because."


SYSTEM = [("system", "Be brief."), ("user", "Why?")]
MESSAGES = [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
@pytest.mark.parametrize(
    "value", ["Be brief.", [{"role": "system", "content": "Be brief."}], {"role": "system", "content": "Be brief."}]
)
@pytest.mark.parametrize("row", [
    PAIR,
    {"messages": MESSAGES, "chosen": {"role": "assistant", "content": "a"},
     "rejected": {"role": "assistant", "content": "b"}},
    {"conversations": MESSAGES, "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
    {"messages": [*MESSAGES, {"role": "assistant", "content": "a"}], "rejected_response": "b"},
    {"instruction": "Why?", "input": "", "chosen": "a", "rejected": "b"},
    {"prompt": "Why?", "completions": ["a", "b"], "scores": [1, 2]},
    {"prompt": "Why?", "response_1": "a", "response_2": "b", "winner": 1},
])  # fmt: skip
def test_a_system_text_beside_the_pair_is_part_of_its_prompt_in_any_form(name, value, row):
    assert told(only({name: value, **row}).prompt) == SYSTEM


@pytest.mark.parametrize("role", ["system", "developer", "System"])
@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_system_message_without_text_is_as_good_as_none(role, text):
    messages = [{"role": role, "content": text}, *MESSAGES]
    assert told(only(PAIR | {"prompt": messages}).prompt) == [("user", "Why?")]
    assert told(only(PAIR | {"system": text}).prompt) == [("user", "Why?")]
    openai = {
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    }
    assert told(only({"input": {"messages": messages}} | openai).prompt) == [("user", "Why?")]
    assert only(PAIR | {"prompt": messages}).pair_id == only(PAIR).pair_id


@pytest.mark.parametrize(("asks", "says"), [
    ("User", "Assistant"), ("human", "gpt"), ("USER", "MODEL"), ("user", "model"), ("prompter", "assistant"),
    ("Human", "bot"),
])  # fmt: skip
@pytest.mark.parametrize(
    ("role", "text"), [("role", "content"), ("from", "value"), ("role", "text"), ("speaker", "text")]
)
def test_roles_in_another_spelling_are_known(asks, says, role, text):
    dialogues = {
        side: [{role: asks, text: "Why?"}, {role: says, text: said}]
        for side, said in (("chosen", "a"), ("rejected", "b"))
    }
    pair = only(dialogues)
    assert (told(pair.prompt), pair.chosen.content) == ([("user", "Why?")], "a")


def test_an_unknown_role_is_told_with_those_that_are_known_and_a_users_turn_is_no_completion():
    with pytest.raises(RowError, match=r"assistant, tool .or human, .*found 'narrator'"):
        read(PAIR | {"prompt": [{"role": "narrator", "content": "x"}]})
    with pytest.raises(RowError, match="found roles \\['user'\\]"):
        read({"prompt": MESSAGES, "chosen": [{"role": "assistant", "content": "a"}], "rejected": MESSAGES})


LISTS = {
    "rejected": {"prompt": "Why?", "chosen": "a", "rejected": ["b", "c"]},
    "rejected of length one each": {"prompt": "Why?", "chosen": ["a"], "rejected": ["b", "c"]},
    "rejected_response": {
        "messages": [*MESSAGES, {"role": "assistant", "content": "a"}],
        "rejected_response": ["b", "c"],
    },
}


@pytest.mark.parametrize("row", LISTS.values(), ids=LISTS)
def test_each_of_several_rejected_completions_is_paired_as_pairing_says(row):
    assert [pair.rejected.content for pair in read(row).pairs] == ["b"]
    found = read(row, Pairing("all")).pairs
    assert [(pair.chosen.content, pair.rejected.content) for pair in found] == [("a", "b"), ("a", "c")]
    assert sum(pair.preference.weight for pair in found) == 1
    assert read(row, Pairing("all")).num_ties == 0
    (one,) = read(row, Pairing("best_random")).pairs
    assert one.rejected.content in ("b", "c")


def test_several_chosen_completions_are_each_better_than_each_rejected_one():
    found = read({"prompt": "Why?", "chosen": ["a", "b"], "rejected": ["c", "d"]}, Pairing("all")).pairs
    assert {(pair.chosen.content, pair.rejected.content) for pair in found} == {
        ("a", "c"),
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
    }


def test_tools_that_are_each_written_as_json_are_parsed():
    tool = {"type": "function", "function": {"name": "look"}}
    import json

    assert only(PAIR | {"tools": [json.dumps(tool)]}).tools == (tool,)
    with pytest.raises(RowError, match=r"'tools.0.' is text that is not JSON"):
        read(PAIR | {"tools": ["look"]})


@pytest.mark.parametrize(
    "history", [[["Hi", "Hello"]], [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]]
)
@pytest.mark.parametrize("row", [
    PAIR, {"instruction": "Why?", "chosen": "a", "rejected": "b"}, {"query": "Why?", "chosen": "a", "rejected": "b"},
    {"query": "Why?", "response": "a", "rejected_response": "b"},
    {"prompt": "Why?", "completions": ["a", "b"], "scores": [1, 2]},
])  # fmt: skip
def test_earlier_rounds_beside_the_prompt_come_before_it(row, history):
    assert told(only(row | {"history": history}).prompt) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Why?")]


def test_the_context_of_an_instruction_stands_below_it_as_its_input_does():
    row = {"instruction": "Answer.", "context": "A text.", "chosen": "a", "rejected": "b"}
    assert told(only(row).prompt) == [("user", "Answer.\nA text.")]
