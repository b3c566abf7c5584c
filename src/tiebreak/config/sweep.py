"""The key `sweep` of a configuration: which settings are tried, and how the best of them is found.

Owns what may be swept, and what the configuration of one trial is. What becomes of trials is known to `campaigns`.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tiebreak.config.loading import assign, build_config, parsed, read_yaml, with_output_dir
from tiebreak.config.losses import SECTIONS, meant_by
from tiebreak.config.section import Section, require_known_keys
from tiebreak.config.settings import Config, leaves
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, nearest, one_line

MOST_TRIALS = 1000
_SAME_FOR_ALL = {
    "evaluation.": "trials are compared by what is measured, and all are measured alike",
    "gate.": "rules judge what a trial became, and make it no other",
    "output.": "each trial has a folder of its own below output.dir",
    "data.heldout": "trials are compared on the same held-out prompts",
    "data.set_aside": "it is sweep.confirm_share",
    "reference.model": "KL and win rates against two references are not of one kind",
    "reference.revision": "KL and win rates against two references are not of one kind",
    "reference.base": "KL and win rates against two references are not of one kind",
    "reference.s": "what the reference says is stored once for all trials",
    "training.checkpoint_steps": "it moves no weight",
    "training.keep_checkpoints": "it moves no weight",
    "model.name": "each model is its own reference, so that neither KL nor win rates are of one kind; train each, and "
    "let a judge compare them",
}
"""What trials may not differ in, by how the key begins, and why."""

Values = Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


class Between(Section):
    """A range that is searched; whole numbers where both ends are whole."""

    low: int | float = Field(description="Least value.")
    high: int | float = Field(description="Greatest value.")
    log: bool = Field(False, description="Whether factors count and not differences: 0.01 to 0.1 as 0.1 to 1.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Between:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("wanted low below high, and above 0 where log is true")
        return self


class SweepConfig(Section):
    """Which settings are tried, and how the best of them is found."""

    grid: dict[str, Values] = Field({}, description="Values of settings; every combination is a trial.")
    search: dict[str, Between | Values] = Field(
        {}, description="Ranges {low, high, log} or lists of values, from which Optuna draws trial after trial."
    )
    trials: int = Field(12, ge=2, le=MOST_TRIALS, description="How many trials a search has.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of a search and of the report's intervals.")
    best_by: Literal["accuracy", "win_rate"] = Field(
        "accuracy", description="Held-out accuracy, or the win rate of answers at the same KL."
    )
    confirm_share: float = Field(
        0.5, gt=0, lt=1, description="Share of held-out prompts that no trial sees, for the best one's last word."
    )
    stop_early: Literal["median", "halving", "off"] = Field(
        "median",
        description="A trial ends early where its held-out accuracy is below the median of the others at the same "
        "share of training, or outside of the better half at each doubling.",
    )
    whole_first: int = Field(3, ge=1, description="So many trials are trained to their end before one is stopped.")
    launcher: Literal["here", "slurm", "local"] = Field(
        "here", description="In this process; as Slurm jobs; in processes beside each other (both through submitit)."
    )
    at_once: int = Field(1, ge=1, le=MOST_TRIALS, description="Trials at the same time, where not in this process.")
    slurm: dict[str, str | int | float | bool] = Field(
        {}, description="What submitit is told of a job: {slurm_partition: gpu, gpus_per_node: 1, timeout_min: 120}."
    )

    @field_validator("grid", "search", mode="before")
    @classmethod
    def _are_settings(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            shown = "null" if value is None else one_line(repr(value), 80)
            raise ValueError(
                f"wanted settings with what is tried of each, like {{loss.beta: [0.1, 0.3]}}; found {shown}"
            )
        return value

    @field_validator("grid", mode="before")
    @classmethod
    def _are_lists(cls, value: Any) -> Any:
        for key, told in value.items() if isinstance(value, Mapping) else ():
            if not isinstance(told, list | tuple):
                raise ValueError(f"{key}: wanted a list of values, like [0.05, 0.1, 0.3], found {told!r}")
        return value

    @field_validator("search", mode="before")
    @classmethod
    def _are_ranges_or_lists(cls, value: Any) -> Any:
        for key, told in value.items() if isinstance(value, Mapping) else ():
            if not isinstance(told, Mapping | list | tuple):
                raise ValueError(f"{key}: wanted a range {{low: 0.01, high: 1}} or a list of values, found {told!r}")
        return value

    @model_validator(mode="after")
    def _tries_something(self) -> SweepConfig:
        if self.grid and self.search:
            raise ValueError("a sweep is a grid or a search; take one of them out")
        for key, values in {**self.grid, **self.search}.items():
            if isinstance(values, tuple) and (twice := [one for at, one in enumerate(values) if one in values[:at]]):
                raise ValueError(f"{key}: {twice[0]!r} is there twice, and two trials would be the same")
        if not self.search and math.prod(map(len, self.grid.values())) > MOST_TRIALS:
            raise ValueError(f"the grid has more than {MOST_TRIALS} trials; search its ranges instead")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that trials differ in."""
        return tuple(self.grid or self.search)


