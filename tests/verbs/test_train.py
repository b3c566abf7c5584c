"""What the verb is told by its words, before any work."""

from __future__ import annotations

import json

import pytest

from tiebreak.errors import ConfigError, RunError
from tiebreak.runs import INTERRUPTED
from tiebreak.training.resumption import asked_for
from tiebreak.verbs.train import train
from tiny import settings


def test_what_may_have_changed_is_named_by_one_word_or_several():
    assert asked_for("auto", "data") == ("data",)
    assert asked_for("never", ["data", "config"]) == ("data", "config")


@pytest.mark.parametrize(
    ("resume", "accept", "words"), [("nver", (), "--resume nver: wanted one of auto, never"), ("auto", "dta", "'data'")]
)
def test_a_word_that_is_mistyped_is_no_leave(resume, accept, words):
    with pytest.raises(ConfigError, match=words):
        asked_for(resume, accept)


def test_an_attempt_of_another_version_is_told_as_such_and_what_it_trained_stays(tiny_model, tmp_path):
    rows = [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = settings(
        tiny_model,
        data__train=str(tmp_path / "pairs.jsonl"),
        data__heldout_share=0.3,
        evaluation__num_samples=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run = train(config)
    run.update_manifest(schema=1, status=INTERRUPTED)
    with pytest.raises(RunError, match=r"begun by another version .*--resume never starts afresh"):
        train(config)
    assert (run.policy_folder / "adapter_model.safetensors").exists()
    assert train(config, resume="never").verdict
