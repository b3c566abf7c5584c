"""A reference that remembers: values of another reference, kept in a store.

Owns when the reference is asked and when the store is believed. A value is asked for once, by whatever run, epoch or
sweep comes first; some are computed again at every start and compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.reference.shard import Shard
from tiebreak.engine.reference.store import LogpStore, completion_key
from tiebreak.engine.scorer import Cut
from tiebreak.engine.sources import Source
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.progress import Progress
from tiebreak.records import Example, unit_of

# Mean difference relative to the mean |log p| of a token: the same weights in another micro-batch round a little
# differently; other weights or another template are off by far more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


class Stored:
    """Answers from the store where it can, and asks the reference that it wraps where it must."""

    def __init__(
        self, asked: Reference, open_store: Callable[[], LogpStore], *, device: torch.device, dtype: torch.dtype,
        spot_checks: int, beside: Statistic | None = None,
    ) -> None:  # fmt: skip
        """`open_store` is called when the first value is wanted: it takes a digest of all weights.

        Where `beside` is given, a row of the store is a completion's log-probabilities, and behind them what this
        statistic says of each token's distribution.
        """
        self.identity = asked.identity
        self.dear, self.model_is_dear = False, asked.model_is_dear
        self._asked = asked
        self._open_store = open_store
        self._device = device
        self._dtype = dtype
        self._spot_checks = spot_checks
        self._beside = beside
        self._own: dict[bytes, Tensor] = {}
        self._sealed = False
        self.num_asked = self._told = 0
        """Examples that the wrapped reference was asked for."""
        self.on_kept: Callable[[int], None] = lambda _: None
        """Told of `num_asked` whenever all that was said is written: a run that is killed then has counted it."""

    @property
    def source(self) -> Source:
        """Where the wrapped reference's weights come from."""
        return self._asked.source

    @property
    def num_bytes(self) -> int:
        """Bytes of weights that asking its model brings into memory."""
        return self._asked.num_bytes

    @property
    def is_kept(self) -> bool:
        """Whether a run keeps a copy of the wrapped reference."""
        return self._asked.is_kept

    @cached_property
    def weights(self) -> str:
        """The digest of the wrapped reference's weights, taken once: it costs a pass over all bytes."""
        with self._asked.model() as model:
            return model.digest()

    def logps(self, examples: Sequence[Example], beside: Statistic | None = None) -> TokenLogps:
        """Return the log-probability of every scored token, on the device, with the statistic that is stored.

        For another one the reference is asked.
        """
        if beside is not None and beside is not self._beside:
            return self._asked.logps(examples, beside)
        asked = set(self.missing(examples))
        fresh = self._computed([example for example in dict.fromkeys(examples) if example in asked])
        rows = [(fresh if example in asked else self._own)[key] for example in examples for key in _keys(example)]
        if self._beside is None:
            return TokenLogps(torch.cat(rows).to(self._device, non_blocking=True), tuple(map(len, rows)))
        halves = [row.chunk(2) for row in rows]
        values, numbers = (torch.cat(part).to(self._device, non_blocking=True) for part in zip(*halves, strict=True))
        return TokenLogps(values, tuple(len(half) for half, _ in halves), numbers)

    def begin(self, examples: Sequence[Example], cut: Cut, progress: Progress) -> None:
        """Verify what is stored and take it for the run's own; ask a dear reference for all that is not.

        The last bits of a value depend on the micro-batch that it was computed in. So a run that goes on must find the
        values that it had, and no others: from here on what others store changes nothing.
        """
        finding = self._spot_check(examples)
        if finding:
            progress.warn(finding)
        self._sealed = self._sealed and finding is None
        missing = self.missing(examples)
        self._sealed = True
        if len(missing) < len(examples):
            found, all_of_them = len(examples) - len(missing), f"{len(examples)} {unit_of(examples)}"
            progress.say(f"reference: {found} of {all_of_them} are stored from earlier runs")
        if self._asked.dear and missing:
            with progress.stage("reference", len(missing)) as advance:
                # Grouped as if nothing were stored: after a kill each is computed in the company that it had before.
                for group in cut(examples):
                    if asked := self.missing(group):
                        faults.point("reference")
                        self._computed(asked)
                        advance(len(asked))
            self.flush()
        self._asked.begin(examples, cut, progress)

    def moved(self, step: int) -> Mapping[str, float]:
        """Tell the wrapped reference."""
        return self._asked.moved(step)

    def model(self) -> AbstractContextManager[Model]:
        """Yield the wrapped reference as a model."""
        return self._asked.model()

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Return the examples of which some completion is not known."""
        return [example for example in examples if not self._is_known(example)]

    def flush(self) -> None:
        """Write what was computed since the last time."""
        if "_store" in vars(self):
            self._store.flush()
            self._tell_kept()

    def own(self, folder: Path) -> OwnValues:
        """Return the run's own values as the part of a checkpoint that keeps them in a folder of the run."""
        return OwnValues(self, folder)

    @property
    def own_rows(self) -> Mapping[bytes, Tensor]:
        """The run's own values by their keys, in the order in which it came by them."""
        return self._own

    def take_own(self, rows: Mapping[bytes, Tensor]) -> None:
        """Take these for the run's own values, and none that the store has come by since."""
        self._own, self._sealed = dict(rows), True

    @cached_property
    def _store(self) -> LogpStore:
        return self._open_store()

    def _is_known(self, example: Example) -> bool:
        known = []
        for key, completion in zip(_keys(example), example.completions, strict=True):
            row = self._own.get(key)
            if row is None and not self._sealed:
                row = self._store.get(key)
            # Lengths are compared although they are part of the key: a wrong row must not become a wrong sum.
            known.append(row is not None and len(row) == len(completion) * (1 if self._beside is None else 2))
            if row is not None and known[-1]:
                self._own[key] = row
        return all(known)

    def _computed(self, examples: Sequence[Example]) -> dict[bytes, Tensor]:
        """Ask the wrapped reference, and keep what it says."""
        if not examples:
            return {}
        self.num_asked += len(examples)
        said = self._asked.logps(examples, self._beside)
        rows = [row.cpu() for row in said.rows()]
        if said.beside is not None:
            rows = [torch.cat([row, more.cpu()]) for row, more in zip(rows, said.rows_beside(), strict=True)]
        found = dict(zip((key for example in examples for key in _keys(example)), rows, strict=True))
        for key, row in found.items():
            if row.isfinite().all():  # what is not finite stops training with the example's name, and is not kept
                self._store.put(key, row)
                self._own.setdefault(key, row)
        self._store.flush_when_due()
        self._tell_kept()
        return found

    def _tell_kept(self) -> None:
        if self.num_asked != self._told and not self._store.is_waiting:
            self._told = self.num_asked
            self.on_kept(self.num_asked)

    def _spot_check(self, examples: Sequence[Example]) -> str | None:
        """Compute some random stored examples again; where they differ, empty the store and say what was found."""
        unknown = set(self.missing(examples))
        known = [example for example in examples if example not in unknown]
        if not known or not self._spot_checks:
            return None
        drawn = random.SystemRandom().sample(known, min(self._spot_checks, len(known)))
        stored, fresh = self.logps(drawn).values, self._asked.logps(drawn).values
        apart = float((stored - fresh).abs().mean() / fresh.abs().mean().clamp(min=1))
        if apart <= TOLERANCE[self._dtype]:  # not "apart > …": a NaN is a difference
            return None
        self._own = {}
        where = self._store.forget()
        return (
            f"stored reference log-probabilities differ from the model's by {apart:.2g} of their size; "
            f"they were set aside{f' in {where}' if where else ''} and are computed again"
        )


