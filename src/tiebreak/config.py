"""Every setting, its type, range, default and meaning: the only place that knows them.

`load_config` reads YAML and applies overrides. Values are frozen, unknown keys are refused with the nearest name, and
numbers like `5e-7` are numbers. The descriptions here feed `tiebreak config` and the documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from tiebreak.config_data import DataConfig, Section
from tiebreak.errors import ConfigError, nearest, one_line
from tiebreak.secrecy import masked
from tiebreak.yaml_text import parse_yaml, write_yaml

BUNDLED_MODEL = "smollm2-135m-instruct"

LEARNING_RATES = {"none": 1e-6, "lora": 1e-5}
_BRIEFLY = Repr()
_BRIEFLY.maxstring = _BRIEFLY.maxother = 200
SAFE_LEARNING_RATES = {"none": (1e-7, 5e-6), "lora": (1e-6, 1e-4)}


class ModelConfig(Section):
    """Which model is aligned and how it is computed."""

    name: str = Field(BUNDLED_MODEL, description="Hub id, local folder, or bundled name of the model or adapter.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to compute; auto: CUDA, MPS, CPU.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the forward pass; auto: float32 on CPU, bfloat16 on GPUs."
    )
    layout: Literal["auto", "plain"] = Field(
        "auto", description="auto: pairs packed, each prompt once, where the model allows it; plain: padded rows."
    )
    chat_template: str | None = Field(None, description="File with a Jinja chat template, where the model has none.")


class AdapterConfig(Section):
    """What is trained: a low-rank adapter, or all weights."""

    kind: Literal["lora", "none"] = Field("lora", description="lora, or none for full fine-tuning.")
    rank: int = Field(16, ge=1, description="Rank of the update (LoRA, Hu et al. 2021).")
    alpha: float = Field(32.0, gt=0, description="Scale of the update is alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input.")
    target_modules: Annotated[tuple[str, ...], Field(strict=False)] | Literal["all-linear"] = Field(
        "all-linear", description="Layers that get an adapter: names, or all-linear (all but the head)."
    )


class LossConfig(Section):
    """The objective."""

    name: Literal["dpo"] = Field("dpo", description="dpo (Rafailov et al. 2023, Eq. 7).")
    beta: float = Field(0.1, gt=0, description="Strength of the pull to the reference; smaller moves further.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of flipped labels (conservative DPO).")


class ReferenceConfig(Section):
    """What the frozen reference says is kept, so that no run computes it twice."""

    # YAML reads a bare off as false.
    store: Annotated[str, BeforeValidator(lambda value: "off" if value is False else value)] = Field(
        "auto", description="Folder of stored log-probabilities; auto: in the user's cache; off: none."
    )
    spot_checks: int = Field(4, ge=0, description="Stored pairs that are computed again at each start, to compare.")


class TrainingConfig(Section):
    """The optimizer and its steps."""

    epochs: int = Field(1, ge=1, description="Passes over the training pairs.")
    pairs_per_step: int = Field(
        8, ge=1, description="Pairs behind one optimizer step, whatever fits in memory at once."
    )
    token_budget: int | None = Field(
        None, ge=8, description="Most tokens in one micro-batch: memory and speed, not what is learned; null: planned."
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="Peak rate; null: 1e-5 for LoRA, 1e-6 for full.")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of steps over which the rate rises.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="How the rate falls after warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW, on matrices only.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    gradient_checkpointing: bool | None = Field(
        None, description="Compute activations twice to save memory; null: only where pairs do not fit otherwise."
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="Steps between two checkpoints; null: ten a run. A run that was cut off goes on there."
    )
    keep_checkpoints: int = Field(2, ge=2, description="Newest checkpoints that are kept.")
    on_divergence: Literal["stop", "rollback"] = Field(
        "stop",
        description="A loss that is not finite: stop, or go back to the last checkpoint with half the rate (3 times).",
    )
    shuffle: bool = Field(
        True, description="New order of pairs each epoch, from the seed; false keeps the file's order."
    )
    seed: int = Field(0, ge=0, description="Seed of sample order, adapter initialisation and dropout.")


class RuleConfig(Section):
    """A rule that measures the preference on generated answers."""

    name: str = Field("rule", description="What a match means, in words, for tables and reports.")
    pattern: str = Field(description="Regular expression searched in each generated answer; a match counts as 1.")


class EvaluationConfig(Section):
    """What is measured before, during and after training."""

    probes: int = Field(3, ge=0, description="How often held-out pairs are scored during training, evenly spaced.")
    probe_pairs: int = Field(64, ge=1, description="Most held-out pairs scored at each probe; the end scores them all.")
    num_samples: int = Field(8, ge=0, description="Held-out prompts answered by the model before and after.")
    max_new_tokens: int = Field(128, ge=1, description="Most tokens of a sampled answer.")
    rule: RuleConfig | None = Field(None, description="Rule that measures the preference on generated answers.")


class OutputConfig(Section):
    """Where results go."""

    dir: str | None = Field(None, description="Run folder; null: runs/NAME_OF_THE_CONFIG_FILE.")
    trackers: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        ("tensorboard",), description="Also log to these, through accelerate: tensorboard, wandb, mlflow, trackio, …"
    )


def _adapter_shorthand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Config(Section):
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    adapter: Annotated[AdapterConfig, BeforeValidator(_adapter_shorthand)] = AdapterConfig()
    loss: LossConfig = LossConfig()
    reference: ReferenceConfig = ReferenceConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    output: OutputConfig = OutputConfig()

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, after the default of the method."""
        return self.training.learning_rate or LEARNING_RATES[self.adapter.kind]


