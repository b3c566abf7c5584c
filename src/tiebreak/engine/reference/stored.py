"""A reference that remembers: values of a live reference, kept in a store.

Owns when the live reference is asked and when the store is believed. A value is asked for once, by whatever run, epoch
or sweep comes first; some are computed again at every start and compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from torch import Tensor, nn

from tiebreak.engine.reference.kinds import FrozenCopy, Reference
from tiebreak.engine.reference.shard import Shard
from tiebreak.engine.reference.store import LogpStore, completion_key
from tiebreak.maths.logps import PairLogps, TokenLogps
from tiebreak.records import TokenizedPair

Rows = tuple[Tensor, Tensor]
# Mean difference relative to the mean |log p| of a token: the same weights in another micro-batch round a little
# differently; other weights or another template are off by far more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class StoredReference:
    """Answers from the store where it can, and asks the live reference where it must."""

    def __init__(self, live: Reference, open_store: Callable[[], LogpStore], device: torch.device) -> None:
        """`open_store` is called when the first value is wanted: it takes a digest of all weights."""
        self.live = live
        self.identity = live.identity
        self._open_store = open_store
        self._device = device
        self._own: dict[bytes, Tensor] = {}
        self._sealed = False
        self.num_live = 0
        """Pairs that the live reference was asked for."""

    def tokens(self, pairs: Sequence[TokenizedPair]) -> TokenLogps:
        """Return the log-probability of every scored token, on the device."""
        missing = list(dict.fromkeys(pair for pair in pairs if self._stored(pair) is None))
        fresh = dict(zip(missing, self._ask(missing), strict=True))
        rows = [fresh.get(pair) or self._stored(pair) for pair in pairs]
        chosen, rejected = zip(*(row for row in rows if row is not None), strict=True)
        return TokenLogps(tuple(pairs), torch.cat(chosen).to(self._device), torch.cat(rejected).to(self._device))

    def logps(self, pairs: Sequence[TokenizedPair]) -> PairLogps:
        """Return the log-probabilities of whole completions."""
        return self.tokens(pairs).summed()

    def digest(self) -> str:
        """Return the fingerprint of the live reference's weights."""
        return self.live.digest()

    def model(self) -> AbstractContextManager[nn.Module]:
        """Yield the live reference as a model."""
        return self.live.model()

    def missing(self, pairs: Sequence[TokenizedPair]) -> list[TokenizedPair]:
        """Return the pairs that the store does not know."""
        return [pair for pair in pairs if self._stored(pair) is None]

    def pin(self, pairs: Sequence[TokenizedPair]) -> None:
        """Take the stored values of a run's pairs for its own; from now on what others store changes nothing.

        The last bits of a value depend on the micro-batch that it was computed in. So a run that goes on must find the
        values that it had, and no others: they are in its checkpoints.
        """
        self.missing(pairs)
        self._sealed = True

    def rows(self) -> dict[str, Tensor]:
        """Return the run's own values as tensors for a file."""
        return Shard.of(self._own).tensors() if self._own else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take for the run's own what `rows` returned when a checkpoint was written."""
        self._own, self._sealed = Shard(**tensors).rows() if tensors else {}, True

    def flush(self) -> None:
        """Write what was computed since the last time."""
        if "_store" in vars(self):
            self._store.flush()

    def release(self) -> None:
        """Let go of the weights of a frozen copy, where the reference is one."""
        if isinstance(self.live, FrozenCopy):
            self.live.release()

    def spot_check(self, pairs: Sequence[TokenizedPair], num: int, dtype: torch.dtype) -> str | None:
        """Compute `num` random stored pairs again; where they differ, empty the store and say what was found."""
        known = [pair for pair in pairs if self._stored(pair) is not None]
        if not known or not num:
            return None
        drawn = random.SystemRandom().sample(known, min(num, len(known)))
        stored, fresh = self.tokens(drawn), self.live.tokens(drawn)
        one, two = (torch.cat([tokens.chosen, tokens.rejected]) for tokens in (stored, fresh))
        apart = float((one - two).abs().mean() / two.abs().mean().clamp(min=1))
        if apart <= TOLERANCE[dtype]:  # not "apart > …": a NaN is a difference
            return None
        self._own.clear()
        where = self._store.forget()
        return (
            f"stored reference log-probabilities differ from the model's by {apart:.2g} of their size; "
            f"they were set aside{f' in {where}' if where else ''} and are computed again"
        )

    @cached_property
    def _store(self) -> LogpStore:
        return self._open_store()

    def _stored(self, pair: TokenizedPair) -> Rows | None:
        chosen, rejected = (self._row(completion_key(pair.prompt_ids, ids)) for ids in _completions(pair))
        # Lengths are compared although they are part of the key: a wrong row must not become a wrong sum.
        if chosen is None or rejected is None or [len(chosen), len(rejected)] != [len(c) for c in _completions(pair)]:
            return None
        return chosen, rejected

    def _row(self, key: bytes) -> Tensor | None:
        if key not in self._own and not self._sealed and (stored := self._store.get(key)) is not None:
            self._own[key] = stored
        return self._own.get(key)

    def _keep(self, key: bytes, row: Tensor) -> None:
        self._store.put(key, row)
        self._own.setdefault(key, row)

    def _ask(self, pairs: Sequence[TokenizedPair]) -> list[Rows]:
        if not pairs:
            return []
        self.num_live += len(pairs)
        found = [(chosen.cpu(), rejected.cpu()) for chosen, rejected in self.live.tokens(pairs).by_pair()]
        for pair, rows in zip(pairs, found, strict=True):
            for ids, row in zip(_completions(pair), rows, strict=True):
                if row.isfinite().all():  # what is not finite stops training with the pair's name, and is not kept
                    self._keep(completion_key(pair.prompt_ids, ids), row)
        self._store.flush_when_due()
        return found


def _completions(pair: TokenizedPair) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return pair.chosen_ids, pair.rejected_ids
