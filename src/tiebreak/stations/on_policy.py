"""Whether a server serves the policy that it is taken for: some of its answers are scored by our own scorer.

Owns how far the log-probabilities of two ways through one model may differ, and which model a server looks like whose
numbers are those of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.answers.server import Server
from tiebreak.engine.features import TOKEN_BUDGET, Completions
from tiebreak.engine.noise import evaluation_mode
from tiebreak.errors import ModelError
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import Example
from tiebreak.stations.served import Opened

NUM = 16
"""Prompts that are answered once for it."""
MOST_TOKENS = 64
"""Of each answer."""
MOST_PER_TOKEN = 0.05
"""Mean absolute difference of a token's log-probability (nats) beyond which it is another policy."""
MOST_OFF = 0.01
"""Difference of the sums over all tokens, as a share of ours."""
ROUNDING = 1e-3
"""Nats a token below which nothing tells two policies apart."""

Scored = Callable[[Sequence[Example]], TokenLogps]
"""The log-probabilities under some model."""


@dataclass(frozen=True)
class Agreement:
    """How far what a server says of its answers is from what our scorer says of them."""

    per_token: float
    """Mean absolute difference (nats)."""
    off: float
    """Difference of the sums, as a share of ours."""
    num_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for the ledger."""
        return asdict(self)

    @property
    def is_close(self) -> bool:
        """Whether it is no further off than another way through the same weights."""
        return self.per_token <= MOST_PER_TOKEN and self.off <= MOST_OFF


def check_on_policy(
    server: Server,
    policy: Opened,
    chats: Sequence[Chat],
    *,
    whose: str,
    seed: int,
    max_new_tokens: int = MOST_TOKENS,
    others: Mapping[str, Opened] | None = None,
) -> Agreement:
    """Return how well a server's answers to the first prompts agree with the policy that it is taken for.

    They are drawn at temperature 1, where log-probabilities before and after it are the same. `whose` names the policy,
    `others` the models that a server may serve in its place; one model at a time is in memory, the others only where
    what they say could matter. Raises ModelError where it is another policy, where one of
    the others fits twice as well, and where it gives no log-probabilities.
    """
    sampling = Sampling(min(max_new_tokens, MOST_TOKENS), 1.0, 1, derive_seed(seed, "on policy"))
    asked = list(chats[:NUM])
    said = server.said(asked, sampling)
    if any(one.logps is None for one in said):
        raise ModelError(
            f"{server.where}: gives no log-probabilities, so nothing shows that it serves {whose}; rounds.on_policy: "
            "false goes on without"
        )
    told = [(chat, one) for chat, one in zip(asked, said, strict=True) if one.answer.ids]
    if not told:
        raise ModelError(f"{server.where}: gives empty answers alone, so nothing shows that it serves {whose}")
    theirs = np.concatenate([np.asarray(one.logps) for _, one in told])
    with policy() as model:
        examples = [
            Completions(model.prompt_ids(chat, sampling), (one.answer.ids,), str(place))
            for place, (chat, one) in enumerate(told)
        ]
        groups = model.scorer.micro_batches(examples, TOKEN_BUDGET)
        with evaluation_mode(model.network):
            own = _agreement(theirs, _scored(model.score, groups))
    found = {}
    for name, opened in (others or {}).items() if own.per_token > ROUNDING else ():
        with opened() as model:
            found[name] = _agreement(theirs, _scored(model.score, groups))
    nearest = min(found, key=lambda name: found[name].per_token, default=None)
    looks = ""
    if nearest is not None and 2 * found[nearest].per_token < own.per_token:
        looks = f"; what it says is nearer to {nearest} ({found[nearest].per_token:.2g} nats a token)"
    if looks or not own.is_close:
        raise ModelError(
            f"{server.where}: the server does not serve {whose}: over {own.num_tokens} tokens of its answers it is "
            f"{own.per_token:.2g} nats a token from what we compute (at most {MOST_PER_TOKEN:g}), {own.off:.1%} in all "
            f"(at most {MOST_OFF:.0%}){looks}"
        )
    return own


def _agreement(theirs: NDArray[np.float64], ours: NDArray[np.float64]) -> Agreement:
    total, size = abs(float((theirs - ours).sum())), abs(float(ours.sum()))
    # Where the policy is sure of every token, a share of its sum is nothing.
    rounding = 2 * ROUNDING * len(ours)
    return Agreement(float(np.abs(theirs - ours).mean()), total / max(size, rounding / MOST_OFF), len(ours))


def _scored(score: Scored, groups: Sequence[Sequence[Completions]]) -> NDArray[np.float64]:
    """Return the log-probability of every token, example after example."""
    rows: dict[int, NDArray[np.float64]] = {}
    for group in groups:
        with torch.no_grad():
            made = score(group).rows()
        rows |= {int(one.example_id): row.double().cpu().numpy() for one, row in zip(group, made, strict=True)}
    return np.concatenate([rows[place] for place in sorted(rows)])
