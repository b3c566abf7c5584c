"""A CUDA device that is not there: its tensors know shape, dtype and device, and hold no numbers.

torch's FakeTensorMode makes them, and refuses what does not fit together. `Waits` stands where a program would wait for
the device: it notes the places, and says nought where a number is read, and yes where a flag is.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from tiebreak.engine.model import Model
from tiebreak.engine.scorer import PackedScorer, PlainScorer

CARD = torch.device("cuda:0")
GIB = 2**30
FREE, TOTAL = 70 * GIB, 80 * GIB
_ATEN = torch.ops.aten
_READS = {_ATEN._local_scalar_dense.default, _ATEN.item.default, _ATEN.equal.default}
_MOVES = {_ATEN._to_copy.default, _ATEN.copy_.default}
_OURS = str(Path(__file__).parents[1] / "src")


def is_there() -> bool:
    """Whether autograd goes through tensors of CUDA in this process, be they fake."""
    found = torch.accelerator.current_accelerator()
    return found is not None and found.type == "cuda"


class Waits(TorchDispatchMode):
    """Notes where the host would wait for the device, and by which line of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.at: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _READS and args[0].is_cuda:
            self._note(func)
            return _read(func, args[0])
        if (func in _MOVES and _is_awaited(func, args, kwargs)) or _is_counted(func, args):
            self._note(func)
        return func(*args, **kwargs)

    def _note(self, func: Any) -> None:
        lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(_OURS)]
        where = f"{Path(lines[-1].filename).name}: {lines[-1].line}" if lines else "elsewhere"
        self.at.append(f"{func} at {where}")


def _read(func: Any, tensor: Tensor) -> Any:
    if func is _ATEN.equal.default:
        return True
    return True if tensor.dtype == torch.bool else 0.0 if tensor.dtype.is_floating_point else 0


def _is_awaited(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a copy between devices is waited for: to the host always, to the device unless told otherwise."""
    if func is _ATEN._to_copy.default:
        source, target = args[0].device, kwargs.get("device")
        freely = kwargs.get("non_blocking", False)
    else:
        source, target, freely = args[1].device, args[0].device, len(args) > 2 and args[2]
    if target is None or torch.device(target).type == source.type:
        return False
    return not freely or torch.device(target).type == "cpu"


def _is_counted(func: Any, args: Any) -> bool:
    """Whether the size of what comes out hangs on numbers: places where a mask is true."""
    if func is _ATEN.index.Tensor:
        return any(index is not None and index.dtype == torch.bool and index.is_cuda for index in args[1])
    dynamic = torch.Tag.dynamic_output_shape in func.tags
    return dynamic and any(isinstance(one, Tensor) and one.is_cuda for one in args)


@contextmanager
def a_card(patch: pytest.MonkeyPatch) -> Iterator[Waits]:
    """Let tensors be fake for a while, and torch answer as with a GPU of 80 GiB, of which 70 are free."""
    for name, told in {
        "is_bf16_supported": True,
        "get_device_capability": (9, 0),
        "mem_get_info": (FREE, TOTAL),
        "memory_reserved": 3 * GIB,
        "memory_allocated": 2 * GIB,
        "max_memory_allocated": 5 * GIB,
        "synchronize": None,
        "empty_cache": None,
    }.items():
        patch.setattr(torch.cuda, name, lambda *_, told=told, **__: told)
    # Autocast asks for a device by itself, and would switch itself off with a warning.
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    waits = Waits()
    with FakeTensorMode(), waits:
        yield waits


def moved(network: Any) -> Any:
    """Put a network that was made on the CPU onto the card; weights that were one stay one."""
    known: dict[int, Tensor] = {}
    for module in network.modules():
        held = [module._parameters, module._buffers, {k: v for k, v in vars(module).items() if isinstance(v, Tensor)}]
        for table in held:
            for name, tensor in table.items():
                if tensor is not None:
                    known.setdefault(id(tensor), _faked(tensor))
                    (table if table is not held[2] else vars(module))[name] = known[id(tensor)]
    return network


def _faked(tensor: Tensor) -> Tensor:
    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CARD)
    return nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def policy_on_card(model: Model, dtype: torch.dtype) -> Model:
    """A model that was loaded on the CPU, on the card with its arithmetic in a dtype. Where tensors are fake."""
    network = moved(model.network)
    packed = model.scorer.layout == "packed"
    scorer = (
        PackedScorer(network, device=CARD, dtype=dtype)
        if packed
        else PlainScorer(network, pad_id=model.pad_id, device=CARD, dtype=dtype)
    )
    return replace(model, network=network, device=CARD, dtype=dtype, scorer=scorer)
