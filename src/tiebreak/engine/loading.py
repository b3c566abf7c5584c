"""Weights into a model, all of them or none: libraries fill what a file lacks with random numbers.

Owns every call that reads weights of a model or an adapter. What lacks a tensor is refused; what nobody reads is told.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers.utils import logging

from tiebreak.config import QuantizationConfig
from tiebreak.engine.beside import beside
from tiebreak.engine.bundled import Say
from tiebreak.engine.quantization import arguments, settle
from tiebreak.engine.shapes import shape_of
from tiebreak.engine.sources import explained
from tiebreak.errors import ModelError

CPU = torch.device("cpu")


def load_model(
    name: str,
    revision: str | None,
    dtype: torch.dtype,
    say: Say = lambda _: None,
    quantization: QuantizationConfig | None = None,
    device: torch.device = CPU,
) -> Any:
    """Return a causal language model with every weight read from safetensors, or raise ModelError.

    Weights that are quantised are so on a `device`, tensor by tensor: the whole model is never there as it was.
    """
    # No attention is named: transformers takes SDPA where the model allows it, and Gemma 2 does not.
    told = arguments(name, revision, quantization, dtype, device)
    model = _loaded(transformers.AutoModelForCausalLM, name, revision, dtype, say, told)
    return settle(model, name, quantization, dtype)


def load_sequence_classifier(name: str, revision: str | None, dtype: torch.dtype, say: Say = lambda _: None) -> Any:
    """Return a sequence classifier with every weight read from safetensors, or raise ModelError."""
    return _loaded(transformers.AutoModelForSequenceClassification, name, revision, dtype, say)


def check_sequence_classifier(name: str, revision: str | None) -> None:
    """Raise ModelError for what is no sequence classifier of one label, by config.json alone."""
    settings = shape_of(name, revision)
    kinds = settings.architectures or ["none is named"]
    if not any(str(kind).endswith(_CLASSIFIER) for kind in kinds):
        raise ModelError(
            f"{name}: is no sequence classifier (architectures: {', '.join(map(str, kinds))}); wanted a reward model, "
            f"whose architecture ends in {_CLASSIFIER}"
        )
    if settings.num_labels != 1:
        raise ModelError(
            f"{name}: has {settings.num_labels} labels; wanted a reward model, with exactly one: a number that is "
            "larger for a better answer"
        )


_CLASSIFIER = "ForSequenceClassification"


def _loaded(
    kind: Any, name: str, revision: str | None, dtype: torch.dtype, say: Say, told: Mapping[str, Any] | None = None
) -> Any:
    with explained(name), quietly():
        model, found = kind.from_pretrained(
            name,
            **(told or {}),
            revision=revision,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused here, by name: transformers points to a report that nobody sees
        )
    if misfits := sorted(key for key, *_ in found["mismatched_keys"]):
        raise ModelError(f"{name}: cannot be used: {_counted(misfits)} of another shape than config.json asks for")
    # Tied tensors, and those that the architecture declares it can do without, transformers has taken out itself.
    _judge(name, sorted(found["missing_keys"]), sorted(found["unexpected_keys"]), say)
    return model


_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def stored_dtypes(name: str, revision: str | None) -> dict[str, torch.dtype]:
    """Return the dtype of each floating tensor in the files of a model that has been loaded, the commonest one first.

    {} where the files cannot be read. Reads headers alone.
    """
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else _kept(name, revision)
    found: dict[str, torch.dtype] = {}
    for file in files:
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as tensors:
            dtypes = {key: tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - no mapping
            found |= {key: _FLOATS[dtype] for key, dtype in dtypes.items() if dtype in _FLOATS}
    numbers = list(found.values())
    return dict(sorted(found.items(), key=lambda item: -numbers.count(item[1])))


def _kept(name: str, revision: str | None) -> list[Path]:
    """Return the files of a hub model where they were fetched to."""

    def kept(file: str) -> Path | None:
        where = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        return Path(where) if isinstance(where, str) else None

    if index := kept("model.safetensors.index.json"):
        shards = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()
    else:
        shards = ["model.safetensors"]
    return [file for file in map(kept, sorted(set(shards))) if file]


def load_adapter(base: Any, folder: str, adapter: str, *, is_trainable: bool, say: Say = lambda _: None) -> Any:
    """Return the base model, or the adapted one, with the LoRA adapter of a folder added under a name."""
    with explained(folder), quietly():
        if isinstance(base, peft.PeftModel):
            base.load_adapter(folder, adapter_name=adapter, is_trainable=is_trainable)
            model = base
        else:
            model = peft.PeftModel.from_pretrained(base, folder, adapter_name=adapter, is_trainable=is_trainable)
        _judge_adapter(model, folder, adapter, say)
    return model


def load_as_a_stranger(folder: Path, dtype: torch.dtype, device: torch.device = CPU) -> Any:
    """Load an exported folder by the plain classes of transformers and peft, and nothing of ours but for `settle`."""
    if not (folder / "adapter_config.json").exists():
        return load_model(str(folder), None, dtype)
    quantization = beside(folder)
    with explained(str(folder)), quietly():
        on = peft.PeftConfig.from_pretrained(str(folder))
        told = arguments(on.base_model_name_or_path, on.revision, quantization, dtype, device)
        model = peft.AutoPeftModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, use_safetensors=True, trust_remote_code=False, **told
        )
        _judge_adapter(model, str(folder), "default", lambda _: None)
    return settle(model, str(folder), quantization, dtype)


def _judge_adapter(model: Any, folder: str, adapter: str, say: Say) -> None:
    # peft keeps to itself what its loading lacked. Adapters are small, so they are set once more, and the answer read.
    tensors = peft.load_peft_weights(folder, device="cpu")
    found = peft.set_peft_model_state_dict(model, tensors, adapter_name=adapter)
    # Those of the base model and of other adapters count as missing, too.
    missing = [key for key in found.missing_keys if "lora_" in key and f".{adapter}" in key]
    unread = found.unexpected_keys
    missing, unread = (sorted(key.replace(f".{adapter}", "") for key in keys) for keys in (missing, unread))
    _judge(folder, missing, unread, say)


def _judge(name: str, missing: Sequence[str], unread: Sequence[str], say: Say) -> None:
    if missing:
        raise ModelError(
            f"{name}: cannot be used: its weights lack {_counted(missing)}, and random numbers would stand in; fetch "
            "or save it again, whole"
        )
    if unread:
        say(f"{name}: the model has no place for {_counted(unread)}; not used")


def _counted(names: Sequence[str]) -> str:
    return f"1 tensor ({names[0]})" if len(names) == 1 else f"{len(names)} tensors (the first: {names[0]})"


def quiet() -> None:
    """Switch off the progress bars and advice of transformers; for programs that show their own."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    # peft 0.21 asks transformers 5.23 by an old name. Remove when peft uses the new one.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep the progress bars and advice of transformers off the screen for a while; what matters is said by us."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            quiet()
            # Told by `_judge_adapter`, as an error.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            # Told by `merging`, in what it means.
            warnings.filterwarnings("ignore", message="Model (with|has) `tie_word_embeddings=True`")
            warnings.filterwarnings("ignore", message="`lora_bias=True` was passed but the targeted layer")
            warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
            # peft takes each bias (lora_bias) for a matrix that lost a dimension.
            warnings.filterwarnings("ignore", message=r"Adapter '.*': \d+ LoRA tensor\(s\) have .*: \S+\.bias:")
            # peft sets right by itself what it then warns of: how GPT-2's layers lie, names of experts that are fused.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys did not match")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
