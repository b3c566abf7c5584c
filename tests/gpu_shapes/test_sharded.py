"""Sharded weights on CUDA: FSDP2 over eight ranks of which this is one, with collectives that carry nothing."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from fake_card import CARD, moved
from families import PACKABLE, build
from tiebreak.config import TrainingConfig
from tiebreak.engine.attention import PackedLayout, use_packed_attention
from tiebreak.engine.scorer import BackboneAndHead
from tiebreak.maths.packing import pack
from tiebreak.training.optimizer import build_optimizer
from tiny import token_pairs

RANKS = 8
BF16, FP32 = torch.bfloat16, torch.float32


@pytest.fixture
def mesh(monkeypatch):
    """Eight ranks; what waits for streams and events of a card waits for nothing."""
    still, event = _Still(), _Still()
    for name, told in {
        "Stream": lambda *_, **__: still,
        "current_stream": lambda *_: still,
        "Event": lambda *_, **__: event,
        "stream": lambda _: contextlib.nullcontext(),
        "current_device": lambda: 0,
        "device_count": lambda: RANKS,
        "set_device": _nothing,
    }.items():
        monkeypatch.setattr(torch.cuda, name, told)
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    yield init_device_mesh("cuda", (RANKS,))
    dist.destroy_process_group()


class _Still:
    """A stream, or an event."""

    device = CARD

    def record_event(self, *_):
        return _Still()

    def record(self, *_):
        return None

    wait = wait_stream = wait_event = synchronize = record


def _nothing(*_):
    return None


@pytest.mark.parametrize("reshard", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mistral", "gpt2", "deepseek_v3"])
def test_backbone_and_head_are_one_module_that_is_sharded(kind, reshard, mesh, request):
    network = build(kind, **PACKABLE[kind])
    if kind == "deepseek_v3":
        network = network.to(BF16)  # the fake form of its experts' products takes no other
    waits = request.getfixturevalue("waits")
    use_packed_attention(moved(network))
    whole, policy = BackboneAndHead(network, BF16), MixedPrecisionPolicy(param_dtype=BF16, reduce_dtype=FP32)
    layers = network.base_model.h if kind == "gpt2" else network.base_model.layers
    for module in (*layers, whole):
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    row = pack(token_pairs(4, num_prompts=2)).to(CARD)
    values, _, _ = whole(row, PackedLayout(row.segments, set()))
    assert (values.shape, values.dtype, values.device) == (row.targets.shape, FP32, CARD)
    values.sum().backward()
    parameters = list(whole.parameters())
    for parameter in parameters:
        assert isinstance(parameter, DTensor) and isinstance(parameter.grad, DTensor)
        assert parameter.to_local().shape[0] == -(-parameter.shape[0] // RANKS)
        assert parameter.grad.to_local().shape == parameter.to_local().shape
        assert parameter.grad.device == CARD
    assert kind == "deepseek_v3" or waits.at == []
    optimizer = build_optimizer(parameters, TrainingConfig(), 1e-3)
    norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    assert isinstance(norm, DTensor)
    optimizer.step()
    moment = optimizer.state[parameters[0]]["exp_avg"]
    assert isinstance(moment, DTensor) and moment.device == CARD
