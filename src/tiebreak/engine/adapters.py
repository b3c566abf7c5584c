"""New adapters: which layers of a model get one, and what is told of those that get none.

Owns what may carry an adapter, and what `all-linear` leaves out: the head, and layers that LoRA cannot be trained on.
What it means for experts that are stacked in one tensor is peft's: some kinds of models get an adapter on them.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

import peft
import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tiebreak.config import AdapterConfig
from tiebreak.engine.bundled import Say
from tiebreak.engine.model import POLICY_ADAPTER
from tiebreak.engine.products import FastLinear
from tiebreak.engine.quantization import is_in_four_bits, size_of
from tiebreak.engine.weights import parameters_of
from tiebreak.errors import ModelError, nearest, one_line

# transformers multiplies by the weight of `dt_proj` itself, wherever it has one, and hands those of the others to a
# fused kernel where that is installed: an adapter on them would learn nothing. peft 0.21 knows two, in five kinds.
_FUSED = ("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "mamba", "mamba2", "nemotron_h", "zamba2")
_PASSED_BY = ("conv1d", "dt_proj", "out_proj", "x_proj")


def with_new_adapter(base: Any, settings: AdapterConfig, revision: str | None, say: Say) -> Any:
    """Return a transformers model with an adapter that changes nothing yet; draws its weights from torch's stream.

    Where all-linear does not reach everything, one line tells what has an adapter and what has none. Raises ModelError
    for layers that the model lacks or that LoRA cannot be trained on. `revision` is kept with the adapter, for whoever
    loads it later.
    """
    named, unfit = settings.target_modules, dict(_unfit(base))
    able, everything = _linear_kinds(base, unfit), named == "all-linear"
    for name in () if isinstance(named, str) else named:
        if fault := next((why for path, why in unfit.items() if _is_called(path, name)), None):
            raise ModelError(_refusal(name, fault, able))
    lora = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=named if isinstance(named, str) else list(named),
        exclude_modules=sorted(unfit) if everything and unfit else None,
        task_type="CAUSAL_LM",
    )
    try:
        model = peft.get_peft_model(base, lora, adapter_name=POLICY_ADAPTER, revision=revision)
    except ValueError as error:
        raise ModelError(
            f"adapter: cannot be put on this model ({one_line(error, 160)}); layers that may carry one: "
            f"{', '.join(able)}"
        ) from None
    carrying = dict(_carrying(model))
    if everything:
        _tell(model, carrying, unfit, say)
    # peft takes the names of experts for the tensors in which they are stacked, and keeps the other names as they were.
    for name in () if isinstance(named, str) else set(named) & set(lora.target_modules):
        if not any(_is_called(path, name) for path in carrying):
            raise ModelError(_refusal(name, "the model has no layer of this name", able))
    return model


def add_twin(model: Any, name: str) -> None:
    """Hang a second adapter under a name beside the policy's, equal to it, that no optimizer sees.

    Raises ModelError where peft takes only one of its kind.
    """
    try:
        model.add_adapter(name, copy.deepcopy(model.peft_config[POLICY_ADAPTER]))
    except (ValueError, NotImplementedError) as error:
        raise ModelError(
            f"reference.moves: this kind of adapter cannot stand beside itself as a reference that moves; take it out, "
            f"or take adapter.kind none ({one_line(error, 160)})"
        ) from None
    theirs = parameters_of(model, POLICY_ADAPTER)
    with torch.no_grad():
        for path, own in parameters_of(model, name).items():
            own.copy_(theirs[path])
    model.set_adapter(POLICY_ADAPTER)


def set_dropout(model: Any, name: str, share: float) -> None:
    """Let training drop a share of what goes into a LoRA adapter, whatever it was trained with before.

    Raises ModelError where there is an adapter on stacked tensors, which can drop nothing.
    """
    kind = model.peft_config[name]
    if getattr(kind, "lora_dropout", share) == share:
        return
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and name in layer.lora_dropout:
            if share and isinstance(layer, ParamWrapper):
                raise ModelError(f"adapter.dropout {share:g}: nothing can be dropped on stacked experts; set it to 0")
            layer.lora_dropout[name] = nn.Dropout(share) if share else nn.Identity()
    kind.lora_dropout = share


def sized_bytes(model: Any) -> int:
    """Return the bytes of the weights that a layer is sized anew with (DoRA) while it computes; 0 where none is.

    A layer spells out its own weight, the update of it and their sum, in fp32, one layer after the other.
    """
    layers = (layer for layer in model.modules() if isinstance(layer, LoraLayer) and layer.lora_magnitude_vector)
    return 3 * 4 * max((layer.in_features * layer.out_features for layer in layers), default=0)


def _unfit(base: Any) -> Iterator[tuple[str, str]]:
    """Yield the paths of layers that LoRA cannot be trained on, and why."""
    passed_by = _PASSED_BY if base.config.model_type in _FUSED else ("dt_proj",)
    for path, module in base.named_modules():
        if path.rpartition(".")[2] in passed_by:
            yield path, "its weight is read past the layer"
        elif is_in_four_bits(module):
            continue
        elif isinstance(module, nn.Linear) and type(module).forward not in (nn.Linear.forward, FastLinear.forward):
            rows = torch.zeros(1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)
            with torch.no_grad():
                found = module(rows)
            if not isinstance(found, Tensor) or found.shape != (1, module.out_features):
                yield path, f"{type(module).__name__} returns more than a product"


def _linear_kinds(base: Any, unfit: Collection[str]) -> list[str]:
    """Return the last names of the linear layers but the head that may carry an adapter, each once."""
    head = base.get_output_embeddings()
    layers = (path for path, module in base.named_modules() if _is_linear(module) and module is not head)
    return sorted({path.rpartition(".")[2] for path in layers if path not in unfit})


def _carrying(model: Any) -> Iterator[tuple[str, str]]:
    """Yield the path and the last name of whatever carries an adapter; of a stacked tensor, the tensor's."""
    for path, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            whole = path.replace(".base_layer", "")
            tensor = f".{module.parameter_name}" if isinstance(module, ParamWrapper) else ""
            yield whole + tensor, whole.rpartition(".")[2] + tensor


def _tell(model: Any, carrying: dict[str, str], unfit: dict[str, str], say: Say) -> None:
    """Say what carries an adapter and what does not, where something but the head does not."""
    causal = model.get_base_model()
    without: dict[str, int] = {}
    for path, module in causal.named_modules():
        if ".base_layer" in path or ".lora_" in path or isinstance(module, nn.Conv1d) or path in carrying:
            continue
        whole = _is_linear(module) and module is not causal.get_output_embeddings()
        for name, tensor in module.named_parameters(recurse=False):
            if whole or (tensor.dim() == 3 and f"{path}.{name}" not in carrying):
                last = path.rpartition(".")[2]
                why = f" ({unfit[path]})" if path in unfit else ""
                label = f"{last}{why}" if whole else f"{last}.{name}"
                without[label] = without.get(label, 0) + size_of(module, tensor)
    if without:
        share = sum(without.values()) / sum(
            size_of(module, one)
            for module in causal.modules()
            for one in module.parameters(recurse=False)
            if not one.requires_grad
        )
        say(
            f"adapter.target_modules all-linear: an adapter on {', '.join(sorted(set(carrying.values())))}; none on "
            f"{', '.join(sorted(without))}: {share:.0%} of the model's parameters"
        )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _is_called(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _refusal(name: str, fault: str, able: Collection[str]) -> str:
    return (
        f"adapter.target_modules {name}: {fault}; layers that may carry an adapter: {', '.join(able)}."
        f"{nearest(name, able)}"
    )
