"""What becomes of each setting of another trainer: taken over, left out with a reason, or not known.

Owns the account, filled in turn by turn, and what is said of a default where a setting could not be taken.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tiebreak.config.data import DataConfig
from tiebreak.config.foreign import datasets
from tiebreak.config.foreign.batches import batch_of
from tiebreak.config.foreign.columns import origin_of, placed
from tiebreak.config.foreign.entries import Data
from tiebreak.config.foreign.found import COMPUTED, Foreign, Line, shown
from tiebreak.config.foreign.names import NAMES, Name, name_of
from tiebreak.config.foreign.sharing import shared
from tiebreak.config.foreign.terms import LIKELIHOOD, UNSAID, several
from tiebreak.config.foreign.trainers import Trainer, four_bits_of
from tiebreak.config.foreign.values import NOT_TAKEN, Unfit, is_off, number
from tiebreak.config.losses import SECTIONS
from tiebreak.config.settings import MovesConfig, leaves
from tiebreak.errors import ConfigError


class Account:
    """What becomes of each setting, filled in turn by turn."""

    def __init__(self, found: Foreign, trainer: Trainer, path: Path) -> None:
        self._settings, self._unread, self._trainer, self._path = found.settings, found.unread, trainer, path
        self._unsaid = f"not seen there ({', '.join(found.hidden)} may hold it)" if found.hidden else "not set there"
        self._four_bits = four_bits_of(trainer, found)
        self.lines: dict[str, Line] = {}
        self.left_out: dict[str, str] = {}
        self.unknown: list[str] = []
        self.has_data = True
        self._inside: dict[str, Any] = {}  # what stands inside of a setting, by dotted key

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
        self.left_out |= {key: why for key, why in self._unread.items() if key not in known}

    def _take(self, key: str, name: Name, value: Any) -> None:
        ours = str(name.ours)
        try:
            if value is COMPUTED:
                raise Unfit(self._unread.get(key, "its value is computed by the code"))
            if ours == "loss.name" and isinstance(value, list | tuple) and len(value) == 1:
                value = value[0]
            line = Line(ours, name.value(value), f"from {key}" + self._said(key, value, name.value(value)), key)
        except Unfit as reason:
            if ours == "loss.name" and value is not COMPUTED:
                raise ConfigError(f"{self._path}: {key}: {shown(key, value)}: is not taken over; {reason}") from None
            self.left_out[key] = f"{ours}: {name.why if str(reason) == NOT_TAKEN else reason}"
            return
        before = self.lines.setdefault(ours, line)
        if key == "max_length" and before.theirs == "max_seq_length" and line.value < before.value:  # both cut there
            self.lines[ours], self.left_out[before.theirs] = line, f"{ours} is taken {line.origin.split(':')[0]}"
        elif before.value != line.value:
            self.left_out[key] = f"{ours} is taken {before.origin.split(':')[0]}"

    def _said(self, key: str, theirs: Any, ours: Any) -> str:
        if theirs == ours and type(theirs) is type(ours):
            return ""
        name = name_of(key)
        differs = type(ours) in (int, float) and type(theirs) in (int, float) and theirs != ours
        return f": {shown(key, theirs)}" + (f" there; {name.why}" if differs and name and name.why else "")

    def _given(self, example: str) -> tuple[str, Any] | None:
        """Return the setting that is called like this one, whatever its spelling; of several, the table's first."""
        wanted = name_of(example)
        said = {key: value for key, value in self._settings.items() if value is not None and name_of(key) is wanted}
        order = {name: number for number, name in enumerate(wanted.theirs if wanted else ())}
        key = min(said, key=lambda one: order.get(one.rsplit(".", 1)[-1], len(order)), default=None)
        return None if key is None else (key, said[key])

    def take_loss(self) -> None:
        """What the objective reads, though trainers write down more; a coefficient is of one divergence alone."""
        kind = self.lines.get("loss.divergence")
        if kind is None or kind.value != "alpha":
            self._leave("loss.divergence_alpha", "read with alpha_divergence alone")
        elif not any(name_of(key) is name_of("f_alpha_divergence_coef") for key in self._settings):
            self.lines["loss.divergence_alpha"] = Line(
                "loss.divergence_alpha", 0.5, self._unset("loss.divergence_alpha")
            )
        name = self.lines["loss.name"].value if "loss.name" in self.lines else "dpo"
        if isinstance(name, list) or "loss.terms" in self.lines:
            self._take_terms(name if isinstance(name, list) else [name])
            return
        for key, usual in UNSAID.items():
            own = SECTIONS[name].model_fields.get(key.removeprefix("loss."))
            if own and own.default != usual:
                self.lines.setdefault(key, Line(key, usual, self._unset(key)))
        for key, why in self._trainer.unread.get(name, {}).items():
            self._leave(key, why)
        for key in [key for key in self.lines if key.startswith("loss.")]:
            if key.removeprefix("loss.") not in SECTIONS[name].model_fields:
                self._leave(key, f"{name} does not read {key}")

    def _take_terms(self, names: list[str]) -> None:
        """Several objectives are terms, each with what it reads; likelihood beside one is a term, too."""
        listed, beside = self.lines.pop("loss.name", None), self.lines.pop("loss.terms", None)
        used = [line.theirs for line in (listed, beside) if line]
        told = list(zip(names, self._weights(len(names), used), strict=True))
        told += [("sft", beside.value)] if beside else []
        settings = {key: line for key, line in self.lines.items() if key.startswith("loss.")}
        found = several(told, {key: line.value for key, line in settings.items()}, self._trainer.unread)
        for key, why in found.unread.items():
            self._leave(key, why)
        used += [self.lines.pop(key).theirs for key in settings if key in found.read]
        origin = "; ".join(f"from {self.shown(key)}" for key in used if key)
        by_batch = "sft" in names or (beside is not None and self._trainer.name != "llama-factory")
        note = f"; {LIKELIHOOD}" if by_batch else ""
        self.lines["loss.terms"] = Line("loss.terms", found.terms, origin + note)

    def _weights(self, num: int, used: list[str]) -> list[float]:
        """Return a weight for each of several objectives, and count the setting as used."""
        given = self._given("loss_weights") if num > 1 else None
        if given is None:
            return [1.0] * num
        key, value = given
        try:
            weights = [number(one) for one in value] if isinstance(value, list | tuple) else []
        except Unfit:
            weights = []
        if len(weights) != num:
            raise ConfigError(f"{self._path}: {key}: {shown(key, value)}: wanted a number for each of {num} objectives")
        used.append(key)
        self.left_out.pop(key, None)
        return weights

    def take_batch(self) -> None:
        """Pairs of a step are micro-batch times accumulation, times the processes that nobody wrote down."""
        if "training.pairs_per_step" in self.lines:
            return
        micro, steps = self._given("per_device_train_batch_size"), self._given("gradient_accumulation_steps")
        total = next(((key, value) for key, value in self._settings.items() if key == self._trainer.step_total), None)
        if total and micro and micro[0] == total[0]:
            micro = None
        try:
            batch = batch_of(self._trainer, micro, steps, total if total and total[1] is not None else None)
        except Unfit:
            return  # all stand in what is left out, with what the setting is here
        self.lines["training.pairs_per_step"] = Line("training.pairs_per_step", batch.pairs, batch.origin)
        for key in batch.used:
            self.left_out.pop(key, None)

    def take_length(self) -> None:
        """Prompt and completion have one limit here: that of both, or the sum of their own."""
        key = self._trainer.unlimited
        if key and self._settings.get(key, 0) is None and "data.max_length" not in self.lines:
            most = DataConfig.model_fields["max_length"].default
            origin = f"from {key}: null, no limit there; here longer pairs are dropped, or cut by data.truncation"
            self.lines["data.max_length"] = Line("data.max_length", most, origin, key)
            self.left_out.pop(key, None)
        own = [self._settings.get(name) for name in ("max_prompt_length", "max_completion_length")]
        if "data.max_length" in self.lines or not all(type(length) is int and length > 0 for length in own):
            return
        origin = "from max_prompt_length + max_completion_length"
        self.lines["data.max_length"] = Line("data.max_length", sum(own), origin)
        for key in ("max_prompt_length", "max_completion_length"):
            self.left_out.pop(key, None)

    def take_quantization(self) -> None:
        """Four bits count where they are switched on, under an adapter."""
        switch = self._given("load_in_4bit") or self._trainer.four_bits
        on = switch is not None and str(switch[1]).lower() in {"4", "true", "yes"}
        if switch and on and self._kind() != "none":
            self.left_out.pop(switch[0], None)
            told = f"from {switch[0]}: its default" if switch[0] in self._settings else "not set there: its default"
            self.lines = {key: Line(key, value, told, switch[0]) for key, value in self._four_bits.items()} | self.lines
            return
        why = "all weights are trained" if on else "weights do not lie in four bits there"
        for key in self._four_bits:
            self._leave(key, why)
        if switch:
            self.left_out[switch[0]] = why if on or is_off(switch[1]) else "four bits, or none"

    def take_moves(self) -> None:
        """How a reference moves counts where it does: where nothing more is said, as often and as far as here."""
        on, usual = self._given("sync_ref_model"), MovesConfig()
        for name, value in (("every", usual.every), ("share", usual.share)):
            key = f"reference.moves.{name}"
            if on and not is_off(on[1]):
                self.left_out.pop(on[0], None)
                self.lines.setdefault(key, Line(key, value, self._unset(key, f"from {on[0]}: its default")))
                self._leave(
                    "reference.model", "the reference moves there, and one that moves starts as the policy here"
                )
            else:
                self._leave(key, "the reference does not move there")

    def take_sharing(self, folder: Path) -> None:
        """How processes share the work, from wherever it is said."""
        found = shared(self._settings, folder)
        self.left_out = {key: why for key, why in self.left_out.items() if key not in found.used} | found.left_out
        self.unknown = [key for key in self.unknown if key not in found.used]
        self._inside |= found.inside
        for key, (value, origin) in found.lines.items():
            self.lines[key] = Line(key, value, origin)

    def take_data(self, folder: Path, train: str | list[str] | None) -> None:
        """Name the data: what the user says, else the files and data sets that the configuration names."""
        found = datasets.data_of(self._settings, folder)
        held = datasets.data_of(self._settings, folder, heldout=True)
        for key in found.used | held.used:
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
            self.lines["data.heldout"] = Line("data.heldout", held.sources[0].path, origin_of(held))
            self._leave("data.heldout_share", "held-out pairs have a file of their own")
        elif held.sources:
            why = f"data.heldout is one file or data set, here are {len(held.sources)}"
            self.left_out |= dict.fromkeys({one.key for one in held.sources}, why)
        told = placed(found if train is None else Data(), held)
        self.lines |= {key: Line(key, value, origin) for key, (value, origin) in told.lines.items()}
        self.left_out |= {key: why for key, (_, why) in told.left_out.items()}
        self._inside |= {key: value for key, (value, _) in told.left_out.items()}
        num_sources = len(found.sources) if train is None else len(train) if isinstance(train, list) else 1
        if self._trainer.limits_each and num_sources > 1:
            self._leave("data.max_pairs", f"of each data set there, and of all together here; these are {num_sources}")

    def take_defaults(self) -> None:
        """What their configuration leaves unsaid, and changes what is learned, is what their trainer takes."""
        adapted = {"adapter.rank", "adapter.alpha", "adapter.target_modules"} & self.lines.keys()
        for key, usual in self._trainer.defaults.items():
            value = self._trainer.full.get(key, usual) if self._kind() == "none" else usual
            if key == "adapter.kind" and adapted:
                self.lines.setdefault(key, Line(key, "lora", self.lines[min(adapted)].origin))
            elif not (key.startswith("adapter.") and self._kind() == "none" and key != "adapter.kind"):
                note = self._trainer.notes.get(key, "its default")
                self.lines.setdefault(key, Line(key, value, self._unset(key, f"not set there: {note}")))
        if self._trainer.name == "llama-factory" and self._kind() == "lora" and "adapter.alpha" not in self.lines:
            alpha = 2.0 * self.lines["adapter.rank"].value
            why = self._unset("adapter.alpha", "not set there: twice the rank, as LLaMA-Factory")
            self.lines["adapter.alpha"] = Line("adapter.alpha", alpha, why)
        if self._kind() == "none":
            for key in [key for key in self.lines if key.startswith("adapter.") and key != "adapter.kind"]:
                self._leave(key, "all weights are trained")
        if "loss.terms" not in self.lines and self._trainer.learns:
            self.lines.setdefault("loss.name", Line("loss.name", "dpo", f"what {self._trainer.title} does with pairs"))
        named = {key.rsplit(".", 1)[-1] for key in self._settings}
        self.left_out |= {key: why for key, why in self._trainer.apart.items() if key not in named}

    def take_steps(self) -> None:
        """A number of steps comes before passes and shares there, and is told beside them."""
        for example, key in (("max_steps", "training.epochs"), ("warmup_steps", "training.warmup_share")):
            given, line = self._given(example), self.lines.get(key)
            if given and line and line.theirs != given[0] and type(given[1]) in (int, float) and given[1] > 0:
                self.lines[key] = replace(line, origin=f"{line.origin}; there {given[0]} {given[1]} replaces it")

    def take_warmup(self) -> None:
        """A schedule that is constant from the first step on has no warm-up there, whatever is said of one."""
        schedule, key = self.lines.get("training.schedule"), "training.warmup_share"
        if schedule is None or str(self._settings.get(schedule.theirs)).strip().lower() != "constant":
            return
        for theirs, value in self._settings.items():
            name = name_of(theirs)
            if name is not None and name.ours == key and value is not None:
                self.left_out[theirs] = f"{schedule.theirs}: constant has no warm-up there"
        self.lines[key] = Line(key, 0.0, f"from {schedule.theirs}: constant, which has no warm-up there")

    def take_reference(self) -> None:
        """An adapter that is trained on starts as its own reference here; some compare it with its base model."""
        line, base = self.lines.get("model.name"), self._given("model_name_or_path")
        is_adapter = line is not None and line.theirs and name_of(line.theirs) is name_of("adapter_name_or_path")
        is_new = self._settings.get("create_new_adapter")  # the other one is merged, and the reference has it
        compared = {"reference.model", "reference.moves.every"} & self.lines.keys()
        if line is None or not (is_adapter and self._trainer.against_base and self._kind() == "lora"):
            return
        if compared or not (is_new is None or is_off(is_new)):
            return
        why = f"{self._trainer.title} compares with the model without its adapter"
        if base is None or not isinstance(base[1], str) or "," in str(line.value):
            told = f"{line.origin}; {why}: set reference.model to its base model"
            self.lines["model.name"] = replace(line, origin=told)
        else:
            self.lines["reference.model"] = Line("reference.model", base[1], f"from {base[0]}: {why}", base[0])
            self.left_out.pop(base[0], None)

    def _unset(self, key: str, told: str = "not set there: its default") -> str:
        """Say why a default stands: nothing was said there, or what was said could not be taken."""
        for theirs in self.left_out:
            name, value = name_of(theirs), self._settings.get(theirs)
            says_nothing = value is None or (type(value) in (int, float) and value < 0)
            if name is not None and name.ours == key and not says_nothing:
                why = self.left_out[theirs].removeprefix(f"{key}: ")
                return f"{self.shown(theirs)} there ({why}); {told.rpartition(': ')[2]}"
        return told.replace("not set there", self._unsaid)

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
        return f"{key}: {shown(key, told[key])}" if key in told else key
