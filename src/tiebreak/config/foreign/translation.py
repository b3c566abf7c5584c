"""A configuration of another trainer in ours: every line with its origin, and by name all that was left behind.

Owns the account: each of their settings is taken over, left out with a reason, or not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import Repr
from typing import Any

from tiebreak.config.foreign import datasets
from tiebreak.config.foreign.entries import Data
from tiebreak.config.foreign.names import NAMES, Name, name_of
from tiebreak.config.foreign.reading import COMPUTED, Foreign, read_foreign
from tiebreak.config.foreign.trainers import Trainer, defaults_of, recognised
from tiebreak.config.foreign.values import NOT_TAKEN, Unfit, is_off, whole
from tiebreak.config.loading import build_config
from tiebreak.config.losses import SECTIONS
from tiebreak.config.settings import MovesConfig, leaves
from tiebreak.config.yaml_text import parse_yaml, write_yaml
from tiebreak.errors import ConfigError, one_line, require_name
from tiebreak.secrecy import masked, secrets_of

_BRIEFLY = Repr()
_BRIEFLY.maxstring = _BRIEFLY.maxother = 60


@dataclass(frozen=True)
class Line:
    """A setting of ours with its value, and where that comes from."""

    key: str
    value: Any
    origin: str
    theirs: str = ""
    """The one setting that it is taken from, where it is one."""


@dataclass(frozen=True)
class Translation:
    """Our configuration as text, and what became of each of their settings."""

    text: str
    trainer: str
    lines: tuple[Line, ...]
    left_out: Mapping[str, str]
    """Their settings, each with the reason."""
    unknown: tuple[str, ...]
    has_data: bool
    """Whether the pairs are named, by something that is there."""

    def told(self) -> list[str]:
        """Return what of their configuration is not in ours, one line each."""
        lines = [f"  {key}: left out, {why}" for key, why in self.left_out.items()]
        return [f"a configuration of {self.trainer}: {len(self.lines)} settings, {len(lines)} left out", *lines] + [
            f"  {key}: not known, left out" for key in self.unknown
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the account for JSON."""
        return {
            "trainer": self.trainer,
            "taken": [dict(vars(line)) for line in self.lines],
            "left_out": dict(self.left_out),
            "unknown": list(self.unknown),
        }


def translated(path: str | Path, trainer: str | None = None, train: str | list[str] | None = None) -> Translation:
    """Return the configuration of another trainer as one of ours, proven to load; `train` takes the place of its data.

    Raises ConfigError where it cannot be read, is of another task than preference pairs, or has another objective.
    """
    require_name(path, "the configuration")
    file = Path(path)
    found = read_foreign(file)
    whose = recognised(found, trainer, file)
    account = _Account(found, whose, file)
    account.take_names()
    account.take_loss()
    account.take_batch()
    account.take_length()
    account.take_moves()
    account.take_data(file.parent, train)
    account.take_defaults()
    lines = account.sorted_lines()
    text = "\n".join(_text(lines, account, whose, file)) + "\n"
    build_config(parse_yaml(text, str(file)), where=f"{file}, translated")
    return Translation(text, whose.title, tuple(lines), account.left_out, tuple(account.unknown), account.has_data)


