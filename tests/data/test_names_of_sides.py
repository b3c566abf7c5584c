"""A verdict that names a side by a name of the row's own, or counts from zero: read as it is meant, or asked about."""

import json

import pytest

from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

TURNED = [number % 2 == 0 for number in range(24)]
READ = {
    "fields of an export in any order": lambda turned: {
        "fields": {
            "prompt": "Why?",
            "response-2": "good" if turned else "bad",
            "response-1": "bad" if turned else "good",
        },
        "responses": {"better": [{"value": "2" if turned else "1", "user_id": "u"}]},
    },
    "a column for each side beside models that are called by letters": lambda turned: {
        "prompt": '["Why?"]',
        "response_a": json.dumps(["bad" if turned else "good"]),
        "response_b": json.dumps(["good" if turned else "bad"]),
        "model_a": "B",
        "model_b": "A",
        "winner_model_a": int(not turned),
        "winner_model_b": int(turned),
        "winner_tie": 0,
    },
    "a verdict as in SHP": lambda turned: {
        "history": "Why?",
        "human_ref_A": "bad" if turned else "good",
        "human_ref_B": "good" if turned else "bad",
        "labels": int(not turned),
    },
    "names that count from zero": lambda turned: {
        "prompt": "Why?",
        "response_0": "bad" if turned else "good",
        "response_1": "good" if turned else "bad",
        "chosen": f"model_{int(turned)}",
        "rejected": f"model_{int(not turned)}",
    },
    "verdicts and columns that count from zero": lambda turned: {
        "prompt": "Why?",
        "response_0": "bad" if turned else "good",
        "response_1": "good" if turned else "bad",
        "winner": f"Model {int(turned)}",
    },
    "models called by words for sides that agree": lambda turned: {
        "prompt": "Why?",
        "response_a": "bad" if turned else "good",
        "response_b": "good" if turned else "bad",
        "model_a": "system_1",
        "model_b": "system_2",
        "winner": f"system_{1 + turned}",
    },
}


def sides(turned, **more):
    return {
        "prompt": "Why?",
        "response_a": "bad" if turned else "good",
        "response_b": "good" if turned else "bad",
        **more,
    }


def rounds(turned, **more):
    return {name: [told] if told in ("Why?", "good", "bad") else told for name, told in sides(turned, **more).items()}


ASKED = {
    "rounds of models called by letters": lambda turned: rounds(
        turned, model_a="B" if turned else "A", model_b="A" if turned else "B", winner="A"
    ),
    "rounds whose verdicts count from zero": lambda turned: rounds(turned, winner=int(turned)),
    "rounds with numbers that may be ranks": lambda turned: rounds(
        turned, preference={"response_a": 1 + turned, "response_b": 2 - turned}
    ),
    "names that are words for the other side": lambda turned: sides(
        turned,
        model_a="system_2" if turned else "system_1",
        model_b="system_1" if turned else "system_2",
        chosen="system_1",
        rejected="system_2",
    ),
    "names that count from zero beside letters": lambda turned: sides(
        turned, chosen=f"model_{int(turned)}", rejected=f"model_{int(not turned)}"
    ),
    "models called by the word for the other side": lambda turned: sides(
        turned,
        model_a="system_2" if turned else "system_1",
        model_b="system_1" if turned else "system_2",
        winner="system_1",
    ),
    "models called by letters": lambda turned: sides(
        turned, model_a="B" if turned else "A", model_b="A" if turned else "B", winner="A"
    ),
    "texts that are words for the other side": lambda turned: {
        "prompt": "2 or 1?",
        "response_1": "1" if turned else "2",
        "response_2": "2" if turned else "1",
        "preferred_response": "2",
    },
    "words that count from zero": lambda turned: sides(turned, winner=f"model_{int(turned)}"),
    "words that count from zero beside columns that count from one": lambda turned: {
        "prompt": "Why?",
        "response_1": "bad" if turned else "good",
        "response_2": "good" if turned else "bad",
        "winner": f"response_{int(turned)}",
    },
    "battles whose models count from zero": lambda turned: (
        {
            f"conversation_{side}": [
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "good" if (side == "a") != turned else "bad"},
            ]
            for side in "ab"
        }
        | {"winner": f"model_{int(turned)}"}
    ),
    "the best of three, counted from zero": lambda turned: {
        "prompt": "Why?",
        **{f"response_{place}": f"text {place}" for place in (1, 2, 3)},
        "best": f"model_{2 * turned}",
    },
}


@pytest.fixture
def saved(tmp_path):
    def save(row_of):
        path = tmp_path / "pairs.jsonl"
        rows = ({**row_of(turned), "id": str(number)} for number, turned in enumerate(TURNED))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return save


@pytest.mark.parametrize("row_of", READ.values(), ids=READ)
def test_a_verdict_by_the_rows_own_names_is_read_as_it_is_meant(saved, row_of):
    found = read_pairs(saved(row_of))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}
    assert found.num_records == len(TURNED)


@pytest.mark.parametrize("row_of", ASKED.values(), ids=ASKED)
def test_a_verdict_that_names_one_side_and_says_the_other_is_asked_about(saved, row_of):
    with pytest.raises(DataError, match=r"may be|two ways|two readings|word for the other|no texts"):
        read_pairs(saved(row_of))


