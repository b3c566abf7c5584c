"""A reward that is known, on a real model of 260k parameters: rounds raise it on prompts that no round trains on."""

from __future__ import annotations

import json

import pytest
import yaml

from tiebreak.campaigns.rounds import rounds
from tiebreak.config import load_rounds

REWARD = '''
import re

from tiebreak.fingerprint import fingerprint, unit_interval

HAPPY = set("happy smile smiled fun play played love loved friend friends nice good hug".split())


def happy(completions, prompts, flipped=0.0, **_):
    """How many different happy words there are; for a share of prompts, turned round."""
    found = [float(len(HAPPY & set(re.findall("[a-z]+", text.lower())))) for text in completions]
    return [
        -number if unit_interval(fingerprint(["flip", prompt])) < flipped else number
        for number, prompt in zip(found, prompts)
    ]
'''
NAMES = ("Lily", "Tom", "Sue", "Ben", "Max", "Anna", "Sam", "Mia", "Jack", "Lucy")
THINGS = ("ball", "dog", "cat", "boat", "tree", "cake", "car", "bird", "fish", "hat", "box", "kite", "apple", "drum")


@pytest.mark.parametrize("flipped", [0.0, 0.2])
def test_the_true_reward_rises_and_the_interval_against_the_start_excludes_one_half(stories, tmp_path, flipped):
    """Also where the verdicts of a fifth of the prompts are turned round; measured by the truth."""
    (tmp_path / "rewards.py").write_text(REWARD)
    asked = [f"Once upon a time, {who} found a {what}." for who in NAMES for what in THINGS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in asked))
    judge = {"kind": "rule", "reward": f"{tmp_path / 'rewards.py'}:happy"}
    told = {
        "model": {"name": str(stories)},
        "adapter": "none",
        "data": {"heldout_share": 0.3},
        "training": {"learning_rate": 1e-4, "pairs_per_step": 8},
        "evaluation": {"judge": judge},
        "output": {"dir": str(tmp_path / "out"), "trackers": []},
        "rounds": {
            "count": 2,
            "prompts": str(tmp_path / "prompts.jsonl"),
            "per_round": 48,
            "num_heldout": 32,
            "sampling": {"n": 6, "max_new_tokens": 40},
            "judge": judge | {"arguments": {"flipped": flipped}},
            "guards": ["no_repetition"],
            "stop": {"patience": None, "worse": False},
        },
    }
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(told))
    found = rounds(load_rounds(tmp_path / "loop.yaml")).found
    scores = [found["heldout"]["score"], *(one["measured"]["score"] for one in found["rounds"])]
    first, *later = (one["mean"]["mean"] for one in scores)
    assert all(one > first for one in later)
    assert found["best"]["rate"]["low"] > 0.5
    assert found["best"]["is_certain"]
