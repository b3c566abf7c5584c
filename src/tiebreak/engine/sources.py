"""Where weights come from: from a name in the configuration to folders or hub ids that can be loaded.

Owns what a model name may mean, how weights are identified, and what is refused unread: pickles, missing folders.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from tiebreak.config import ModelConfig, QuantizationConfig
from tiebreak.data.hub import unreachable
from tiebreak.data.panics import is_panic
from tiebreak.engine.beside import FILE, beside, in_words
from tiebreak.engine.bundled import BUNDLED, Say, bundled_folder
from tiebreak.engine.lora_kinds import changed_by
from tiebreak.errors import ModelError, nearest, one_line
from tiebreak.fingerprint import fingerprint
from tiebreak.seals import digest_once
from tiebreak.secrecy import masked

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_COMPUTED_WITH = ("config.json", "adapter_config.json", "generation_config.json", FILE)
"""What says how weights are used: a scale, an epsilon, the ids that end a turn."""
_SETTINGS = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")


@dataclass(frozen=True)
class Source:
    """Where weights come from: a base model, and the adapter on it if the name given is one."""

    base: str
    """A hub id, or the absolute path of a folder, so that an adapter finds it from anywhere."""
    revision: str | None
    adapter: str | None
    """A local folder: adapters of a hub are fetched whole, at their revision, without anything pickled."""
    identity: str
    """A hub id, or what a folder is called with the content that it has, wherever it lies."""
    base_identity: str
    folder: str | None = None
    """The absolute path that the name given led to, where it was a folder and no hub id."""
    quantization: QuantizationConfig | None = None
    """How the base model lies in four bits, in its own files or when the adapter was trained; None: it does not."""

    @property
    def told(self) -> str:
        """Its identity, with how its base model is loaded."""
        return self.identity + (f" in {self.quantization.told}" if self.quantization else "")


def resolve(
    config: ModelConfig, say: Say = lambda _: None, *, base: str | None = None, beneath: str | None = None
) -> Source:
    """Find out what a name means: a bundled model, a folder, or a hub id; and whether it is an adapter.

    What would run code when it is loaded is refused: modules of its own, pickles. `base` is where the base model of an
    adapter is known to be, whatever the configuration or the adapter says. `beneath` is the adapter whose base is
    looked for.
    """
    # Here, since what models are called is asked before anything heavy is loaded.
    import peft  # noqa: PLC0415
    from transformers.utils.peft_utils import find_adapter_config_file  # noqa: PLC0415

    name = str(bundled_folder(config.name, say)) if config.name in BUNDLED else config.name
    _refuse_missing(name, beneath)
    name = absolute(name)
    _refuse_endless(Path(name))
    if not Path(name).is_dir():
        _refuse_unreachable(name, config.revision, say)
    given = None if config.name in BUNDLED or not Path(name).is_dir() else name
    with explained(name):
        adapter_file = find_adapter_config_file(name, revision=config.revision)
    if adapter_file is None:
        refuse_code(name, config.revision)
        if config.base:
            raise ModelError(f"{config.name}: is no adapter, so that it has no base model; leave out model.base")
        identity = _identity(config.name, name)
        return Source(name, config.revision, None, identity, identity, given, _own_quantization(name, config.revision))
    if beneath:
        raise ModelError(f"{beneath}: is an adapter on the adapter {name}; merge that one into its base model first")
    with explained(name):
        folder = name if Path(name).is_dir() else _fetched_adapter(name, config.revision)
        if cause := changed_by(_settings(Path(folder) / "adapter_config.json")):
            raise ModelError(f"{name}: adapter_config.json: {cause}")
        kind = peft.PeftConfig.from_pretrained(folder)
    refuse_code(folder)
    if kind.peft_type != peft.PeftType.LORA:
        raise ModelError(f"{name}: is a {kind.peft_type} adapter; only LoRA adapters can be continued")
    told = base or config.base
    if not (told or kind.base_model_name_or_path):
        raise ModelError(
            f"{name}: adapter_config.json names no base model (base_model_name_or_path); --set model.base=… names it"
        )
    with explained(name):
        found = ModelConfig(name=told or kind.base_model_name_or_path, revision=None if told else kind.revision)
    parent = resolve(found, say, beneath=name)
    identity = _identity(config.name, folder)
    quantized = beside(Path(folder)) or parent.quantization
    return Source(parent.base, parent.revision, folder, identity, parent.base_identity, given, quantized)


def _own_quantization(name: str, revision: str | None) -> QuantizationConfig | None:
    folder = Path(name)
    file = folder / "config.json" if folder.is_dir() else fetched(name, "config.json", revision)
    return in_words(_settings(file).get("quantization_config"))


def absolute(name: str) -> str:
    """Return a name as it reads from any folder: a folder's absolute path, a hub id or bundled name as it is."""
    is_folder = name not in BUNDLED and Path(name).is_dir()
    return os.path.abspath(name) if is_folder else name  # noqa: PTH100 - resolve() would name what a link leads to


