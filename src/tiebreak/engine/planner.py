"""What fits in memory: how many tokens a micro-batch may hold, and whether activations have to be computed twice.

Owns the estimate. The bytes that a forward pass keeps for its backward pass are counted, not guessed: autograd hands
every kept tensor to a hook, on any device, so two short passes give the bytes of a token. What is chosen changes time
and memory, never what is learned.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from tiebreak.engine.adapters import sized_bytes
from tiebreak.engine.attention import causal_model
from tiebreak.engine.compatibility import probe_pairs
from tiebreak.engine.head import CHUNK
from tiebreak.engine.memory import usable_bytes
from tiebreak.engine.model import Model
from tiebreak.engine.quantization import spelled_bytes
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.shares import local_of
from tiebreak.engine.strategy import size
from tiebreak.errors import ModelError
from tiebreak.records import Example, longest_row
from tiebreak.reporting.notebook import card

MOST_TOKENS = {"cpu": 1536, "cuda": 32768, "mps": 4096}
"""More than this gains no speed (docs/experiments.md); less memory stays free for everything else."""
USABLE = 0.8
"""Share of the free memory that is planned with; the rest is for fragments and for other programs."""
GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What was chosen, and the numbers behind it, in bytes."""

    token_budget: int
    gradient_checkpointing: bool
    longest_pair: int
    """Tokens of the largest pair in this layout; it has to fit."""
    available_bytes: int
    optimizer_bytes: int
    """Gradients and moments that training adds to the weights, which are in memory already."""
    head_bytes: int
    token_bytes: int
    """Bytes of activations that one token keeps until its backward pass."""
    reason: str
    reference_bytes: int = 0
    """Weights of a reference that stay in memory while training goes on, and are not there yet."""
    spelled_bytes: int = 0
    """The weights of one layer as they are multiplied with: where they lie in four bits, or are sized anew (DoRA)."""

    processes: str | None = None
    """How many there are, what each holds, and why; None of one."""

    @property
    def peak_bytes(self) -> int:
        """The estimate of what training adds to what is in memory now."""
        held = self.optimizer_bytes + self.reference_bytes + self.head_bytes + self.spelled_bytes
        return held + self.token_budget * self.token_bytes

    def lines(self) -> list[str]:
        """Return the plan in words."""
        checkpointing = "activations computed twice" if self.gradient_checkpointing else "activations kept"
        reference = f"{size(self.reference_bytes)} reference, " if self.reference_bytes else ""
        reference += f"{size(self.spelled_bytes)} weights spelled out, " if self.spelled_bytes else ""
        return [
            *([self.processes] if self.processes else []),
            f"memory: {size(self.available_bytes)} free; training adds about {size(self.peak_bytes)}: "
            f"{size(self.optimizer_bytes)} gradients and optimizer, {reference}{size(self.head_bytes)} head, "
            f"{self.token_bytes / 2**20:.2f} MiB a token",
            f"micro-batches of at most {self.token_budget} tokens (longest pair {self.longest_pair}), {checkpointing}: "
            f"{self.reason}",
        ]

    def _repr_html_(self) -> str:
        return card("plan", None, self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for manifests and `--json`."""
        return dataclasses.asdict(self) | {"peak_bytes": self.peak_bytes}


def make_plan(
    policy: Model,
    examples: Sequence[Example],
    token_budget: int | None = None,
    checkpoint: bool | None = None,
    available_bytes: int | None = None,
    reference_bytes: int = 0,
) -> Plan:
    """Return the plan for training on `examples`; settings that are given are kept, those that are None are chosen.

    `available_bytes` is what is free on the device now, unless given; `reference_bytes` of it are kept for a reference
    whose model is asked while training goes on. Leaves the policy with activations checkpointed where the plan says so.
    Raises ModelError where not even the longest pair fits.
    """
    longest = max(policy.scorer.num_tokens([example]) for example in examples)
    available = _available(policy.device) if available_bytes is None else available_bytes
    shape = causal_model(policy.network).config.get_text_config()
    optimizer = sum(local_of(parameter).numel() * (parameter.element_size() + 8) for _, parameter in policy.trainable)
    head = head_bytes(int(shape.vocab_size))
    spelled = spelled_bytes(policy.network) + sized_bytes(policy.network)
    held = optimizer + reference_bytes + head + spelled
    room = int(available * USABLE) - held
    per_token, checkpointed = _bytes_per_token(policy), bool(checkpoint)
    if checkpoint is None and per_token * longest > room:
        policy.checkpoint_activations()
        per_token, checkpointed = _bytes_per_token(policy) + per_token // int(shape.num_hidden_layers), True
    if per_token * longest > room:
        raise ModelError(
            f"the longest pair has {longest} tokens and needs about {size(held + per_token * longest)} "
            f"with {size(available)} free; lower data.max_length, take a smaller model, train an adapter, or free "
            "memory"
        )
    budget, reason = chosen_budget(room // per_token, longest, token_budget, policy.device.type)
    return Plan(budget, checkpointed, longest, available, optimizer, head, per_token, reason, reference_bytes, spelled)


def plan_together(
    policy: Model,
    examples: Sequence[Example],
    token_budget: int | None,
    checkpoint: bool | None,
    reference_bytes: int = 0,
    processes: str | None = None,
) -> Plan:
    """Return the plan that holds for every process that trains the policy: that of the one with least room.

    Raises ModelError where not even the longest pair fits.
    """
    longest = max(examples, key=lambda example: policy.scorer.num_tokens([example]))
    plan = policy.ranks.run(_planned, policy.key, longest, token_budget, checkpoint, reference_bytes)
    return dataclasses.replace(plan, processes=processes)


def _planned(
    ranks: Ranks, key: str, longest: Example, token_budget: int | None, checkpoint: bool | None, reference_bytes: int
) -> Plan:
    policy: Model = ranks.kept[key]
    available = _available(policy.device)
    if policy.device.type == "cpu":  # one memory for all processes of a machine
        available //= max(1, ranks.collect(socket.gethostname()).count(socket.gethostname()))
    available = min(ranks.collect(available))  # before passes are tried: all try the same ones
    return make_plan(policy, [longest], token_budget, checkpoint, available, reference_bytes)


def head_bytes(vocabulary: int) -> int:
    """Return what the head takes: a chunk of logits, and what the softmax makes of them, in fp32."""
    return 3 * 4 * CHUNK * vocabulary


def chosen_budget(fits: int, longest: int, given: int | None, device: str) -> tuple[int, str]:
    """Return the tokens of a micro-batch on a kind of device where so many fit, and why it is that many."""
    if given is not None:
        return given, "as training.token_budget says"
    most = MOST_TOKENS[device]
    if fits <= most:
        return max(fits, longest), "all that fits"
    if longest > most:
        return longest, "the longest pair has to fit"
    return most, f"more would fit ({fits}) and gain no speed"


def _bytes_per_token(policy: Model) -> int:
    """Return the slope between two short forward passes; what does not grow with tokens cancels."""
    pair = probe_pairs(policy.network)[0]
    # A prompt 64 tokens longer, or as long as the model allows.
    num = len(pair.prompt_ids) + policy.context.limit(longest_row(pair) + 64) - longest_row(pair)
    short, long = [pair], [dataclasses.replace(pair, prompt_ids=(pair.prompt_ids * num)[:num])]
    policy.network.train()
    kept = [_kept_bytes(policy, some) for some in (short, long)]
    policy.network.eval()
    tokens = [policy.scorer.num_tokens(some) for some in (short, long)]
    return max(1, (kept[1] - kept[0]) // (tokens[1] - tokens[0]))


def _kept_bytes(policy: Model, pairs: Sequence[Example]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, each storage counted once."""
    # By identity, not by address: tensors without numbers (on the meta device) have none.
    weights = {_storage(local_of(parameter)) for parameter in policy.network.parameters()}
    storages: dict[StorageWeakRef, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storages.setdefault(_storage(tensor), tensor)  # held until they are counted
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = policy.score(pairs).summed()
    total = sum(t.untyped_storage().nbytes() for storage, t in storages.items() if storage not in weights)
    del scores
    return total


def _storage(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return usable_bytes()[0]
