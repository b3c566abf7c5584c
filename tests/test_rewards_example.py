"""examples/rewards.py judges a file by its short name, and counts what the quickstart's rule forbids."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from tiebreak.cli.app import app
from tiebreak.config import RuleJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.records import Message

ROOT = Path(__file__).parents[1]
PATH = ROOT / "examples" / "rewards.py"
ANSWERS = {
    "Paris is the capital of France.": 1.0,
    "Paris, as I said before, is it.": 1 / 2,
    "In my view I find Paris great.": 1 / 3,
    "I think myself that mine is me.": 1 / 5,
    "Paris it is.": 3 / 5,
    "Me?": 1 / 10,
    "": 0.0,
}


@pytest.fixture(scope="module")
def score():
    spec = importlib.util.spec_from_file_location("rewards_example", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score


def test_fewer_words_of_itself_are_better_and_next_to_nothing_is_not(score):
    as_messages = [[{"role": "assistant", "content": text}] for text in ANSWERS]
    assert score(list(ANSWERS)) == score(completions=as_messages, prompts=[], solution=[]) == list(ANSWERS.values())


def test_its_best_answers_are_those_that_the_quickstarts_rule_matches(score):
    for file in (ROOT / "recipes" / "sweep.yaml", ROOT / "src" / "tiebreak" / "bundled" / "quickstart.yaml"):
        pattern = yaml.safe_load(file.read_text(encoding="utf-8"))["evaluation"]["rule"]["pattern"]
        for text in ANSWERS:
            if len(text.split()) >= 5:
                assert (score([text]) == [1.0]) == bool(re.search(pattern, text)), text


def test_it_judges_a_file_by_its_short_name(here):
    sides = {"chosen": "Paris is the capital of France.", "rejected": "I am not sure of it."}
    rows = [{"prompt": f"Question {number}?", **sides} for number in range(3)]
    (here / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = CliRunner().invoke(app, ["judge", "pairs.jsonl", "--judge", f"{PATH}:score", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["win_rate"]["mean"] == 1.0
    assert (told["judge"]["kind"], told["judge"]["reward"]) == ("rule", f"{PATH}:score")


def test_it_is_given_messages_for_prompts_that_are_text_since_it_makes_no_difference():
    chat = Chat((Message("user", "x"),), is_text=True)
    answers = [Answer(text, (1,), finished=True) for text in ANSWERS]
    with JUDGES["rule"].make(RuleJudge(reward=f"{PATH}:score"), Given(answered=[(chat, answers)])) as judge:
        assert judge.stand([chat], [answers])[0].scores == tuple(ANSWERS.values())