def called(name: str) -> str:
    """Return what a model is called, however its path is written: the last step of a path, or the name itself."""
    where = absolute(name)
    return Path(where).name or where if Path(where).is_absolute() else name


def contents(identity: str) -> str:
    """Return an identity, or several, without what folders are called; a hub id stays."""
    return re.sub(r"\S+ (?=sha256:)", "", identity)


def is_same(identity: str, name: str) -> bool:
    """Whether a name leads to the model of an identity; reads all its bytes where it is a folder."""
    return contents(_identity(name, absolute(name))) == contents(identity)


def same_model(one: Source, two: Source) -> bool:
    """Whether two names lead to one model, as far as can be known without its weights: by content, or on a hub by id
    and revision.
    """
    return same_base(one, two) and _told(one.identity, one.adapter) == _told(two.identity, two.adapter)


def same_base(one: Source, two: Source) -> bool:
    """Whether two models are, or stand on, one base model, quantised alike."""
    return same_files(one, two) and one.quantization == two.quantization


def same_files(one: Source, two: Source) -> bool:
    """Whether the base models of two are one as their files hold them, however they are loaded."""
    return _told(one.base_identity, one.revision) == _told(two.base_identity, two.revision)


def _told(identity: str, where: str | None) -> tuple[str, str | None]:
    _, has_content, content = identity.rpartition(" sha256:")
    return (content, None) if has_content else (identity, where)


def _fetched_adapter(name: str, revision: str | None) -> str:
    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    return str(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))


def _identity(name: str, where: str) -> str:
    """Name a model by its content where it is local, weights and settings, else by hub id."""
    folder = Path(where)
    if not folder.is_dir():
        return name
    settings = (folder / file for file in _COMPUTED_WITH)
    files = sorted([*folder.glob("*.safetensors"), *(file for file in settings if file.is_file())])
    return f"{called(name)} sha256:{fingerprint([[file.name, digest_once(file)] for file in files])[:16]}"


def _refuse_missing(name: str, adapter: str | None) -> None:
    folder = Path(name)
    if folder.is_dir():
        if not any((folder / file).exists() for file in ("config.json", "adapter_config.json")):
            raise ModelError(f"{name}: the folder holds neither config.json nor adapter_config.json")
        return
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path and adapter:
        raise ModelError(
            f"{adapter}: its base model {name!r} is no folder here; write where it is now as model.base "
            "(--set model.base=…), or as base_model_name_or_path into adapter_config.json"
        )
    if looks_like_path or not name.strip():
        raise ModelError(f"{name!r}: no such folder; wanted a folder, a hub id, or one of: {', '.join(BUNDLED)}")
    if "/" not in name and (close := nearest(name, BUNDLED)):
        raise ModelError(f"'{name}': no such folder or bundled model.{close}")


def _refuse_unreachable(name: str, revision: str | None, say: Say) -> None:
    """Raise ModelError where a hub model is not kept here, and the Hub does not answer."""
    if (cause := unreachable()) is None:
        return
    with explained(name):
        found = (
            huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
            for file in ("config.json", "adapter_config.json")
        )
        is_kept = any(isinstance(file, str) for file in found)
    if not is_kept:
        raise ModelError(
            f"{name}: no folder of this name is here, and the Hub cannot be reached ({masked(cause)}); name a folder "
            "that holds the model, or fetch it where there is a network"
        )
    say(f"{name}: the Hub cannot be reached ({masked(cause)}); taken as it was fetched: HF_HUB_OFFLINE=1 spares asking")


