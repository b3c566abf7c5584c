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
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from tiebreak import faults
from tiebreak.engine.pulse import Pulse, ended, is_of_the_group
from tiebreak.engine.ranks import Ranks, dealt
from tiebreak.errors import NotFinite, Preempted, TrainingError
from tiebreak.records import Example

E = TypeVar("E", bound=Example)
T = TypeVar("T")
P = ParamSpec("P")

BUCKET = 2**24
"""Numbers of gradients that are sent at once."""
_JOBS = itertools.count()
"""Of one process after the other: what an earlier job left in the store is not of this one."""
IDLE = timedelta(days=30)
"""How long the others wait for a task while the first process reads data or writes."""


@contextlib.contextmanager
def joined(timeout_seconds: float, unheard: Sequence[int] = ()) -> Iterator[Ranks]:
    """Yield the processes of this job; to the others that is when the first one has left the block.

    Each waits so long for another one. The others take no notice of the signals `unheard`.
    """
    ranks = Together.begun(timedelta(seconds=timeout_seconds))
    try:
        if not ranks.writes:
            with _deaf(unheard):
                ranks.follow()
        yield ranks
    except Preempted:  # a launcher that sees a process die asks the others to end: say who it was
        if lost := ranks.lost():
            raise TrainingError(lost) from None
        raise
    finally:
        ranks.end()


@contextlib.contextmanager
def _deaf(numbers: Sequence[int]) -> Iterator[None]:
    """Take no notice of signals for a while: they are for the first process, which tells the others when all is over.

    Outside the main thread, which gets them, there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Together:
    """A run of several processes."""

    def __init__(self, store: Any, timeout: timedelta, *, is_ours: bool) -> None:
        """The process group is there, and `is_ours` to end; `store` is shared by all."""
        self._is_ours = is_ours
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.writes = self.rank == 0
        self.kept: dict[str, Any] = {}
        self._within = self._broken = False
        # The first process waits for the others as long as anywhere else; they wait while it reads.
        self._waiting = dist.new_group(backend="gloo", timeout=timeout if self.writes else IDLE)
        self._pulse = Pulse(store, self.rank, self.size, timeout.total_seconds())
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @classmethod
    def begun(cls, timeout: timedelta) -> Together:
        """Join the others, or whoever has started the group already (Ray Train)."""
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        is_ours = not dist.is_initialized()
        if is_ours:
            store, rank, size = next(rendezvous("env://", timeout=timeout))
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
        else:
            store = dist.distributed_c10d._get_default_store()
        return cls(dist.distributed_c10d.PrefixStore(f"tiebreak {next(_JOBS)}", store), timeout, is_ours=is_ours)

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
            if is_of_the_group(error):
                raise TrainingError(ended(self._pulse.lost() or self._pulse.behind())) from None
            raise
        finally:
            self._within = False
        return found

    def follow(self) -> None:
        """Take part in tasks until the first process has no more."""
        self._within = True
        while True:
            told: list[Any] = [None]
            try:
                dist.broadcast_object_list(told, src=0, group=self._waiting)
                if told[0] is None:
                    return
                task, args, named = told[0]
                faults.point("other:task")
                self._pulse.step()
                task(self, *args, **named)
            except NotFinite:
                continue
            except BaseException as error:
                self._leave(error)
                raise

    def _leave(self, error: BaseException) -> None:
        """End this process where another one is gone, which the first one tells; say why where it is this one's fault.

        Where the first one is gone, the second one tells.
        """
        if not is_of_the_group(error):
            self._pulse.fail(error)
            return
        lost = self._pulse.lost(0)
        if lost and self.rank == 1:
            sys.stderr.write(f"error: {ended(lost)}\n")
        raise SystemExit(1) from None

    def lost(self) -> str | None:
        """Return who is gone, in words; None where all are there."""
        found = self._pulse.lost()
        return found and ended(found)

    def end(self) -> None:
        """Let the others go, and end what was begun here: the group, unless it was there before."""
        self._pulse.end(over=self.writes)
        if self.writes and not self._broken:
            with contextlib.suppress(RuntimeError):
                dist.broadcast_object_list([None], src=0, group=self._waiting)
        with contextlib.suppress(RuntimeError, ValueError):
            dist.destroy_process_group(None if self._is_ours else self._waiting)
        # Its threads end where its last owner lets go of it, and here they may: one that still holds what was sent last
        # while the interpreter ends aborts the process, all of whose work is done.
        del self._waiting

    def shares(self, examples: Sequence[Example]) -> list[list[int]]:
        """Deal examples out by their unique tokens."""
        return dealt(examples, self.size)

    def deal(self, examples: Sequence[E]) -> list[E]:
        """Return the own share."""
        return [examples[place] for place in self.shares(examples)[self.rank]]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        found = values.detach().clone()
        self._pulse.step()
        dist.all_reduce(found)
        return found

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes."""
        told = self.collect((tuple(rows.shape), rows.dtype, rows.device.type))
        shapes = [shape for shape, *_ in told]
        full = [one for one in told if one[0][0]] or told
        if len({one[1:] for one in full}) > 1 or len({device for *_, device in told}) > 1:
            raise TypeError(f"processes gather what does not go together: {told}")
        rest, dtype = full[0][0][1:], full[0][1]
        most = max(shape[0] for shape in shapes)
        own = rows.new_zeros((most, *rest), dtype=dtype)
        if len(rows):
            own[: len(rows)] = rows.detach()
        found = [torch.empty_like(own) for _ in shapes]
        self._pulse.step()
        dist.all_gather(found, own)
        return torch.cat([part[: shape[0]] for part, shape in zip(found, shapes, strict=True)])

    def collect(self, value: T) -> list[T]:
        """Return a value of each process."""
        found: list[Any] = [None] * self.size
        self._pulse.step()
        dist.all_gather_object(found, value)
        return found

    def any(self, flag: bool) -> bool:
        """Say whether any process says so."""
        return bool(self.total(torch.tensor(float(flag), device=self._device)) > 0)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add gradients up, in buckets; a parameter that has none anywhere stays without."""
        had = self.total(torch.tensor([float(p.grad is not None) for p in parameters], device=self._device)).tolist()
        used = [p for p, num in zip(parameters, had, strict=True) if num]
        for bucket in _buckets(used):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket])
            self._pulse.step()
            dist.all_reduce(flat)
            for parameter, own in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = own.view_as(parameter)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yield parameters of one dtype, together of about the size that is sent at once."""
    for dtype in dict.fromkeys(p.dtype for p in parameters):
        bucket, num = list[nn.Parameter](), 0
        for parameter in (p for p in parameters if p.dtype == dtype):
            bucket.append(parameter)
            num += parameter.numel()
            if num >= BUCKET:
                yield bucket
                bucket, num = [], 0
        if bucket:
            yield bucket
