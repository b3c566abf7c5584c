"""How settings are loaded: YAML, overrides on top, one line about the first fault.

Owns dotted keys and the words of a refusal. Which settings there are is known to `settings`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from tiebreak.config.adapter import adapter_from_short
from tiebreak.config.data import DataConfig
from tiebreak.config.foreign import name_of
from tiebreak.config.judges import JudgeConfig, judge_from_short
from tiebreak.config.losses import loss_from_short
from tiebreak.config.losses.loss import PAIRINGS
from tiebreak.config.quantization import quantization_from_short
from tiebreak.config.settings import Config, ModelConfig, leaves
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, one_line, require_name
from tiebreak.secrecy import masked

_ALIKE = 0.8
"""How alike two keys are that may be one, mistyped: a suggestion that means something else is worse than none."""

_JUDGE = "evaluation.judge"
_START = "'tiebreak config > my.yaml' writes one to start from"

_BRIEFLY = Repr()
_BRIEFLY.maxstring = _BRIEFLY.maxother = 200


def load_config(path: Path | str | None = None, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Return the settings of a YAML file with overrides on top.

    `overrides` are `a.b=value` strings, or a mapping of dotted keys to values. `output.dir` defaults to a folder named
    after the file. Raises ConfigError, naming the key.
    """
    tree = {} if path is None else read_yaml(path)
    for key, command in (("stages", "train"), ("sweep", "sweep"), ("rounds", "rounds")):
        if key in tree:
            told = f"{'a ' * (key == 'sweep')}{key}, which only {command} takes"
            raise ConfigError(f"{path}: has {told}; 'tiebreak {command} {path}'")
    for key, value in parsed(overrides):
        assign(tree, key, value)
    if path is not None and not tree and str(path) != os.devnull:
        raise ConfigError(f"{path}: holds no setting; {_START}, and the quickstart needs no file")
    where = str(path) if path else "configuration"
    config = build_config(tree, where=f"{where} with --set" if overrides else where)
    for text in _texts(config.model_dump()):
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            raise ConfigError(f"{where}: {ascii(text)[:80]} is no UTF-8, and could not be written down; rename it")
    return with_output_dir(config, Path(path).stem if path else "default")


