"""What an objective that reads no reference costs: the starting model is asked about held-out pairs, and let go."""

from __future__ import annotations

import gc
import json

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import LlamaForCausalLM

from tiebreak.config import load_config
from tiebreak.engine.reference.shard import Shard
from tiebreak.verbs.train import train
from tiny import drawn_pairs


@pytest.mark.parametrize(
    ("loss", "moves", "asks_all"),
    [("simpo", None, False), ("orpo", None, False), ("dpo", None, True), ("dpo", {"every": 2, "share": 1.0}, False)],
)
def test_the_start_is_asked_about_no_more_than_is_read(loss, moves, asks_all, tiny_model, tmp_path):
    config = load_config(
        None,
        {
            "model.name": str(tiny_model), "model.device": "cpu", "adapter": "none",
            "data.train": drawn_pairs(tmp_path),
            "data.allow": ["shortcut"], "data.heldout_share": 0.25, "loss.name": loss, "reference.moves": moves,
            "reference.store": "off", "training.pairs_per_step": 8, "training.keep_checkpoints": 2,
            "evaluation.num_samples": 0, "evaluation.num_draws": 0, "evaluation.neutral_probe": False,
            "output.dir": str(tmp_path / "run"), "output.trackers": [],
        },
    )  # fmt: skip
    before, held = _networks(), []
    hook = register_optimizer_step_post_hook(lambda *_: held.append(_networks() - before))
    try:
        run = train(config)
    finally:
        hook.remove()
    assert held == [2 if moves else 1] * len(held)
    counts = run.data
    rows = [Shard.read(path.read_bytes(), path.stem) for path in run.store_folder.rglob("*.safetensors")]
    asked = counts["num_heldout_pairs"] + asks_all * counts["num_train_pairs"]
    assert sum(len(shard.keys) for shard in rows) == 2 * asked
    assert {row["margin_at_start"] for row in map(json.loads, run.evidence_file.read_text().splitlines())} == {0.0}


def _networks() -> int:
    """How many models are in memory."""
    gc.collect()
    return sum(type(one) is LlamaForCausalLM for one in gc.get_objects())
