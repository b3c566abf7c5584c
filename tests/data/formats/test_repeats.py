"""Completions that begin with their prompt are cut where a file's all do, and left alone where they may be meant."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.formats.form import Pairing
from tiebreak.data.formats.repeats import after_prompt
from tiebreak.data.reader import open_files, records


def asked(number):
    return f"Why is the number {number} so well liked?"


def one_side(whole, number, word):
    return f"{whole}{word} {number}."


def found(tmp_path, rows, pairing="best_worst", **how):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = open_files(SourceConfig(path=str(path), **how), Pairing(pairing))
    return file, [one for record in records(file) for one in record.judged]


def turns(number, text):
    return [{"role": "user", "content": asked(number)}, {"role": "assistant", "content": text}]


def scored(number, good, bad):
    return {"prompt": asked(number), "completions": [bad, good], "scores": [1, 2]}


def voted(number, good, bad):
    return {"prompt": asked(number), "response_a": bad, "response_b": good, "winner": "b"}


SHAPES = {
    "pairs": lambda number, good, bad: {"prompt": asked(number), "chosen": good, "rejected": bad},
    "of other names": lambda number, good, bad: {"question": asked(number), "better": good, "worse": bad},
    "scores": scored,
    "verdicts": voted,
}  # fmt: skip


@pytest.mark.parametrize("joint", ["\n", " ", "\n\n", "  \n"])
@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_prompts_that_nearly_all_completions_repeat_are_cut_and_it_is_said(tmp_path, make, joint):
    rows = [
        make(number, *(one_side(asked(number) + joint if number else "", number, word) for word in ("Good", "Bad")))
        for number in range(12)
    ]
    file, pairs = found(tmp_path, rows)
    assert "which is cut" in file.form.title
    assert [(pair.chosen.content, pair.rejected.content) for pair in pairs] == [
        (f"Good {number}.", f"Bad {number}.") for number in range(12)
    ]
    assert [pair.prompt[-1].content for pair in pairs] == [asked(number) for number in range(12)]


def test_thumbs_are_cut_too(tmp_path):
    rows = [
        {"prompt": asked(n), "completion": f"{asked(n)} {word}", "label": word == "So."}
        for n in range(6)
        for word in ("So.", "No.")
    ]
    _, thumbs = found(tmp_path, rows, "none")
    assert {thumb.completion.content for thumb in thumbs} == {"So.", "No."}


@pytest.mark.parametrize(
    "prompt", ["Question: {}\nAnswer:", "User: {}\nAssistant:", "### Instruction:\n{}\n\n### Response:"]
)
def test_headers_of_the_prompt_are_cut_with_it(tmp_path, prompt):
    whole = [prompt.format(asked(number)) for number in range(6)]
    rows = [{"prompt": text, "chosen": f"{text} Good.", "rejected": f"{text} Bad."} for text in whole]
    _, pairs = found(tmp_path, rows)
    assert {(pair.chosen.content, pair.rejected.content) for pair in pairs} == {("Good.", "Bad.")}


def test_a_completion_that_is_its_prompt_and_no_more_is_dropped_as_empty(tmp_path):
    whole = [asked(number) for number in range(12)]
    rows = [{"prompt": text, "chosen": f"{text} Good.", "rejected": f"{text} Bad."} for text in whole]
    rows[3]["rejected"] = whole[3]
    file, pairs = found(tmp_path, rows)
    assert len(pairs) == 11
    assert [one.dropped.reason for one in records(file) if one.dropped] == ["empty_completion"]


CHATS = {
    "a system text": lambda number, good, bad: {
        "system": "Begin with the question.", "prompt": asked(number), "chosen": good, "rejected": bad
    },
    "earlier rounds": lambda number, good, bad: {
        "history": [["Hello", "Hi"]], "prompt": asked(number), "chosen": good, "rejected": bad
    },
    "a prompt of messages": lambda number, good, bad: {
        "prompt": turns(number, "")[:1], "chosen": good, "rejected": bad
    },
    "dialogues": lambda number, good, bad: {"chosen": turns(number, good), "rejected": turns(number, bad)},
}  # fmt: skip


@pytest.mark.parametrize("make", CHATS.values(), ids=CHATS)
def test_answers_of_chats_that_begin_with_the_question_stay_whole(tmp_path, make):
    sides = [tuple(one_side(asked(n) + " ", n, word) for word in ("Good", "Bad")) for n in range(12)]
    file, pairs = found(tmp_path, [make(n, *both) for n, both in enumerate(sides)])
    assert "which is cut" not in file.form.title
    assert [(pair.chosen.content, pair.rejected.content) for pair in pairs] == sides


def half(number):
    return asked(number) + " " if number % 2 else ""


LEFT = {
    "half of the rows": [(asked(n), half(n) + "Good.", half(n) + "Bad.") for n in range(12)],
    "one side alone": [(asked(n), f"{asked(n)} Good.", "Bad.") for n in range(12)],
    "a word that is explained": [(f"Iron {n}", f"Iron {n} is good.", f"Iron {n} is bad.") for n in range(12)],
    "two rows": [(asked(n), f"{asked(n)} Good.", f"{asked(n)} Bad.") for n in range(2)],
    "inside of a word": [
        (f"Number {n} is what counts the cat", f"Number {n} is what counts the cats", "No.") for n in range(9)
    ],
}


@pytest.mark.parametrize("rows", LEFT.values(), ids=LEFT)
def test_what_may_be_meant_stays(tmp_path, rows):
    _, pairs = found(tmp_path, [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows])
    assert [(pair.prompt[-1].content, pair.chosen.content, pair.rejected.content) for pair in pairs] == rows


def test_columns_that_are_named_are_read_as_they_are(tmp_path):
    rows = [{"prompt": asked(n), "chosen": f"{asked(n)} Good.", "rejected": f"{asked(n)} Bad."} for n in range(6)]
    _, pairs = found(tmp_path, rows, columns={"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"})
    assert [pair.chosen.content for pair in pairs] == [row["chosen"] for row in rows]


def test_the_body_of_a_function_keeps_its_indent():
    prompt = 'def twice(number):\n    """Double it."""'
    assert after_prompt(f"{prompt}\n    return 2 * number", prompt) == "    return 2 * number"
