"""The key `rounds` of a configuration: what the model answers, who judges it, and how answers become pairs.

Owns what a loop of rounds is told, and the configuration of one round's run. What becomes of rounds is known to
`campaigns`, how answers, verdicts and pairs are made to `stations`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tiebreak.config.data import BUNDLED_PAIRS, Mix
from tiebreak.config.judges import JudgeConfig, is_address
from tiebreak.config.loading import assign, build_config, parsed, read_yaml, with_output_dir
from tiebreak.config.section import Place, Section, require_known_keys
from tiebreak.config.settings import Config, RuleConfig
from tiebreak.errors import ConfigError, one_line

GUARDS: tuple[Literal["finished", "no_repetition"], ...] = ("finished", "no_repetition")
"""Guards by name: an answer that was cut off, or that loops, is no candidate."""


class SamplingConfig(Section):
    """How answers are drawn."""

    n: int = Field(4, ge=2, le=1024, description="Answers to each prompt.")
    temperature: float = Field(
        1.0, gt=0, le=2, description="Temperature they are drawn at; at 1 they are samples of the policy itself."
    )
    max_new_tokens: int = Field(256, ge=1, le=2**20, description="Most tokens of an answer.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of all that is drawn.")


class ServedConfig(Section):
    """An OpenAI-compatible server that answers in token ids, and how it gets the weights of each round."""

    base_url: str = Field(description="Address, as http://127.0.0.1:8000/v1.")
    model: Place = Field(description="Name under which the server serves the first model.")
    weights: Literal["adapter", "command", "as_served"] = Field(
        "adapter",
        description="adapter: POST /v1/load_lora_adapter; command: one is started with each round's weights; "
        "as_served: somebody else sees to it.",
    )
    command: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Words of the command that serves the folder {model}, as [vllm, serve, '{model}'].",
    )
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key, never kept.")
    num_at_once: int = Field(8, ge=1, le=256, description="Requests under way at the same time.")
    num_retries: int = Field(5, ge=0, le=100, description="How often a request is tried again.")
    timeout_seconds: float = Field(600.0, gt=0, le=86_400, description="How long one request may take.")
    start_seconds: float = Field(600.0, gt=0, le=86_400, description="How long a command may take until it answers.")

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not is_address(value):
            raise ValueError("is no address that can be asked, wanted one as http://127.0.0.1:8000/v1")
        return value

    @model_validator(mode="after")
    def _has_its_command(self) -> ServedConfig:
        if (self.weights == "command") != bool(self.command):
            raise ValueError("a command is named where weights is command, and nowhere else")
        if self.command and not any("{model}" in word for word in self.command):
            raise ValueError("command has no {model}, where the folder of a round's weights is put")
        return self


class PairingConfig(Section):
    """How the judged answers to a prompt become pairs."""

    rule: Literal["best_worst", "best_second", "best_random", "all", "rso", "sppo"] = Field(
        "best_worst",
        description="best_worst, best_second, best_random, all; rso (Liu et al. 2024), sppo (Wu et al. 2024).",
    )
    min_margin: float = Field(0.0, ge=0, description="Least difference of two scores that makes a pair of them.")
    beta: float = Field(0.5, gt=0, description="rso: how sharply an answer's reward decides whether it is accepted.")
    num_accepted: int = Field(4, ge=2, le=1024, description="rso: answers to a prompt that are accepted.")
    match: Literal["first_round", "tournament"] = Field(
        "first_round", description="rso: neighbours in their order of acceptance, or winners against winners, too."
    )


class RoundsStop(Section):
    """What ends the loop before its last round."""

    worse: bool = Field(True, description="A round's win rate against the one before is certainly below one half.")
    patience: int | None = Field(
        2,
        ge=1,
        le=10_000,
        description="So many rounds in a row, none certainly better than the one before; null: no.",
    )
    kl: float | None = Field(None, gt=0, description="KL to the first model (nats an answer) is above this.")
    unusable_prompts: float = Field(0.8, gt=0, le=1, description="Share of a round's prompts that give no pair.")
    cut_off: float = Field(0.5, gt=0, le=1, description="Share of answers that were cut off at max_new_tokens.")
    unjudged: float = Field(0.1, ge=0, le=1, description="Share of answers or comparisons without a verdict.")
    judge_drift: float | None = Field(
        0.75, gt=0.5, le=1, description="A judge that changes agrees less than this with its first word; null: no."
    )
    cost: float | None = Field(None, ge=0, description="No judge is asked beyond this cost, of all rounds together.")


Guard = Literal["finished", "no_repetition"] | RuleConfig


class RoundsConfig(Section):
    """The model answers, a judge decides, the pairs train it, and again."""

    count: int = Field(3, ge=1, le=10_000, description="Rounds.")
    prompts: Place = Field(BUNDLED_PAIRS, description="Prompts: file, folder, glob, hub data set or 'bundled'.")
    asked_as: str | None = Field(
        None,
        description="How the last message of a prompt is asked, {prompt} being its text; null: as it is.",
    )
    per_round: int = Field(500, ge=1, le=10_000_000, description="Prompts of a round; none twice before all were used.")
    heldout: Place | None = Field(None, description="File of held-out prompts; null: data.heldout_share of prompts.")
    num_heldout: int = Field(
        128, ge=1, le=1_000_000, description="Most held-out prompts that each round is measured on."
    )
    sampling: SamplingConfig = SamplingConfig()
    engine: Literal["local"] | ServedConfig = Field("local", description="Who answers: this process, or a server.")
    on_policy: bool = Field(True, description="Score some answers of a server, to prove that it serves the policy.")
    judge: JudgeConfig = Field(description="Who says which answers are better.")
    guards: Annotated[tuple[Guard, ...], Field(strict=False)] = Field(
        GUARDS, description="What an answer has to be, to be a candidate: finished, no_repetition, {name, pattern}."
    )
    pairing: PairingConfig = PairingConfig()
    mix: Mix | None = Field(None, description="Older pairs beside each round's: a list, each with path and weight.")
    start: Literal["previous", "first"] = Field("previous", description="Whose weights a round's training starts from.")
    reference: Literal["first", "previous"] = Field("first", description="What a round's training compares with.")
    keep_optimizer: bool = Field(False, description="Go on with the moments of the round before, as online DPO does.")
    measure_draws: int = Field(
        1, ge=0, le=64, description="Answers drawn to each held-out prompt, for the KL; 0: none."
    )
    stop: RoundsStop = RoundsStop()

    @field_validator("asked_as")
    @classmethod
    def _holds_the_prompt(cls, value: str | None) -> str | None:
        if value is not None and "{prompt}" not in value:
            raise ValueError("has no {prompt}, where the text of a prompt is put")
        return value


_LEANER: Mapping[str, Any] = {
    "evaluation.probes": 1,
    "evaluation.num_samples": 0,
    "evaluation.num_draws": 0,
    "evaluation.neutral_probe": False,
    "signals.looks": 0,
}
"""What a round's own run measures, unless said otherwise: the loop measures its policy on held-out prompts."""


