"""What is handed on: a policy's weights whole, in the dtype of its base model, and an artefact loaded as others would.

Owns the dtype that weights are written in. What else an artefact holds is known to whoever exports it.
"""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import GENERATION_CONFIG_NAME

from tiebreak.engine.attention import use_plain_attention
from tiebreak.engine.fused_lora import unfuse
from tiebreak.engine.loading import load_adapter, load_as_a_stranger, load_model, quietly, stored_dtypes
from tiebreak.engine.model import POLICY_ADAPTER, Model
from tiebreak.engine.quantization import layers_of, spelled_out
from tiebreak.errors import ModelError


@dataclass(frozen=True)
class Written:
    """The dtype that most weights were written in, and that of the base model's own files."""

    dtype: torch.dtype
    base: torch.dtype


def save_whole(policy: Model, folder: Path, *, as_base: bool = True, original: bool = False) -> Written:
    """Write all weights, an adapter added into them; the policy itself stays as it is.

    Those that the base model's files keep narrower are narrowed to that, tensor by tensor, unless `as_base` is False.
    An adapter on a base model in four bits is added into the numbers that these stand for, or, where `original` says
    so, into those of the base model's files: that is another model than the trained one.
    """
    ours = next(policy.network.parameters()).dtype
    stored = stored_dtypes(policy.source.base, policy.source.revision)
    base = next(iter(stored.values()), ours)
    if not policy.is_adapter and not (as_base and base.itemsize < ours.itemsize):
        policy.save(folder)
        _end_as_heard(folder, policy)
        return Written(ours, base)
    twin = _again(policy, ours, original) if policy.source.quantization and policy.is_adapter else _copied(policy)
    with quietly():
        if policy.is_adapter:
            twin = twin.merge_and_unload(adapter_names=[POLICY_ADAPTER])
        kept = twin.state_dict().keys()
        for name, tensor in (*twin.named_parameters(), *twin.named_buffers()):
            dtype = stored.get(name, base)
            if as_base and name in kept and tensor.is_floating_point() and dtype.itemsize < tensor.dtype.itemsize:
                tensor.data = tensor.data.to(dtype)
        twin.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
    _end_as_heard(folder, policy)
    return Written(next(twin.parameters()).dtype, base)


def _end_as_heard(folder: Path, policy: Model) -> None:
    """Let whoever generates end an answer where it ended when it was measured: at the tokenizer's end of a turn, too.

    transformers reads what a model generates by and not its tokenizer. Written into its file, since transformers saves
    no advice that was changed and contradicts itself, as that of many base models does.
    """
    file = folder / GENERATION_CONFIG_NAME
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if ends := _unheard(policy, told.get("eos_token_id")):
        file.write_text(json.dumps(told | {"eos_token_id": [*ends]}, indent=2) + "\n", encoding="utf-8")


def unheard_ends(policy: Model) -> tuple[int, ...]:
    """Return the ids at which an adapter's answers ended when they were measured, and its base model's file names not.

    An adapter has no file of its own for that: whoever generates with it has to be told them.
    """
    return _unheard(policy, policy.network.generation_config.eos_token_id)


def _unheard(policy: Model, told: Any) -> tuple[int, ...]:
    return () if set(policy.eos_ids) <= set(told if isinstance(told, list) else [told]) else tuple(policy.eos_ids)


def told_of_adapter(policy: Model) -> list[str]:
    """Return what whoever loads an adapter elsewhere has to know, a line each."""
    lines = []
    if Path(policy.source.base).is_dir():
        lines.append(
            f"adapter_config.json names its base model by the folder {policy.source.base}: where the adapter is "
            "loaded elsewhere, base_model_name_or_path has to say where it lies there"
        )
    if ends := unheard_ends(policy):
        lines.append(
            f"an adapter cannot say where answers end: its base model's generation_config.json leaves out some of the "
            f"ids {', '.join(map(str, ends))} at which they ended here; generate with eos_token_id={[*ends]}"
        )
    return lines


def _copied(policy: Model) -> Any:
    # A copy, since merging and unmerging in place would leave rounding behind in the policy.
    use_plain_attention(policy.network)  # a copy would not know what to switch back to
    twin = copy.deepcopy(policy.network)
    unfuse(twin)
    return twin


def _again(policy: Model, dtype: torch.dtype, original: bool) -> Any:
    """Return a policy on a base model in four bits, loaded once more on one that lies in none."""
    source, quantization = policy.source, None if original else policy.source.quantization
    base = load_model(source.base, source.revision, dtype, quantization=quantization, device=policy.device)
    if original and layers_of(base):
        raise ModelError(f"{source.base}: its files hold it in four bits alone, and there is no other base model of it")
    with tempfile.TemporaryDirectory() as folder:
        policy.save(Path(folder))
        plain = spelled_out(base).to(policy.device)
        return load_adapter(plain, folder, POLICY_ADAPTER, is_trainable=False)


def load_artefact(folder: Path, policy: Model) -> Model:
    """Load what was exported as a stranger would, by the plain classes of transformers and peft."""
    dtype = next(policy.network.parameters()).dtype
    network = load_as_a_stranger(folder, dtype, policy.device).to(policy.device)
    return policy.with_network(network.eval())
