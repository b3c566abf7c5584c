"""The data sets that a configuration of another trainer names, to sources as `data.train` takes them.

Owns where their files are looked for and which of their columns is what. It opens none but LLaMA-Factory's list of data
sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.entries import MISSING, REASONS, WHOLE, Data, Entry, Found
from tiebreak.config.foreign.values import listed

_TRAIN = ("dataset", "datasets", "dataset_name", "train_dataset", "dataset_path", "data_path", "train_file",
          "train_files", "train_data", "data_files", "dataset_mixture")  # fmt: skip
_HELDOUT = ("eval_dataset", "val_dataset", "test_datasets", "validation_dataset", "eval_file", "validation_file")
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?")
_SPLIT = re.compile(r"[\w.-]+")
_LOADERS = frozenset({"json", "csv", "parquet", "arrow", "text"})
_FILES = (".jsonl", ".json", ".csv", ".parquet")

# Which of our names for a column is theirs.
_AXOLOTL = {"field_prompt": "prompt", "field_messages": "prompt", "field_chosen": "chosen",
            "field_rejected": "rejected", "field_system": "system", "field_tools": "tools"}  # fmt: skip
_LLAMA_FACTORY = {"prompt": "prompt", "query": "input", "chosen": "chosen", "rejected": "rejected",
                  "system": "system", "history": "history", "tools": "tools"}  # fmt: skip
_MS_SWIFT = {"query": "prompt", "response": "chosen", "rejected_response": "rejected", "system": "system",
             "history": "history", "tools": "tools"}  # fmt: skip
_PAIR = frozenset(("prompt", "chosen", "rejected"))
_NO_PAIR = "data.columns takes a prompt, a chosen and a rejected completion"
_ONE = "only a data set of the Hub has several"


def data_of(settings: Mapping[str, Any], folder: Path, *, heldout: bool = False) -> Data:
    """Return what is trained on, or what is held out; each source once."""
    data = Data()
    for key in _HELDOUT if heldout else _TRAIN:
        _read(key, settings, folder, data)
    mixer, test = settings.get("dataset_mixer"), settings.get("dataset_test_split")
    if isinstance(mixer, Mapping) and not data.sources:
        _mixed(mixer, settings, folder, data, "test" if heldout else "train")
    if heldout and not data.sources and isinstance(test, str) and _SPLIT.fullmatch(test):
        others = data_of({**settings, "dataset_train_split": test}, folder).sources
        own = [one for one in others if one.path.startswith("hf:") and one.path.endswith(f"@{test}")]
        data.sources = [replace(one, key="dataset_test_split", note="") for one in own]
        data.used |= {"dataset_test_split"} if own else set()
    data.sources = list(dict.fromkeys(data.sources))
    return data


def _read(key: str, settings: Mapping[str, Any], folder: Path, data: Data) -> None:
    """Read the sources that a setting names, as text, as a list, or as an object."""
    told, name = settings.get(key), key
    if key == "dataset_mixture" and isinstance(told, Mapping):
        mixture = Entry(told, key, data)
        told, name = mixture.take("datasets"), f"{key}.datasets"
        mixture.close()
    if key == "data_files" and isinstance(told, Mapping):  # files by split
        split = next((str(settings[name]) for name in _SPLITS if settings.get(name)), "train")
        chosen = split if told.get(split) else next(iter(told), None)
        for other in told.keys() - {chosen}:
            data.left_out[f"{key}.{other}"] = (told[other], "the files to train on alone are taken")
        told = told.get(chosen)
        data.used |= {name for name in _SPLITS if settings.get(name) == chosen}
    for index, item in enumerate([told] if isinstance(told, Mapping) else listed(told)):
        place = name if told is item else f"{name}.{index}"
        found: list[Found] = []
        if isinstance(item, Mapping):
            found += _of_entry(Entry(item, place, data), key, folder)
        elif isinstance(item, str) and item.strip() and not (item in _LOADERS and settings.get("data_files")):
            found += _of_name(item, key, settings, folder, data)
        elif not isinstance(item, str) or not item.strip():
            data.left_out[place] = (item, "neither the name of a data set nor one with its settings")
        data.sources += found
        data.used |= {key} if found else set()


def _mixed(mixer: Mapping[Any, Any], settings: Mapping[str, Any], folder: Path, data: Data, side: str) -> None:
    """Read what the Alignment Handbook mixes: each data set with its share, on either side the splits of its name."""
    splits = [str(split) for split in listed(settings.get("dataset_splits"))]
    configs = listed(settings.get("dataset_configs"))
    for index, (name, share) in enumerate(mixer.items()):
        config = configs[index] if len(configs) == len(mixer) else None
        is_share = type(share) in (int, float) and share > 0
        if not is_share:
            data.left_out[f"dataset_mixer.{name}"] = (share, REASONS["weight"])
        for split in (split for split in splits or [side] if side in split):
            path, note, _ = _place(str(name), split, config, folder)
            data.sources.append(Found(path, "dataset_mixer", note, (), float(share) if is_share else 1.0))
    if data.sources:
        data.used |= {"dataset_mixer"} | ({"dataset_configs"} if len(configs) == len(mixer) else set())
        data.used |= {"dataset_splits"} if all("train" in split or "test" in split for split in splits) else set()


def _of_name(item: str, key: str, settings: Mapping[str, Any], folder: Path, data: Data) -> Iterator[Found]:
    """Yield the source of a name: of LLaMA-Factory's list, or a file or data set of the Hub with its split."""
    known = _listed_by_name(item, settings, folder)
    if known is not None:
        place, told = known
        data.used.add("dataset_dir")
        yield _of_listed(Entry(told, item, data), place, key, folder)
        return
    given = {name: settings[name] for name in (*_SPLITS, *_CONFIGS) if settings.get(name)}
    split = next((given[name] for name in _SPLITS if name in given), None)
    config = next((given[name] for name in _CONFIGS if name in given), None)
    path, note, taken = _place(item, split, config, folder)
    for name, value in given.items():
        if (value is split and "split" in taken) or (value is config and "config" in taken):
            data.used.add(name)
        elif name in _SPLITS:
            data.left_out[name] = (value, _why_no_split(path))
    if isinstance(renamed := settings.get("rename_column"), Mapping):
        data.used.add("rename_column")
        yield Found(path, key, note, tuple(renamed.items()))
        return
    columns = _parsed(settings.get("columns"))
    mapping = {_MS_SWIFT.get(str(ours), ""): str(theirs) for theirs, ours in columns.items()}
    if mapping.keys() >= _PAIR and "" not in mapping and len(mapping) == len(columns):
        data.used.add("columns")
        yield Found(path, key, note, tuple(mapping.items()))
        return
    for theirs, ours in columns.items():
        data.left_out[f"columns.{theirs}"] = (ours, _NO_PAIR)
    data.used |= {"columns"} if columns else set()
    yield Found(path, key, note)