@dataclass(frozen=True)
class Sweep:
    """A sweep of settings over what a configuration says otherwise."""

    where: str
    folder: Path
    settings: SweepConfig
    tree: Mapping[str, Any]
    """Sections as they were written, without `sweep`."""

    @property
    def base(self) -> Config:
        """The configuration without any change: what its defaults are, trials are compared with."""
        return self.config({})

    def config(self, told: Mapping[str, Any], name: str = "") -> Config:
        """Return the configuration of a trial that `told` says something else of; raises ConfigError naming the key."""
        tree = copy.deepcopy(dict(self.tree))
        loss, objective = tree.get("loss"), told.get("loss.name")
        if objective is not None:
            own = {"name": loss} if isinstance(loss, str) else dict(loss or {})
            fields = _settings_of(objective)
            tree["loss"] = {key: value for key, value in own.items() if key in fields}
        for key, value in told.items():
            assign(tree, key, value)
        assign(tree, "data.set_aside", self.settings.confirm_share)
        assign(tree, "output.dir", str(self.folder / "trials" / name if name else self.folder))
        found = build_config(tree, where=f"{self.where}, trial {name or told}" if told else self.where)
        if found.reference.store != "off":
            return found
        own_store = found.reference.model_copy(update={"store": str(self.folder / "reference")})
        return found.model_copy(update={"reference": own_store})

    def meant(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings of a trial that its objective reads: others make no other trial."""
        objective = told.get("loss.name")
        fields = _settings_of(objective) if objective is not None else None
        return {
            key: value
            for key, value in told.items()
            if fields is None or not key.startswith("loss.") or key.split(".")[1] in fields
        }

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield what each trial of the grid says, each once."""
        seen: list[dict[str, Any]] = []
        for values in itertools.product(*self.settings.grid.values()):
            if (told := self.meant(dict(zip(self.settings.grid, values, strict=True)))) not in seen:
                seen.append(told)
                yield told


def load_sweep(
    path: Path | str, overrides: Sequence[str] | Mapping[str, Any] = (), grid: Sequence[str] | Mapping[str, Any] = ()
) -> Sweep:
    """Return the sweep of a YAML file: of its key `sweep`, with a `grid` of `KEY=VALUE,VALUE` on top.

    Every value is proven to be one that a run could have. Raises ConfigError, naming the key.
    """
    tree = read_yaml(path)
    for key, value in parsed(overrides):
        assign(tree, key, value)
    if "stages" in tree:
        raise ConfigError(f"{path}: has stages, and a sweep is of one run; sweep the stage that you want to know of")
    if not tree:
        raise ConfigError(f"{path}: holds no setting; 'tiebreak config > my.yaml' writes one to start from")
    told = tree.pop("sweep", {})
    if (named := dict(_gridded(grid))) and isinstance(told, Mapping):
        told = {**told, "grid": {**(told.get("grid") or {}), **named}}
    settings = _settings(str(path), told)
    if not settings.keys:
        raise ConfigError(f"{path}: nothing to sweep; name settings as sweep.grid or sweep.search, or with --grid")
    for key in settings.keys:
        _refuse_key(str(path), key)
    folder = with_output_dir(build_config(tree, where=str(path)), f"{Path(str(path)).stem}-sweep").output.dir
    sweep = Sweep(str(path), Path(str(folder)), settings, tree)
    for one in _extremes(sweep):
        sweep.config(one)
    if settings.grid and sum(1 for _ in sweep.combinations()) < 2:
        raise ConfigError(f"{path}: the grid has one trial, and nothing to compare it with; name more values")
    return sweep


def _gridded(grid: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys of a grid as the command line writes it, each with its values."""
    if isinstance(grid, Mapping):
        yield from ((key, list(values)) for key, values in grid.items())
        return
    for one in grid:
        key, equals, text = one.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise ConfigError(f"--grid {one}: wanted KEY=VALUE,VALUE, for example loss.beta=0.05,0.1,0.3")
        listed = text if text.lstrip().startswith("[") else f"[{text}]"
        values = parse_yaml(listed, f"--grid {key}")
        yield key.strip(), values if isinstance(values, list) else [values]


def _settings(path: str, told: Any) -> SweepConfig:
    require_known_keys(path, "sweep", told, SweepConfig, "grid or search")
    try:
        return SweepConfig.model_validate(told)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(["sweep", *(str(part) for part in fault["loc"] if "[" not in str(part))])
        said = str(fault["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{path}: {place}: {one_line(said)}") from None


@functools.cache
def shared_endings() -> frozenset[str]:
    """Return the last parts of keys that several settings which may be swept have: alone, they name none of these."""
    keys = [name for name, _ in leaves() if not name.startswith(tuple(_SAME_FOR_ALL))]
    count = Counter(name.rpartition(".")[2] for name in keys)
    return frozenset(last for last, num in count.items() if num > 1)


def _refuse_key(path: str, key: str) -> None:
    """Raise ConfigError for a key that no run has, or that trials may not differ in."""
    known = [name for name, _ in leaves()]
    if key not in known:
        last = {name.rsplit(".", 1)[-1]: name for name in known}
        close = nearest(key, known) or nearest(last.get(key.rsplit(".", 1)[-1], key), known)
        close = close or " 'tiebreak config' lists them."
        raise ConfigError(f"{path}: sweep: there is no setting {key!r}.{close}")
    for start, reason in _SAME_FOR_ALL.items():
        if key.startswith(start):
            raise ConfigError(f"{path}: sweep: {key} cannot be swept: {reason}")


def _extremes(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield what has to be a trial for all others to be one: every combination, or the ends of every range."""
    if sweep.settings.grid:
        yield from sweep.combinations()
        return
    ends = {
        key: told if isinstance(told, tuple) else (told.low, told.high) for key, told in sweep.settings.search.items()
    }
    names = ends.get("loss.name", (None,))
    for name in names:
        first = {key: values[0] for key, values in ends.items()} | ({} if name is None else {"loss.name": name})
        for key, values in ends.items():
            yield from (sweep.meant(first | {key: value}) for value in values if key != "loss.name")
        yield sweep.meant(first)


def _settings_of(objective: Any) -> set[str]:
    """Return what an objective reads; all that any reads where there is none of this name, which is told later."""
    try:
        return set(SECTIONS[meant_by(objective)[0]].model_fields)
    except ValueError:
        return {key for section in SECTIONS.values() for key in section.model_fields}
