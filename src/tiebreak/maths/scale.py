"""What training takes of each of many GPUs: bytes held, bytes sent, and seconds, by arithmetic alone.

Owns these equations. Weights that are trained are kept in fp32 with two moments (AdamW), frozen ones as they are
stored. A process that holds a share gathers one layer after the other, in the precision of the arithmetic where all of
it is trained, and sums gradients in fp32. Seconds are estimates: makers' peaks times the shares of them that large runs
reach.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiebreak.maths.gpus import Gpu

REACHED = 0.4
"""Share of the peak arithmetic that is reached: 38 to 43 % in Llama 3's runs (2407.21783, Table 4)."""
LINE = 0.8
"""Share of a link's bandwidth that large messages reach."""
RING_SECONDS = (8.4e-6, 3.4e-6, 9.6e-6)
"""To begin, for each step within a machine, for each step between machines: what NCCL itself reckons with for rings."""
FP32 = 4


@dataclass(frozen=True)
class Part:
    """Some of a model's weights, in numbers."""

    frozen: int
    trainable: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.frozen + self.trainable


@dataclass(frozen=True)
class Anatomy:
    """What a model is made of, and how it is trained."""

    whole: Part
    layer: Part
    """The largest layer, its adapter included: what is gathered at once."""
    rest: Part
    """What lies outside of layers: embeddings and head."""
    layers: int
    stored: int
    """Bytes of a frozen weight where it is kept; one that is trained has four."""
    computed: int
    """Bytes of a weight in the arithmetic."""
    multiplied: int
    """Weights of layers that one token is multiplied by: of experts, those that it is sent to."""
    head: int
    """Hidden size times vocabulary."""
    attended: int
    """Layers times the width of all queries of one."""

    @property
    def trains_base(self) -> bool:
        """Whether the weights of layers are trained, and not an adapter on them."""
        return self.whole.frozen == 0

    @property
    def gathered_width(self) -> int:
        """Bytes of a trained weight of a layer where it is gathered: an adapter's come as they are kept."""
        return self.computed if self.trains_base else FP32

    def bytes_of(self, part: Part) -> int:
        """Return the bytes of a part where it is kept."""
        return part.frozen * self.stored + part.trainable * FP32

    @property
    def layer_bytes(self) -> int:
        """The largest layer as it is gathered."""
        return self.layer.frozen * self.stored + self.layer.trainable * self.gathered_width

    @property
    def gathered_bytes(self) -> int:
        """All weights as they are gathered: layers so, the rest as it is kept."""
        frozen, trained = (self.whole.frozen - self.rest.frozen, self.whole.trainable - self.rest.trainable)
        return frozen * self.stored + trained * self.gathered_width + self.bytes_of(self.rest)


@dataclass(frozen=True)
class Held:
    """Bytes that one process holds, whatever it computes."""

    weights: int
    gradients: int
    moments: int
    gathered: int = 0
    """Weights of others, and gradients for them, while a layer computes."""
    cast: int = 0
    """Weights once more, in the precision of the arithmetic, until the backward pass is over."""
    host: int = 0
    """What lies in main memory between uses, in place of the GPU's."""

    @property
    def device(self) -> int:
        """Bytes on the GPU."""
        return self.weights + self.gradients + self.moments + self.gathered + self.cast


def held(of: Anatomy, shares: int | None, *, reshard: bool = True, offload: bool = False) -> Held:
    """Return what one process holds that has one of `shares`; None: all of it, and nobody to gather from.

    Sharded, each layer is there whole while it computes, and the next one is on its way; what lies outside of layers is
    used at both ends of a pass and stays. Without `reshard` all weights stay until the backward pass is over. A layer's
    gradient is there as it was computed and as it is sent.
    """
    trained = of.whole.trainable
    divided = shares or 1
    weights, gradients, moments = (
        -(-num // divided) for num in (of.bytes_of(of.whole), trained * FP32, trained * 2 * FP32)
    )
    if shares is None:
        cast = trained * of.computed if of.trains_base and of.computed < FP32 else 0
        return Held(weights, gradients, moments, cast=cast)
    sending = max(of.layer.trainable * (of.gathered_width + FP32), of.rest.trainable * 2 * FP32)
    gathered = sending + (of.bytes_of(of.rest) + 2 * of.layer_bytes if reshard else of.gathered_bytes)
    if offload:
        return Held(0, 0, 0, gathered, host=weights + gradients + moments)
    return Held(weights, gradients, moments, gathered)


@dataclass(frozen=True)
class Sent:
    """What one process sends in a step by one kind of collective, and how long that takes."""

    what: str
    num_bytes: int
    num_calls: int
    seconds: float


def sent(
    of: Anatomy, gpu: Gpu, processes: int, per_machine: int, shares: int | None, passes: int, *, reshard: bool = True
) -> list[Sent]:
    """Return what a step of `passes` micro-batches sends.

    Of ddp (`shares` None), gradients once a step. Of shares, weights before each forward pass and, where they were let
    go, before the backward pass; computing activations twice gathers nothing more. Gradients of each micro-batch go to
    whoever holds the share, and between machines that hold the same shares.
    """
    gradients = of.whole.trainable * FP32
    if processes == 1:
        return []
    if shares is None:
        return [_ring("all-reduce", gradients, 1, gpu, processes, per_machine, twice=True)]
    if shares == 1:
        return []
    weights, units = of.gathered_bytes * (2 if reshard else 1), of.layers + 1
    near, trained = min(shares, per_machine), of.layers + (1 if of.rest.trainable else 0)
    found = [
        _ring("all-gather", weights, passes, gpu, shares, near, calls=units * (2 if reshard else 1)),
        _ring("reduce-scatter", gradients, passes, gpu, shares, near, calls=trained),
    ]
    if (copies := processes // shares) > 1:
        share = -(-gradients // shares)
        found.append(_ring("all-reduce", share, passes, gpu, copies, 1, calls=trained, twice=True))
    return found


def _ring(
    what: str, size: int, passes: int, gpu: Gpu, members: int, near: int, *, calls: int = 1, twice: bool = False
) -> Sent:
    """A ring over `members`, `near` of them in each machine: each sends all but its own part, or twice that.

    Between machines, the network adapters of all members of a machine carry the ring together.
    """
    rounds = 2 if twice else 1
    num_bytes = rounds * passes * (size * (members - 1) // members)
    machines = -(-members // near)
    speed = gpu.link if machines == 1 else min(gpu.link, near * gpu.network)
    begin, within, between = RING_SECONDS
    wait = begin + rounds * ((members - machines) * within + (machines - 1) * between)
    return Sent(what, num_bytes, passes * calls, num_bytes / (speed * LINE) + passes * calls * wait)


def operations(of: Anatomy, tokens: int, seen: float, *, checkpointed: bool) -> float:
    """Return the arithmetic of a forward and a backward pass over `tokens`, each of which sees `seen` others.

    A weight costs two operations a token forward, two for the gradient of what comes in, and two for its own where it
    is trained. The head of a frozen model needs no third product.
    """
    forward = 2 * of.multiplied + 4 * of.attended * seen
    backward = (4 if of.trains_base else 2) * of.multiplied + 8 * of.attended * seen
    adapter = 0 if of.trains_base else 6 * of.whole.trainable
    head = (6 if of.rest.trainable else 4) * of.head
    return tokens * (forward * (2 if checkpointed else 1) + backward + adapter + head)


def computing_seconds(num_operations: float, gpu: Gpu) -> float:
    """Return how long one GPU takes for its arithmetic."""
    return num_operations / (gpu.operations * REACHED)
