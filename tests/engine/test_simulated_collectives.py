"""What FSDP2 sends for eight processes, counted call by call in one that plays all of them, against the equations."""

from __future__ import annotations

from collections import Counter

import peft
import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from tiebreak.maths.gpus import GPUS
from tiebreak.maths.scale import Anatomy, Part, sent

SIZE = 8
SHAPE = LlamaConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=8,
    vocab_size=256, tie_word_embeddings=False, use_cache=False,
)  # fmt: skip


@pytest.fixture
def eight():
    """A group of eight processes, of which this is one; what it sends goes nowhere."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=SIZE)
    yield init_device_mesh("cpu", (SIZE,))
    dist.destroy_process_group()


class Counted(TorchDispatchMode):
    """Bytes of the largest tensor of every collective, and how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.calls = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if name.startswith("c10d"):
            kind = "all-gather" if "gather" in name else "reduce-scatter" if "reduce_scatter" in name else name
            self.bytes[kind] += max(t.nbytes for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor))
            self.calls[kind] += 1
        return func(*args, **(kwargs or {}))


def model(kind: str):
    network = LlamaForCausalLM(SHAPE)
    if kind == "none":
        return network
    network = network.to(torch.bfloat16)
    lora = peft.LoraConfig(r=SIZE, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(network, lora).base_model.model


def anatomy(network, kind: str) -> Anatomy:
    def part(parameters) -> Part:
        found = [(p.numel(), p.requires_grad) for p in parameters]
        return Part(sum(n for n, own in found if not own), sum(n for n, own in found if own))

    layers = network.model.layers
    inside = {id(p) for p in layers.parameters()}
    return Anatomy(
        part(network.parameters()), part(layers[0].parameters()),
        part(p for p in network.parameters() if id(p) not in inside), len(layers),
        stored=4 if kind == "none" else 2, computed=2, multiplied=0, head=0, attended=0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["none", "lora"])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("reshard", [True, False])
def test_two_micro_batches_send_what_the_equations_say(eight, kind, checkpointed, reshard):
    network = model(kind)
    of = anatomy(network, kind)
    if checkpointed:
        for layer in network.model.layers:
            layer.gradient_checkpointing = True
            layer._gradient_checkpointing_func = _twice
    narrow = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if kind == "none" else MixedPrecisionPolicy()
    for layer in network.model.layers:
        fully_shard(layer, mesh=eight, mp_policy=narrow, reshard_after_forward=reshard)
    fully_shard(network, mesh=eight, reshard_after_forward=reshard)
    network.train()
    with Counted() as counted:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                network(input_ids=torch.zeros(1, 16, dtype=torch.long)).logits.float().sum().backward()
    gather, scatter = sent(of, GPUS["h200"], SIZE, 8, SIZE, 2, reshard=reshard)
    # A process sends all but its own part of what it gathers and of what it sums.
    others = (SIZE - 1) / SIZE
    assert gather.num_bytes == counted.bytes["all-gather"] * others
    assert gather.num_calls == counted.calls["all-gather"]
    assert scatter.num_bytes == counted.bytes["reduce-scatter"] * others
    assert scatter.num_calls == counted.calls["reduce-scatter"]
    assert set(counted.calls) == {"all-gather", "reduce-scatter"}


def _twice(function, *args, **kwargs):
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, **kwargs)
