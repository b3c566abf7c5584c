"""What a second go at a loop of rounds heeds: nothing that was made by one thing is gone on with by another."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

import tiebreak
from judge_endpoints import Reply, endpoint, longer
from tiebreak.campaigns.rounds import rounds
from tiebreak.config import load_rounds
from tiebreak.errors import ConfigError, RunError
from tiebreak.runs import open_run

WORDS = ("cat", "dog", "mat", "park", "the", "and", "ran", "sat")
REWARD = """
def score(completions, **_):
    return [one.count({letter!r}) / (1 + len(one)) for one in completions]
"""


@pytest.fixture
def loop(tiny_model, tmp_path):
    """Write and carry out a loop in a folder of its own; `own` are settings of rounds."""
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "rewards.py").write_text(REWARD.format(letter="e"))
    rows = [{"prompt": f"{one} {two}"} for one in WORDS for two in WORDS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def go(until=None, rest=None, **own):
        told = {
            "model": {"name": str(tmp_path / "model"), "device": "cpu"},
            "data": {"heldout_share": 0.3},
            "adapter": {"rank": 4},
            "training": {"learning_rate": 5e-3, "pairs_per_step": 4},
            "reference": {"store": "off"},
            "output": {"dir": str(tmp_path / "out"), "trackers": []},
            "rounds": {
                "count": 1,
                "prompts": str(tmp_path / "prompts.jsonl"),
                "per_round": 12,
                "num_heldout": 6,
                "sampling": {"n": 3, "max_new_tokens": 6},
                "judge": f"{tmp_path / 'rewards.py'}:score",
                "guards": [],
            }
            | own,
        }
        (tmp_path / "loop.yaml").write_text(yaml.safe_dump(told | (rest or {})))
        return rounds(load_rounds(tmp_path / "loop.yaml"), until=until)

    return go


def test_a_reward_function_that_was_edited_is_another_judge(loop, tmp_path):
    loop()
    (tmp_path / "rewards.py").write_text(REWARD.format(letter="o"))
    with pytest.raises(RunError, match="judge is another one than the loop began with"):
        loop(count=2)
    (tmp_path / "rewards.py").write_text(REWARD.format(letter="e"))
    assert [one["state"] for one in loop(count=2).found["rounds"]] == ["measured"] * 2


def test_other_weights_under_the_first_models_name_are_another_model(loop, tmp_path):
    loop(until="sampled")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(RunError, match="the first model changed"):
        loop()


def test_a_file_that_later_stations_stand_on_is_proven(loop, tmp_path):
    loop(until="judged")
    samples = tmp_path / "out" / "round-01" / "samples.jsonl"
    samples.write_text(samples.read_text().replace("the", "teh", 1) if "the" in samples.read_text() else "{}\n")
    with pytest.raises(RunError, match=r"samples\.jsonl"):
        loop()


def test_until_goes_on_with_the_round_under_way_and_leaves_a_finished_loop_alone(loop, tmp_path):
    assert loop().found["status"] == "done"
    assert loop(until="sampled").found["status"] == "done"
    found = loop(until="sampled", count=2).found
    assert found["status"] == "waiting"
    assert [one["state"] for one in found["rounds"]] == ["measured", "sampled"]
    assert found["best"]["round"] == 1


def test_guards_and_judge_may_change_until_answers_are_judged(loop):
    with pytest.raises(tiebreak.TiebreakError, match=r"cut off|no pair"):
        loop(guards=["finished"])
    assert loop(guards=[]).found["status"] == "done"


def test_a_loop_has_the_day_that_it_began(loop):
    day = loop(until="sampled").found["day"]
    assert loop().found["day"] == day
    assert open_run(loop().folder).config.model.chat_template_date == day


def test_a_round_whose_judge_failed_is_measured_when_the_same_command_comes_again(loop):
    calls = {"fail": True}

    def said(question, number):
        return Reply(status=500, body="{}") if calls["fail"] and number % 2 else longer(question, number)

    with endpoint(said) as server:
        judge = {"kind": "server", "model": "big", "base_url": server.url, "num_at_once": 1, "num_retries": 0}
        asked = {"rest": {"evaluation": {"judge": judge}}, "count": 2, "stop": {"worse": False}}
        failed = loop(**asked).found
        first = failed["rounds"][0]["measured"]["vs_first"]
        assert (first["rate"], failed["best"]) == (None, None)
        assert first["not_judged"]["no answer"] >= 2
        calls["fail"] = False
        found = loop(**asked).found
        num = len(server.requests)
        assert loop(**asked).found["rounds"] == found["rounds"]
    assert len(server.requests) == num
    assert found["best"]
    for one in found["rounds"]:
        assert one["measured"]["vs_first"]["rate"] and not one["measured"]["vs_first"]["not_judged"]


def test_the_cost_of_judging_and_measuring_is_capped_and_ends_the_loop_with_its_reason(loop):
    with endpoint(longer) as server:
        judge = {"kind": "server", "model": "big", "base_url": server.url, "num_at_once": 1, "max_tokens": 10}
        judge |= {"price_in": 0, "price_out": 1e6}
        with pytest.raises(ConfigError, match="price_in"):
            loop(judge={**judge, "price_in": None, "price_out": None}, stop={"cost": 1.0})
        assert server.requests == []
        whole = loop(judge=judge)
        taken = _cost(whole.found)
        shutil.rmtree(whole.folder)
        found = loop(judge=judge, count=2, stop={"cost": taken + 12, "worse": False})
    assert found.found["stopped"]["why"] == "cost"
    assert "rounds.stop.cost" in found.found["stopped"]["says"]
    assert found.found["best"]["round"] == 1
    assert found.page.exists()
    assert taken <= _cost(found.found) <= taken + 12


def _cost(found):
    """What judging and measuring took, of all rounds."""
    entries = (found["heldout"], *found["rounds"])
    return sum(one.get(key) or 0.0 for one in entries for key in ("cost", "measuring_cost"))


def test_older_pairs_are_mixed_in_and_what_is_held_out_stays_out(loop, tmp_path):
    told = [
        {"prompt": f"{one} {two}", "chosen": "yes the cat", "rejected": "no the dog"} for one in WORDS for two in WORDS
    ]
    (tmp_path / "older.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    found = loop(mix=[{"path": str(tmp_path / "older.jsonl")}])
    held = {json.loads(row)["prompt_id"] for row in (tmp_path / "out/heldout/samples.jsonl").read_text().splitlines()}
    run = open_run(found.folder)
    assert run.data["files"][0]["format"] == "tiebreak"
    assert len(run.train_prompt_ids) > 12
    assert not held & set(run.train_prompt_ids)
