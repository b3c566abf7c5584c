"""Several processes that train one policy: how they find each other, take part in tasks, and notice one that is gone.

Owns the process group and all that is sent over it. The launcher (torchrun, accelerate launch, Ray Train, …) says how
many there are, by the environment; it starts them and ends them. A rank that dies or hangs ends the job in bounded
time: whoever waits for it fails, the first process says which one it was, and the same command goes on from the last
checkpoint.

What is sent is Python's own form of objects, between the processes of one job and over the network that the launcher
chose, as torch.distributed does it. Nothing of it is written to a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from tiebreak import faults
from tiebreak.engine.ranks import Ranks, dealt
from tiebreak.errors import NotFinite, TrainingError, one_line
from tiebreak.records import Example

E = TypeVar("E", bound=Example)
T = TypeVar("T")
P = ParamSpec("P")

BUCKET = 2**24
"""Numbers of gradients that are sent at once."""
BEAT_SECONDS = 1.0
"""Between two signs of life."""
PATIENCE = 5
"""Beats that may be missing before somebody who was lost is looked for among those that do not beat."""
IDLE = timedelta(days=30)
"""How long the others wait for a task while the first process reads data or writes."""


@contextlib.contextmanager
def joined(timeout_seconds: float) -> Iterator[Ranks]:
    """Yield the processes of this job; to the others that is when the first one has left the block.

    Each waits so long for another one.
    """
    ranks = Together.begun(timedelta(seconds=timeout_seconds))
    try:
        if not ranks.writes:
            ranks.follow()
        yield ranks
    finally:
        ranks.end()


class Together:
    """A run of several processes."""

    def __init__(self, store: Any, timeout: timedelta) -> None:
        """The process group is there; `store` is shared by all."""
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.writes = self.rank == 0
        self.kept: dict[str, Any] = {}
        self._within = self._broken = False
        self._waiting = dist.new_group(backend="gloo", timeout=IDLE)
        self._pulse = Pulse(store, self.rank, self.size, timeout.total_seconds())
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @classmethod
    def begun(cls, timeout: timedelta) -> Together:
        """Join the others, or whoever has started the group already (Ray Train)."""
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        if not dist.is_initialized():
            store, rank, size = next(rendezvous("env://", timeout=timeout))
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        else:
            store = dist.distributed_c10d._get_default_store()
        return cls(dist.distributed_c10d.PrefixStore("tiebreak", store), timeout)

    @property
    def num_asked(self) -> int:
        """All of them, or within a task one."""
        return 1 if self._within else self.size

    def run(self, task: Callable[Concatenate[Ranks, P], T], *args: P.args, **named: P.kwargs) -> T:
        """Carry it out in all processes.

        Raises TrainingError, with the rank that was lost, where one does not take part.
        """
        if self._within:
            return task(self, *args, **named)
        self._within = True
        try:
            self._pulse.step()
            dist.broadcast_object_list([(task, args, named)], src=0, group=self._waiting)
            found = task(self, *args, **named)
        except NotFinite:  # all ranks agreed on it
            raise
        except BaseException as error:
            self._broken = True
            if isinstance(error, RuntimeError) and (lost := self._pulse.lost(error)):
                raise TrainingError(
                    f"{lost}; the job ends here, and the same command goes on from the last checkpoint"
                ) from None
            raise
        finally:
            self._within = False
        return found

    def follow(self) -> None:
        """Take part in tasks until the first process has no more; its signals are for it alone."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU):
            signal.signal(number, signal.SIG_IGN)
        self._within = True
        while True:
            told: list[Any] = [None]
            try:
                dist.broadcast_object_list(told, src=0, group=self._waiting)
            except RuntimeError:  # it is gone, and has said why, or the launcher does
                raise SystemExit(1) from None
            if told[0] is None:
                return
            task, args, named = told[0]
            self._pulse.step()
            try:
                faults.point("other:task")
                task(self, *args, **named)
            except NotFinite:
                continue
            except BaseException as error:
                self._pulse.fail(error)
                raise

    def end(self) -> None:
        """Let the others go, and leave the group."""
        self._pulse.end()
        if self.writes and not self._broken:
            with contextlib.suppress(RuntimeError):
                dist.broadcast_object_list([None], src=0, group=self._waiting)
        with contextlib.suppress(RuntimeError, ValueError):
            dist.destroy_process_group()

    def shares(self, examples: Sequence[Example]) -> list[list[int]]:
        """Deal examples out by their unique tokens."""
        return dealt(examples, self.size)

    def deal(self, examples: Sequence[E]) -> list[E]:
        """Return the own share."""
        return [examples[place] for place in self.shares(examples)[self.rank]]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        found = values.detach().clone()
        self._arrive()
        dist.all_reduce(found)
        return found

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes."""
        shapes = self.collect(tuple(rows.shape))
        rest = next((shape[1:] for shape in shapes if shape[0]), shapes[0][1:])
        most = max(shape[0] for shape in shapes)
        own = rows.new_zeros((most, *rest))
        if len(rows):
            own[: len(rows)] = rows.detach()
        found = [torch.empty_like(own) for _ in shapes]
        self._arrive()
        dist.all_gather(found, own)
        return torch.cat([part[: shape[0]] for part, shape in zip(found, shapes, strict=True)])

    def collect(self, value: T) -> list[T]:
        """Return a value of each process."""
        found: list[Any] = [None] * self.size
        self._arrive()
        dist.all_gather_object(found, value)
        return found

    def any(self, flag: bool) -> bool:
        """Say whether any process says so."""
        return bool(self.total(torch.tensor(float(flag), device=self._device)) > 0)

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Send tensors from the first process, one at a time."""
        for tensor in tensors:
            self._arrive()
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, src=0)
            if whole.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(whole)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add gradients up, in buckets; a parameter that has none anywhere stays without."""
        had = self.total(torch.tensor([float(p.grad is not None) for p in parameters], device=self._device)).tolist()
        used = [p for p, num in zip(parameters, had, strict=True) if num]
        for bucket in _buckets(used):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
            self._arrive()
            dist.all_reduce(flat)
            for parameter, own in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = own.view_as(parameter)

    def _arrive(self) -> None:
        self._pulse.step()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield parameters of one dtype, together of about the size that is sent at once."""
    for dtype in dict.fromkeys(p.dtype for p in parameters):
        bucket: list[nn.Parameter] = []
        for parameter in (p for p in parameters if p.dtype == dtype):
            bucket.append(parameter)
            if sum(p.numel() for p in bucket) >= BUCKET:
                yield bucket
                bucket = []
        if bucket:
            yield bucket


