"""The calls of a Python file that make what its DPO trainer is given: settings by name.

Owns which calls these are, and when a name stands for a value. Nothing is run: the file is parsed, and a value that its
code would compute is `COMPUTED`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.bindings import Bindings, Call, expanded
from tiebreak.config.foreign.found import COMPUTED, Foreign, shown
from tiebreak.config.foreign.names import name_of
from tiebreak.config.foreign.rows import rows_of
from tiebreak.errors import ConfigError, one_line

_KINDS = {
    "trainer": re.compile(r"(?!Online)\w*DPOTrainer"),
    "args": re.compile(r"(?!Online)\w*(DPO|RLHF)\w*(Config|Arguments)|(\w*Training|Model|Script)(Config|Arguments)"),
    "adapter": re.compile(r"(Lora|LoRA)(Config|Arguments)|get_peft_model"),
    "bits": re.compile(r"BitsAndBytesConfig"),
    "model": re.compile(r"(?!.*(Tokenizer|Processor|Config)).*([Mm]odel|LM|For[A-Z]).*\.from_pretrained"),
    "data": re.compile(r"load_dataset"),
    "other": re.compile(r"\w*(Config|Arguments|Trainer)|dict"),
}
"""What a call makes, by its name; the first that fits."""
_ROLES = {
    "args": ("args", "bits"),
    "model": ("model", "adapter", "bits"),
    "peft_config": ("adapter",),
    "train_dataset": ("data",),
}
"""What each argument of the trainer is made of."""
_APART = ("ref_model", "eval_dataset")
"""Made of the same, and not what is trained."""
_OBJECTS = frozenset(
    ["model", "args", "train_dataset", "eval_dataset", "tokenizer", "processing_class", "peft_config", "callbacks",
     "data_collator", "quantization_config", "compute_metrics", "optimizers", "preprocess_logits_for_metrics",
     "torch_dtype_object"]
)  # fmt: skip
"""What trainers are given as objects: the settings inside are read where they are made."""
_PLACED = {"model": ("model_name_or_path",), "data": ("dataset_name", "dataset_config"),
           "trainer": ("model", "ref_model", "args")}  # fmt: skip
_RENAMED = {("data", "split"): "dataset_train_split", ("data", "revision"): "dataset_revision"}
_ADAPTER = {"model_id": "peft_model_id"}
_MODELS = ("model_name_or_path", "pretrained_model_name_or_path", "model_name", "peft_model_id")


@dataclass
class _Taken:
    """Settings as they are gathered, each with the line that it is from."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)

    def take(self, key: str, value: Any, line: int) -> None:
        """Keep a setting; raises ConfigError where it has another value already."""
        before = self.settings.setdefault(key, value)
        first = self.lines.setdefault(key, line)
        name = name_of(key)
        if name and name.ours and not (before is value or (type(before) is type(value) and before == value)):
            told = f"{key}: {shown(key, before)} in line {first}, {shown(key, value)} in line {line}"
            raise ConfigError(f"{self.path}: {told}; which one is meant cannot be told: keep one call, in a copy")

    def leave(self, key: str, why: str) -> None:
        self.settings[key] = COMPUTED
        self.unread[key] = why

    def hide(self, what: str, why: str) -> None:
        self.unread[what] = why
        self.hidden += [what] if what not in self.hidden else []


def settings_of(text: str, path: Path) -> Foreign:
    """Return the settings that calls of the file give, as one trainer has them.

    Raises ConfigError where it is not Python, and where two calls that may be meant give a setting two values.
    """
    try:
        bindings = Bindings(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path}: not valid Python ({one_line(error)})") from None
    calls = [call for call in bindings.calls if _kind(call)]
    found = _Taken(path)
    belong, apart = _belonging(calls, bindings, found)
    for call in belong:
        _take_call(call, bindings, found)
    _take_apart(apart, bindings, found)
    for trainer in [call for call in belong if _kind(call) == "trainer"]:
        _take_rows(trainer, belong, bindings, found)
    _take_changes(belong, bindings, found)
    read = [*belong, *(call for made in apart.values() for call in made)]
    spread = [(word.value, call) for call in belong for word in call.node.keywords if word.arg is None]
    read += [made for node, call in spread for made in bindings.behind(node, call) if made.name == "dict"]
    for call in calls:
        if call not in read and _tells(call):
            found.unread[f"{call.name}(…) in line {call.line}"] = "no part of what the DPO trainer is given"
    others = [call for call in calls if call not in belong and _kind(call) in ("other", "args", "trainer")]
    words = {word for call in [*belong, *others] for word in call.name.split(".")}
    return Foreign(found.settings, frozenset(words), found.unread, tuple(found.hidden))


