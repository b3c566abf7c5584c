"""TRL's DPOTrainer as a contestant: as it comes, tuned, and tuned with batches grouped by length.

Loss, reference, batching, clipping, optimizer and schedule are TRL's. Bypassed are tokenisation (rows come as ids) and
the random order (rows come in the order of the contest). Nothing that TRL does within a step is added to or checked.
The adapter goes in as TRL's documentation shows, by `peft_config`, so the reference is the model with its adapter
switched off; a PeftModel would cost TRL a second adapter. Its weights are then set to those that tiebreak starts from.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from jobs import Job, Result, Row
from machine import measured
from peft import LoraConfig, load_peft_weights, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import DPOConfig, DPOTrainer

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")
TUNED = {"gradient_checkpointing": False, "precompute_ref_log_probs": True}
VARIANTS: dict[str, dict[str, Any]] = {"trl_default": {}, "trl_tuned": TUNED, "trl_tuned_grouped": TUNED}


def run(job: Job) -> Result:
    """Take the steps with one variant of TRL."""
    grouped = job.kind == "trl_tuned_grouped"
    rows = grouped_rows(job.rows, job.settings.pairs_per_step, job.settings.grouped_steps) if grouped else job.rows
    trainer = _trainer(job, rows)
    clock = _Clock(trainer, job.warmup)
    trainer.add_callback(clock)
    trainer.train()
    losses = [float(loss) for loss in trainer.step_losses]
    return measured(
        job,
        rows,
        clock.seconds,
        losses,
        optimizer=trainer.args.optim.value,
        reference_seconds=trainer.reference_seconds,
    )


def grouped_rows(rows: list[Row], batch: int, num: int) -> list[Row]:
    """Return the rows of `num` batches, evenly spread over a pool that transformers' own sampler grouped by length.

    The pool is one megabatch, as 50 batches are in a long run: sorted by the width that a row has once padded.
    """
    lengths = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    order = get_length_grouped_indices(lengths, batch, -(-len(rows) // batch), torch.Generator().manual_seed(0))
    batches = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
    num = min(num, len(batches))
    picked = [batches[int((index + 0.5) * len(batches) / num)] for index in range(num)]
    return [rows[index] for batch_indices in picked for index in batch_indices]


class _Trainer(DPOTrainer):
    def __init__(self, **kwargs: Any) -> None:
        self.step_losses: list[torch.Tensor] = []
        self.reference_seconds: float | None = None
        super().__init__(**kwargs)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the rows are what TRL's tokenisation would give

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        dataset = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds = time.perf_counter() - began
        return dataset

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        self.step_losses.append(loss.detach())
        return loss


class _Clock(TrainerCallback):
    """Times what is between the batch and the end of the optimizer step; collating is not in it, to TRL's benefit."""

    def __init__(self, trainer: _Trainer, warmup: list[Row]) -> None:
        self.seconds: list[float] = []
        self._trainer, self._warmup, self._began = trainer, warmup, 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Go forward and backward on a few pairs, and forget the gradient."""
        trainer = self._trainer
        # Values of the reference, where they are precomputed, are another pair's: only the time matters here.
        first = trainer.train_dataset[0]
        rows = [first | {key: row[key] for key in IDS} for row in self._warmup]
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model_wrapped, trainer._prepare_inputs(trainer.data_collator(rows)))
        trainer.accelerator.backward(loss)
        trainer.model.zero_grad(set_to_none=True)
        trainer.step_losses.clear()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def _trainer(job: Job, rows: list[Row]) -> _Trainer:
    base, start = job.facts["base"], Path(job.folder) / "start"
    adapter = None
    if job.settings.method == "lora":
        adapter = LoraConfig.from_pretrained(str(start))
        adapter.inference_mode = False
    trainer = _Trainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=_arguments(job),
        train_dataset=Dataset.from_list([{key: row[key] for key in IDS} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=adapter,
    )
    if adapter is not None:
        set_peft_model_state_dict(trainer.model, load_peft_weights(str(start), device="cpu"))
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(job: Job) -> DPOConfig:
    recipe = job.facts["recipe"]
    return DPOConfig(
        output_dir=str(Path(job.scratch) / "trl"),
        use_cpu=True,
        bf16=job.settings.dtype == "bfloat16",  # TRL's default is True
        max_length=None,  # the rows are cut already
        disable_dropout=True,
        num_train_epochs=1,
        per_device_train_batch_size=job.settings.pairs_per_step,
        gradient_accumulation_steps=1,
        train_sampling_strategy="sequential",
        learning_rate=recipe["learning_rate"],
        lr_scheduler_type=recipe["schedule"],
        warmup_steps=0,
        weight_decay=recipe["weight_decay"],
        max_grad_norm=recipe["max_grad_norm"],
        beta=recipe["beta"],
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **VARIANTS[job.kind],
    )
