"""Exports of Label Studio."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.formats import Pairing, RowError, detect, read_row
from tiebreak.data.reader import open_files
from tiebreak.records import Message, Source, Vote

HERE = Source("tasks.json", 1)
DATA = {"prompt": "Why?", "answer1": "one", "answer2": "two"}
ITEMS = [{"id": "x", "title": "X", "body": "one"}, {"id": "y", "body": "two"}, {"id": 7, "body": "three"}]


def read(row, choose="best_worst"):
    return read_row(row, detect(row), HERE, Pairing(choose))


def sides(reading):
    return [(pair.chosen.content, pair.rejected.content) for pair in reading.pairs]


def reason_of(row):
    with pytest.raises(RowError) as refused:
        read(row)
    return refused.value.reason


def annotation(value, by=1, **more):
    kind = "pairwise" if "selected" in value else "choices"
    return {"id": 5, "completed_by": by, "result": [{"type": kind, "from_name": "pw", "value": value}]} | more


def task(*annotations, data=DATA):
    return {"id": 1, "data": data, "annotations": list(annotations), "predictions": []}


def test_the_selected_side_of_a_pairwise_task_is_chosen():
    row = task(annotation({"selected": "right"}, by={"id": 3, "email": "ann@example.org"}))
    assert detect(row).name == "labelstudio"
    (pair,) = read(row).pairs
    assert (pair.chosen.content, pair.rejected.content) == ("two", "one")
    assert pair.preference.votes == (Vote("chosen", "3"),)
    assert pair.prompt == (Message("user", "Why?"),)


def test_every_annotator_has_a_vote_and_cancelled_annotations_none():
    row = task(
        annotation({"selected": "left"}, by=1),
        annotation({"choices": ["right"]}, by=2),
        annotation({"selected": "left"}, by=3),
        annotation({"selected": "right"}, by=4, was_cancelled=True),
        annotation({"choices": ["Tie"]}, by=5),
    )
    (pair,) = read(row).pairs
    assert pair.chosen.content == "one"
    assert [vote.choice for vote in pair.preference.votes] == ["chosen", "rejected", "chosen", "tie"]
    assert pair.preference.soft_label == 0.625


@pytest.mark.parametrize(
    "data",
    [
        {"prompt": "Why?", "response_a": "one", "response_b": "two"},
        {"question": "Why?", "answer_a": "one", "answer_b": "two"},
        {"instruction": "Why?", "text1": "one", "text2": "two"},
        {"text": "ignored", "input": "Why?", "left": "one", "right": "two"},
    ],
)
def test_columns_of_other_names_are_found(data):
    reading = read(task(annotation({"selected": "left"}), data=data))
    assert sides(reading) == [("one", "two")]
    assert reading.pairs[0].prompt == (Message("user", "Why?"),)


def test_a_ranking_orders_the_items_by_their_ids():
    ranked = annotation({"ranker": {"rank": ["y", 7, "x"]}})
    row = task(ranked, data={"prompt": "Why?", "items": ITEMS})
    assert sides(read(row, "all")) == [("two", "one"), ("two", "three"), ("three", "one")]
    assert sides(read(row)) == [("two", "one")]
    assert reason_of(task(ranked)) == "no_completion"
    buckets = annotation({"ranker": {"good": ["y"], "bad": ["x"]}})
    assert reason_of(task(buckets, data={"prompt": "Why?", "items": ITEMS})) == "wrong_type"


@pytest.mark.parametrize(
    "selection",
    [
        {"comparison": [{"selected": "right"}]},
        {"pw": {"selected": "right"}},
        {"comparison": "right", "annotation_id": 9},
    ],
)
def test_a_row_of_json_min_is_one_vote(selection):
    row = DATA | {"id": 1, "annotator": 4, "lead_time": 2.5} | selection
    assert detect(row).name == "labelstudio_min"
    (pair,) = read(row).pairs
    assert (pair.chosen.content, pair.rejected.content) == ("two", "one")
    assert pair.preference.votes == (Vote("chosen", "4"),)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (task(), "no_completion"),
        (task(annotation({"selected": "left"}, was_cancelled=True)), "no_completion"),
        (task(annotation({"rating": 4})), "no_completion"),
        (task(annotation({"selected": "left"}), data={"prompt": "Why?", "text": "one"}), "no_completion"),
        (task(annotation({"selected": "left"}), data={"answer1": "one", "answer2": "two"}), "no_prompt"),
        (task(annotation({"selected": "left"}), data=DATA | {"answer1": 3}), "wrong_type"),
        (task(annotation({"selected": "left"}), annotation({"selected": "right"})), "tie"),
        (DATA | {"comparison": [{"selected": "up"}]}, "wrong_type"),
        (task("no annotation", {"result": "none"}, {"result": [1]}), "no_completion"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(row, reason):
    assert reason_of(row) == reason


def control(name, answer):
    value = {"choices": [answer]} if name != "pw" else {"selected": answer}
    return {"type": "pairwise" if name == "pw" else "choices", "from_name": name, "value": value}


def asked(*results):
    return task({"completed_by": 1, "result": list(results)})


def test_where_a_side_was_selected_choices_beside_it_are_no_votes():
    (pair,) = read(asked(control("sure", "1"), control("pw", "right"), control("hard", "1"))).pairs
    assert (pair.chosen.content, pair.preference.votes) == ("two", (Vote("chosen", "1"),))


def test_choices_of_one_control_are_votes_and_a_scale_beside_them_is_not():
    row = asked(control("better", "right"), control("sure", "4"))
    assert sides(read(row)) == [("two", "one")]
    rows = [row, asked(control("better", "left"), control("sure", "2")), asked(control("sure", "1"))]
    form = detect(row)
    settled = form.settle(form, rows)
    assert sides(read_row(rows[1], settled, HERE)) == [("one", "two")]
    with pytest.raises(RowError, match="no annotation that counts"):
        read_row(rows[2], settled, HERE)


def test_controls_that_could_all_say_who_won_are_named_and_refused():
    row = asked(control("helpful", "left"), control("harmless", "right"))
    with pytest.raises(RowError, match=r"several controls may say .*: 'helpful', 'harmless'; leave"):
        read(row)
    form = detect(row)
    with pytest.raises(RowError, match="'helpful', 'harmless'"):
        read_row(asked(control("harmless", "right")), form.settle(form, [row]), HERE)


def test_two_selections_in_a_row_of_json_min_are_named_and_refused():
    row = DATA | {"helpful": {"selected": "left"}, "harmless": [{"selected": "right"}]}
    with pytest.raises(RowError, match=r"several columns say .*: 'helpful', 'harmless'"):
        read(row)


def test_the_system_text_of_a_task_is_read():
    (pair,) = read(task(annotation({"selected": "left"}), data=DATA | {"system_prompt": "Be brief."})).pairs
    assert pair.prompt == (Message("system", "Be brief."), Message("user", "Why?"))


@pytest.mark.parametrize(
    "judged",
    [
        {"comparison": [{"selected": "right"}], "annotator": 1},
        {"better.responses": ["answer2"], "better.responses.users": ["ann"], "better.responses.status": ["submitted"]},
    ],
)
def test_columns_that_are_only_looked_at_are_not_told_as_read(tmp_path, judged):
    row = DATA | {"context": "What happened before the question."} | judged
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    (file,) = open_files(SourceConfig(path=str(path)))
    assert file.look.missed == ("context",)
    assert {"prompt", "answer1", "answer2", next(iter(judged))} <= set(file.look.read)
