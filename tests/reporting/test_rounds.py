"""The page and the table of a loop of rounds: what they say is what the ledger holds, and all of it is text."""

from __future__ import annotations

import pytest

from tiebreak.reporting.rounds import print_rounds, render_rounds_page, rows, verdict

HOSTILE = "<script>alert(1)</script>\u202e{{ 7 * 7 }}"


def _estimate(mean, low, high):
    return {"mean": mean, "low": low, "high": high, "num": 40, "num_clusters": 40, "confidence": 0.95}


def _round(number, rate, **more):
    measured = {
        "counted": {"num_tokens": 30.5, "finished": 1.0, "looping": 0.0},
        "score": {"mean": _estimate(0.9, 0.8, 0.95), "length_correlation": None},
        "vs_first": {"rate": rate, "wins": [1.0], "ties": 0.1},
        "vs_previous": {"rate": rate, "wins": [1.0], "ties": 0.1},
        "kl_first": _estimate(-0.2, -0.6, 0.1) | {"k3": 0.31},
    }
    pairs = {
        "num_prompts": 40,
        "num_answers": 160,
        "num_pairs": 24,
        "num_contradicted": 0,
        "prompts": {"paired": 24, "tied": 0, "all_equal": 16, "unjudged": 0, "guarded": 0, "alone": 0},
        "answers": {"candidates": 150, "unjudged": 0, "repeat": 4},
        "disqualified": {"finished": 6},
    }
    samples = {"num_answers": 160, "num_tokens": 4800}
    told = {"round": number, "state": "measured", "measured": measured, "pairs": pairs, "samples": samples}
    return told | {"train": f"round-0{number}/train", "seconds": {"sample": 60.0}, "cost": 1.5} | more


@pytest.fixture
def found():
    rate = _estimate(0.742, 0.666, 0.806)
    best = {"round": 1, "run": "round-01/train", "rate": rate, "is_certain": True, "says": "the best is round 1"}
    return {
        "status": "done",
        "judge": HOSTILE,
        "settings": {"count": 2},
        "prompts": {"num_heldout": 40},
        "stopped": {"why": "kl", "says": f"round 1: too far {HOSTILE}"},
        "heldout": {"seconds": {}, "counted": {"num_tokens": 31.0, "finished": 0.5}},
        "rounds": [_round(1, rate)],
        "best": best | {"command": "tiebreak export out --out out-round-1"},
    }


def test_the_page_says_what_the_ledger_holds(found):
    page = render_rounds_page(found, [{"prompt": "why?", "first": "so", "round": "thus", "win": 1.0}])
    for text in ("the best is round 1", "74.2 % (66.6 … 80.6)", "24 of 40 prompts", "all equal 16", "cost 1.5", "thus"):
        assert text in page, text
    assert "-0.2 (-0.6 … 0.1); k3 0.31" in page  # what k1 says is shown as it is, beside what cannot be negative


def test_what_data_say_is_text_on_the_page(found):
    answers = [{"prompt": HOSTILE, "first": HOSTILE, "round": HOSTILE, "win": None}]
    page = render_rounds_page(found, answers)
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "49" not in page.partition("Answers to held-out prompts")[2].partition("What became")[0]


def test_a_loop_that_nothing_has_measured_says_so(found):
    found |= {"best": None, "stopped": None}
    assert [*verdict(found)] == ["done: no judge has measured the rounds"]
    found["rounds"] = [{"round": 1, "state": "sampled", "seconds": {}}]
    assert [*verdict(found)] == ["done: no round is measured yet"]
    assert rows(found)[-1]["first"] == "sampled"
    assert "no round is measured yet" in render_rounds_page(found, [])


def test_the_table_has_a_row_for_the_first_model_and_each_round(found, capsys):
    print_rounds(found)
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.strip()].count("first") >= 1
    assert "the best is round 1" in shown
