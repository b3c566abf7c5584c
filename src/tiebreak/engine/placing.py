"""Where the weights of a model lie: in this process, in each of several, or in shares over them.

Owns that the first process alone reads and proves a model, and that the others have it then.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers

from tiebreak.config import AdapterConfig, DistributedConfig
from tiebreak.engine import probes
from tiebreak.engine.loading import quietly
from tiebreak.engine.memory import usable_bytes
from tiebreak.engine.model import Model
from tiebreak.engine.planner import USABLE
from tiebreak.engine.quantization import expected_bytes
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.shapes import shape_of
from tiebreak.engine.sharding import mesh_of, replicate, require_sharded, shard
from tiebreak.engine.sources import Source, explained
from tiebreak.engine.strategy import Chosen, Needs, choose_strategy
from tiebreak.errors import ModelError

PLACING = "placing"
"""What the ranks keep how models are placed as."""
_COMING = "a model that is to be placed"


@dataclass(frozen=True)
class Placing:
    """How models of a run are placed."""

    chosen: Chosen
    settings: DistributedConfig
    device: str
    """The kind of device that is computed on."""

    @property
    def loads_on(self) -> torch.device:
        """Where the first process loads a model: in main memory, where a device cannot be expected to hold it."""
        return torch.device(self.device if self.chosen.strategy in ("single", "ddp") else "cpu")

    def told(self, ranks: Ranks) -> str | None:
        """Return what a plan says of it; None of one process."""
        return None if ranks.size == 1 else f"{ranks.size} processes, {self.chosen.strategy}: {self.chosen.why}"


def begin_placing(
    ranks: Ranks,
    settings: DistributedConfig,
    device: torch.device,
    source: Source,
    width: torch.dtype,
    adapter: AdapterConfig,
) -> Placing:
    """Return how the models of a run are placed, whose policy comes from a source; what was kept before is let go.

    Raises ConfigError for a strategy that these processes cannot follow, ModelError for weights that only one can have.
    """
    ranks.run(_forget)
    if ranks.size == 1:
        chosen = Chosen("single", "there is one process")
    elif source.quantization:
        raise ModelError(
            f"quantization {source.quantization.told}: weights in four bits are not sent to other processes yet; start "
            "one process, or take quantization out (distributed.strategy fsdp shares the weights)"
        )
    else:
        per_machine, usable = ranks.run(_neighbours, device.type)
        needs = _needs_of(source, width, has_adapter=not adapter.trains_all, narrow=device.type != "cpu")
        chosen = choose_strategy(settings, ranks.size, per_machine, needs, usable)
    placing = Placing(chosen, settings, device.type)
    ranks.kept[PLACING] = placing
    return placing


def empty_of(source: Source) -> Any:
    """Return a base model without its numbers, by its configuration alone."""
    with explained(source.base), quietly(), torch.device("meta"):
        shape = shape_of(source.base, source.revision)
        return transformers.AutoModelForCausalLM.from_config(shape, trust_remote_code=False)


def _needs_of(source: Source, width: torch.dtype, *, has_adapter: bool, narrow: bool) -> Needs:
    """Return what training takes of a process that shares nothing, before activations, which no strategy shares."""
    weights = expected_bytes(empty_of(source), source.quantization, width)
    if has_adapter:  # whose own weights are a hundredth of that
        return Needs(frozen_bytes=weights, trainable_bytes=0, optimizer_bytes=0, longest_bytes=0)
    # Narrow arithmetic holds trained weights a second time, in its own width.
    twice = weights // 2 if narrow else 0
    return Needs(
        frozen_bytes=0, trainable_bytes=weights, optimizer_bytes=3 * weights, longest_bytes=0, cast_bytes=twice
    )


def placed(model: Model, ranks: Ranks, key: str, placing: Placing) -> Model:
    """Return a model of the first process as all processes have it from now on, under a name."""
    if ranks.size == 1:
        found = replace(model, ranks=ranks, key=key)
        ranks.kept[key] = found
        return found
    ranks.kept[_COMING] = model
    return ranks.run(_placed, key, placing, probes.given())


def placing_of(model: Model) -> str | None:
    """Return how many processes have a model, how, and why, in words; None of one process."""
    placing: Placing = model.ranks.kept[PLACING]
    return placing.told(model.ranks)


def _forget(ranks: Ranks) -> None:
    """Let go of all that this process keeps."""
    ranks.kept.clear()


def _placed(ranks: Ranks, key: str, placing: Placing, answers: Mapping[str, bool]) -> Model:
    if not ranks.writes:  # the first process has loaded it, and asked; on other machines others might be faster
        probes.hold(answers)
    coming: Model | None = ranks.kept.pop(_COMING, None)
    device, chosen, settings = torch.device(placing.device), placing.chosen, placing.settings
    if chosen.strategy in ("single", "ddp"):
        found = replicate(coming, device)
    else:
        mesh = mesh_of(device, ranks.size // chosen.shares)
        found = shard(
            coming, mesh, reshard_after_forward=settings.reshard_after_forward, cpu_offload=settings.cpu_offload
        )
        require_sharded(found)
    found = replace(found, ranks=ranks, key=key)
    ranks.kept[key] = found
    return found


def _neighbours(ranks: Ranks, device: str) -> tuple[int, int]:
    """Return how many processes each machine has, the fewest, and the bytes that one of them may use of its device."""
    hosts = ranks.collect(socket.gethostname())
    num = min(map(hosts.count, hosts))
    own = int(os.environ.get("LOCAL_WORLD_SIZE", num))
    total = torch.cuda.mem_get_info()[1] if device == "cuda" else usable_bytes()[1] // max(1, num)
    return min(ranks.collect(own)), int(min(ranks.collect(int(total))) * USABLE)
