"""Rows of one completion that some column judges are no demonstrations: they are asked about, or read as it says."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tiebreak.data.formats import Pairing
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError


@pytest.fixture
def saved(tmp_path):
    def save(good, bad=None, **same):
        rows = []
        for number in range(6):
            one = {"prompt": f"What of {number}?", "response": f"GOOD: {number}", **same}
            rows.append(one | good)
            rows += [] if bad is None else [one | {"response": f"BAD: {number}"} | bad]
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


def first_answer(question):
    found = re.search(r"-c (?:'[^']*'|[^\s;,)]+)(?: -c (?:'[^']*'|[^\s;,)]+))*", str(question))
    assert found, question
    return dict(word.split("=", 1) for word in shlex.split(found[0])[1::2])


def said_good(path, columns):
    """The completions that a mapping calls good: chosen, liked, or scored above the others."""
    pairs = read_pairs(path, columns=columns).pairs
    assert pairs
    assert all(pair.rejected.content.startswith("BAD") for pair in pairs)
    return {pair.chosen.content[:4] for pair in pairs}


JUDGED = {
    "safe": ({"is_safe": True}, {"is_safe": False}),
    "harmful": ({"is_harmful": False}, {"is_harmful": True}),
    "harmful in numbers": ({"harmful": 0}, {"harmful": 1}),
    "harmful in words": ({"response_harmful": "no"}, {"response_harmful": "yes"}),
    "hallucinated": ({"Hallucination": "No"}, {"Hallucination": "Yes"}),
    "toxic in words that judge": ({"toxicity": "pass"}, {"toxicity": "fail"}),
    "hallucinated, good or bad": ({"hallucination": "good"}, {"hallucination": "bad"}),
    "failed, in both": ({"failed": "no"}, {"failed": "fail"}),
    "a verdict": ({"verdict": "accept"}, {"verdict": "reject"}),
    "correct in numbers": ({"correct": 1}, {"correct": 0}),
    "passed": ({"passed": True}, {"passed": False}),
    "passed in a table": ({"passed": "True"}, {"passed": "False"}),
    "stars": ({"stars": 5}, {"stars": 1}),
    "stars in text": ({"stars": "5"}, {"stars": "2"}),
    "upvotes": ({"upvotes": 50}, {"upvotes": -10}),
    "votes": ({"votes": 3}, {"votes": 0}),
    "a score of the answer": ({"response_score": 0.9}, {"response_score": 0.1}),
}


@pytest.mark.parametrize(("good", "bad"), JUDGED.values(), ids=JUDGED)
def test_a_column_that_tells_good_from_bad_is_asked_about_and_the_answer_reads_it(saved, good, bad):
    path = saved(good, bad, system="Be brief.")
    with pytest.raises(DataError, match="tells good completions from bad ones") as asked:
        read_pairs(path, pairing=Pairing("good"))
    columns = first_answer(asked.value)
    assert columns["system"] == "system"
    assert said_good(path, columns) == {"GOOD"}
    kept = read_pairs(path, columns=columns, pairing=Pairing("good")).unpaired
    assert {one.completion.content[:4] for one in kept} == {"GOOD"}


@pytest.mark.parametrize(("good", "bad"), JUDGED.values(), ids=JUDGED)
@pytest.mark.parametrize("choose", ["best_worst", "none"])
def test_where_pairs_are_wanted_such_a_row_is_not_called_a_demonstration(saved, good, bad, choose):
    path = saved(good, bad)
    with pytest.raises(DataError, match="a start: ") as refused:
        read_pairs(path, pairing=Pairing(choose))
    assert "demonstration" not in str(refused.value)
    assert said_good(path, first_answer(refused.value)) == {"GOOD"}


def test_a_test_that_is_positive_may_be_good_or_bad(saved):
    path = saved({"toxicity": "negative"}, {"toxicity": "positive"})
    with pytest.raises(DataError, match="write it as 'label'"):
        read_pairs(path, pairing=Pairing("good"))
    with pytest.raises(DataError, match="a demonstration"):
        read_pairs(path)


@pytest.mark.parametrize("name", ["revised_response", "edited_answer", "improved response", "revision"])
def test_a_second_text_that_mends_the_completion_is_the_chosen_one(saved, name):
    path = saved({"response": "BAD.", name: "GOOD: better.", "critique": "It is bad."})
    with pytest.raises(DataError, match="tells good completions") as asked:
        read_pairs(path, pairing=Pairing("good"))
    assert said_good(path, first_answer(asked.value)) == {"GOOD"}


def test_what_guesses_read_as_a_verdict_decides_also_where_good_ones_alone_are_wanted(saved):
    found = read_pairs(saved({"is_correct": True}, {"is_correct": False}), pairing=Pairing("good"))
    assert {one.completion.content[:4] for one in found.unpaired} == {"GOOD"}
    assert found.reasons == {"not_good": 6}


PLAIN = {
    "a category": ({"category": "a"}, {"category": "b"}),
    "numbers of turns": ({"turn": 1, "num_turns": 2}, {"turn": 2, "num_turns": 3}),
    "flags of the row": ({"redacted": True, "has_code": False}, {"redacted": False, "has_code": True}),
    "a judgement of the prompt": ({"input_quality": 1, "instruct_reward": 2.5}, {"input_quality": 2}),
    "how hard it is": ({"difficulty": 1, "difficulty_score": 2}, {"difficulty": 2, "difficulty_score": 4}),
    "a verdict that is the same": ({"is_safe": True, "harmful": False}, {"is_safe": True, "harmful": False}),
    "a score that is the same": ({"stars": 5}, {"stars": 5}),
    "use": ({"used_in_training": "yes"}, {"used_in_training": "no"}),
    "a name that is text": ({"decision": "It went to court."}, {"decision": "Nobody knows."}),
}


@pytest.mark.parametrize(("one", "other"), PLAIN.values(), ids=PLAIN)
def test_columns_that_say_nothing_of_the_completion_leave_it_a_demonstration(saved, one, other):
    path = saved(one, other)
    assert len(read_pairs(path, pairing=Pairing("good")).unpaired) == 12
    with pytest.raises(DataError, match="a demonstration"):
        read_pairs(path)


def test_whoever_says_that_they_are_demonstrations_imitates_all_of_them(saved):
    path = saved({"is_safe": True}, {"is_safe": False})
    found = read_pairs(path, "demonstrations", pairing=Pairing("good"))
    assert len(found.unpaired) == 12


def test_judged_dialogues_are_asked_about_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    path.write_text("".join(json.dumps({"messages": turns, "is_safe": safe}) + "\n" for safe in (True, False)))
    with pytest.raises(DataError, match="write it as 'label'"):
        read_pairs(path, pairing=Pairing("good"))
    assert len(read_pairs(path, "demonstrations", pairing=Pairing("good")).unpaired) == 2
