"""Logs of chats: thumbs, regenerated completions, edits."""

from __future__ import annotations

import pytest

from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.records import Message, Source

HERE = Source("log.jsonl", 1)


def user(text):
    return {"role": "user", "content": text}


def reply(text, **more):
    return {"role": "assistant", "content": text} | more


def log(*turns, **more):
    return {"messages": list(turns)} | more


def read(row, choose="best_worst"):
    assert detect(row).name == "chatlog"
    return read_row(row, detect(row), HERE, Pairing(choose))


def sides(reading):
    return [(pair.chosen.content, pair.rejected.content) for pair in reading.pairs]


def reason_of(row):
    with pytest.raises(RowError) as refused:
        read(row)
    return refused.value.reason


def test_each_judged_turn_is_a_thumb_after_what_was_said_before():
    row = log(user("a"), reply("b", feedback="up"), user("c"), reply("d"), user("e"), reply("f", rating=-1), group=4)
    first, second = read(row).thumbs
    assert (first.completion.content, first.liked, [m.content for m in first.prompt]) == ("b", True, ["a"])
    assert (second.completion.content, second.liked) == ("f", False)
    assert [m.content for m in second.prompt] == ["a", "b", "c", "d", "e"]
    assert (first.source, first.origin.group) == (HERE, "4")


@pytest.mark.parametrize("name", ["messages", "conversation", "conversations", "turns"])
@pytest.mark.parametrize(
    "told",
    [{"feedback": "👍"}, {"thumbs": True}, {"vote": "+1"}, {"annotation": {"rating": 1}}, {"feedback": {"type": "up"}},
     {"score": 1}, {"rating": "like", "feedback": "It said what I hoped for."}],
)  # fmt: skip
def test_thumbs_of_other_names_and_shapes_are_read(name, told):
    (thumb,) = read({name: [user("a"), reply("b", **told)]}).thumbs
    assert thumb.liked


def test_the_kept_completion_is_chosen_over_the_last_that_was_abandoned_or_over_all():
    row = log(user("a"), reply("kept", regenerations=["first", {"content": "second"}, reply("third")]))
    assert sides(read(row)) == [("kept", "third")]
    reading = read(row, "all")
    assert sides(reading) == [("kept", "first"), ("kept", "second"), ("kept", "third")]
    assert sum(pair.preference.weight for pair in reading.pairs) == pytest.approx(1)


def test_a_text_that_was_generated_again_word_for_word_is_no_alternative():
    row = log(user("a"), reply("kept", variants=["other", "kept", " ", None]))
    assert sides(read(row, "all")) == [("kept", "other")]


def test_an_abandoned_completion_may_have_a_thumb_of_its_own():
    row = log(user("a"), reply("kept", alternatives=[{"content": "lost", "feedback": "down"}], feedback="up"))
    reading = read(row)
    assert [(thumb.completion.content, thumb.liked) for thumb in reading.thumbs] == [("kept", True), ("lost", False)]
    assert sides(reading) == [("kept", "lost")]


@pytest.mark.parametrize(
    "turn",
    [
        reply("before", edited="after"),
        reply("before", edit="after"),
        reply("after", original="before"),
        reply("after", edited=True, edited_from="before"),
        reply("shown", edited="after", original="before"),
    ],
)
def test_an_edit_is_chosen_over_its_original_and_goes_on_in_the_conversation(turn):
    reading = read(log(user("a"), turn | {"feedback": "down"}, user("c"), reply("d", feedback="up")))
    assert sides(reading) == [("after", "before")]
    assert [(thumb.completion.content, thumb.liked) for thumb in reading.thumbs] == [("before", False), ("d", True)]
    assert [m.content for m in reading.thumbs[1].prompt] == ["a", "after", "c"]


def test_a_system_text_and_tools_belong_to_every_prompt():
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    row = log(user("a"), reply("b", feedback="up", regenerations=["c"]), system="Be brief.", tools=tools)
    reading = read(row)
    assert reading.thumbs[0].prompt == (Message("system", "Be brief."), Message("user", "a"))
    assert reading.pairs[0].prompt == reading.thumbs[0].prompt
    assert reading.pairs[0].tools == reading.thumbs[0].tools == tuple(tools)
    assert reading.pairs[0].prompt_id == reading.thumbs[0].prompt_id


def test_a_conversation_may_name_its_speakers_as_sharegpt_does():
    row = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "feedback": "up"}]}
    assert read(row).thumbs[0].completion == Message("assistant", "b")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (log(user("a"), reply("b")), "no_completion"),
        (log(user("a"), reply("b", feedback=None, rating=0, thumbs="", regenerations=[])), "no_completion"),
        (log(user("a"), reply("b", feedback="I had hoped for more.")), "no_completion"),
        (log(user("a"), reply("b", rating=4)), "wrong_type"),
        (log(user("a"), reply("b", regenerations=[3])), "wrong_type"),
        (log(user("a"), reply("b", regenerations="c")), "wrong_type"),
        (log(user("a"), "b"), "wrong_type"),
        (log(user("a"), {"role": "nobody", "content": "b"}), "unknown_role"),
        (log(reply("b", feedback="up")), "no_prompt"),
        (log(user("a"), user("c"), reply("b", feedback="up")), "turn_order"),
        (log(user("a"), reply(" ", feedback="up")), "empty_completion"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    assert reason_of(row) == reason


def test_no_list_of_turns_is_no_log():
    for row in ({"messages": []}, {"messages": "a"}, {"messages": ["a"]}, {"turns": [{"text": "a"}]}):
        assert detect(row) is None
