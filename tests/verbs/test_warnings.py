"""A run keeps what it warned of, attempt by attempt, and its report shows it."""

from __future__ import annotations

import json

from tiebreak.runs import Run
from tiebreak.verbs.train import train
from tiny import settings


def test_warnings_outlive_the_screen(tiny_model, tmp_path):
    pairs = [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(24)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    config = settings(
        tiny_model,
        data__train=str(tmp_path / "pairs.jsonl"),
        data__heldout_share=0.3,
        training__learning_rate=5e-3,
        evaluation__num_samples=0,
        evaluation__probes=0,
        output__dir=str(tmp_path / "run"),
        output__trackers=[],
    )
    run = train(config)
    told = [(one["attempt"], one["text"]) for one in run.manifest["warnings"]]
    [rate] = [text for attempt, text in told if "training.learning_rate 0.005 is outside" in text]
    assert {attempt for attempt, _ in told} == {1}
    assert len(told) == len(set(told))
    assert rate in run.report_file.read_text()
    run.update_manifest(status="running")
    again = train(config)
    kept = [one["attempt"] for one in Run(again.path).manifest["warnings"] if one["text"] == rate]
    assert kept == [1, 2]
    assert "(attempts 1, 2)" in run.report_file.read_text()