class Pulse:
    """Signs of life of all processes, in the store that they share.

    A thread of each writes that it lives, and looks whether the others do: a process that is stopped, or whose machine
    is gone, is noticed although nothing fails. One that lives and hangs is told by where it stands: behind the others.
    """

    def __init__(self, store: Any, rank: int, size: int, patience: float) -> None:
        self._store, self._rank, self._size, self._patience = store, rank, size, patience
        self._place = 0
        self._over = threading.Event()
        self._store.set(f"who {rank}", f"rank {rank} of {size} ({socket.gethostname()}, process {os.getpid()})")
        self._store.set(f"beat {rank}", "0")
        self._store.set(f"place {rank}", "0")
        self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
        self._thread.start()

    def step(self) -> None:
        """Say how far this process has come."""
        self._place += 1
        self._store.set(f"place {self._rank}", str(self._place))

    def fail(self, error: BaseException) -> None:
        """Say why this process ends."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"failed {self._rank}", one_line(error, 300) or type(error).__name__)

    def end(self) -> None:
        """Stop beating."""
        self._over.set()

    def lost(self, error: BaseException) -> str | None:
        """Return who is gone or hangs, in words; None where all are well and the error is one of this process."""
        if not isinstance(error, dist.DistError) and not _is_of_the_group(error):
            return None
        others = [rank for rank in range(self._size) if rank != self._rank]
        try:
            before = {rank: self._store.get(f"beat {rank}") for rank in others}
            time.sleep(PATIENCE * BEAT_SECONDS)
            for rank in others:
                if self._store.check([f"failed {rank}"]):
                    return f"{self._who(rank)} failed: {self._store.get(f'failed {rank}').decode()}"
            silent = [rank for rank in others if self._store.get(f"beat {rank}") == before[rank]]
            if silent:
                return f"{' and '.join(map(self._who, silent))} died or was stopped"
            places = {rank: int(self._store.get(f"place {rank}")) for rank in others}
        except RuntimeError:
            return f"the store of the job is gone ({one_line(error, 160)})"
        behind = [rank for rank in others if places[rank] < self._place]
        named = " and ".join(map(self._who, behind)) or "another rank"
        return f"{named} did not take part for {self._patience:g} s (distributed.timeout_seconds) and hangs"

    def _who(self, rank: int) -> str:
        return str(self._store.get(f"who {rank}").decode())

    def _beat(self) -> None:
        store, num, seen = self._store, 0, dict[int, tuple[bytes, float]]()
        failed_since: float | None = None
        while not self._over.wait(BEAT_SECONDS):
            num += 1
            try:
                store.set(f"beat {self._rank}", str(num))
                for rank in range(self._size):
                    beat, now = store.get(f"beat {rank}"), time.monotonic()
                    if rank not in seen or seen[rank][0] != beat:
                        seen[rank] = beat, now
                    elif now - seen[rank][1] > self._patience:
                        self._leave(f"{self._who(rank)} has given no sign of life for {self._patience:g} s")
                    if rank != self._rank and store.check([f"failed {rank}"]):
                        failed_since = failed_since or now
                        if now - failed_since > self._patience:
                            told = store.get(f"failed {rank}").decode()
                            self._leave(f"{self._who(rank)} failed: {told}")
            except RuntimeError:
                return  # the store is gone with the job

    def _leave(self, why: str) -> None:
        """End this process, whose main thread waits for somebody who will not come."""
        if self._over.is_set():
            return
        sys.stderr.write(f"error: {why}; the job ends, and the same command goes on from the last checkpoint\n")
        sys.stderr.flush()
        os._exit(1)


def _is_of_the_group(error: BaseException) -> bool:
    told = str(error).lower()
    return any(word in told for word in ("gloo", "nccl", "peer", "timed out", "connection", "socket"))
