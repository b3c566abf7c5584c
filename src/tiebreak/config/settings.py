"""Every setting of a run, its type, range, default and meaning: the only place that knows them.

Values are frozen. The descriptions feed `tiebreak config` and the documentation. Those of data, of objectives and
of the gate have files of their own; how settings are loaded is known to `loading`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from tiebreak.config.adapter import AdapterConfig, adapter_from_short
from tiebreak.config.capabilities import LmEvalConfig
from tiebreak.config.data import DataConfig
from tiebreak.config.distributed import DistributedConfig
from tiebreak.config.gate import GateConfig
from tiebreak.config.judges import JudgeConfig
from tiebreak.config.losses import LossConfig
from tiebreak.config.losses.gaps import Dpo
from tiebreak.config.quantization import QuantizationConfig, quantization_from_short
from tiebreak.config.section import Place, Section, Store, regular_expression, sections_of
from tiebreak.config.signals import SignalsConfig
from tiebreak.config.stopping import StoppingConfig

BUNDLED_MODEL = "smollm2-135m-instruct"

LEARNING_RATES = {"none": 1e-6, "lora": 1e-5}
_TEMPLATE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SAFE_LEARNING_RATES = {"none": (1e-7, 5e-6), "lora": (1e-6, 1e-4)}


class ModelConfig(Section):
    """Which model is aligned and how it is computed."""

    name: Place = Field(BUNDLED_MODEL, description="Hub id, local folder, or bundled name of the model or adapter.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    base: Place | None = Field(
        None, description="Where the base model of an adapter is, if not where its adapter_config.json says."
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to compute; auto: CUDA, MPS, CPU.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Arithmetic of the forward pass; auto: bfloat16 on GPUs and CPUs where it halves a layer's time, "
        "else float32.",
    )
    layout: Literal["auto", "plain"] = Field(
        "auto", description="auto: pairs packed, each prompt once, where the model allows it; plain: padded rows."
    )
    chat_template: Place | None = Field(None, description="File with a Jinja chat template, where the model has none.")
    chat_template_arguments: dict[str, str | int | float | bool | None] | None = Field(
        None, description="What the chat template is told, such as {enable_thinking: false}; saved with the policy."
    )
    # A program may give a date.
    chat_template_date: Annotated[
        str | None, BeforeValidator(lambda value: str(value) if isinstance(value, datetime.date) else value)
    ] = Field(None, description="Date that a chat template writes which asks for it; null: the day a run begins.")

    @field_validator("chat_template_arguments", mode="before")
    @classmethod
    def _are_plain(cls, value: Any) -> Any:
        for name, told in value.items() if isinstance(value, dict) else ():
            if not (isinstance(name, str) and _TEMPLATE_NAME.fullmatch(name)):
                raise ValueError(f"{name!r} is no name that a template could read")
            if not isinstance(told, str | int | float | None):
                raise ValueError(f"what {name!r} is told is text, a number, true, false or null")
        return value

    @field_validator("chat_template_date")
    @classmethod
    def _is_date(cls, value: str | None) -> str | None:
        try:
            return value and datetime.date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError("a date is written as 2026-11-29") from None


class MovesConfig(Section):
    """A reference that follows the policy (TR-DPO, Gorbatovski et al. 2024, 2404.09656)."""

    every: int = Field(512, ge=1, le=10**9, description="Optimizer steps between two moves of the reference.")
    share: float = Field(
        0.6, gt=0, le=1, description="Share of the policy in the reference's new weights; 1: it becomes the policy."
    )


class ReferenceConfig(Section):
    """What the policy is compared with; what it says is kept, so that no run computes it twice."""

    model: Place | None = Field(
        None,
        description="Model that the policy is compared with: hub id, local folder, bundled name, or a run's policy; "
        "null: what it starts from.",
    )
    revision: str | None = Field(
        None,
        description="Branch, tag or commit of reference.model on the Hub; null: model.revision where they are one.",
    )
    base: Place | None = Field(
        None,
        description="Base model of the adapter that reference.model is; null: model.base, or what the adapter says.",
    )
    store: Store = Field(
        "auto",
        description="Folder of stored log-probabilities; auto: in the user's cache; off: none. In bfloat16 they are "
        "some tenths of a nat off what the policy's own micro-batches would give.",
    )
    spot_checks: int = Field(
        4, ge=0, le=10_000, description="Stored pairs that are computed again at each start, to compare."
    )
    moves: MovesConfig | None = Field(
        None, description="{every: 512, share: 0.6}: it follows the policy (TR-DPO); null: it stays as it was."
    )

    @model_validator(mode="after")
    def _says_more_of_one_that_is_named(self) -> ReferenceConfig:
        if not self.model and (told := [key for key in ("revision", "base") if getattr(self, key) is not None]):
            raise ValueError(
                f"reference.{told[0]} is of the model that reference.model names, and it names none: name one, or take "
                f"reference.{told[0]} out (model.{told[0]} is of what training starts from and is compared with)"
            )
        return self

    @model_validator(mode="after")
    def _moves_or_is_named(self) -> ReferenceConfig:
        if self.moves and self.model:
            raise ValueError(
                "a reference that moves starts where the policy does, or a mean of the two would have no meaning: take "
                "reference.model out, or reference.moves"
            )
        return self

    @model_validator(mode="after")
    def _moves_or_is_stored(self) -> ReferenceConfig:
        if self.moves and self.store not in ("auto", "off"):
            raise ValueError(
                "what a reference says is stored for one that stays; a reference that moves says something else after "
                "each move: take reference.store out, or reference.moves"
            )
        return self

    @property
    def unnamed(self) -> ReferenceConfig:
        """The same for a policy that is compared with what it starts from."""
        return self.model_copy(update={"model": None, "revision": None, "base": None})


class TrainingConfig(Section):
    """The optimizer and its steps."""

    epochs: int = Field(1, ge=1, le=10_000, description="Passes over the training pairs.")
    pairs_per_step: int = Field(
        8, ge=1, le=1_000_000, description="Pairs behind one optimizer step, whatever fits in memory at once."
    )
    token_budget: int | None = Field(
        None,
        ge=8,
        le=10**9,
        description="Most tokens in one micro-batch: memory and speed, not what is learned; null: planned.",
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="Peak rate; null: 1e-5 for LoRA, 1e-6 for full.")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of steps over which the rate rises.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls after warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW, on matrices only.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    moments_from: Place | None = Field(
        None,
        description="Run folder whose optimizer's moments this run starts with, as in online DPO; null: none are.",
    )
    gradient_checkpointing: bool | None = Field(
        None, description="Compute activations twice to save memory; null: only where pairs do not fit otherwise."
    )
    checkpoint_steps: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="Steps between two checkpoints; null: ten a run. A run that was cut off goes on there.",
    )
    keep_checkpoints: int = Field(2, ge=2, le=10_000, description="Newest checkpoints that are kept.")
    on_divergence: Literal["stop", "rollback"] = Field(
        "stop",
        description="A loss that is not finite: stop, or go back to the last checkpoint with half the rate (3 times).",
    )
    shuffle: bool = Field(
        True, description="New order of pairs each epoch, from the seed; false keeps the file's order."
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of sample order, adapter initialisation and dropout.")


class RuleConfig(Section):
    """A rule that measures the preference on generated answers."""

    name: str = Field("rule", description="What a match means, in words, for tables and reports.")
    pattern: str = Field(description="Regular expression searched in each generated answer; a match counts as 1.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular_expression(value)


class EvaluationConfig(Section):
    """What is measured before, during and after training."""

    probes: int = Field(
        3, ge=0, le=10_000, description="How often held-out pairs are scored during training, evenly spaced."
    )
    probe_pairs: int = Field(
        64, ge=1, le=1_000_000, description="Most held-out pairs scored at each probe; the end scores them all."
    )
    num_samples: int = Field(
        64, ge=0, le=1_000_000, description="Held-out prompts answered by the model before and after."
    )
    max_new_tokens: int = Field(128, ge=1, le=2**20, description="Most tokens of a sampled answer.")
    drawn_prompts: int = Field(
        24, ge=0, le=1_000_000, description="Held-out prompts to which several answers are drawn."
    )
    num_draws: int = Field(4, ge=0, le=64, description="Answers drawn to each of them, for KL and variety; 0: none.")
    draw_temperature: float = Field(
        1.0, gt=0, le=2, description="Temperature they are drawn at; KL is known at 1 alone."
    )
    neutral_probe: bool = Field(
        True, description="Also measure what became of neutral texts and simple questions that come with tiebreak."
    )
    rule: RuleConfig | None = Field(None, description="Rule that measures the preference on generated answers.")
    judge: JudgeConfig | None = Field(
        None, description="Who says which of two answers is better; null: the rule, or else the data's own judge."
    )
    calibration_pairs: int = Field(
        128,
        ge=0,
        le=1_000_000,
        description="Held-out pairs a judge is tried on; one no better than chance decides nothing.",
    )
    tasks: Annotated[tuple[Place, ...], Field(strict=False)] = Field(
        (), description="Task files (YAML) of your own questions, asked before and after: docs/capabilities.md."
    )
    lm_eval: LmEvalConfig | None = Field(None, description="Tasks of lm-eval, an extra, asked before and after.")


class OutputConfig(Section):
    """Where results go."""

    dir: Place | None = Field(None, description="Run folder; null: runs/NAME_OF_THE_CONFIG_FILE.")
    trackers: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        ("tensorboard",), description="Also log to these, through accelerate: tensorboard, wandb, mlflow, trackio, …"
    )


class Config(Section):
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: Annotated[AdapterConfig, BeforeValidator(adapter_from_short)] = AdapterConfig()
    quantization: Annotated[QuantizationConfig | None, BeforeValidator(quantization_from_short)] = Field(
        None, description="{kind: nf4, double: true}, or nf4: the base model in four bits (QLoRA); null: as it is."
    )
    loss: LossConfig = Dpo()
    reference: ReferenceConfig = ReferenceConfig()
    training: TrainingConfig = TrainingConfig()
    distributed: DistributedConfig = DistributedConfig()
    signals: SignalsConfig = SignalsConfig()
    stopping: StoppingConfig = StoppingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GateConfig = GateConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="after")
    def _fits_what_is_trained(self) -> Config:
        if self.quantization and self.adapter.trains_all:
            raise ValueError(
                "quantization is of the frozen base model under an adapter, and with adapter.kind none all weights are "
                "trained, which four bits cannot hold: take adapter.kind lora, or leave quantization out"
            )
        if self.quantization and self.distributed.strategy in ("fsdp", "hsdp"):
            raise ValueError(
                f"weights in four bits are not cut into shares (distributed.strategy {self.distributed.strategy}): "
                "take ddp, which holds them whole in each process, or leave quantization out"
            )
        return self

    def of_model(self, name: str) -> Config:
        """Return the same settings for another model, which is its own reference."""
        model = self.model.model_copy(update={"name": name, "revision": None})
        reference = self.reference.unnamed
        return self.model_copy(update={"model": model, "reference": reference})

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, after the default of the method."""
        return self.training.learning_rate or LEARNING_RATES[self.adapter.kind]


def warnings_of(config: Config) -> list[str]:
    """Return what is allowed but rarely meant, one sentence each."""
    warnings = config.loss.unsafe()
    low, high = SAFE_LEARNING_RATES[config.adapter.kind]
    if not low <= config.learning_rate <= high:
        method = "full fine-tuning" if config.adapter.trains_all else "LoRA"
        hazard = (
            "gibberish and lost ability are likely" if config.learning_rate > high else "hardly anything is learned"
        )
        warnings.append(
            f"training.learning_rate {config.learning_rate:g} is outside {low:g}..{high:g}, "
            f"the range that works for DPO with {method}: {hazard}"
        )
    return warnings


def leaves(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, pydantic field) for every setting, once, whatever sections of a union have it."""
    for name, field in section.model_fields.items():
        sections = sections_of(field.annotation)
        if not sections:
            yield prefix + name, field
        found: dict[str, Any] = {}
        for one in sections:  # of a union, the first one that has a setting describes it
            found |= {key: leaf for key, leaf in leaves(one, f"{prefix}{name}.") if key not in found}
        yield from found.items()
