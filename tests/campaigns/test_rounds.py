"""Rounds: the policy answers, a judge decides, the pairs train it; killed anywhere, the same comes out."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

import tiebreak
from judge_models import leaning
from tiebreak import faults
from tiebreak.__main__ import main
from tiebreak.campaigns.appraisal import Appraisal
from tiebreak.campaigns.foresight import foresight
from tiebreak.campaigns.lineup import Lineup
from tiebreak.campaigns.rounds import rounds
from tiebreak.config import ModelConfig, load_rounds
from tiebreak.data.whole import read_pairs
from tiebreak.engine.models import load_frozen, load_renderer
from tiebreak.errors import ConfigError, RunError
from tiebreak.files import appended_jsonl, read_jsonl
from tiebreak.progress import Silent
from tiebreak.runs import Run, open_run
from tiebreak.stations.walk import open_walk

REWARD = '''
def score(completions, **_):
    """More of the letter e is better."""
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [text.count("e") / (1 + len(text)) for text in texts]
'''
WORDS = ("cat", "dog", "mat", "park", "the", "and", "ran", "sat", "yes", "no", "user", "to")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "rewards.py").write_text(REWARD)
    told = [{"prompt": f"{one} {two} {three}"} for one in WORDS for two in WORDS[:6] for three in WORDS[:2]]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    return folder


def _written(model, folder, out, own=None, **changes):
    told = {
        "model": {"name": str(model), "device": "cpu"},
        "data": {"heldout_share": 0.2},
        "adapter": {"rank": 4},
        "training": {"learning_rate": 5e-3, "pairs_per_step": 4},
        "reference": {"store": "off"},
        "output": {"dir": str(folder / out), "trackers": []},
        "rounds": {
            "count": 2,
            "prompts": str(folder / "prompts.jsonl"),
            "per_round": 24,
            "num_heldout": 12,
            "sampling": {"n": 4, "max_new_tokens": 8},
            "judge": f"{folder / 'rewards.py'}:score",
            "guards": [],
        }
        | (own or {}),
    }
    path = folder / f"{out}.yaml"
    path.write_text(yaml.safe_dump(told | changes))
    return path


def _carried_out(*told, **more):
    return rounds(load_rounds(_written(*told, **more)))


@pytest.fixture(scope="module")
def looped(tiny_model, place):
    """A finished loop of two rounds."""
    return _carried_out(tiny_model, place, "done")


def test_each_round_is_sampled_judged_paired_trained_and_measured(looped):
    found = looped.found
    assert found["status"] == "done"
    assert [one["state"] for one in found["rounds"]] == ["measured", "measured"]
    for one in found["rounds"]:
        folder = looped.folder / f"round-{one['round']:02d}"
        samples, verdicts = read_jsonl(folder / "samples.jsonl"), read_jsonl(folder / "verdicts.jsonl")
        assert len(samples) == len(verdicts) == one["prompts"]["count"] == 24
        assert {len(row["answers"]) for row in samples} == {4}
        pairs = read_pairs(folder / "pairs.jsonl").pairs
        assert len(pairs) == one["pairs"]["num_pairs"] > 0
        assert open_run(folder / "train").manifest["status"] == "done"
        measured = one["measured"]
        assert measured["vs_first"]["rate"]["num"] == len(measured["vs_first"]["wins"]) == 12
        assert measured["kl_first"]["num"] == 12
        assert 0 <= measured["vs_first"]["rate"]["low"] <= measured["vs_first"]["rate"]["high"] <= 1
    assert looped.page.exists()


def test_a_policy_that_judges_itself_is_measured_by_the_first_model_in_every_round(tiny_model, place, looped):
    from transformers import AutoTokenizer

    own = {"judge": {"kind": "self"}, "measure_draws": 0}
    asked = load_rounds(_written(tiny_model, place, "itself", own))
    shutil.copytree(looped.folder, asked.folder)
    tokenizer, base = AutoTokenizer.from_pretrained(tiny_model), asked.base
    models = [leaning(tiny_model, place / f"leaning-{number}", tokenizer, A=9.0, B=8.0 - number) for number in (0, 1)]

    class Leaning(Lineup):
        """Rounds whose policies say A or B, each in its own way."""

        @contextlib.contextmanager
        def frozen(self, number):
            yield load_frozen(ModelConfig(name=str(models[number])))

    renderer, context = load_renderer(base.model, base.data)
    walk = open_walk(asked.settings, base.data, renderer, context.most, Silent())
    appraisal = Appraisal(asked, Leaning(asked, Silent()), walk.heldout, Silent())
    appraisal.of_first(None)
    assert appraisal.of(1, None)["vs_first"]["rate"]["num"] == 12
    first, second = (
        [row["judge"] for row in appended_jsonl(folder / "measuring.journal.jsonl") if "judge" in row][-1]
        for folder in (asked.folder / "heldout", asked.folder / "round-01")
    )
    assert first == second
    assert foresight(asked).measured_by == "the first model"


def test_no_prompt_comes_twice_and_none_is_held_out(looped):
    used = [
        row["prompt_id"] for number in (1, 2) for row in read_jsonl(looped.folder / f"round-0{number}/samples.jsonl")
    ]
    held = {row["prompt_id"] for row in read_jsonl(looped.folder / "heldout/samples.jsonl")}
    assert len(used) == len(set(used)) == 48
    assert not held & set(used)
    train = set(Run(looped.folder / "round-02/train").train_prompt_ids)
    assert train <= set(used)


def test_the_true_reward_of_held_out_answers_rises(looped):
    first, last = looped.found["heldout"]["score"]["mean"], looped.found["rounds"][-1]["measured"]["score"]["mean"]
    assert last["mean"] > first["mean"]


def test_whoever_takes_a_run_takes_the_best_round_of_a_loop(looped):
    best = looped.found["best"]
    assert open_run(looped.folder).path == looped.folder / best["run"]
    rates = {one["round"]: one["measured"]["vs_first"]["rate"]["mean"] for one in looped.found["rounds"]}
    assert rates[best["round"]] == max(rates.values())
    assert best["is_certain"] == (best["rate"]["low"] > 0.5)


def test_the_command_that_comes_next_exports_the_best_round(looped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(looped.next)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert (tmp_path / words[-1] / "config.json").exists()


def test_the_same_command_finds_all_done(looped):
    before = {path: path.read_bytes() for path in looped.folder.rglob("*.jsonl")}
    again = rounds(load_rounds(looped.folder.parent / "done.yaml"))
    assert {path: path.read_bytes() for path in looped.folder.rglob("*.jsonl")} == before
    assert _facts(again.found) == _facts(looped.found)


def _facts(found):
    """What a ledger says but for times."""
    if isinstance(found, dict):
        return {key: _facts(value) for key, value in found.items() if key not in ("seconds", "command", "run", "train")}
    return [_facts(one) for one in found] if isinstance(found, list) else found


POINTS = ["sample:batch:1", "sample:batch:3", "sample:file:2", "rounds:verdicts:1", "rounds:verdicts:4",
          "rounds:pairs:1", "rounds:pairs:2", "step:end:3", "keep:file:2", "save:rename:1"]  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_loop_that_died_ends_as_one_that_did_not(tiny_model, place, looped, point):
    out = f"died-{point.replace(':', '-')}"
    path = _written(tiny_model, place, out)
    faults.arm(f"oom@{point}")
    try:
        with pytest.raises(BaseException, match="planned"):
            rounds(load_rounds(path))
    finally:
        faults.arm(None)
    found = rounds(load_rounds(path))
    for name in ("samples", "verdicts", "pairs", "answers", "draws"):
        for file in sorted(looped.folder.rglob(f"{name}.jsonl")):
            assert (found.folder / file.relative_to(looped.folder)).read_bytes() == file.read_bytes(), file
    for number in (1, 2):
        one, two = (
            load_file(loop.folder / f"round-0{number}/train/policy/adapter_model.safetensors")
            for loop in (found, looped)
        )
        assert all(torch.equal(one[key], two[key]) for key in two)
    assert _facts(found.found) == _facts(looped.found) | {"identity": found.found["identity"]}
    shutil.rmtree(found.folder)


@pytest.mark.parametrize(
    ("start", "reference"),
    [("previous", "first"), ("previous", "previous"), ("first", "first"), ("first", "previous")],
)
def test_each_round_starts_from_and_is_compared_with_what_is_said(tiny_model, place, start, reference):
    told = {"start": start, "reference": reference, "per_round": 12, "measure_draws": 0, "stop": {"worse": False}}
    found = _carried_out(tiny_model, place, f"{start}-{reference}", told).found
    first, second = found["rounds"]
    assert first["start"]["digest"] == first["reference"]["digest"]
    assert (second["start"]["digest"] == first["start"]["digest"]) == (start == "first")
    assert (second["reference"]["digest"] == first["start"]["digest"]) == (reference == "first")
    assert (second["start"]["digest"] == second["reference"]["digest"]) == (start == reference)
    manifest = Run(place / f"{start}-{reference}" / "round-02/train").manifest
    assert ("policy" in manifest["model_name"]) == (start == "previous")
    assert second["start"]["is"] == start and second["reference"]["is"] == reference


def test_until_ends_after_a_station_and_the_same_command_goes_on(tiny_model, place, looped):
    path = _written(tiny_model, place, "until")
    folder = place / "until" / "round-01"
    for station, file, later in (
        ("sampled", "samples.jsonl", "verdicts.jsonl"),
        ("judged", "verdicts.jsonl", "pairs.jsonl"),
        ("paired", "pairs.jsonl", "train"),
    ):
        found = tiebreak.rounds(path, until=station, quiet=True)
        assert found.found["status"] == "waiting"
        assert found.found["rounds"][0]["state"] == station
        assert (folder / file).exists()
        assert not (folder / later).exists()
    assert (folder / "pairs.jsonl").read_bytes() == (looped.folder / "round-01/pairs.jsonl").read_bytes()


def test_settings_that_changed_are_named_and_more_rounds_are_none(tiny_model, place, looped):
    path = _written(tiny_model, place, "done", {"sampling": {"n": 3, "max_new_tokens": 8}})
    with pytest.raises(RunError, match=r"rounds\.sampling\.n changed"):
        rounds(load_rounds(path))
    again = rounds(load_rounds(_written(tiny_model, place, "done"), {"rounds.count": 2, "rounds.stop.kl": 1e6}))
    assert _facts(again.found)["rounds"] == _facts(looped.found)["rounds"]


def test_a_folder_of_something_else_is_left_alone(tiny_model, place):
    (place / "else").mkdir()
    (place / "else" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty and no loop"):
        _carried_out(tiny_model, place, "else")


def test_a_judge_that_gives_all_one_score_ends_the_loop_in_one_line(tiny_model, place):
    (place / "flat.py").write_text("def score(completions, **_):\n    return [1.0] * len(completions)\n")
    with pytest.raises(tiebreak.TiebreakError, match="does not tell the answers apart"):
        _carried_out(tiny_model, place, "flat", {"judge": f"{place / 'flat.py'}:score"})


def test_answers_that_are_cut_off_end_the_loop_with_what_to_raise(tiny_model, place):
    with pytest.raises(RunError, match=r"cut off at 8 tokens; .* rounds\.sampling\.max_new_tokens"):
        _carried_out(tiny_model, place, "cut", {"guards": ["finished"]})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"train": "x.jsonl"}}, r"data\.train: each round makes its own pairs"),
        ({"stages": []}, "has stages and rounds"),
        ({"loss": "kto"}, "rounds make pairs"),
        ({"loss": "sppo_hard"}, r"rounds\.reference: sppo"),
        ({"rounds": {"judge": "rule:repetition", "pairing": {"rule": "sppo"}}}, r"rounds\.reference: sppo"),
        ({"rounds": {}}, r"'rounds\.judge' is missing"),
        ({"rounds": {"judge": {"kind": "rule"}}}, r"'rounds\.judge\.reward' is missing"),
        ({"rounds": {"judge": "rule:repetition", "asked_as": "hello"}}, "has no {prompt}"),
        ({"reference": {"model": "x"}}, r"reference\.model"),
    ],
)
def test_what_makes_no_loop_is_refused_by_its_key(tiny_model, place, changes, told):
    with pytest.raises(ConfigError, match=told):
        load_rounds(_written(tiny_model, place, "refused", **changes))


def test_two_answers_and_a_step_a_round_by_one_optimizer_is_online_dpo(tiny_model, place):
    own = {"count": 3, "per_round": 8, "keep_optimizer": True, "measure_draws": 0, "start": "previous"}
    own |= {
        "sampling": {"n": 2, "max_new_tokens": 8},
        "stop": {"worse": False, "patience": None, "unusable_prompts": 1.0},
    }
    training = {"learning_rate": 5e-3, "pairs_per_step": 8, "schedule": "constant", "warmup_share": 0.0}
    loop = _carried_out(tiny_model, place, "online", own, training=training)
    runs = [Run(loop.folder / one["train"]) for one in loop.found["rounds"]]
    assert [run.manifest["num_steps"] for run in runs] == [1, 1, 1]
    assert runs[0].manifest.get("moments_from") is None
    assert all(run.manifest["moments_from"]["sha256"] for run in runs[1:])
    # Adam's count of steps goes on: in its second step, a moment is not the gradient alone.
    assert len({one["start"]["digest"] for one in loop.found["rounds"]}) == 3