class _Account:
    """What becomes of each setting, filled in turn by turn."""

    def __init__(self, found: Foreign, trainer: Trainer, path: Path) -> None:
        self._settings = found.settings
        self._trainer = trainer
        self._path = path
        self._defaults = defaults_of(trainer, found)
        self.lines: dict[str, Line] = {}
        self.left_out: dict[str, str] = {}
        self.unknown: list[str] = []
        self.has_data = True
        self._inside: dict[str, Any] = {}
        """What stands inside of a setting, by dotted key."""

    def take_names(self) -> None:
        """Take over what has a name here; of several for one setting, the first of the table."""
        known = {key: name_of(key) for key in self._settings}
        order = {id(name): number for number, name in enumerate(NAMES)}
        self.unknown = [key for key, name in known.items() if name is None]
        for key, name in sorted(((k, n) for k, n in known.items() if n), key=lambda one: order[id(one[1])]):
            value = self._settings[key]
            if name.ours is None:
                self.left_out[key] = "off there, and there is no such thing here" if is_off(value) else name.why
            elif value is None:
                self.left_out[key] = "not set there"
            else:
                self._take(key, name, value)
        for key in self._trainer.task:
            self.left_out.pop(key, None)

    def _take(self, key: str, name: Name, value: Any) -> None:
        ours = str(name.ours)
        try:
            if value is COMPUTED:
                raise Unfit("its value is computed by the code")
            if ours == "loss.name" and isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            line = Line(ours, name.value(value), f"from {key}" + self._said(key, value, name.value(value)), key)
        except Unfit as reason:
            if ours == "loss.name" and value is not COMPUTED:
                raise ConfigError(f"{self._path}: {key}: {_shown(key, value)}: is not taken over; {reason}") from None
            self.left_out[key] = f"{ours}: {name.why if str(reason) == NOT_TAKEN else reason}"
            return
        before = self.lines.setdefault(ours, line)
        if before.value != line.value:
            self.left_out[key] = f"{ours} is taken {before.origin.split(':')[0]}"

    def _said(self, key: str, theirs: Any, ours: Any) -> str:
        return "" if theirs == ours and type(theirs) is type(ours) else f": {_shown(key, theirs)}"

    def _given(self, example: str) -> tuple[str, Any] | None:
        """Return the setting that is called like this one, whatever its spelling."""
        wanted = name_of(example)
        return next(((key, value) for key, value in self._settings.items() if name_of(key) is wanted and value), None)

    def take_loss(self) -> None:
        """What the objective reads, though trainers write down more; a coefficient is of one divergence alone."""
        name = self.lines["loss.name"].value if "loss.name" in self.lines else "dpo"
        for key in [key for key in self.lines if key.startswith("loss.")]:
            if key.removeprefix("loss.") not in SECTIONS[name].model_fields:
                self._leave(key, f"{name} does not read {key}")
        kind = self.lines.get("loss.divergence")
        if kind is None or kind.value != "alpha":
            self._leave("loss.divergence_alpha", "read with alpha_divergence alone")
        elif not any(name_of(key) is name_of("f_alpha_divergence_coef") for key in self._settings):
            self.lines["loss.divergence_alpha"] = Line("loss.divergence_alpha", 0.5, "not set there: its default")

    def take_batch(self) -> None:
        """Pairs of a step are micro-batch times accumulation, times the processes that nobody wrote down."""
        micro, steps = self._given("per_device_train_batch_size"), self._given("gradient_accumulation_steps")
        if "training.pairs_per_step" in self.lines:
            return
        try:
            product = whole(micro[1] if micro else self._trainer.micro_batch) * whole(steps[1] if steps else 1)
        except Unfit:
            return  # both stand in what is left out, with what the setting is here
        parts = [f"{key} {value}" for key, value in filter(None, (micro, steps))]
        if not micro:
            parts.append(f"micro-batch {self._trainer.micro_batch}, the default of {self._trainer.title}")
        origin = f"from {' × '.join(parts)}; multiply by the number of processes"
        self.lines["training.pairs_per_step"] = Line("training.pairs_per_step", product, origin)
        for key, _ in filter(None, (micro, steps)):
            self.left_out.pop(key, None)

    def take_length(self) -> None:
        """Prompt and completion have one limit here: that of both, or the sum of their own."""
        own = [self._settings.get(name) for name in ("max_prompt_length", "max_completion_length")]
        if "data.max_length" in self.lines or not all(type(length) is int and length > 0 for length in own):
            return
        origin = "from max_prompt_length + max_completion_length"
        self.lines["data.max_length"] = Line("data.max_length", sum(own), origin)
        for key in ("max_prompt_length", "max_completion_length"):
            self.left_out.pop(key, None)

    def take_moves(self) -> None:
        """How a reference moves counts where it does: where nothing more is said, as often and as far as here."""
        on, usual = self._given("sync_ref_model"), MovesConfig()
        for name, value in (("every", usual.every), ("share", usual.share)):
            key = f"reference.moves.{name}"
            if on and not is_off(on[1]):
                self.left_out.pop(on[0], None)
                self.lines.setdefault(key, Line(key, value, f"from {on[0]}: its default"))
            else:
                self._leave(key, "the reference does not move there")

    def take_data(self, folder: Path, train: str | list[str] | None) -> None:
        """Name the data: what the user says, else the files and data sets that the configuration names."""
        found = datasets.data_of(self._settings, folder)
        held = datasets.data_of(self._settings, folder, heldout=True)
        for data in (found, held):
            for key in data.used:
                self.left_out.pop(key, None)
        for data in (found, held):
            self.left_out |= {key: why for key, (_, why) in data.left_out.items()}
            self.unknown += [key for key in data.unknown if key not in self.unknown]
            self._inside |= {key: value for key, (value, _) in data.left_out.items()} | data.unknown
        if train is not None:
            self.lines["data.train"] = Line("data.train", train, "as named on the command line")
            self.left_out |= dict.fromkeys(found.used, "other pairs are named on the command line")
        elif not found.sources:
            self.lines["data.train"] = Line("data.train", "pairs.jsonl", "named nowhere there: name your pairs")
        self.has_data = train is not None or (bool(found.sources) and not any(one.is_missing for one in found.sources))
        if len(held.sources) == 1:
            origin = _origin(held)
            self.lines["data.heldout"] = Line("data.heldout", held.sources[0].path, origin)
            self._leave("data.heldout_share", "held-out pairs have a file of their own")
        elif held.sources:
            why = f"data.heldout is one file or data set, here are {len(held.sources)}"
            self.left_out |= dict.fromkeys({one.key for one in held.sources}, why)
        self._take_columns(found if train is None else Data(), held)

    def _take_columns(self, found: Data, held: Data) -> None:
        """Say which column is what, once where all sources agree, else of each source; held-out pairs have their own.

        A source without a mapping would be read by that of the held-out pairs.
        """
        mappings = {one.columns for one in found.sources}
        heldout = held.sources[0].columns if len(held.sources) == 1 else None
        agreed = len(mappings) == 1 and heldout in (None, *mappings)
        if agreed and (columns := dict(found.sources[0].columns)):
            self.lines["data.columns"] = Line("data.columns", columns, _origin(found))
        elif heldout and not agreed and () in (mappings or {()}):
            key = f"{held.sources[0].key}.columns"
            self._inside[key], self.left_out[key] = dict(heldout), "data.columns would be those of data.train, too"
        elif heldout and not agreed:
            self.lines["data.columns"] = Line("data.columns", dict(heldout), _origin(held))
        if not found.sources:
            return
        sources: list[Any] = []
        for one in found.sources:
            more = ({"weight": one.weight} if one.weight != 1 else {}) | (
                {} if agreed or not one.columns else {"columns": dict(one.columns)}
            )
            sources.append({"path": one.path, **more} if more else one.path)
        is_one = len(sources) == 1 and isinstance(sources[0], str)
        self.lines["data.train"] = Line("data.train", sources[0] if is_one else sources, _origin(found))

    def take_defaults(self) -> None:
        """What their configuration leaves unsaid, and changes what is learned, is what their trainer takes."""
        adapted = {"adapter.rank", "adapter.alpha", "adapter.target_modules"} & self.lines.keys()
        for key, usual in self._defaults.items():
            value = self._trainer.full.get(key, usual) if self._kind() == "none" else usual
            if key == "adapter.kind" and adapted:
                self.lines.setdefault(key, Line(key, "lora", self.lines[min(adapted)].origin))
            elif not (key.startswith("adapter.") and self._kind() == "none" and key != "adapter.kind"):
                self.lines.setdefault(key, Line(key, value, "not set there: its default"))
        if self._trainer.name == "llama-factory" and self._kind() == "lora" and "adapter.alpha" not in self.lines:
            alpha, why = 2.0 * self.lines["adapter.rank"].value, "not set there: twice the rank, as LLaMA-Factory"
            self.lines["adapter.alpha"] = Line("adapter.alpha", alpha, why)
        if self._kind() == "none":
            for key in [key for key in self.lines if key.startswith("adapter.") and key != "adapter.kind"]:
                self._leave(key, "all weights are trained")
        self.lines.setdefault("loss.name", Line("loss.name", "dpo", f"what {self._trainer.title} does with pairs"))

    def _leave(self, key: str, why: str) -> None:
        line = self.lines.pop(key, None)
        if line is not None and line.theirs:
            self.left_out[line.theirs] = why

    def _kind(self) -> Any:
        return self.lines["adapter.kind"].value if "adapter.kind" in self.lines else None

    def sorted_lines(self) -> list[Line]:
        """Return the lines in the order of our settings."""
        return [self.lines[key] for key, _ in leaves() if key in self.lines]

    def shown(self, key: str) -> str:
        """Return a setting of theirs with its value, on one line."""
        told = {**self._inside, **self._settings}
        return f"{key}: {_shown(key, told[key])}" if key in told else key


