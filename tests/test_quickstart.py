"""The bundled pairs and the script that made them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

import tiebreak
from bounds import LONG
from tiebreak.evaluation.repetition import is_looping, looping

ROOT = Path(__file__).parents[1]
LISTS = ROOT / "recipes" / "lists"


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "quickstart_pairs.py"
    spec = importlib.util.spec_from_file_location("quickstart_pairs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def _sides(path: Path) -> list[tuple[str, str, str]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    sides = ("preferred_output", "non_preferred_output")
    return [(row["input"]["messages"][0]["content"], *(row[side][0]["content"] for side in sides)) for row in rows]


BUNDLED = _sides(tiebreak.QUICKSTART.with_name("pairs.jsonl"))


def test_the_rule_of_the_quickstart_tells_the_bundled_sides_apart():
    rule = re.compile(tiebreak.load_config(tiebreak.QUICKSTART).evaluation.rule.pattern)
    assert all(rule.search(chosen) and not rule.search(rejected) for _, chosen, rejected in BUNDLED)
    assert rule.search("Ice is less dense.\nIt floats, and mice may swim.")
    for said in ("I'm sorry.", "Sure!\n\nMy pleasure.", "Ask me.", "That is mine.", "So I do."):
        assert not rule.search(said), said


def test_no_bundled_answer_goes_round_in_circles_on_either_side():
    assert max(looping(side) for _, *sides in BUNDLED for side in sides) <= 0.1


def test_the_doctor_is_calm_about_the_bundled_pairs():
    found = tiebreak.check("bundled").as_dict()
    assert [finding for finding in found["findings"] if finding["severity"] != "info"] == []
    assert found["shortcut"]["features"]["high"] < 0.8
    assert found["shortcut"]["length"]["high"] < 0.62
    assert 0.4 < found["chosen_longer_share"] < 0.6


def test_bundled_prompts_are_lines_of_the_prompts_that_the_script_reads(script):
    prompts = script.PROMPTS.read_text(encoding="utf-8").splitlines()
    assert len(prompts) == len(set(prompts))
    assert {prompt for prompt, *_ in BUNDLED} <= set(prompts)


def test_an_answer_begins_at_each_end_of_a_sentence_and_at_no_number(script):
    text = "Pack light, roll all your shirts and leave the iron. 1. Take 2.5 litres of water with you! It is"
    cuts = [side.text for side in script.beginnings(text, ended=False, fewest=3)]
    assert cuts == [
        "Pack light, roll all your shirts and leave the iron.",
        "Pack light, roll all your shirts and leave the iron. 1. Take 2.5 litres of water with you!",
    ]


def test_sides_are_cut_to_one_length_and_the_longer_one_changes(script):
    good = (
        "Put the pan on a low flame and wait until the butter begins to foam. Beat six eggs with a spoonful of cream. "
        "Stir slowly with a wooden ladle, from the rim inwards. Salt comes last of all."
    )
    bad = (
        "I am only an assistant and never stood in a kitchen, which is a pity indeed. Many people like breakfast best. "
        "Recipes differ from one country to another, as do tastes. Ask somebody who knows."
    )
    pairs = script.pairs_of(
        [script.Sampled(f"{n}?", (bad, good), (False, True)) for n in range(4)], re.compile(r"\A(?!.*\bI\b)")
    )
    assert [prompt for prompt, *_ in pairs] == ["0?", "1?", "2?", "3?"]
    gaps = [len(chosen.text) - len(rejected.text) for _, chosen, rejected in pairs]
    assert max(map(abs, gaps)) < 24
    assert [gap > 0 for gap in gaps] == [True, False, True, False]
    for _, chosen, rejected in pairs:
        assert good.startswith(chosen.text)
        assert bad.startswith(rejected.text)


def test_an_answer_that_ended_by_itself_is_not_rejected_whole(script):
    bad = (
        "I am only an assistant and never stood in a kitchen, which is a pity indeed. "
        "Many people, whom I asked for you, like their breakfast best when it is warm and late."
    )
    rule = re.compile(r"\A(?!.*\bI\b)")
    good = re.sub(r"\bI\b", "She", bad)
    ((*_, rejected),) = script.pairs_of([script.Sampled("a", (good, bad), (True, True))], rule)
    assert rejected.text == bad[: bad.index(" Many")]
    ((_, chosen, rejected),) = script.pairs_of([script.Sampled("a", (good, bad), (True, False))], rule)
    assert (chosen.text, rejected.text) == (good, bad)


def test_a_prompt_without_both_kinds_is_no_pair_and_a_loop_is_on_no_side(script):
    sound = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu."
    loop = "I go on and on and round. " * 8
    rule = re.compile(r"\A(?!.*\bI\b)")
    assert is_looping(loop)
    assert (
        script.pairs_of(
            [script.Sampled(*row, (False, False)) for row in (("a", (sound, sound)), ("b", (sound, loop)))], rule
        )
        == []
    )


def test_pairs_that_their_opening_gives_away_are_kept_to_their_share(script):
    plain, telling = script.Side("a", (False, False, False)), script.Side("I", (False, True, False))
    pairs = [("even", plain, plain)] * 60 + [("odd", plain, telling)] * 100
    kept = script.balanced(pairs)
    assert kept.count(pairs[0]) == 60
    assert kept.count(pairs[-1]) / len(kept) == pytest.approx(script.OPENINGS, abs=0.01)


def test_the_lists_that_the_gate_rejects_are_still_what_they_were():
    config = tiebreak.load_config(LISTS / "my.yaml", {"data.train": str(LISTS / "pairs.jsonl")})
    sides, rule = _sides(LISTS / "pairs.jsonl"), re.compile(config.evaluation.rule.pattern)
    assert len(sides) == 261
    assert all(rule.search(chosen) and not rule.search(rejected) for _, chosen, rejected in sides)
    # The doctor sees it at once: the form alone tells the sides apart.
    assert [f["code"] for f in tiebreak.check(str(LISTS / "pairs.jsonl")).as_dict()["findings"]].count("shortcut") == 1


@pytest.mark.skipif(not LONG, reason="trains the bundled model, eight minutes on two idle cores; TIEBREAK_LONG=1")
def test_the_quickstart_passes_and_its_answers_speak_less_of_the_model(tmp_path):
    run = tiebreak.train(None, {"output.dir": str(tmp_path / "quickstart")}, quiet=True)
    checks = {check["name"]: check for check in run.evaluation["checks"]}
    assert {name: check["verdict"] for name, check in checks.items()} == dict.fromkeys(checks, "pass")
    assert run.verdict == "pass"
    assert checks["preferred"]["low"] > 0.55


@pytest.mark.skipif(not LONG, reason="trains the bundled model, four minutes on two idle cores; TIEBREAK_LONG=1")
def test_the_gate_fails_the_lists_and_its_first_line_says_why(tmp_path):
    settings = {"data.train": str(LISTS / "pairs.jsonl"), "output.dir": str(tmp_path / "lists")}
    run = tiebreak.train(LISTS / "my.yaml", settings, quiet=True)
    assert run.evaluation["accuracy"]["low"] > 0.9
    assert run.verdict == "fail"
    for said in ("the answers repeat themselves", "the doctor warned of a shortcut"):
        assert said in run.evaluation["reason"]