@dataclass(frozen=True)
class Rounds:
    """A loop of rounds over what a configuration says otherwise."""

    where: str
    folder: Path
    settings: RoundsConfig
    tree: Mapping[str, Any]
    """Sections as they were written, without `rounds`."""

    def of_the_day(self, day: str) -> Rounds:
        """Return the same with the date that chat templates which ask for one are told, unless one is set."""
        if self.base.model.chat_template_date:
            return self
        tree: dict[str, Any] = copy.deepcopy(dict(self.tree))
        assign(tree, "model.chat_template_date", day)
        return replace(self, tree=tree)

    @property
    def base(self) -> Config:
        """The configuration that all rounds share."""
        return self.config({"output.dir": str(self.folder)})

    def config(self, told: Mapping[str, Any]) -> Config:
        """Return the configuration of a run that `told` says something else of; raises ConfigError naming the key."""
        tree: dict[str, Any] = copy.deepcopy(dict(self.tree))
        for key, value in _LEANER.items():
            section, _, name = key.partition(".")
            if name not in (tree.get(section) or {}):
                assign(tree, key, value)
        for key, value in told.items():
            assign(tree, key, value)
        return build_config(tree, where=self.where)


def load_rounds(path: Path | str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Rounds:
    """Return the loop of a YAML file: of its key `rounds`. Raises ConfigError, naming the key."""
    tree = read_yaml(path)
    for key, value in parsed(overrides):
        assign(tree, key, value)
    for other in ("stages", "sweep"):
        if other in tree:
            raise ConfigError(f"{path}: has {other} and rounds; take one of them out")
    if "rounds" not in tree:
        raise ConfigError(f"{path}: has no key 'rounds'; 'tiebreak rounds --help' shows what it holds")
    settings = _settings(str(path), tree.pop("rounds"))
    data = tree.get("data") or {}
    for key, instead in (("train", "rounds.mix"), ("heldout", "rounds.heldout"), ("set_aside", None)):
        if isinstance(data, Mapping) and key in data:
            told = f"; older pairs and prompts stand as {instead}" if instead else ""
            raise ConfigError(f"{path}: data.{key}: each round makes its own pairs{told}; take it out")
    base = build_config(tree, where=str(path))
    _refuse_other_references(str(path), tree, base, settings)
    if base.quantization and settings.engine != "local":
        raise ConfigError(
            f"{path}: rounds.engine: a server answers with the base model as it is, and quantization trains on one in "
            "four bits; take engine local, or leave quantization out"
        )
    if settings.keep_optimizer and settings.start == "first":
        raise ConfigError(
            f"{path}: rounds.keep_optimizer: its moments are of the round before, and rounds.start is first; set that "
            "to previous, or take keep_optimizer out"
        )
    if base.loss.learns_apart:
        raise ConfigError(f"{path}: loss {base.loss.name} learns from lone completions; rounds make pairs")
    folder = with_output_dir(base, Path(str(path)).stem).output.dir
    return Rounds(str(path), Path(str(folder)), settings, tree)


def _refuse_other_references(path: str, tree: Mapping[str, Any], base: Config, settings: RoundsConfig) -> None:
    """Refuse what a round cannot compare with.

    SPPO's step is one against the policy that the answers are of (Wu et al. 2024, Alg. 1).
    """
    is_sppo = settings.pairing.rule == "sppo" or base.loss.name.startswith("sppo")
    if is_sppo and settings.reference != "previous":
        raise ConfigError(f"{path}: rounds.reference: sppo compares with the policy that answered; set it to previous")
    own = tree.get("reference") or {}
    for key, is_said in (("model", "model" in own), ("moves", base.reference.moves is not None)):
        if is_said:
            raise ConfigError(f"{path}: reference.{key}: what a round compares with is rounds.reference; take it out")


def _settings(path: str, told: Any) -> RoundsConfig:
    require_known_keys(path, "rounds", told, RoundsConfig, "a judge")
    try:
        return RoundsConfig.model_validate(told)
    except ValidationError as error:
        fault = max(error.errors(), key=lambda one: len(one["loc"]))
        parts = [str(part) for part in fault["loc"] if "[" not in str(part)]
        if parts[:1] == ["judge"]:  # pydantic adds which kind of judge it took it for
            del parts[1:2]
        place = ".".join(["rounds", *parts])
        said = str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "missing":
            raise ConfigError(f"{path}: '{place}' is missing") from None
        shown = "" if fault["input"] is told else f" found {one_line(repr(fault['input']), 80)};"
        raise ConfigError(f"{path}: {place}:{shown} {one_line(said)}") from None
