"""A real model of 260,000 weights on pairs of its own making: what must not pass does not, whatever accuracy says."""

from __future__ import annotations

import json
import re

import pytest

import tiebreak
from tiebreak.config import load_config
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.records import Message
from tiebreak.training.trained import load

NAMES = ("Tom", "Lily", "Ben", "Anna", "Max", "Sue", "Tim", "Mia", "Sam", "Lucy")
ANIMALS = ("cat", "dog", "bird", "bear", "fish", "mouse", "rabbit", "frog", "duck", "fox")
CHEERFUL = r"\b(happy|smiled|laughed|fun|loved)\b"
RATE = 1e-3
"""At which this model learns the rule; a hundred times as much ruins it, 1e-7 leaves it as it was."""


@pytest.fixture(scope="module")
def pairs(stories, tmp_path_factory):
    """Stories that the model itself goes on with; those that say something cheerful are preferred."""
    prompts = [f"Once upon a time, there was a {animal} named {name}. {name} " for name in NAMES for animal in ANIMALS]
    prompts += [f"One day, {name} went to the park with a {animal}. " for name in NAMES for animal in ANIMALS[:5]]
    model = load(load_config(None, {"model.name": str(stories), "reference.store": "off"})).policy
    chats = [Chat((Message("user", prompt),)) for prompt in prompts]
    drawn = [answer.text for answer in model.answer(chats, Sampling(40, 1.0, 6, 0))]
    rows = []
    for place, prompt in enumerate(prompts):
        texts = drawn[6 * place : 6 * place + 6]
        cheerful = [text for text in texts if re.search(CHEERFUL, text)]
        others = [text for text in texts if text not in cheerful]
        rows += [{"prompt": prompt, "chosen": cheerful[0], "rejected": others[0]}] if cheerful and others else []
    assert len(rows) > 80
    file = tmp_path_factory.mktemp("stories") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _trained(stories, pairs, out, **more):
    return tiebreak.train(
        None,
        {
            "model.name": str(stories), "data.train": str(pairs), "data.heldout_share": 0.5, "reference.store": "off",
            "adapter.rank": 8, "training.epochs": 3, "evaluation.max_new_tokens": 40, "evaluation.probes": 0,
            "evaluation.drawn_prompts": 8, "evaluation.num_draws": 2, "evaluation.neutral_probe": False,
            "evaluation.rule": {"name": "cheerful", "pattern": CHEERFUL}, "output.dir": str(out),
            "output.trackers": [],
        }
        | more,
        quiet=True,
    )  # fmt: skip


def _table(run):
    return {row["key"]: row["after"]["mean"] for row in run.evaluation["table"]}


def test_a_rate_a_hundred_times_too_high_fails_though_pairs_are_won(stories, pairs, tmp_path):
    run = _trained(stories, pairs, tmp_path / "run", **{"training.learning_rate": 100 * RATE})
    found, reason = _table(run), run.evaluation["reason"]
    assert found["accuracy"] > 0.6  # the sign of a margin, which sees no harm
    assert run.verdict == "fail"
    assert "the answers repeat themselves" in reason
    assert {"chosen", "kl"} <= {one["name"] for one in run.evaluation["checks"] if one["verdict"] == "fail"}
    assert found["kl_token"] > 0.5


def test_a_rate_that_changes_nothing_fails_though_pairs_are_won(stories, pairs, tmp_path):
    run = _trained(stories, pairs, tmp_path / "run", **{"training.learning_rate": 1e-7})
    found, reason = _table(run), run.evaluation["reason"]
    assert found["accuracy"] > 0.6
    assert run.verdict == "fail"
    assert "the preference has not moved by more than rounding" in reason
    assert found["answers/unchanged"] > 0.9
    assert found["kl_token"] == pytest.approx(0, abs=0.01)


def test_with_neither_rule_nor_judge_the_datas_own_is_asked_and_called_weak(stories, pairs, tmp_path):
    run = _trained(stories, pairs, tmp_path / "run", **{"training.learning_rate": RATE, "evaluation.rule": None})
    judge = run.evaluation["judge"]
    assert (judge["by"], judge["is_weak"]) == ("the data's own judge", True)
    checks = {check["name"]: check for check in run.evaluation["checks"]}
    if judge["refusal"]:  # then nothing says whether answers got better, and the verdict's first line says why
        assert run.verdict != "pass"
        assert "the data's own judge is not heard" in run.evaluation["reason"]
        assert "set evaluation.rule or evaluation.judge" in checks["preferred"]["says"]
    else:
        assert "weak evidence" in checks["preferred"]["says"]
    again = tiebreak.evaluate(run, quiet=True)
    assert again["judge"] == judge  # found again in the run folder, and not fitted anew
