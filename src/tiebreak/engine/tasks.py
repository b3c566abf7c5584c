"""What all processes of a run do when the first one asks a model that each of them keeps.

Owns how what is asked is dealt out, and put together again in the order in which it was asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tiebreak.engine.ranks import Ranks
from tiebreak.engine.shares import full, put
from tiebreak.engine.weights import gathered_from
from tiebreak.errors import RunError
from tiebreak.maths.dealing import deal
from tiebreak.maths.distributions import Statistic
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example

if TYPE_CHECKING:
    from tiebreak.engine.answers.answerer import Sampling
    from tiebreak.engine.model import Model

Answered = list[tuple[tuple[int, ...], bool]]
WORK = "work"
"""What the first process keeps the work as that it alone has and others accompany."""


def scored(
    ranks: Ranks, key: str, adapter: str | None, examples: Sequence[Example], beside: Statistic | None
) -> TokenLogps:
    """Return what a model says of examples, each of which one process scores."""
    model, shares = ranks.kept[key], ranks.shares(examples)
    own = [examples[place] for place in shares[ranks.rank]]
    with _led(ranks, model, adapter) as asked, asked.asked(), torch.no_grad():
        said = asked.scorer.tokens(own, beside) if own else None
    nothing = torch.empty(0, device=model.device)
    values = ranks.gather(nothing if said is None else said.values)
    more = None
    if beside is not None:
        more = ranks.gather(nothing if said is None or said.beside is None else said.beside)
    lengths = [[len(completion) for completion in example.completions] for example in examples]
    order = [(place, number) for share in shares for place in share for number in range(len(lengths[place]))]
    found = TokenLogps(values, tuple(lengths[place][number] for place, number in order), more)
    return found.ordered(order)


def answered(
    ranks: Ranks, key: str, adapter: str | None, prompts: Sequence[tuple[int, ...]], sampling: Sampling
) -> Answered:
    """Return a model's answers to prompts, each of which one process answers; no answer hangs on its company."""
    model, hands = ranks.kept[key], deal([len(prompt) for prompt in prompts], ranks.size)
    with _led(ranks, model, adapter) as asked, asked.asked():
        own = asked.generated([prompts[place] for place in hands[ranks.rank]], sampling)
    num, found = sampling.num, dict[int, Answered]()
    for places, made in zip(hands, ranks.collect(own), strict=True):
        found |= {place: made[at * num : (at + 1) * num] for at, place in enumerate(places)}
    return [answer for place in range(len(prompts)) for answer in found[place]]


def accompany(ranks: Ranks, key: str) -> Any:
    """Do the first process's own work, the others making passes with it: no work that gives tasks of its own."""
    work = ranks.kept.pop(WORK, None)
    with ranks.kept[key].asked():
        return work() if work else None


def digest(ranks: Ranks, key: str, adapter: str | None) -> str:
    """Return the fingerprint of weights in shares."""
    found: str = replace(ranks.kept[key], adapter=adapter, in_shares=False).digest()
    return found


def gathered(ranks: Ranks, key: str, adapter: str | None) -> dict[str, Tensor]:
    """Return what of weights in shares is saved, whole, in main memory of the first process; nothing in the others."""
    return gathered_from(ranks.kept[key].network, adapter)


def checkpoint(ranks: Ranks, key: str) -> None:
    """Keep only the inputs of a model's layers for the backward pass."""
    ranks.kept[key].keep_only_inputs()


def whole(ranks: Ranks, tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return tensors whole, in main memory of the first process; nothing in the others. One of all ranks' tasks."""
    found = {}
    for name, tensor in tensors:
        one = full(tensor)
        if ranks.writes:
            found[name] = one.cpu().contiguous()
    return found


def restore(ranks: Ranks, into: Tensor, tensor: Tensor | None) -> None:
    """Give a tensor, or the shares of one, what the first process has read; the others have None."""
    if ranks.writes and (tensor is None or tensor.shape != into.shape):
        raise RunError(
            f"a checkpoint holds {'nothing' if tensor is None else [*tensor.shape]} where {[*into.shape]} numbers are "
            "wanted; it is of another model or adapter"
        )
    if ranks.size > 1:
        put(into, tensor)
    elif tensor is not None:
        with torch.no_grad():
            into.copy_(tensor)


@contextlib.contextmanager
def _led(ranks: Ranks, model: Model, adapter: str | None) -> Iterator[Model]:
    """Yield a model with an adapter at work as in the first process, where it is already."""
    if ranks.writes:
        yield replace(model, adapter=adapter)
        return
    with model.at_work(adapter) as asked:
        yield asked
