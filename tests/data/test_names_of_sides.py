"""A verdict that names a side by a name of the row's own, or counts from zero: read as it is meant, or asked about."""

import json

import pytest

from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError

TURNED = [number % 2 == 0 for number in range(24)]
READ = {
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


ASKED = {
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
    with pytest.raises(DataError, match=r"may be|two ways|two readings|word for the other"):
        read_pairs(saved(row_of))


@pytest.mark.parametrize(
    "judgement",
    [{"preference": 2}, {"rank": [2, 1]}, {"best": 1}, {"scores": [1, 5]}],
    ids=lambda told: next(iter(told)),
)
def test_two_outputs_beside_a_judgement_are_no_pair_by_their_order(saved, judgement):
    with pytest.raises(DataError):
        read_pairs(saved(lambda _: {"instruction": "Why?", "output": ["bad", "good"], **judgement}))


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