def _origin(data: Data) -> str:
    """Return which of their settings the sources are taken from, with what is to be known of each."""
    named = [f"from {one.key}" + (f": {one.note}" if one.note else "") for one in data.sources]
    beside = sorted(data.used - {one.key for one in data.sources})
    return "; ".join(dict.fromkeys([*named, *(f"from {key}" for key in beside)]))


def _text(lines: list[Line], account: _Account, trainer: Trainer, path: Path) -> Iterator[str]:
    yield _comment(f"Written by 'tiebreak init' from {path}, a configuration of {trainer.title}.")
    opened: list[str] = []
    for line in lines:
        *sections, last = line.key.split(".")
        for depth, section in enumerate(sections):
            if opened[: depth + 1] != sections[: depth + 1]:
                opened = sections[: depth + 1]
                yield f"{'  ' * depth}{section}:"
        yield f"{'  ' * len(sections)}{last}: {write_yaml(line.value, inline=True)}  {_comment(line.origin)}"
    for title, entries in (
        ("Left out:", [f"{account.shown(key)} ({why})" for key, why in account.left_out.items()]),
        ("Not known, and left out:", [account.shown(key) for key in account.unknown]),
    ):
        if entries:
            yield _comment(title)
            yield from (_comment(f"  {entry}", indent=2) for entry in entries)


def _comment(text: str, indent: int = 0) -> str:
    return f"# {' ' * indent}{masked(one_line(text))}"


def _shown(key: str, value: Any) -> str:
    """Return a value in a few characters; none of a secret."""
    if value is COMPUTED:
        return "…"
    if value is None or isinstance(value, bool):
        return write_yaml(value, inline=True)
    try:
        text = value if isinstance(value, str) else _BRIEFLY.repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a very long {type(value).__name__}"
    return masked(one_line(text), secrets_of({key: text}) if isinstance(value, str) else ())[:80]