class OwnValues:
    """The part of a checkpoint that says what the reference had said by then: names of shards, and no values.

    A shard is written once, when a checkpoint first needs it, and never changed; so a run keeps each value once however
    many checkpoints it has, and does not depend on the shared store.
    """

    name = "reference"

    def __init__(self, reference: Stored, folder: Path) -> None:
        self._reference = reference
        self._folder = folder
        self._shards: list[Path] = []
        self._written: tuple[Mapping[bytes, Tensor], int] = ({}, 0)
        """The rows that the shards hold: the first so many of these."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Write what is new as one more shard; return the digests of all of them."""
        self._reference.flush()  # to the shared store first, so that what this run asked is not asked anew
        rows, (before, num) = self._reference.own_rows, self._written
        if rows is not before:  # set aside by a spot check, or this is the first checkpoint
            self._shards, num = [], 0
        if len(rows) > num:
            self._folder.parent.mkdir(exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            self._shards.append(Shard.of(dict(islice(rows.items(), num, None))).write(self._folder))
        self._written = rows, len(rows)
        joined = bytearray(b"".join(bytes.fromhex(path.stem) for path in self._shards))
        return {"shards": torch.frombuffer(joined, dtype=torch.uint8).view(-1, 32)} if joined else {}

    def beside(self) -> Sequence[Path]:
        """Return the shards that the last tensors name; each is called by the SHA-256 of its bytes."""
        return tuple(self._shards)

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take for the run's own what it had when the checkpoint was written; the shards have been verified."""
        names = [bytes(row.tolist()).hex() for row in tensors.get("shards", ())]
        self._shards = [self._folder / f"{name}.safetensors" for name in names]
        rows: dict[bytes, Tensor] = {}
        for path in self._shards:
            rows |= Shard.read(path.read_bytes(), path.stem).rows()
        self._reference.take_own(rows)
        self._written = self._reference.own_rows, len(rows)


def _keys(example: Example) -> list[bytes]:
    return [completion_key(example.prompt_ids, completion) for completion in example.completions]
