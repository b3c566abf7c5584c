"""What is proposed for a column that was not read puts it into the prompt, loses nothing, and ends there."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.formats import RowError, detect, read_row
from tiebreak.data.reader import open_files
from tiebreak.records import Source

PAIR = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
CONTEXT = {"context": "A passage that explains it."}
TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def look(tmp_path, row, columns=None):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (file,) = open_files(SourceConfig(path=str(path), columns=columns))
    return file.look


def said(found):
    return [*(message.content for message in found.first.prompt), found.first.chosen, found.first.rejected]


KEPT = {
    "a system text": {"system_prompt": "Be kind."},
    "earlier rounds": {"history": [["Hi", "Hello"]]},
    "both": {"system": "Be kind.", "history": [["Hi", "Hello"]]},
    "a system message": {"prompt": TURNS},
    "steps that both begin with": {"initial_reason_steps": "First: "},
    "an instruction": {"prompt": None, "instruction": "Why?"},
}


@pytest.mark.parametrize("more", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("missed", [CONTEXT, {"question_body": "It was seen."}, {"background": ["A.", "A story."]}])
def test_what_was_read_is_still_read(tmp_path, more, missed):
    row = {**PAIR, **more, **missed}
    before = look(tmp_path, row)
    if not before.remedy:
        assert "instruction" in row or isinstance(*missed.values(), list)
        return
    after = look(tmp_path, row, dict(before.remedy))
    assert after.missed == ()
    read = "\n".join(said(after))
    assert all(text in read for text in said(before))
    assert str(*missed.values()) in read


def test_pasting_one_remedy_calls_for_no_other(tmp_path):
    row = PAIR | CONTEXT | {"rubric": "What counts is how short it is.", "preprompt": "Be kind."}
    before = look(tmp_path, row)
    assert {"context", "rubric", "preprompt"} == set(before.missed)
    after = look(tmp_path, row, dict(before.remedy))
    assert len(after.missed) == 1
    assert after.remedy == ()
    assert {"system": "preprompt"}.items() <= dict(before.remedy).items()


def test_a_mapping_of_the_users_is_gone_on_with(tmp_path):
    row = {"q": "Why?", "x": "Because.", "y": "No.", **CONTEXT}
    mapping = {"prompt": "q", "completion_a": "x", "completion_b": "y", "winner": "=a"}
    remedy = dict(look(tmp_path, row, mapping).remedy)
    assert remedy == mapping | {"input": "context"}


def test_guessed_columns_are_gone_on_with(tmp_path):
    row = {"question": "Why?", "better": "Because.", "worse": "No.", "passage": "A passage that explains it."}
    remedy = dict(look(tmp_path, row).remedy)
    assert remedy == {"prompt": "question", "chosen": "better", "rejected": "worse", "input": "passage"}


@pytest.mark.parametrize(
    "name",
    [
        "chosen_reasoning", "rejected_reasoning", "reference", "references", "reference_text", "chosen_context",
        "gold_evidence_reference", "response_description", "expected_output_reference",
    ],
)  # fmt: skip
def test_what_tells_the_answer_or_is_of_one_side_is_never_put_into_the_prompt(tmp_path, name):
    assert look(tmp_path, PAIR | {name: "A long text of somebody who knows it all."}).remedy == ()
    row = PAIR | {name: "A long text of somebody who knows it all."} | CONTEXT
    assert dict(look(tmp_path, row).remedy)["input"] == "context"


def test_a_system_text_beside_a_system_message_is_not_put_below_the_question(tmp_path):
    found = look(tmp_path, PAIR | {"prompt": TURNS, "system_prompt": "Be kind."})
    assert (found.missed, found.remedy) == (("system_prompt",), ())


# ------------------------------------------------------------------------------------ texts under the name of an origin


def look_at(tmp_path, rows, columns=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = open_files(SourceConfig(path=str(path), columns=columns))
    return file.look


@pytest.mark.parametrize("name", ["source", "group", "dataset"])
def test_a_text_under_the_name_of_an_origin_is_missed_and_the_remedy_reads_it(tmp_path, name):
    rows = [PAIR | {"prompt": "Translate.", name: f"Guten Tag, Nummer {n}!"} for n in range(10)]
    found = look_at(tmp_path, rows)
    assert found.missed == (name,)
    assert dict(found.remedy)["input"] == name
    after = look_at(tmp_path, rows, dict(found.remedy))
    assert (after.missed, after.first.prompt[-1].content) == ((), "Translate.\nGuten Tag, Nummer 0!")


@pytest.mark.parametrize("value", [
    lambda n: f"document {n}", lambda n: f"https://a.example/{n}", lambda n: f"The Book of Tales {n % 3}", lambda n: n,
])  # fmt: skip
def test_an_origin_is_none(tmp_path, value):
    assert look_at(tmp_path, [PAIR | {"source": value(n), "group": value(n)} for n in range(10)]).missed == ()


@pytest.mark.parametrize("name", ["custom_system_prompt", "instruction", "context"])
def test_what_lies_inside_the_completions_of_a_list_is_missed(tmp_path, name):
    said = [{"text": text, "score": score, name: f"Told {score}."} for text, score in (("Because.", 2), ("No.", 1))]
    assert look(tmp_path, {"prompt": "Why?", "completions": said}).missed == (f"completions.*.{name}",)


@pytest.mark.parametrize("row", [
    {"chosen": {"prompt": "Why so?", "text": "Because."}, "rejected": {"prompt": "Why not?", "text": "No."}},
    {"completions": [{"prompt": f"Why {n}?", "text": f"said {n}", "score": n} for n in (1, 2)]},
])  # fmt: skip
def test_completions_that_answer_different_prompts_are_no_pair(row):
    row = {"prompt": "Why?", **row}
    with pytest.raises(RowError) as refused:
        read_row(row, detect(row), Source("rows.jsonl", 1))
    assert refused.value.reason == "prompts_differ"


ASKED, SIDES = {"prompt": "Why?"}, {"response_a": "Because.", "response_b": "No."}
MESSAGES = [{"role": "user", "content": "Why?"}]
JUDGED = {
    "a verdict": ASKED | SIDES | {"winner": "a"},
    "numbers of votes": ASKED | SIDES | {"votes": {"a": 3, "b": 1}},
    "votes of several": ASKED | SIDES | {"votes": ["a", "b", "a"]},
    "scores of the sides": ASKED | SIDES | {"score_a": 2, "score_b": 1},
    "a strength": ASKED | {"response_1": "Because.", "response_2": "No.", "preference_strength": -2},
    "scores of a list": ASKED | {"completions": ["Because.", "No."], "scores": [2, 1]},
    "a thumb": ASKED | {"completion": "Because.", "label": True},
    "OpenAI's form": {
        "input": {"messages": MESSAGES},
        "preferred_output": [{"role": "assistant", "content": "Because."}],
        "non_preferred_output": [{"role": "assistant", "content": "No."}],
    },
}


@pytest.mark.parametrize("row", JUDGED.values(), ids=JUDGED)
@pytest.mark.parametrize("more", [{}, {"system": "Be kind."}])
def test_what_other_forms_do_not_read_has_a_remedy_too(tmp_path, row, more):
    before = look(tmp_path, row | CONTEXT | more)
    assert before.missed == ("context",)
    after = look(tmp_path, row | CONTEXT | more, dict(before.remedy))
    assert after.missed == ()
    read = "\n".join(said(after))
    assert all(text in read for text in [*said(before), *CONTEXT.values(), *more.values()])
    assert (after.first.chosen, after.first.rejected) == (before.first.chosen, before.first.rejected)


def test_a_verdict_that_is_another_s_by_chance_is_not_proposed(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [ASKED | SIDES | CONTEXT | {"preference": word, "winner": "a"} for word in ("a", "very", "quite", "so")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (file,) = open_files(SourceConfig(path=str(path)))
    assert dict(file.look.remedy)["winner"] == "winner"
