"""One training run through TRL's DPOTrainer, started or resumed as its documentation shows, with at most one fault.

    python benchmarks/faults_trl_case.py '{"model": …, "data": …, "output": …}'

A child of `faults_beside_trl.py`. TRL and transformers run as they are: the stops, the kills and the NaN come from a
callback, from a wrapped `torch.save` (it kills the process instead of writing one file) and from the loss.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, set_seed
from trl import DPOConfig, DPOTrainer


@dataclass(frozen=True)
class Case:
    """What is trained, and what goes wrong at which step."""

    model: str
    data: str
    output: str
    learning_rate: float
    beta: float
    epochs: int
    pairs_per_step: int
    save_steps: int
    resume: bool = False
    fault: str = ""
    at: int = 0
    dropout: float = 0.1
    enable_jit_checkpoint: bool = False
    precompute_ref_log_probs: bool = False
    auto_find_batch_size: bool = False
    seconds_per_step: float = 0.0


class _Fault(TrainerCallback):
    """Does at the end of one step what the case asks for."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        if state.global_step != self._case.at:
            return
        if self._case.fault == "stop":
            control.should_save = control.should_training_stop = True
        elif self._case.fault in ("kill", "term"):
            os.kill(os.getpid(), signal.SIGKILL if self._case.fault == "kill" else signal.SIGTERM)


class _Trainer(DPOTrainer):
    case: Case
    struck = False

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss; once NaN or out of memory where the case asks for it, late where it stands for a larger model."""
        loss = super().compute_loss(*args, **kwargs)
        time.sleep(self.case.seconds_per_step)
        if self.struck or self.state.global_step + 1 != self.case.at or self.case.fault not in ("nan", "oom"):
            return loss
        self.struck = True
        if self.case.fault == "oom":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return loss * float("nan")


def main() -> None:
    """Start or resume, and save the adapter and the log at the end."""
    case = Case(**json.loads(sys.argv[1]))
    set_seed(0)  # before the adapter is made: TRL seeds after it
    if case.fault == "kill_save":
        _kill_instead_of_writing(f"checkpoint-{case.at}/optimizer.pt")
    trainer = _trainer(case)
    output = Path(case.output)
    try:
        trainer.train(resume_from_checkpoint=case.resume or None)
    finally:
        (output / "log.json").write_text(json.dumps(trainer.state.log_history), encoding="utf-8")
    trainer.save_model(str(output / "final"))


def _trainer(case: Case) -> _Trainer:
    trainer = _Trainer(
        model=AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32),
        args=_arguments(case),
        train_dataset=load_dataset("json", data_files=case.data, split="train"),
        processing_class=AutoTokenizer.from_pretrained(case.model),
        peft_config=LoraConfig(
            r=4, lora_alpha=8, lora_dropout=case.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
        callbacks=[_Fault(case)],
    )
    trainer.case = case
    return trainer


def _arguments(case: Case) -> DPOConfig:
    return DPOConfig(
        output_dir=case.output,
        use_cpu=True,
        bf16=False,  # TRL's default is True
        disable_dropout=False,  # TRL's default is True, and would switch the adapter's dropout off
        num_train_epochs=case.epochs,
        per_device_train_batch_size=case.pairs_per_step,
        learning_rate=case.learning_rate,
        beta=case.beta,
        save_strategy="steps",
        save_steps=case.save_steps,
        save_total_limit=2,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        enable_jit_checkpoint=case.enable_jit_checkpoint,
        precompute_ref_log_probs=case.precompute_ref_log_probs,
        auto_find_batch_size=case.auto_find_batch_size,
    )


def _kill_instead_of_writing(ending: str) -> None:
    save = torch.save

    def guarded(what: Any, where: Any, *args: Any, **kwargs: Any) -> None:
        if str(where).endswith(ending):
            os.kill(os.getpid(), signal.SIGKILL)
        save(what, where, *args, **kwargs)

    torch.save = guarded


if __name__ == "__main__":
    main()
