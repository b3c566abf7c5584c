"""TRL's own trainers on pairs that are tokenised already, in the order given.

TRL's sampler and tokenisation are bypassed, and nothing else: loss, reference, batching, clipping, optimizer and
schedule are TRL's. Every micro-batch of DPOTrainer is checked against the pairs before the model sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig, DPOTrainer

from tiebreak.config import Config
from tiebreak.records import TokenizedPair


@dataclass
class Trace:
    """What TRL measured at each optimizer step, and the weights that it trained."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class _Trainer(DPOTrainer):
    def __init__(
        self, *, rows: list[dict[str, list[int]]], trace: Trace, stop_after: int | None, **kwargs: Any
    ) -> None:
        self._rows, self._trace, self._micro_losses, self._stop_after = iter(rows), trace, [], stop_after
        super().__init__(train_dataset=Dataset.from_list(rows), **kwargs)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # the rows are what TRL's tokenisation would give

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._check(inputs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._micro_losses.append(loss.item())
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)
        self._trace.losses.append(sum(self._micro_losses) / len(self._micro_losses))
        self._trace.grad_norms.append(float(norm))
        self._micro_losses.clear()
        self.control.should_training_stop |= len(self._trace.losses) == self._stop_after
        return norm

    def _check(self, inputs: Any) -> None:
        rows = [next(self._rows) for _ in range(len(inputs["input_ids"]) // 2)]
        wanted = [(row["prompt_ids"], row[side]) for side in ("chosen_ids", "rejected_ids") for row in rows]
        columns = (inputs[key].tolist() for key in ("input_ids", "attention_mask", "completion_mask"))
        for (prompt, completion), ids, attention, mask in zip(wanted, *columns, strict=True):
            num = len(prompt) + len(completion)
            assert ids[:num] == prompt + completion
            assert attention == [1] * num + [0] * (len(ids) - num)
            assert mask == [0] * len(prompt) + [1] * len(completion) + [0] * (len(ids) - num)


def trl_trace(
    config: Config,
    pairs: Sequence[TokenizedPair],
    *,
    micro_batch_pairs: int,
    start: Path | None,
    output: Path,
    stop_after: int | None = None,
) -> Trace:
    """Train with TRL under our configuration; `start` holds the adapter to begin with, none trains all weights.

    `stop_after` ends it after so many steps; the learning rate still moves as for all pairs.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(config.model.name, dtype=torch.float32)
    if start is not None:
        model = PeftModel.from_pretrained(model, start, is_trainable=True)
        assert isinstance(model.peft_config["default"], LoraConfig)
    rows = [{key: list(getattr(p, key)) for key in ("prompt_ids", "chosen_ids", "rejected_ids")} for p in pairs]
    trace = Trace()
    trainer = _Trainer(
        rows=rows,
        trace=trace,
        stop_after=stop_after,
        model=model,
        args=_arguments(config, micro_batch_pairs, output),
        processing_class=AutoTokenizer.from_pretrained(config.model.name),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trace.weights = {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}
    return trace


def reference_free_trace(config: Config, pairs: Sequence[TokenizedPair], *, start: Path, output: Path) -> Trace:
    """Train with TRL's trainer for an objective without a reference, each step in one piece."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    is_orpo = config.loss.name == "orpo"
    trainer_class: Any = ORPOTrainer if is_orpo else CPOTrainer
    trace = Trace()

    class Trainer(trainer_class):
        def tokenize_row(self, row: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
            return row

        def _get_train_sampler(self, *_: Any) -> SequentialSampler:
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss = super().compute_loss(*args, **kwargs)
            trace.losses.append(loss.item())
            return loss

        def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
            norm = super()._get_grad_norm(*args, **kwargs)
            trace.grad_norms.append(float(norm))
            return norm

    base = AutoModelForCausalLM.from_pretrained(config.model.name, dtype=torch.float32)
    told = _common(config, config.training.pairs_per_step, output) | {"max_length": 512, "remove_unused_columns": False}
    trainer = Trainer(
        model=PeftModel.from_pretrained(base, start, is_trainable=True),
        args=ORPOConfig(beta=config.loss.beta, **told) if is_orpo else CPOConfig(**_cpo_loss(config.loss), **told),
        train_dataset=Dataset.from_list([_sides(pair) for pair in pairs]),
        processing_class=AutoTokenizer.from_pretrained(config.model.name),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trace


def _sides(pair: TokenizedPair) -> dict[str, list[int]]:
    """What tokenisation gives of a pair: both sides with their prompt, labels where a token is scored."""
    row = {"prompt_input_ids": list(pair.prompt_ids), "prompt_attention_mask": [1] * len(pair.prompt_ids)}
    for side, ids in (("chosen", pair.chosen_ids), ("rejected", pair.rejected_ids)):
        text = [*pair.prompt_ids, *ids]
        labels = [-100] * len(pair.prompt_ids) + list(ids)
        row |= {f"{side}_input_ids": text, f"{side}_attention_mask": [1] * len(text), f"{side}_labels": labels}
    return row


def _cpo_loss(loss: Any) -> dict[str, Any]:
    """What CPOTrainer calls an objective: simpo of means, sigmoid of sums; `cpo_alpha` weighs likelihood."""
    if loss.name == "cpo":
        return {"loss_type": "sigmoid", "beta": loss.beta, "cpo_alpha": loss.alpha}
    weight, bend = (loss.alpha, 0.0) if loss.name == "cpo_simpo" else (0.0, getattr(loss, "alpha", 0.0))
    return {
        "loss_type": "simpo", "beta": loss.beta, "simpo_gamma": loss.gamma, "cpo_alpha": weight, "alpha": bend
    }  # fmt: skip


def _arguments(config: Config, micro_batch_pairs: int, output: Path) -> DPOConfig:
    return DPOConfig(max_length=None, **_common(config, micro_batch_pairs, output), **_loss(config), **_moves(config))


def _common(config: Config, micro_batch_pairs: int, output: Path) -> dict[str, Any]:
    """What the arguments of every trainer have."""
    training = config.training
    assert training.warmup_share == 0, "TRL's warm-up begins with a step at rate zero, ours does not"
    assert not training.shuffle
    return {
        "output_dir": str(output),
        "use_cpu": True,
        "bf16": False,
        "disable_dropout": True,
        "gradient_checkpointing": False,
        "num_train_epochs": training.epochs,
        "per_device_train_batch_size": micro_batch_pairs,
        "gradient_accumulation_steps": training.pairs_per_step // micro_batch_pairs,
        "learning_rate": config.learning_rate,
        "warmup_steps": 0,
        "lr_scheduler_type": training.schedule,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": "adamw_torch",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _moves(config: Config) -> dict[str, Any]:
    """TRL's own TR-DPO; it refuses an adapter."""
    moves = config.reference.moves
    told = moves and {"ref_model_sync_steps": moves.every, "ref_model_mixup_alpha": moves.share}
    return {"sync_ref_model": True, **told} if told else {}


LOSS_TYPES = {
    "dpo": "sigmoid",
    "dpo_norm": "sigmoid_norm",
    "exo": "exo_pair",
    "nca": "nca_pair",
    "bco": "bco_pair",
} | {name: name for name in (
    "hinge", "ipo", "robust", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft",
)}  # fmt: skip
"""What TRL's DPOTrainer calls an objective."""
SUMS = {
    "iterative_rpo": {"sigmoid": 1.0, "sft": "alpha"},
    "mpo": {"sigmoid": "dpo_weight", "bco_pair": "bco_weight", "sft": "sft_weight"},
}
"""Objectives that are lists of TRL's losses, with the settings that weigh them."""
DIVERGENCES = {"js": "js_divergence", "forward_kl": "forward_kl", "alpha": "alpha_divergence"}


def _loss(config: Config) -> dict[str, Any]:
    """TRL 1.16's 'sigmoid' ignores label_smoothing, so conservative DPO is composed of two of its losses.

    −(1 − ε) log sigmoid(z) − ε log sigmoid(−z)  =  2 (1 − ε) sigmoid − (1 − 2ε) robust
    """
    loss = config.loss
    said = {"beta": getattr(loss, "beta", getattr(loss, "tau", 0.1)), "loss_type": [LOSS_TYPES.get(loss.name)]}
    said |= {"use_weighting": True} if getattr(loss, "confidence_weights", None) else {}
    if getattr(loss, "divergence", None):
        said |= {"f_divergence_type": DIVERGENCES[loss.divergence]}
        said |= {"f_alpha_divergence_coef": 1 - loss.divergence_alpha} if loss.divergence_alpha else {}
    if loss.name in SUMS:
        weights = {key: getattr(loss, key) if isinstance(key, str) else key for key in SUMS[loss.name].values()}
        return said | {"loss_type": list(SUMS[loss.name]), "loss_weights": list(weights.values())}
    if loss.name == "discopop":
        return said | {"discopop_tau": loss.tau}
    epsilon = getattr(loss, "label_smoothing", 0.0)
    if loss.name != "dpo" or not epsilon:
        return said | {"label_smoothing": epsilon}
    weights = [2 * (1 - epsilon), -(1 - 2 * epsilon)]
    return said | {"loss_type": ["sigmoid", "robust"], "loss_weights": weights, "label_smoothing": epsilon}
