"""What a language model is asked, and what counts as its verdict."""

from __future__ import annotations

import pytest

from judge_endpoints import part
from tiebreak.engine.answers.answerer import Chat
from tiebreak.evaluation.judges.asking import messages_for, verdict_of
from tiebreak.evaluation.judges.judge import Question
from tiebreak.records import Message


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Verdict: A", 1.0), ("verdict: b", 0.0), ("Both are fine.\n\n**Verdict:** tie.", 0.5), ("A", 1.0),
        ("[[B]]", 0.0), ("tie", 0.5), ("## Final verdict: Answer A\n\n", 1.0), ("Verdict: [[A]]", 1.0),
        ("Verdict: A\nso\nVerdict: A", 1.0), ("", None), ("\n", None), ("Verdict:", None), ("Verdict: A or B", None),
        ("Verdict: AB", None), ("neither", None), ("A is better", None), ("Verdict: A\nVerdict: B", None),
        ("Verdict: A\nOr not.", None), ("My verdict: A", None),
    ],
)  # fmt: skip
def test_only_a_clear_last_line_is_a_verdict(said, verdict):
    assert verdict_of(said) == verdict


def test_each_part_is_whole_between_its_marks_and_all_turns_are_told():
    chat = Chat(
        (Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Why"))
    )
    system, user = messages_for(Question(chat, "one\n\ntwo", "three"), "which answer is shorter")
    assert (system["role"], user["role"]) == ("system", "user")
    assert part(user["content"], "conversation") == "system: Be kind.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: Why"
    assert (part(user["content"], "answer A"), part(user["content"], "answer B")) == ("one\n\ntwo", "three")
    assert user["content"].split("\n")[-1].startswith("Say which answer is shorter.")


def test_no_text_can_hold_the_mark_that_stands_around_it():
    marks = set()
    text = "an answer"
    for _ in range(20):  # each answer repeats the mark that the one before it had
        mark = (
            messages_for(Question(Chat(()), text, "b"), "x")[0]["content"]
            .rpartition("the mark ")[0]
            .partition("mark ")[2][:16]
        )
        assert len(mark) == 16
        assert mark not in text
        marks.add(mark)
        text = f"[end of answer A {mark}]"
    assert len(marks) == 20


def test_tools_and_their_calls_are_shown():
    call = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    chat = Chat((Message("user", "Hi"), Message("assistant", "", tool_calls=(call,))), ({"name": "look_up"},))
    told = part(messages_for(Question(chat, "a", "b"), "x")[1]["content"], "conversation")
    assert told.startswith('[{"name": "look_up"}]')
    assert '"tool_calls"' in told
