"""Steps of TRL's KTOTrainer beside ours: the same losses, baselines and gradients over a trajectory.

Its sampler and tokenisation are bypassed, and which completion it puts behind which prompt: it turns them one place on
in each micro-batch, whatever their prompts; here the turn is the other way, and no prompt comes twice.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import OF_KTO

from tiny import load, run, settings, token_thumbs

trl = pytest.importorskip("trl", reason="parity is measured against TRL, which pip install 'tiebreak[test]' brings")

# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
PER_STEP = 6


def _trace(config: Any, thumbs: Any, start: Any, output: Any) -> list[dict[str, float]]:
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import PrinterCallback

    traced: list[dict[str, float]] = []

    class Trainer(trl.KTOTrainer):
        def _prepare_dataset(self, dataset, *_, **__):
            return dataset

        def _get_train_sampler(self, *_):
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            traced.append({"loss": loss.item(), "kl": self._metrics["train"]["kl"][-1]})
            return loss

        def _get_grad_norm(self, *args, **kwargs):
            norm = super()._get_grad_norm(*args, **kwargs)
            traced[-1]["grad_norm"] = float(norm)
            return norm

    rows = []
    for first in range(0, len(thumbs), PER_STEP):
        group = thumbs[first : first + PER_STEP]
        for thumb, after in zip(group, group[1:] + group[:1], strict=True):
            rows.append(
                {
                    "prompt_ids": list(thumb.prompt_ids),
                    "completion_ids": list(thumb.completion_ids),
                    "KL_completion_ids": list(after.completion_ids),
                    "label": thumb.liked,
                }
            )
    model = AutoModelForCausalLM.from_pretrained(config.model.name, dtype=torch.float32)
    loss = {key: value for key, value in config.loss.model_dump().items() if key != "beta_schedule"}
    arguments = trl.KTOConfig(
        output_dir=str(output),
        use_cpu=True,
        bf16=False,
        max_length=None,
        disable_dropout=True,
        gradient_checkpointing=False,
        num_train_epochs=1,
        per_device_train_batch_size=PER_STEP,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.training.schedule,
        weight_decay=config.training.weight_decay,
        max_grad_norm=config.training.max_grad_norm,
        optim="adamw_torch",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        loss_type=loss.pop("name"),
        **loss,
    )
    trainer = Trainer(
        model=PeftModel.from_pretrained(model, start, is_trainable=True),
        train_dataset=Dataset.from_list(rows),
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(config.model.name),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return traced


@pytest.mark.parametrize("name", OF_KTO)
def test_steps_agree_with_those_of_trl_s_kto_trainer(name, tiny_model, tmp_path):
    steps = OF_KTO[name]
    own = {"training__pairs_per_step": PER_STEP, "training__shuffle": False, "training__learning_rate": 5e-3}
    config = settings(tiny_model, loss=dict(steps.loss), **own)
    thumbs = token_thumbs(steps.num * PER_STEP, seed=5)
    loaded = load(config)
    loaded.policy.save(tmp_path / "start")
    rows = run(config, thumbs, tmp_path, loaded=loaded).rows()
    theirs = _trace(config, thumbs, tmp_path / "start", tmp_path / "trl")
    assert len(rows) == len(theirs) == steps.num
    for at, (row, there) in enumerate(zip(rows, theirs, strict=True)):
        good = sum(thumb.liked for thumb in thumbs[at * PER_STEP : (at + 1) * PER_STEP]) / PER_STEP
        assert row["loss"] == pytest.approx(there["loss"] - steps.added * good, rel=2e-5, abs=2e-5)
        assert row["grad_norm"] == pytest.approx(there["grad_norm"], rel=1e-4)
        assert row.get("kl", 0.0) == pytest.approx(there["kl"], rel=1e-4, abs=2e-5)
    assert rows[-1]["loss"] != rows[0]["loss"]
    assert name != "kto" or any(row["kl"] > 1e-3 for row in rows)