def warnings_of(config: Config) -> list[str]:
    """Return what is allowed but rarely meant, one sentence each."""
    low, high = SAFE_LEARNING_RATES[config.adapter.kind]
    if low <= config.learning_rate <= high:
        return []
    method = "LoRA" if config.adapter.kind == "lora" else "full fine-tuning"
    hazard = "gibberish and lost ability are likely" if config.learning_rate > high else "hardly anything is learned"
    return [
        f"training.learning_rate {config.learning_rate:g} is outside {low:g}..{high:g}, "
        f"the range that works for DPO with {method}: {hazard}"
    ]


def leaves(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, pydantic field) for every setting."""
    for name, field in section.model_fields.items():
        nested = _section_of(field.annotation)
        if nested is None:
            yield prefix + name, field
        else:
            yield from leaves(nested, f"{prefix}{name}.")


def _section_of(annotation: Any) -> type[Section] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


# ---------------------------------------------------------------------------------------------------------- loading


def load_config(path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Return the settings of a YAML file with overrides on top.

    `overrides` are `a.b=value` strings, or a mapping of dotted keys to values. `output.dir` defaults to a folder named
    after the file. Raises ConfigError, naming the key.
    """
    tree = {} if path is None else _read_yaml(Path(path))
    for key, value in _parsed(overrides):
        _assign(tree, key, value)
    where = str(path) if path else "configuration"
    config = build_config(tree, where=f"{where} with --set" if overrides else where)
    for text in _texts(config.model_dump()):
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise ConfigError(f"{where}: {ascii(text)[:80]} is no UTF-8, and could not be written down; rename it")
    return with_output_dir(config, Path(path).stem if path else "default")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def with_output_dir(config: Config, name: str = "default") -> Config:
    """Return the settings with `output.dir` filled in where it is null."""
    if config.output.dir is not None:
        return config
    folder = str(Path("runs") / name)
    return config.model_copy(update={"output": config.output.model_copy(update={"dir": folder})})


def build_config(tree: Mapping[str, Any], where: str = "configuration") -> Config:
    """Return validated settings, or raise ConfigError with one line about the first fault."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {one_line(_first_fault(error))}") from None


def _first_fault(error: ValidationError) -> str:
    faults = error.errors()
    # Of a value that may be this or that, the fault that goes deepest is about what was meant.
    fault = max((one for one in faults if one["loc"][:2] == faults[0]["loc"][:2]), key=lambda one: len(one["loc"]))
    *parents, last = ("", *(str(part) for part in fault["loc"] if not _is_type(part)))
    unknown = fault["type"] == "extra_forbidden"
    # Only keys of ours, places in a list, and the unknown key are names a user knows.
    known = [name for name in parents if name.isidentifier() or name.isdigit()]
    key = ".".join(known + [last] * (unknown or last.isidentifier()))
    if unknown:
        return f"unknown key '{key}'.{_suggest(key)}"
    if fault["type"] == "missing":
        return f"'{key}' is missing; tiebreak config lists every key"
    said = fault["msg"].removeprefix("Value error, ")
    return f"{key}: found {_shown(fault['input'])}; {said[0].lower()}{said[1:]}"


def _shown(value: Any) -> str:
    """Return a value in at most 80 characters, however large it is: in YAML a list can hold another a billion times."""
    try:
        return masked(_BRIEFLY.repr(value))[:80]
    except ValueError:  # a whole number of thousands of digits
        return f"a very long {type(value).__name__}"


def _is_type(part: int | str) -> bool:
    """Say whether a part of a location is the type that was tried, which pydantic adds for unions."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def _suggest(key: str) -> str:
    keys = [name for name, _ in leaves()] + list(Config.model_fields)
    same_name = [name for name in keys if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    if same_name:
        return f" Did you mean '{same_name[0]}'?"
    siblings = [name for name in keys if name.rpartition(".")[0] == key.rpartition(".")[0]]
    return nearest(key, siblings) or nearest(key, keys) or " Run 'tiebreak config' for the list."


def _parsed(overrides: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item}: wanted KEY=VALUE, for example training.learning_rate=5e-6")
        yield key.strip(), parse_yaml(text, f"--set {key}")


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        branch = tree.setdefault(name, {})
        if name == "adapter" and isinstance(branch, str):
            branch = tree[name] = {"kind": branch}
        if branch is None:
            branch = tree[name] = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"{key}: '{name}' is a value, not a section.{_suggest(key)}")
        tree = branch
    tree[last] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; 'tiebreak config > my.yaml' writes one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({one_line(error)})") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path}: wanted sections like 'model:' and 'data:', found {type(tree).__name__}")
    # A section whose lines are all commented out is None in YAML, and means its defaults.
    return {key: {} if value is None else value for key, value in tree.items()}


def dump_config(config: Config) -> str:
    """Return the settings as YAML that `load_config` reads back to the same value."""
    return write_yaml(config.model_dump(mode="json"))


def describe_config() -> str:
    """Return a complete, commented YAML file of all defaults."""
    lines: list[str] = []
    for section, field in Config.model_fields.items():
        nested = _section_of(field.annotation)
        assert nested is not None  # noqa: S101 - every top-level field is a section
        lines.append(f"{section}:  # {(nested.__doc__ or '').strip()}")
        lines += [_described(name, leaf) for name, leaf in nested.model_fields.items()]
    return "\n".join(lines) + "\n"


def _described(name: str, field: Any) -> str:
    default = field.default
    value = write_yaml(list(default) if isinstance(default, tuple) else default, inline=True)
    return f"  {name}: {value}  # {field.description}"