def load_data(
    path: Path | str | None = None, sets: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> DataConfig:
    """Return the settings of data alone: of a YAML file, with `a.b=value` strings and `given` on top.

    The keys of `given` are names of `DataConfig`. Raises ConfigError, naming the key, also for one of another section.
    """
    return build_config(_tree_of(path, sets, given, ("data",)), where=_where(path)).data


def load_reading(
    path: Path | str | None = None,
    sets: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    model: str | None = None,
) -> tuple[DataConfig, ModelConfig | None]:
    """Return the settings of data as `load_data` does, and those of the model whose tokenizer and template are meant.

    The model is that of the YAML file and of `a.b=value` strings, under the name `model` where one is given; None where
    nothing is said of any.
    """
    tree = _tree_of(path, sets, given, ("data", "model"))
    if model is not None:
        assign(tree, "model.name", model)
    config = build_config(tree, where=_where(path))
    return config.data, config.model if tree.get("model") else None


def load_judge(judge: str | Mapping[str, Any] | None, sets: Sequence[str] = ()) -> JudgeConfig:
    """Return the settings of a judge: in short or a mapping, with `judge.a=value` strings on top.

    Raises ConfigError, naming the key, also for one of another section, and where no judge is named.
    """
    tree: dict[str, Any] = {"judge": dict(judge) if isinstance(judge, Mapping) else judge}
    for key, value in parsed(sets):
        if not key.startswith("judge."):
            raise ConfigError(f"--set {key}: only settings of judge are read here, like judge.max_calls")
        assign(tree, key, value)
    found = build_config({"evaluation": tree}, where="command line").evaluation.judge
    if found is None:
        raise ConfigError("command line: no judge is named; give --judge KIND:NAME, such as rule:repetition")
    return found


def _tree_of(
    path: Path | str | None, sets: Sequence[str], given: Mapping[str, Any] | None, sections: Sequence[str]
) -> dict[str, Any]:
    tree = {} if path is None else read_yaml(path)
    if "stages" in tree:
        raise ConfigError(f"{path}: has stages, each with data of its own; name files here")
    if "rounds" in tree:
        raise ConfigError(f"{path}: has rounds, each of which makes its own pairs; name files here")
    tree.pop("sweep", None)  # data are those of all trials
    for key, value in parsed(sets):
        if key.partition(".")[0] not in sections or "." not in key:
            raise ConfigError(
                f"--set {key}: only settings of {' and '.join(sections)} are read here, like data.max_length"
            )
        assign(tree, key, value)
    for name, value in (given or {}).items():
        assign(tree, f"data.{name}", value)
    own = tree.get("data", {})
    if isinstance(own, dict) and "train" not in own:
        raise ConfigError(
            "command line: no data is named; give files, folders or patterns, or --config YAML with data.train"
        )
    return tree


def _where(path: Path | str | None) -> str:
    return "command line" if path is None else str(path)


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


def with_whole_paths(config: Config) -> Config:
    """Return the settings with files of judge and tasks by their whole paths: later commands run in other folders."""
    evaluation = config.evaluation
    tasks = tuple(str(Path(task).absolute()) for task in evaluation.tasks)
    return config.model_copy(
        update={
            "evaluation": evaluation.model_copy(
                update={"tasks": tasks, "judge": evaluation.judge and evaluation.judge.with_whole_paths()}
            )
        }
    )


def build_config(tree: Mapping[str, Any], where: str = "configuration") -> Config:
    """Return validated settings, or raise ConfigError with one line about the first fault."""
    try:
        return _paired_as_learned(Config.model_validate(tree))
    except ValidationError as error:
        faults = error.errors()
    # Of a value that may be this or that, the fault that goes deepest is about what was meant.
    fault = max((one for one in faults if one["loc"][:2] == faults[0]["loc"][:2]), key=lambda one: len(one["loc"]))
    # For unions pydantic adds the type that was tried to the place: 'str', or one with brackets.
    place = [str(part) for part in fault["loc"] if not (isinstance(part, str) and (part == "str" or "[" in part))]
    for union in (["evaluation", "judge"], ["loss"]):  # which one of these was meant comes next
        if place[: len(union)] == union:
            del place[len(union) : len(union) + 1]
    *parents, last = ("", *place)
    unknown = fault["type"] == "extra_forbidden"
    # Only keys of ours, places in a list, and the unknown key are names a user knows.
    known = [name for name in parents if name.isidentifier() or name.isdigit()]
    key = ".".join(known + [last] * (unknown or last.isidentifier()))
    if unknown:
        told = f"unknown key '{key}'.{_suggest(key)}"
    elif fault["type"] == "missing":
        told = f"'{key}' is missing; 'tiebreak config' lists every key"
    else:
        said = _wanted(key, fault, faults)
        found = f"{key}: found {_shown(fault['input'])}; " if place else ""  # else it is of several sections
        told = f"{found}{said[0].lower()}{said[1:]}"
    raise ConfigError(f"{where}: {one_line(told)}")


def _paired_as_learned(config: Config) -> Config:
    """Return the settings with completions left on their own where the loss wants that and nothing else is said."""
    if not config.loss.learns_apart or "pairing" in config.data.model_fields_set:
        return config
    return config.model_copy(
        update={"data": config.data.model_copy(update={"pairing": PAIRINGS[config.loss.learns_from]})}
    )


def _wanted(key: str, fault: Any, faults: Sequence[Any]) -> str:
    """Return what was wanted, in words of YAML."""
    value = fault["input"]
    of_value = [one["type"] for one in faults if one["input"] is value]
    if isinstance(value, str) and "tuple_type" in of_value and "value_error" not in of_value:
        items = ", ".join(re.split(r"[,\s]+", value.strip(", ")))
        words = [one["ctx"]["expected"] for one in faults if one["type"] == "literal_error" and one["input"] is value]
        return f"wanted a list, like [{items[:80]}]" + "".join(f", or {word}" for word in words)
    if fault["type"] == "model_type" and key in _FIRST:
        return f"wanted a section of settings; {_FIRST[key]} is the one of these that you may mean"
    if fault["type"] == "tuple_type":
        return "wanted a list"
    if fault["type"] == "bool_type":
        return "wanted true or false"
    return str(fault["msg"]).removeprefix("Value error, ")


_SHORT: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "adapter": adapter_from_short,
    "judge": judge_from_short,
    "loss": loss_from_short,
    "quantization": quantization_from_short,
}
"""Sections that one value stands for."""

