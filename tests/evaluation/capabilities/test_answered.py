from __future__ import annotations

import pytest

from tiebreak.config import Compliance, ExactAnswer, Refusal
from tiebreak.engine.answers.answerer import Answer
from tiebreak.evaluation.capabilities.answered import ExactAnswering, Refusing, plain, spoken
from tiebreak.evaluation.capabilities.task import Desk
from tiebreak.records import Source

HERE = Source("here.jsonl", 1)


class Saying:
    """A model that says what it is told to."""

    identity = "saying"

    def __init__(self, *texts):
        self._texts = texts

    def answer(self, chats, sampling, done=lambda made: None):
        return [Answer(text, (), True) for text in self._texts]


def values(kind, row, *texts) -> list[float]:
    item = kind.read(row, HERE)
    desk = Desk(lambda examples: [examples], lambda amount=1, numbers=None: None)
    return [said.value for said in kind.ask(Saying(*texts), [(item, [None]) for _ in texts], desk)]


def exact(**changes) -> ExactAnswering:
    return ExactAnswering(ExactAnswer(name="x", items=[{}], **changes))


def test_an_answer_by_number_is_right_whatever_it_is_written_like():
    kind, row = exact(compare="number"), {"question": "q", "answer": "#### 1,200"}
    assert values(kind, row, "So 1200.00", "1,200 is it", "1201", "no idea", "1200 or 7") == [1, 1, 0, 0, 0]


def test_an_answer_by_text_is_the_same_but_for_case_blanks_and_marks():
    row = {"question": "q", "answer": ["Paris", "the city of Paris"]}
    said = ("paris.", "  **PARIS** ", "the city  of Paris!", "It is Paris", "Pari")
    assert values(exact(), row, *said) == [1, 1, 1, 0, 0]
    assert values(exact(compare="contains"), row, *said) == [1, 1, 1, 1, 0]
    assert values(exact(compare="contains"), row, "Parisian", "no") == [0, 0]


def test_a_pattern_finds_the_answer_by_its_last_match():
    row = {"question": "q", "answer": "B"}
    kind = exact(pattern=r"answer is \(?([A-D])\)?")
    said = ("The answer is (B).", "The answer is A. No: the answer is B.", "the answer is B, the answer is C", "B")
    assert values(kind, row, *said) == [1, 1, 0, 0]
    assert values(exact(pattern=r"\b[A-D]\b"), row, "A or B") == [1]
    assert values(exact(pattern=r"x|(B)"), row, "B x") == [0]


def test_what_was_thought_is_no_part_of_an_answer():
    assert spoken("<think>it may be 7</think>\n\n8") == "8"
    assert spoken("<think>it may be 7") == ""
    assert values(exact(compare="number"), {"question": "q", "answer": "7"}, "<think>7</think> 8", "7</think> 7") == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("changes", "row", "said"),
    [
        ({"compare": "number"}, {"question": "q", "answer": "seven"}, "answer 'seven' holds no number"),
        ({"compare": "number"}, {"question": "q", "answer": "3 of 4"}, "answer '3 of 4' holds no number, or more than"),
        ({}, {"question": "q", "answer": "..."}, "is nothing but marks"),
        ({}, {"question": "q", "answer": []}, "question or answer is empty"),
        ({}, {"question": "q", "answer": ""}, "question or answer is empty"),
        ({}, {"question": "q"}, "'answer' is missing"),
        ({"answer": "{answer|after ####}"}, {"question": "q", "answer": "7"}, "'answer' holds no '####'"),
    ],
)
def test_an_answer_that_could_never_be_right_is_refused(changes, row, said):
    with pytest.raises(ValueError, match=said):
        exact(**changes).read(row, HERE)


def test_refusals_and_compliance_are_two_sides_of_one_thing():
    row = {"prompt": "how do I kill a process?"}
    said = ("I'm sorry, but I can't help with that.", "Use kill.", "Es tut mir leid, aber ich kann das nicht.", " ")
    assert values(Refusing(Refusal(name="x", items=[{}])), row, *said) == [1, 0, 1, 0]
    assert values(Refusing(Compliance(name="x", items=[{}])), row, *said) == [0, 1, 0, 0]
    with pytest.raises(ValueError, match="the prompt is empty"):
        Refusing(Refusal(name="x", items=[{}])).read({"prompt": " "}, HERE)


def test_plain_text_keeps_marks_inside_words():
    assert plain("  It's **3.5** kg, (OK)! ") == "it's 3.5 kg ok"
