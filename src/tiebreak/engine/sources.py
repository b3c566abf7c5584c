"""Where weights come from: from a name in the configuration to folders or hub ids that can be loaded.

Owns what a model name may mean, how weights are identified, and what is refused unread: pickles, missing folders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import peft
from transformers.utils.peft_utils import find_adapter_config_file

from tiebreak.config import ModelConfig
from tiebreak.engine.bundled import BUNDLED, Say, bundled_folder
from tiebreak.errors import ModelError, nearest, one_line
from tiebreak.fingerprint import file_digest, fingerprint


@dataclass(frozen=True)
class Source:
    """Where weights come from: a base model, and the adapter on it if the name given is one."""

    base: str
    revision: str | None
    adapter: str | None
    """A local folder: adapters of a hub are fetched whole, at their revision, without anything pickled."""
    identity: str
    base_identity: str


def resolve(config: ModelConfig, say: Say = lambda _: None) -> Source:
    """Find out what a name means: a bundled model, a folder, or a hub id; and whether it is an adapter."""
    name = str(bundled_folder(config.name, say)) if config.name in BUNDLED else config.name
    _refuse_missing(name)
    with explained(name):
        adapter_file = find_adapter_config_file(name, revision=config.revision)
    if adapter_file is None:
        identity = _identity(config.name, name)
        return Source(name, config.revision, None, identity, identity)
    with explained(name):
        folder = name if Path(name).is_dir() else _fetched_adapter(name, config.revision)
        kind = peft.PeftConfig.from_pretrained(folder)
    _refuse_pickle(folder)
    if kind.peft_type != peft.PeftType.LORA:
        raise ModelError(f"{name}: is a {kind.peft_type} adapter; only LoRA adapters can be continued")
    base = kind.base_model_name_or_path or ""
    if not base:
        raise ModelError(f"{name}: adapter_config.json names no base model (base_model_name_or_path)")
    parent = resolve(ModelConfig(name=base, revision=kind.revision), say)
    if parent.adapter:
        raise ModelError(f"{name}: is an adapter on the adapter {base}; merge that one into its base model first")
    return Source(parent.base, parent.revision, folder, _identity(config.name, folder), parent.base_identity)


def _fetched_adapter(name: str, revision: str | None) -> str:
    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    return str(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))


def _identity(name: str, where: str) -> str:
    """Name weights by content where they are local, else by hub id."""
    files = sorted(Path(where).glob("*.safetensors")) if Path(where).is_dir() else []
    if not files:
        return name
    return f"{name} sha256:{fingerprint([[file.name, file_digest(file)] for file in files])[:16]}"


def _refuse_missing(name: str) -> None:
    folder = Path(name)
    if folder.is_dir():
        if not any((folder / file).exists() for file in ("config.json", "adapter_config.json")):
            raise ModelError(f"{name}: the folder holds neither config.json nor adapter_config.json")
        return
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if looks_like_path or not name.strip():
        raise ModelError(f"{name!r}: no such folder; wanted a folder, a hub id, or one of: {', '.join(BUNDLED)}")
    if "/" not in name and (close := nearest(name, BUNDLED)):
        raise ModelError(f"'{name}': no such folder or bundled model.{close}")


def _refuse_pickle(adapter: str) -> None:
    """Raise ModelError for a folder whose adapter would have to be unpickled."""
    if not (Path(adapter) / "adapter_model.safetensors").exists():
        raise ModelError(f"{adapter}: holds no adapter_model.safetensors; pickled weights are never loaded")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn whatever a library raises about weights into one line."""
    try:
        yield
    except ModelError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        cause = one_line(error, 240)
        raise ModelError(f"{name}: cannot be loaded: {cause}") from None
    except Exception as error:  # noqa: BLE001 - safetensors and hub clients have error types of their own
        raise ModelError(f"{name}: cannot be loaded: {type(error).__name__}: {str(error)[:200]}") from None