_FIRST = {
    "model": "model.name",
    "data": "data.train",
    "loss": "loss.name",
    "reference": "reference.model",
    "reference.moves": "reference.moves.every",
    "output": "output.dir",
    "quantization": "quantization.kind",
    "training": "training.epochs",
    "evaluation": "evaluation.probes",
    "evaluation.rule": "evaluation.rule.pattern",
}
"""What somebody means who gives a section one value."""


def _shown(value: Any) -> str:
    """Return a value in at most 80 characters, however large it is: in YAML a list can hold another a billion times."""
    try:
        return masked(_BRIEFLY.repr(value))[:80]
    except ValueError:  # a whole number of thousands of digits
        return f"a very long {type(value).__name__}"


def _suggest(key: str) -> str:
    """Return what to write in place of a key that is not known: one that means the same, or none."""
    parent, _, last = key.rpartition(".")
    # A judge's settings have names of their own world: they are meant by nobody who speaks of another section.
    keys = [name for name, _ in leaves() if parent == _JUDGE or not name.startswith(f"{_JUDGE}.")]
    keys += list(Config.model_fields)
    plain = last.replace("-", "_").lower()
    if parent == _JUDGE:
        keys = [name for name in keys if name.startswith(f"{_JUDGE}.")]
    same_name = [name for name in keys if name.rsplit(".", 1)[-1] == plain]
    if len(same_name) == 1:
        return f" Did you mean '{same_name[0]}'?"
    if foreign := name_of(last):
        return f" {foreign.answer}"
    lasts = Counter(name.rsplit(".", 1)[-1] for name in keys)
    near_by = [name for name in keys if name.rpartition(".")[0] == parent or lasts[name.rsplit(".", 1)[-1]] == 1]
    by_last = {name.rsplit(".", 1)[-1]: name for name in near_by}
    near = difflib.get_close_matches(last, by_last, n=1, cutoff=_ALIKE)
    return f" Did you mean '{by_last[near[0]]}'?" if near else " Run 'tiebreak config' for the list."


def parsed(overrides: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; raises ConfigError where one is not written as KEY=VALUE."""
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {item}: wanted KEY=VALUE, for example training.learning_rate=5e-6")
        yield key.strip(), parse_yaml(text, f"--set {key}")


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a dotted key; raises ConfigError where a value stands in the place of a section."""
    *parents, last = key.split(".")
    for name in parents:
        branch = tree.setdefault(name, {})
        if name in _SHORT and isinstance(branch, str):
            try:
                branch = tree[name] = _SHORT[name](branch)
            except ValueError as error:
                raise ConfigError(f"{name}: found {_shown(branch)}; {error}") from None
        if branch is None:
            branch = tree[name] = {}
        if not isinstance(branch, dict):
            raise ConfigError(f"{key}: '{name}' is a value, not a section.{_suggest(key)}")
        tree = branch
    tree[last] = value


def read_yaml(name: Path | str) -> dict[str, Any]:
    """Return the sections of a file; raises ConfigError where it is none, or holds something else."""
    require_name(name, "the configuration")
    path = Path(name)
    try:
        # A pipe would block, a device would never end; the one that holds nothing is how nothing is said on purpose.
        if path.exists() and not path.is_file() and str(path) != os.devnull:
            raise ConfigError(f"{path}: is no file; {_START}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {_START}") from None
    except (OSError, ValueError) as error:  # of bytes that are no UTF-8, or NUL in a name
        raise ConfigError(f"{path}: cannot be read as UTF-8 text ({one_line(error)})") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"{path}: wanted sections like 'model:' and 'data:', found {type(tree).__name__}")
    # A section whose lines are all commented out is None in YAML, and means its defaults; of some that is none.
    none = {key for key, field in Config.model_fields.items() if field.default is None}
    return {key: {} if value is None and key not in none else value for key, value in tree.items()}
