"""SIGKILL in every station of a loop of rounds: the same command again gives the same pairs and weights, to the bit."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest
from harness import WORDS, assert_nothing_hidden

REWARD = '''
from pathlib import Path


def score(completions, **_):
    """More of the letter e is better; every text that is rated is noted."""
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    with Path("rated.txt").open("a") as file:
        file.writelines(f"{text!r}\\n" for text in texts)
    return [text.count("e") / (1 + len(text)) for text in texts]
'''
FIRST_LOOK = 32
"""Answers by which a go finds out how the function takes them."""
MOMENTS = [
    # Held-out prompts: drawn, judged, answered greedily.
    *("sample:batch", "generate", "sample:file", "rounds:verdicts", "sample:batch", "sample:file"),
    # The first round: two batches of answers, three of verdicts, pairs.
    *("sample:batch", "sample:batch:2", "generate", "sample:file"),
    *("rounds:verdicts", "rounds:verdicts:2", "rounds:verdicts", "rounds:verdicts:2", "rounds:pairs"),
    # Its training, and what is measured of it.
    *("audit", "tokens", "step:begin:2", "step:gradient:3"),
    *("save:begin", "save:policy", "save:rename", "step:end:3"),
    *("policy", "evaluate", "report", "sample:batch", "sample:file", "sample:batch", "sample:file"),
    # The second round.
    *("sample:batch:2", "rounds:verdicts:3", "rounds:pairs", "step:end:4", "policy", "sample:batch"),
]
"""In the order in which the loop comes to them, each of a go of its own: what is done is not done again."""


def _settings():
    return {
        "model": {"name": "model", "device": "cpu"},
        "data": {"heldout_share": 0.3},
        "adapter": {"rank": 4, "dropout": 0.1},
        "training": {"learning_rate": 5e-3, "pairs_per_step": 4, "checkpoint_steps": 2, "token_budget": 192},
        "reference": {"store": "off"},
        "output": {"dir": "run", "trackers": []},
        "rounds": {
            "count": 2,
            "prompts": "prompts.jsonl",
            "per_round": 40,
            "num_heldout": 16,
            "sampling": {"n": 4, "max_new_tokens": 6},
            "judge": "rewards.py:score",
            "guards": [],
        },
    }


@pytest.fixture(scope="module")
def laid_out(new_case, tmp_path_factory):
    def make(name):
        case = new_case(tmp_path_factory.mktemp("rounds") / name)
        (case.folder / "rounds.yaml").write_text(json.dumps(_settings()))
        (case.folder / "rewards.py").write_text(REWARD)
        rows = [{"prompt": f"the {one} and the {two}"} for one in WORDS for two in WORDS]
        (case.folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return case

    return make


def _go(case, fault=None):
    return case.train(fault=fault, command=("rounds", "rounds.yaml"))


def _left(case):
    """What a loop made, but for clocks: files of all stations, weights, and the ledger."""
    files = {
        str(path.relative_to(case.run)): path.read_bytes()
        for path in sorted(case.run.rglob("*"))
        if path.name in ("samples.jsonl", "verdicts.jsonl", "pairs.jsonl", "answers.jsonl", "draws.jsonl")
        or (path.name == "adapter_model.safetensors" and path.parent.name == "policy")
    }
    ledger = json.loads((case.run / "rounds.json").read_text())
    for entry in (ledger["heldout"], *ledger["rounds"]):
        del entry["seconds"]
    return files, ledger


@pytest.fixture(scope="module")
def left_alone(laid_out):
    case = laid_out("alone")
    ended = _go(case)
    assert ended.code == 0, ended.err
    return _left(case), sorted((case.folder / "rated.txt").read_text().splitlines())


def test_killed_at_thirty_moments_one_loop_ends_as_one_that_was_left_alone(laid_out, left_alone):
    assert len(MOMENTS) >= 30
    case = laid_out("killed")
    for moment in MOMENTS:
        ended = _go(case, f"kill@{moment}")
        assert ended.code == -signal.SIGKILL, f"the loop never came to {moment}: {ended.err}"
    ended = _go(case)
    assert ended.code == 0, ended.err
    (files, ledger), rated = left_alone
    found, told = _left(case)
    assert found == files
    assert told == ledger, _differences(told, ledger)
    assert_nothing_hidden(case)
    # The batch under way is rated again, and no other: a batch is 16 prompts of 4 answers.
    again = Counter((case.folder / "rated.txt").read_text().splitlines()) - Counter(rated)
    assert again.total() <= 64 * sum(moment.startswith("rounds:verdicts") for moment in MOMENTS) + FIRST_LOOK * len(
        MOMENTS
    )


def _differences(one, two, where=""):
    """Where two documents differ, in words."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = sorted({*one, *two})
        return [told for key in keys for told in _differences(one.get(key), two.get(key), f"{where}.{key}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            told for at, pair in enumerate(zip(one, two, strict=True)) for told in _differences(*pair, f"{where}.{at}")
        ]
    return [] if one == two else [f"{where}: {one!r} is not {two!r}"]
