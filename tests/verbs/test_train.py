"""What the verb is told by its words, before any work."""

from __future__ import annotations

import json

import pytest

from tiebreak.errors import ConfigError, DataError, RunError
from tiebreak.progress import Silent
from tiebreak.runs import INTERRUPTED
from tiebreak.training.resumption import asked_for
from tiebreak.verbs.plan import plan
from tiebreak.verbs.train import train
from tiny import run_of_cats, settings


def test_what_may_have_changed_is_named_by_one_word_or_several():
    assert asked_for("auto", "data") == ("data",)
    assert asked_for("never", ["data", "config"]) == ("data", "config")


@pytest.mark.parametrize(
    ("resume", "accept", "words"), [("nver", (), "--resume nver: wanted one of auto, never"), ("auto", "dta", "'data'")]
)
def test_a_word_that_is_mistyped_is_no_leave(resume, accept, words):
    with pytest.raises(ConfigError, match=words):
        asked_for(resume, accept)


def _pairs(path, num_long, num=40):
    rows = [
        {"prompt": f"the cat {n}" + " why" * 30 * (n < num_long), "chosen": "yes", "rejected": "no"} for n in range(num)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _short(model, pairs, **changes):
    data = {"data__train": str(pairs), "data__heldout_share": 0.3, "training__token_budget": None}
    return settings(model, "none", output__dir=str(pairs.parent / "run"), output__trackers=[], **data, **changes)


class Told(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def test_pairs_beyond_the_model_s_positions_are_dropped_and_counted_with_both_numbers(tiny_gpt, tmp_path):
    told = Told()
    config = _short(tiny_gpt, _pairs(tmp_path / "pairs.jsonl", num_long=3), evaluation__num_samples=2)
    run = train(config, told)
    data = json.loads(run.data_file.read_text())
    assert data["dropped_by_reason"] == {"too_long": 3}
    assert any("64 positions, data.max_length is 1024; longer pairs: 3 dropped" in line for line in told.warnings)
    assert run.verdict


def test_prompts_beyond_the_model_s_positions_are_cut_where_cutting_is_allowed(tiny_gpt, tmp_path):
    told = Told()
    config = _short(tiny_gpt, _pairs(tmp_path / "pairs.jsonl", num_long=40), data__truncation="prompt_start")
    plan(config, told)
    assert any("64 positions" in line and "40 prompts cut" in line for line in told.warnings)


def test_a_file_that_is_longer_than_the_model_throughout_is_refused_with_both_numbers(tiny_gpt, tmp_path):
    with pytest.raises(DataError, match=r"no pair is left .* 64 positions of the model \(data.max_length is 1024\)"):
        train(_short(tiny_gpt, _pairs(tmp_path / "pairs.jsonl", num_long=40)))
    assert not (tmp_path / "run").exists()


def test_pairs_longer_than_the_model_was_made_for_are_told_with_their_number(tiny_model, tmp_path):
    told = Told()
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{n} " + "why " * 100 * (n < 6), "chosen": "yes", "rejected": "no"} for n in range(30)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan(_short(tiny_model, pairs), told)
    assert any(
        line.startswith("6 of 30 pairs have more tokens than the 256") and "1024" in line for line in told.warnings
    )


def test_an_attempt_of_another_version_is_told_as_such_and_what_it_trained_stays(tiny_model, tmp_path):
    config = run_of_cats(tiny_model, tmp_path, 40)
    run = train(config)
    run.update_manifest(schema=1, status=INTERRUPTED)
    with pytest.raises(RunError, match=r"begun by another version .*--resume never starts afresh"):
        train(config)
    assert (run.policy_folder / "adapter_model.safetensors").exists()
    assert train(config, resume="never").verdict
