"""Which pairs are learned from at which step.

Owns the sample order: a pure function of the pairs' count, the epoch and the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiebreak.config import TrainingConfig
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.records import TokenizedPair


@dataclass(frozen=True)
class Step:
    """The pairs behind one optimizer step; `index` counts from 0 over the whole run."""

    index: int
    epoch: int
    pairs: tuple[TokenizedPair, ...]

    @property
    def num_unique_tokens(self) -> int:
        """Tokens of the step, each pair's prompt counted once."""
        return sum(pair.num_unique_tokens for pair in self.pairs)


def num_steps(num_pairs: int, config: TrainingConfig) -> int:
    """Return the optimizer steps of a run; the last step of an epoch may hold fewer pairs."""
    return config.epochs * -(-num_pairs // config.pairs_per_step)


def steps(pairs: Sequence[TokenizedPair], config: TrainingConfig, first: int = 0) -> Iterator[Step]:
    """Yield every step of a run from index `first` on; each epoch takes every pair exactly once."""
    index = 0
    for epoch in range(config.epochs):
        order = list(range(len(pairs)))
        if config.shuffle:
            random.Random(derive_seed(config.seed, "order", epoch)).shuffle(order)  # noqa: S311 - not for secrets
        for start in range(0, len(order), config.pairs_per_step):
            if index >= first:
                yield Step(index, epoch, tuple(pairs[i] for i in order[start : start + config.pairs_per_step]))
            index += 1


def order_digest(before: str, step: Step) -> str:
    """Return the digest of the sample order up to and with a step, from that of the order before it."""
    return fingerprint([before, [pair.pair_id for pair in step.pairs]])


def named(pairs: Sequence[TokenizedPair]) -> str:
    """Return the first few content hashes, as messages give them."""
    return ", ".join(pair.pair_id[:12] for pair in pairs[:4]) + ("…" if len(pairs) > 4 else "")