_SPLITS = ("dataset_train_split", "dataset_split")
_CONFIGS = ("dataset_config", "dataset_config_name")


def _parsed(value: Any) -> Mapping[Any, Any]:
    """Return ms-swift's mapping of columns, an object or its JSON text; {} where there is none."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value if isinstance(value, Mapping) else {}


def _of_entry(entry: Entry, key: str, folder: Path) -> list[Found]:
    """Return the sources of an object that names a data set, as Axolotl and TRL have it."""
    files, name, split = entry.take("data_files"), entry.take("path", "dataset", "id"), entry.take("split")
    config = entry.take("name", "config", "subset") if name and not files else None
    item, weight = files or name or entry.take("name"), entry.take("weight")
    if files and name is not None and str(name) not in _LOADERS:
        entry.leave("path", name, "its files are named, and taken from here")
    if isinstance(item, Mapping):
        chosen = "train" if item.get("train") else next(iter(item), None)
        for other in item.keys() - {chosen}:
            entry.leave(f"data_files.{other}", item[other], "the files to train on alone are taken")
        item = item.get(chosen)
    is_weight = type(weight) in (int, float) and weight > 0
    columns = _axolotl_columns(entry)
    found: list[Found] = []
    taken: set[str] = set()
    for one in item if isinstance(item, list) else [item]:
        if isinstance(one, str) and one.strip():
            path, note, taken = _place(one, split, config, folder)
            found.append(Found(path, key, note, columns, float(weight) if is_weight else 1.0))
        else:
            entry.leave("path", one, "neither the name of a data set nor of a file")
    if found:
        taken |= {"columns"} | ({"weight"} if is_weight else set())
    given = {"split": split, "config": config, "weight": weight, "columns": dict(columns) or None}
    why = {"split": _why_no_split(found[0].path), "config": _ONE, "weight": REASONS["weight"]} if found else {}
    for told, value in given.items():
        if value is not None and told not in taken:
            entry.leave("name" if told == "config" else told, value, why.get(told, "no data set is named beside it"))
    entry.close()
    return found


def _axolotl_columns(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return the columns that an entry of Axolotl names, with its own names where it leaves them unsaid."""
    kind = entry.inner("type")
    has_messages = isinstance(entry.get("field_messages"), str) or str(entry.get("type")).startswith("chat_template")
    given: dict[str, str] = {}
    named: dict[str, str] = {}
    for place in (kind, entry):
        for theirs, ours in _AXOLOTL.items():
            if ours not in given and isinstance(place.get(theirs), str) and place.get(theirs):
                given[ours] = named[theirs] = place.take(theirs)
    kind.close()
    if not given.keys() & _PAIR:
        for theirs, value in named.items():
            entry.leave(theirs, value, _NO_PAIR)
        return ()
    usual = {"prompt": "messages" if has_messages else "prompt", "chosen": "chosen", "rejected": "rejected"}
    return tuple((usual | given).items())


