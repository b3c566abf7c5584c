"""A reference that follows the policy: every so many steps its weights become a mean of its own and the policy's.

Owns when and how it moves (TR-DPO, Gorbatovski et al. 2024, 2404.09656: soft and hard updates), and that its weights
are a part of a checkpoint. It is what steps are compared with; what is measured is measured against its start, so that
runs can be compared.

Of adapters the factors are averaged, each with its own: the mean of A times the mean of B, which is not the mean of the
products. A copy (`share` 1) is exact. Both adapters start from one A, and B = 0: two drawn apart would have no mean of
any meaning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tiebreak.config import MovesConfig
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.engine.sources import Source
from tiebreak.engine.tasks import restore, whole
from tiebreak.engine.weights import parameters_of
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.progress import Progress
from tiebreak.records import Example

MOVING_ADAPTER = "moving"
_NUM_MOVES, _RESTORED = "num_moves", "what the reference goes back to"


class Moving:
    """The starting reference at first, and nearer to the policy with every move; also the part of a checkpoint."""

    name = "moving"

    def __init__(self, policy: Model, start: Reference, follower: Reference, moves: MovesConfig) -> None:
        """`follower` holds weights of its own, equal to those of `start`."""
        self._policy = policy
        self._start = start
        self._follower = follower
        self._moves = moves
        self.dear = self.model_is_dear = follower.dear
        self.num_moves = 0
        how = "becomes the policy" if moves.share == 1 else f"moves {moves.share:g} of the way to the policy"
        self.identity = (
            f"{start.identity}; steps compare with a copy that {how} every {moves.every} steps, what is measured with "
            "its start"
        )

    @property
    def source(self) -> Source:
        """Where its weights come from at the start."""
        return self._start.source

    @property
    def num_bytes(self) -> int:
        """Bytes of weights that it holds and that are not in memory before it is asked."""
        return self._follower.num_bytes

    @property
    def is_kept(self) -> bool:
        """Whether a run keeps a copy of its start."""
        return self._start.is_kept

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Score with its weights of now."""
        return self._follower.logps(examples, beside)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Let its start get ready, which is measured against; its own weights stay."""
        self._start.begin(examples, cut, progress)

    def moved(self, step: int) -> Mapping[str, float]:
        """Where a move is due, take `share` of the policy's weights and the rest of its own."""
        if step % self._moves.every:
            return {}
        with self._follower.model() as own:
            policy = self._policy
            policy.ranks.run(_followed, policy.key, policy.adapter, own.key, own.adapter, self._moves.share)
        self.num_moves += 1
        return {"reference_moves": self.num_moves}

    def model(self) -> AbstractContextManager[Model]:
        """Yield it as it is now."""
        return self._follower.model()

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest says of it: how it moves, how often it has, and its weights by content."""
        with self.model() as now:
            return {**self._moves.model_dump(), _NUM_MOVES: self.num_moves, "weights": now.digest()}

    def tensors(self) -> Mapping[str, Tensor]:
        """Return its weights, and how often they have moved."""
        with self._follower.model() as own:
            weights = own.ranks.run(_whole, own.key, own.adapter)
        return weights | {_NUM_MOVES: torch.tensor(self.num_moves)}

    def beside(self) -> Sequence[Path]:
        """Return nothing."""
        return ()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` returned."""
        with self._follower.model() as own:
            own.ranks.kept[_RESTORED] = tensors
            own.ranks.run(_restore, own.key, own.adapter)
        self.num_moves = int(tensors[_NUM_MOVES])


def _followed(ranks: Ranks, key: str, adapter: str | None, own_key: str, own_adapter: str | None, share: float) -> None:
    """Move weights `share` of the way to others, in this process."""
    theirs = parameters_of(ranks.kept[key].network, adapter)
    with torch.no_grad():
        for name, own in parameters_of(ranks.kept[own_key].network, own_adapter).items():
            own.lerp_(theirs[name], share)


def _whole(ranks: Ranks, key: str, adapter: str | None) -> dict[str, Tensor]:
    """Return weights; nothing in other processes than the first."""
    return whole(ranks, parameters_of(ranks.kept[key].network, adapter).items())


def _restore(ranks: Ranks, key: str, adapter: str | None) -> None:
    """Give weights the numbers that the first process has read."""
    tensors = ranks.kept.pop(_RESTORED, {})
    for name, own in parameters_of(ranks.kept[key].network, adapter).items():
        restore(ranks, own, tensors.get(name))