def _kind(call: Call) -> str | None:
    last = call.name.rpartition(".")[2]
    name = call.name if last == "from_pretrained" else last
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name)), None)


def _tells(call: Call) -> bool:
    """Whether a call that is not read says something: a plain dict may be of anything."""
    return not call.name.endswith("dict") or any(word.arg and name_of(word.arg) for word in call.node.keywords)


def _belonging(calls: list[Call], bindings: Bindings, found: _Taken) -> tuple[list[Call], dict[str, list[Call]]]:
    """Return the calls that make what the DPO trainer is given, and those behind what it is given beside it.

    Where an argument comes from elsewhere, all calls of its kind may be meant; where no call is of DPO, all calls.
    """
    trainers = [call for call in calls if _kind(call) == "trainer"]
    configs = [call for call in calls if _kind(call) == "args" and re.search("DPO|RLHF", call.name)]
    if not trainers and not configs:
        return [call for call in calls if not re.search(r"Generation|AutoConfig", call.name)], {}
    everything = set(_KINDS) - {"other", "trainer"}
    belong, elsewhere = list(trainers), set() if trainers else everything
    apart: dict[str, list[Call]] = {}
    for trainer in trainers:
        given, unread = _arguments(trainer, bindings)
        elsewhere |= everything if unread else set()
        behind = {role: bindings.behind(node, trainer) for role, node in given.items()}
        for role in _APART:
            apart.setdefault(role, []).extend(c for c in behind.get(role, ()) if _kind(c) in ("model", "data"))
        for role, kinds in _ROLES.items():
            made = [call for call in behind.get(role, ()) if _kind(call) in kinds]
            belong += made
            by_other = any(call.name.endswith("Trainer") for call in behind.get(role, ()))
            if role in given and not (made or by_other or isinstance(given[role], ast.Constant)):
                elsewhere |= set(kinds)
        if any(call.name.endswith("merge_and_unload") for call in behind.get("model", ())):
            found.unread |= dict.fromkeys(_MODELS, "an adapter is merged into it by the code")
    belong += [call for call in calls if _kind(call) in elsewhere - {_kind(one) for one in belong}]
    if configs and any(call in configs for call in belong):
        belong = [call for call in belong if not ("Training" in call.name and call not in configs)]
    for trainer in trainers:
        _tell_elsewhere(trainer, belong, bindings, found)
    unique = {id(call.node): call for call in belong}
    kept = {role: [call for call in made if id(call.node) not in unique] for role, made in apart.items()}
    return sorted(unique.values(), key=lambda call: call.line), kept


def _arguments(trainer: Call, bindings: Bindings) -> tuple[dict[str, ast.expr], bool]:
    """Return what the trainer is given by name, and whether there may be more."""
    named, unread = expanded(trainer.node, bindings)
    given = dict(zip(_PLACED["trainer"], trainer.node.args, strict=False)) | dict(named)
    return given, bool(unread) or len(trainer.node.args) > len(_PLACED["trainer"])


def _tell_elsewhere(trainer: Call, belong: list[Call], bindings: Bindings, found: _Taken) -> None:
    """What the trainer is given, and no call of the file makes, may hold settings."""
    why = "made elsewhere, and not read"
    given, _ = _arguments(trainer, bindings)
    for role, kind in (("args", "args"), ("peft_config", "adapter"), ("model", "model")):
        is_said = role in given and bindings.value(given[role]) is COMPUTED
        if is_said and not any(_kind(call) == kind for call in belong):
            found.leave(role, why) if role != "args" else found.hide(role, why)


def _take_call(call: Call, bindings: Bindings, found: _Taken) -> None:
    kind = str(_kind(call))
    is_adapter = _is_adapter(call)
    placed = ("", "peft_model_id") if is_adapter else _PLACED.get(kind, ())
    for key, node in zip(placed, call.node.args, strict=False):
        _take_setting(key, node, call, bindings, found)
    given, unread = expanded(call.node, bindings)
    for what in unread:
        found.hide(f"**{what}", f"settings by **{what} are not read")
    for key, node in given:
        renamed = _RENAMED.get((kind, key), _ADAPTER.get(key, key) if is_adapter else key)
        _take_setting(renamed, node, call, bindings, found)


