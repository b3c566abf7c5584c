"""Which processes hold what: each all weights, a share of them, or shares within a machine.

Owns the choice and its reason. It is arithmetic on bytes, so that a plan on paper and a run choose alike; who counts
the bytes is another's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiebreak.config.distributed import DistributedConfig
from tiebreak.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """What training takes, in bytes, of a process that shares nothing with others."""

    frozen_bytes: int
    """Weights that stay as they are: of the base below an adapter, of a reference that stays in memory."""
    trainable_bytes: int
    """Weights that are trained."""
    optimizer_bytes: int
    """Their gradients and moments."""
    longest_bytes: int
    """Activations of the longest pair, and the head: what no strategy shares."""
    gathered_bytes: int = 0
    """What a process that holds a share has of others' weights at one time: the largest layers, whole."""
    cast_bytes: int = 0
    """What a process that holds all has twice: trained weights in the precision of the arithmetic, for a while."""

    @property
    def shared_bytes(self) -> int:
        """What sharding divides."""
        return self.frozen_bytes + self.trainable_bytes + self.optimizer_bytes

    @property
    def whole_bytes(self) -> int:
        """What one process takes that holds everything."""
        return self.shared_bytes + self.cast_bytes + self.longest_bytes

    def share_bytes(self, shares: int) -> int:
        """Return what one process takes that holds one of `shares` equal shares."""
        return -(-self.shared_bytes // shares) + self.gathered_bytes + self.longest_bytes


@dataclass(frozen=True)
class Chosen:
    """A strategy that is possible here, and why it is this one, in one sentence."""

    strategy: Literal["single", "ddp", "fsdp", "hsdp"]
    why: str
    shares: int = 1
    """Among how many processes the weights are divided; 1: each holds all."""


def choose_strategy(
    settings: DistributedConfig, processes: int, per_machine: int, needs: Needs, usable_bytes: int
) -> Chosen:
    """Return what `processes` do, of which each machine runs `per_machine`; settings that name a strategy are kept.

    `usable_bytes` is what a process may use of its device before any weight is there. `auto` shares only what does not
    fit: ddp sends gradients once a step, fsdp all weights twice for each micro-batch. Raises ConfigError for a strategy
    that these processes cannot follow.
    """
    _refuse(settings, processes, per_machine)
    asked, shares = settings.strategy, per_machine if settings.strategy == "hsdp" else processes
    share = f"one of {shares} shares takes {size(needs.share_bytes(shares))} a process"
    if asked in ("fsdp", "hsdp"):
        told = share if shares > 1 else "of one process, so that nothing is divided"
        return Chosen(asked, f"distributed.strategy says so; {told}", shares)
    if processes == 1:
        return Chosen("single", "there is one process; distributed.strategy: fsdp with several divides the weights")
    if asked == "ddp":
        return Chosen("ddp", f"distributed.strategy says so; each process takes {size(needs.whole_bytes)}")
    of = f"{size(needs.whole_bytes)} of {size(usable_bytes)} a process"
    if not settings.cpu_offload and needs.whole_bytes <= usable_bytes:
        return Chosen("ddp", f"all fits into each process ({of}), and a model that fits is not sharded")
    lacks = "" if needs.share_bytes(shares) <= usable_bytes else ", which does not fit either"
    reason = "distributed.cpu_offload is for shares" if settings.cpu_offload else f"not all fits into a process ({of})"
    return Chosen("fsdp", f"{reason}; {share}{lacks}", shares)


def _refuse(settings: DistributedConfig, processes: int, per_machine: int) -> None:
    asked = settings.strategy
    if asked == "single" and processes > 1:
        raise ConfigError(
            f"distributed.strategy single: {processes} processes were started; start one, or take auto, ddp or fsdp"
        )
    if settings.cpu_offload and asked in ("single", "ddp"):
        raise ConfigError(
            f"distributed.cpu_offload: {asked} keeps all weights where it computes; take distributed.strategy fsdp, or "
            "turn cpu_offload off"
        )
    if asked != "hsdp":
        return
    if processes % per_machine or processes <= per_machine:
        raise ConfigError(
            f"distributed.strategy hsdp: wanted several machines with the same number of processes each, found "
            f"{processes} processes, {per_machine} of them on this machine; take fsdp"
        )
    if per_machine == 1:
        raise ConfigError(
            "distributed.strategy hsdp: each machine has one process, which has nobody to share with on its machine; "
            "take fsdp, or ddp where the model fits"
        )


def size(num_bytes: int) -> str:
    """Return a number of bytes for people."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"