def task(turned, labels, sides):
    texts = ("bad", "good") if turned else ("good", "bad")
    return {"prompt": "Why?", **dict(zip(sides, texts, strict=True))}, labels[turned]


def labelled(turned, *how):
    data, label = task(turned, *how)
    said = {"from_name": "better", "value": {"choices": [label]}}
    return {"data": data, "annotations": [{"result": [said]}]}


def selected(turned, *how):
    data, label = task(turned, *how)
    return {**data, "annotation_id": 1, "comparison": [{"selected": label}]}


def answered(turned, *how):
    fields, label = task(turned, *how)
    return {"fields": fields, "responses": {"better": [{"value": label, "user_id": "ann"}]}}


@pytest.mark.parametrize("labels", [("0", "1"), ("response_0", "response_1"), ("model_0", "model_1")], ids=str)
@pytest.mark.parametrize("export", [labelled, selected, answered])
def test_labels_of_an_export_that_count_from_zero_are_asked_about_or_read_as_its_columns_count(saved, export, labels):
    with pytest.raises(DataError, match="admits two readings; write 'response-1', 'response-2' or tie"):
        read_pairs(saved(lambda turned: export(turned, labels, ("response-1", "response-2"))))
    found = read_pairs(saved(lambda turned: export(turned, labels, ("response-0", "response-1"))))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}
    assert not found.reasons


def test_three_answers_and_a_label_are_refused_as_three(saved):
    row = {"data": {"prompt": "Why?", **{f"answer{place}": f"text {place}" for place in (1, 2, 3)}}}
    said = {"result": [{"from_name": "better", "value": {"choices": ["1"]}}]}
    with pytest.raises(DataError, match="are 3 completions, and the verdict is on two"):
        read_pairs(saved(lambda _: row | {"annotations": [said]}))


@pytest.mark.parametrize(("export", "key"), [(labelled, "data"), (answered, "fields")])
def test_labels_of_an_export_may_be_the_models_of_the_row(saved, export, key):
    def row(turned):
        made = export(turned, ("one-7b", "two-7b"), ("response-1", "response-2"))
        return made | {key: made[key] | {"model_a": "one-7b", "model_b": "two-7b"}}

    found = read_pairs(saved(row))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}


def test_battles_of_rounds_count_every_vote_and_drop_ties(saved):
    def won(turned):
        return {"winner_model_a": int(not turned), "winner_model_b": int(turned), "winner_tie": 0}

    ties = iter([{"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1}] * 8)
    found = read_pairs(saved(lambda turned: rounds(turned, **(next(ties, None) or won(turned)))))
    assert (len(found.pairs), found.reasons) == (16, {"tie": 8})
    found = read_pairs(saved(lambda turned: rounds(turned, votes=["ba"[turned], "ab"[turned], "ab"[turned]])))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}


def test_a_battle_with_many_judges_is_one_row_among_those_with_one(saved):
    names = iter([[f"kim-{place}-{n}" for n in range(1 if place else 300)] for place in range(len(TURNED))])

    def row(turned):
        return rounds(turned, preferences=dict.fromkeys(next(names), "ab"[turned]))

    assert len(read_pairs(saved(row)).pairs) == len(TURNED)


@pytest.mark.parametrize("judgement", [{"rank": [2, 1]}, {"scores": [1, 5]}], ids=lambda told: next(iter(told)))
def test_two_outputs_with_a_number_each_are_read_by_it(saved, judgement):
    found = read_pairs(saved(lambda _: {"instruction": "Why?", "output": ["bad", "good"], **judgement}))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}


@pytest.mark.parametrize("judgement", [{"preference": 2}, {"best": 1}], ids=lambda told: next(iter(told)))
def test_two_outputs_beside_a_judgement_are_no_pair_by_their_order(saved, judgement):
    with pytest.raises(DataError):
        read_pairs(saved(lambda _: {"instruction": "Why?", "output": ["bad", "good"], **judgement}))


@pytest.mark.parametrize("beside", [{"label": "math"}, {"score": 0.9}, {"order": 7}], ids=str)
def test_two_outputs_beside_what_judges_neither_are_a_pair_as_before(saved, beside):
    found = read_pairs(saved(lambda _: {"instruction": "Why?", "output": ["good", "bad"], **beside}))
    assert {(pair.chosen.content, pair.rejected.content) for pair in found.pairs} == {("good", "bad")}


def test_one_odd_word_beside_many_pairs_loses_its_row_and_no_other(saved):
    states = iter([{"status": "rejected"}, *({} for _ in TURNED)])
    found = read_pairs(
        saved(lambda turned: {"prompt": "Why?", "chosen": f"good {turned}", "rejected": "bad", **next(states)})
    )
    assert len(found.pairs) == len(TURNED) - 1


def test_thumbs_under_a_label_are_read_and_not_asked_about(saved):
    found = read_pairs(saved(lambda turned: {"problem": "Why?", "solution": f"text {turned}", "label": turned}))
    assert found.pairs
    assert all(pair.chosen.content == "text True" for pair in found.pairs)