def _of_listed(entry: Entry, place: Path, key: str, folder: Path) -> Found:
    """Return the source of an entry of LLaMA-Factory's list; the Hub comes first, as there."""
    hub = entry.get("hf_hub_url")
    is_hub = isinstance(hub, str) and _HUB.fullmatch(hub) is not None
    name = entry.take("hf_hub_url" if is_hub else "file_name")
    split, config = entry.take("split"), entry.take("subset")
    path, _, taken = _place(name, split, config, folder) if is_hub else (str(place / str(name)), "", set())
    if split and "split" not in taken and (is_hub or split != "train"):
        entry.leave("split", split, _why_no_split(path))
    if config and "config" not in taken:
        entry.leave("subset", config, _ONE)
    if entry.get("ranking") is True:
        entry.take("ranking")
    columns = _listed_columns(entry)
    entry.close()
    if not isinstance(name, str):
        return Found(entry.name, key, MISSING)
    return Found(path, key, f"'{entry.name}' in {place / 'dataset_info.json'}", columns)


def _listed_columns(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Return the columns that an entry of LLaMA-Factory's list names, () where they make no pair."""
    columns, tags = entry.inner("columns"), entry.inner("tags")
    names = dict(_LLAMA_FACTORY)
    if entry.get("formatting") in ("sharegpt", "openai"):
        names = {"messages": "prompt"} | {key: ours for key, ours in names.items() if key not in ("prompt", "query")}
    told = {key: columns.get(key) for key in names if columns.get(key)}
    mapping = {names[key]: value for key, value in told.items() if isinstance(value, str)}
    tags.close(dict.fromkeys(_TAGS, "who speaks, and what, is told by the usual names (docs/data.md)"))
    if mapping.keys() >= _PAIR and len(mapping) == len(told):
        for key in told:
            columns.take(key)
        entry.take("formatting")
        columns.close()
        return tuple(mapping.items())
    columns.close(dict.fromkeys((*names, "messages", "response", "kto_tag"), _NO_PAIR))
    return ()


_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")


def _place(text: str, split: Any, config: Any, folder: Path) -> tuple[str, str, set[str]]:
    """Return a source for a file or a data set of the Hub, what to know, and which of split and config stand in it."""
    name, _, number = (
        text.removeprefix("hf::").removeprefix("HF::").removeprefix("ms::").removeprefix("MS::").partition("#")
    )
    note = f"all of it, not {number} rows" if number else ""
    whole = {"split"} if split == "train" else set()
    for place in (Path(name), folder / name):
        with suppress(OSError, ValueError):  # a name that no file can have
            if place.exists():
                return str(place), note, whole
    hub = _HUB.fullmatch(name)
    if hub and Path(name).suffix.lower() not in _FILES:
        taken = set()
        where, subset = "", hub[2] or config
        if isinstance(subset, str) and _SPLIT.fullmatch(subset):
            where += f":{subset}" if subset != "default" else ""
            taken.add("config")
        if isinstance(split, str) and _SPLIT.fullmatch(split):
            where += f"@{split}" if split != "train" else ""
            taken.add("split")
        return f"hf:{hub[1]}{where}", note, taken
    return name, MISSING, whole


def _why_no_split(path: str) -> str:
    return WHOLE if path.startswith("hf:") else "a file is read whole"


def _listed_by_name(name: str, settings: Mapping[str, Any], folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the folder of LLaMA-Factory's dataset_info.json and what it says of a name."""
    stated = Path(str(settings.get("dataset_dir") or "data"))
    for place in (stated, folder / stated):
        try:
            entry = json.loads((place / "dataset_info.json").read_text(encoding="utf-8")).get(name)
        except (OSError, ValueError, RecursionError, AttributeError):
            continue
        if isinstance(entry, Mapping):
            return place, entry
    return None