def _is_adapter(call: Call) -> bool:
    return "PeftModel" in call.name and "AutoPeftModel" not in call.name


def _take_setting(key: str, node: ast.expr, call: Call, bindings: Bindings, found: _Taken) -> None:
    value = bindings.value(node)
    if key in _MODELS and key in found.unread:
        found.settings[key] = COMPUTED
        return
    is_object = key in _OBJECTS or (
        key == "ref_model" and any(_kind(one) == "model" for one in bindings.behind(node, call))
    )
    if key and not (value is COMPUTED and is_object):
        found.take(key, value, call.line)


def _take_apart(apart: Mapping[str, list[Call]], bindings: Bindings, found: _Taken) -> None:
    """The reference is a model by name; held-out pairs are of the same data set by their split."""
    references = [call for call in apart.get("ref_model", ()) if _kind(call) == "model"]
    for call in [one for one in references if _is_adapter(one)] or references:
        found.take("ref_model", _model_of(call, bindings), call.line)
    for call in apart.get("eval_dataset", ()):
        split = next((word.value for word in call.node.keywords if word.arg == "split"), None)
        names = [bindings.value(node) for node in call.node.args]
        trained = [found.settings.get(key) for key in _PLACED["data"]][: len(names)]
        if split is not None and _kind(call) == "data" and names == trained and COMPUTED not in names:
            found.take("dataset_test_split", bindings.value(split), call.line)
        elif _kind(call) == "data":
            found.unread[f"{call.name}(…) in line {call.line}"] = "held-out pairs: data.heldout names them"


def _model_of(call: Call, bindings: Bindings) -> Any:
    place = 1 if _is_adapter(call) else 0
    named = [word.value for word in call.node.keywords if word.arg in (*_MODELS, *_ADAPTER)]
    given = call.node.args[place : place + 1] or named
    return bindings.value(given[0]) if given else COMPUTED


def _take_rows(trainer: Call, belong: list[Call], bindings: Bindings, found: _Taken) -> None:
    """The split that is taken out of a data set, and by name what else becomes of its rows."""
    given, _ = _arguments(trainer, bindings)
    loaded = [call.node for call in belong]
    for role, key in (("train_dataset", "dataset_train_split"), ("eval_dataset", "dataset_test_split")):
        if role not in given:
            continue
        rows = rows_of(given[role], trainer, bindings, found.path)
        found.unread |= rows.steps
        if rows.loads and all(load in loaded for load in rows.loads):
            for split, line in rows.splits:
                found.take(key, split, line)
            if rows.columns and role == "train_dataset":
                found.take("rename_column", rows.columns, rows.renamed_in)


def _take_changes(belong: list[Call], bindings: Bindings, found: _Taken) -> None:
    """What is set on a configuration after its call is not what the call says.

    By whatever name the configuration goes there: only what is of another call for sure is not meant.
    """
    for call in belong:
        if _kind(call) in ("args", "adapter", "bits"):
            for name in bindings.named(call):
                for key, line in bindings.changes(name):
                    found.leave(key, f"set in line {line}, after its call")
    names = {name for call in belong for name in bindings.named(call)}
    configs = {name for call in belong if _kind(call) in ("args", "adapter") for name in bindings.named(call)}
    for call in bindings.calls:
        nodes = (*call.node.args, *(word.value for word in call.node.keywords))
        given = {node.id for node in nodes if isinstance(node, ast.Name)}
        if call.name.partition(".")[0] in bindings.from_files and call not in belong and (changed := configs & given):
            why = f"a function of another file, which was not read, and may change '{min(changed)}'"
            found.hide(f"{call.name}(…) in line {call.line}", why)
    others = {
        name
        for call in bindings.calls
        if call not in belong and (_kind(call) or re.search("Tokenizer|Processor", call.name))
        for name in bindings.named(call)
    }
    for base, key, line in bindings.set_on:
        meant = name_of(key)
        of = base.id if isinstance(base, ast.Name) else None
        is_known = meant is not None and meant.ours is not None and key not in _OBJECTS
        if of in names or (is_known and of not in others):
            found.leave(key, f"set in line {line}, after its call")
