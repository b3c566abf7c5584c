"""Loss and gradient norm of twenty steps, as they were when they were last looked at.

A change that should not move numbers must pass unchanged. One that should: run
`TIEBREAK_WRITE_GOLDEN=1 pytest tests/golden`, look at the difference of the JSON files, and say in the commit why.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import load, run, settings, token_pairs

HERE = Path(__file__).parent
RATES = {"lora": 1e-3, "none": 3e-4}
PAIRS = token_pairs(27, seed=11, num_prompts=11)
SETTINGS = {
    "training.pairs_per_step": 4,
    "training.epochs": 3,
    "training.warmup_share": 0.1,
    "training.schedule": "cosine",
    "training.weight_decay": 0.01,
    "training.token_budget": 80,
    "training.shuffle": False,
    "loss.label_smoothing": 0.05,
}


def _fill(module: torch.nn.Module) -> None:
    """Weights that no release of torch, transformers or peft draws differently. Zeros and ones stay what they are."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 and bool(parameter.any()):
                draw = random.Random(name)
                values = [draw.uniform(-0.35, 0.35) for _ in range(parameter.numel())]
                parameter.copy_(torch.tensor(values).reshape(parameter.shape))


def _trajectory(kind: str, model: Path, folder: Path) -> list[dict[str, float]]:
    base = AutoModelForCausalLM.from_pretrained(model)
    _fill(base)
    base.save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(model).save_pretrained(folder / "base")
    config = settings(folder / "base", kind, training__learning_rate=RATES[kind], **SETTINGS)
    loaded = load(config)
    if loaded.policy.is_adapter:
        _fill(loaded.policy.network)
    rows = run(config, PAIRS, folder, loaded=loaded).rows()
    return [{key: row[key] for key in ("loss", "grad_norm")} for row in rows][:20]


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_twenty_steps_give_the_losses_and_gradient_norms_on_file(kind, tiny_model, tmp_path):
    found, file = _trajectory(kind, tiny_model, tmp_path), HERE / f"{kind}.json"
    if os.environ.get("TIEBREAK_WRITE_GOLDEN"):
        file.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in found) + "\n]\n")
    expected = json.loads(file.read_text())
    assert len(found) == len(expected) == 20
    assert expected[-1]["loss"] < expected[0]["loss"] - 0.05
    for step, (now, then) in enumerate(zip(found, expected, strict=True), start=1):
        # Other CPUs sum in another order: 1e-7 a sum, and some tens of that after twenty steps.
        assert now == pytest.approx(then, rel=1e-5), f"step {step}"