def refuse_code(name: str, revision: str | None = None) -> None:
    """Raise ModelError for weights that bring code: modules of their own, a library to import, a pickle to open."""
    folder = Path(name)
    _refuse_endless(folder)
    for file in _SETTINGS if folder.is_dir() else _SETTINGS[:2]:
        read = _settings(folder / file if folder.is_dir() else fetched(name, file, revision))
        if read.get("auto_map"):
            raise ModelError(
                f"{name}: {file} names Python files of its own (auto_map), and code of a model is never run; use a "
                "model that transformers knows by itself, or a copy without auto_map if it does"
            )
        if file == "config.json":
            for key, value in _reaching_for_kernels(read):
                asked = f"config.json asks for compiled code from elsewhere ({key}: {one_line(value, 60)})"
                raise ModelError(f"{name}: {asked}, and it is never loaded; use a copy without this setting")
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").exists():
        _refuse_adapter_code(folder)
    elif not list(folder.glob("*.safetensors")):
        _refuse_pickles(folder)
    for listing in sorted(folder.glob("*.safetensors.index.json")):  # config.json may name another than model's
        index = _settings(listing).get("weight_map", {})
        for shard in index.values() if isinstance(index, dict) else ():
            if not str(shard).endswith(".safetensors") or Path(str(shard)).name != shard:
                raise ModelError(f"{name}: {listing.name} names {str(shard)[:80]!r}, which is not beside it")


def _refuse_endless(folder: Path) -> None:
    """Raise ModelError for a folder that holds what has no end: a pipe, a device, a model of a billion layers."""
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.exists() and not (file.is_file() or file.is_dir()):
            raise ModelError(f"{folder}: {file.name} is a pipe, a socket or a device, not a file")
    told = _settings(folder / "config.json") if folder.is_dir() else {}
    for key, most in _MOST.items():
        if isinstance(value := told.get(key), int) and value > most:
            raise ModelError(f"{folder}: config.json: {key} is {value}; no model has more than {most}")


_MOST = {"num_hidden_layers": 10_000, "n_layer": 10_000, "num_labels": 10**6}
"""What transformers makes one object each of before it reads a weight."""
_PLAIN_CHOICES = {
    "attn_implementation": {"eager", "sdpa", "flex_attention"},
    "experts_implementation": {"eager", "batched_mm", "grouped_mm"},
}
"""What transformers computes by itself; every other name is, or falls back to, a kernel that is fetched."""
_FETCHED_FOR = {"mxfp4", "eetq", "fbgemm_fp8", "fp8", "metal", "nvfp4"}
"""Quantizations whose kernels transformers fetches where the package `kernels` is installed."""


def _reaching_for_kernels(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a config.json, at any depth, for which transformers would load compiled code."""
    fetches = importlib.util.find_spec("kernels") is not None
    waiting = [settings]
    while waiting:
        found = waiting.pop()
        for key, value in found.items() if isinstance(found, dict) else ():
            plain = _PLAIN_CHOICES.get(str(key).removeprefix("_").removesuffix("_internal"))
            if plain is not None:
                asked = value.values() if isinstance(value, dict) else [value]  # one for each part of a model
                # Without the package nothing is fetched for them, and flash attention is the one that is installed.
                own = plain if fetches else {*plain, "flash_attention_2", "flash_attention_3", "flash_attention_4"}
                yield from ((key, one) for one in asked if one is not None and str(one) not in own)
            if key == "quant_method" and fetches and str(value) in _FETCHED_FOR:
                yield key, value
            waiting.append(value)
        waiting += found if isinstance(found, list) else []


def _refuse_adapter_code(folder: Path) -> None:
    if _settings(folder / "adapter_config.json").get("megatron_config"):
        raise ModelError(f"{folder}: adapter_config.json names a library to import (megatron_config); remove it")
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(
            f"{folder}: holds no adapter_model.safetensors; pickled weights are never loaded: convert them to "
            "safetensors"
        )


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(file.name for pattern in PICKLED for file in folder.glob(pattern))
    if pickles:
        raise ModelError(
            f"{folder}: cannot be loaded: {pickles[0]} is pickled, and unpickling runs code; convert it to safetensors"
        )


def fetched(name: str, file: str, revision: str | None) -> Path | None:
    """Return a small file of a hub model, fetched if need be; None where there is none or it cannot be had."""
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision))
    except Exception:  # noqa: BLE001 - what cannot be fetched is told when the weights are; no code runs there either
        return None


def _settings(path: Path | None) -> dict[str, Any]:
    """Return a JSON object, {} where there is none: what is damaged is told by whoever loads it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn whatever a library raises about weights into one line."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        cause = masked(one_line(error, 240))
        where = "" if Path(name).exists() else " (and no folder of this name is here)"
        raise ModelError(f"{name}: cannot be loaded: {cause}{where}") from None
    except BaseException as error:  # safetensors and hub clients have error types of their own
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        raise ModelError(f"{name}: cannot be loaded: {type(error).__name__}: {masked(one_line(error, 200))}") from None
