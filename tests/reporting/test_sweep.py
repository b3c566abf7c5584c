"""What a sweep shows: everything that comes from settings and runs is text, and nothing else."""

from __future__ import annotations

import copy

import pytest

from tiebreak.reporting.sweep import plots, print_sweep, render_sweep_page, rows, verdict

pytestmark = pytest.mark.plots

HOSTILE = "<script>alert(1)</script>$\\frac{1}{0}$\u202e"


def _estimate(mean, num=20):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "num": num, "num_clusters": num, "confidence": 0.95}


def _standing(name, accuracy, **changes):
    told = {"name": name, "accuracy": _estimate(accuracy), "gap": _estimate(2.0), "behind": _estimate(0.05)}
    told |= {
        "win_rate": _estimate(0.7),
        "kl": _estimate(4.0),
        "matched": _estimate(0.7),
        "on_front": True,
        "matched_behind": None,
    }
    told |= {"not_compared": None, "has_moved": True}
    return told | changes


def _ended(name, state="done", says=None, probes=((0.5, 0.5), (1.0, 0.6))):
    told = {"name": name, "settings": {"loss.beta": 0.1}, "state": state, "probes": list(probes), "seconds": 61.0}
    return told | {"num_reference_asked": 0, "says": says, "run": f"trials/{name}"}


@pytest.fixture
def found():
    ranking = [_standing("one", 0.8, behind=None), _standing("two", 0.75, kl=_estimate(1.0), matched=None)]
    ranking[1]["not_compared"] = "it does not reach that KL"
    return {
        "best": "one",
        "best_settings": {"loss.beta": 0.1},
        "best_by_win_rate": "one",
        "matched_kl": 4.0,
        "win_rate_is_weak": False,
        "decided_by": "accuracy",
        "tied": {"trials": [], "broken_by": None},
        "least_gap": 0.1,
        "best_has_moved": True,
        "not_asked_any_more": [],
        "settings": {"grid": {"loss.beta": [0.1, 0.3]}, "search": {}, "best_by": "accuracy"},
        "ranking": ranking,
        "luck": {
            "against": "two",
            "accuracy": _estimate(0.78),
            "win_rate": None,
            "choosing": _estimate(0.05),
            "confirming": _estimate(0.01),
            "says": "its lead over two was luck",
        },
        "no_luck_because": None,
        "num_left_out": 0,
        "trials": [_ended("one"), _ended("two"), _ended("three", "stopped", "it fell behind", ((0.5, 0.4),))],
        "reference": {"num_asked": 40, "num_pairs": 40, "passes": 1.0, "num_asked_confirming": 0},
        "command": "tiebreak train best.yaml",
    }


def test_the_first_sentence_names_the_best_and_the_last_what_the_reference_was_asked(found):
    first, *others, last = verdict(found)
    assert first.startswith("best: loss.beta 0.1 (by accuracy), held-out accuracy 80.0 %")
    assert last.startswith("the reference was asked about 40 pairs for 3 trials: 1.00 passes over 40")
    assert "its lead over two was luck" in others
    assert "best at the same KL of 4.00 nats: one, win rate 70.0 % (60.0 … 80.0)" in others
    assert "two is not compared at the same KL: it does not reach that KL" in others
    weak = [*verdict(found | {"win_rate_is_weak": True})]
    assert any(one.endswith("win rate 70.0 % (60.0 … 80.0) (weak evidence: the judge is)") for one in weak)
    assert "three stopped: it fell behind" in others
    assert "not told apart from it: two" in others


def test_what_decided_is_said_and_what_cannot_be_compared(found):
    found["tied"] = {"trials": ["one", "two"], "broken_by": "logratio_gap"}
    found["not_asked_any_more"] = [_ended("four")]
    found["ranking"][1] |= {"has_moved": False, "matched_behind": _estimate(0.05), "kl": _estimate(-0.3)}
    found["reference"]["num_asked_confirming"] = 20
    told = " | ".join(verdict(found))
    assert "2 trials tie at that accuracy (one, two): the larger mean log-ratio gap decided" in told
    assert "not asked for any more, and not ranked: four" in told
    assert "learned no more than rounding (gap at most 0.1 nats), and not best: two" in told
    assert "highest at the same KL of 4.00 nats: one, win rate 70.0 % (60.0 … 80.0), not told apart from two" in told
    assert "; and 20 times for the last word, about pairs that no trial saw" in told
    assert rows(found)[1]["kl"] == "about 0 (at most 0.00)"
    assert next(verdict(found | {"best_has_moved": False})).startswith("no trial is best: none has a mean log-ratio")
    assert "2 trials tie" in render_sweep_page(found)


def test_every_trial_has_a_row_and_what_is_not_known_is_said(found):
    told = {row["name"]: row for row in rows(found)}
    assert [*told] == ["one", "two", "three"]
    assert told["two"]["matched"] == "not compared"
    assert told["three"]["accuracy"] == "stopped"
    found["matched_kl"] = found["best_by_win_rate"] = None
    for one in found["ranking"]:
        one.update(win_rate=None, kl=None, matched=None, on_front=False, not_compared=None)
    assert {row["matched"] for row in rows(found)} == {"–"}
    assert any(one.startswith("win rate at the same KL: not known") for one in verdict(found))
    assert [one.name for one in plots(found)] == ["Held-out accuracy", "Lead over two", "On the way"]


def test_nothing_that_comes_from_a_setting_or_a_run_is_more_than_text(found, capsys):
    told = copy.deepcopy(found)
    told["best"] = told["ranking"][0]["name"] = told["trials"][0]["name"] = HOSTILE
    told["best_settings"] = {"adapter.target_modules": [HOSTILE]}
    told["settings"]["grid"] = {HOSTILE: [1, 2]}
    told["luck"]["against"] = told["luck"]["says"] = HOSTILE
    told["trials"][2]["says"] = told["trials"][2]["state"] = HOSTILE
    told["command"] = HOSTILE
    told["best_by_win_rate"] = HOSTILE
    page = render_sweep_page(told)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "alert(1)" in page
    print_sweep(told)
    assert "\u202e" not in capsys.readouterr().out


def test_each_plot_is_told_to_whoever_does_not_see_it(found):
    page = render_sweep_page(found)
    assert page.count("<svg") == 4
    assert page.count('aria-label="Held-out accuracy. ') == 1
    assert " one: KL 4.00 (3.90 … 4.10), 70.0 %." in page
