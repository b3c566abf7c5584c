"""From hidden states to the log-probability of each scored token.

Owns the softmax: its precision, what models do to logits, and how the gradient comes about. Logits of all positions are
never held at once. Of a frozen head the gradient is had in the same pass as the value: log p(t) has the derivative
U = Wᵀ(onehot(t) − p) by the hidden state, so U is computed while p is there, and the backward pass only multiplies it
by the incoming scalar. That is two matrix products of vocabulary size in place of three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tiebreak.engine.products import times_weight
from tiebreak.maths.distributions import Statistic

CHUNK = 128
"""Scored positions whose logits are held at once."""
KEPT_BYTES = 256 * 2**20
"""A trainable head keeps the probabilities of this many bytes for its backward pass and computes the rest again."""


Passing = Callable[[slice, Tensor], None]
"""Is shown the log-probabilities of some scored positions, as they pass by."""


@dataclass(frozen=True)
class Head:
    """The output projection, and what the model does to logits after it."""

    weight: Float[Tensor, "vocabulary hidden"]
    bias: Float[Tensor, " vocabulary"] | None = None
    scale: float = 1.0
    """Logits are multiplied by this (Cohere's `logit_scale`, one over Granite's `logits_scaling`)."""
    softcap: float | None = None
    """Logits become cap · tanh(logits / cap) (Gemma 2)."""

    def logits(self, hidden: Float[Tensor, "scored hidden"]) -> Float[Tensor, "scored vocabulary"]:
        """Return the model's logits in fp32."""
        logits = times_weight(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits.mul_(self.scale)
        return logits if self.softcap is None else logits.div_(self.softcap).tanh_().mul_(self.softcap)


def head_of(model: Any) -> Head | None:
    """Return the head of a transformers model; None where it is no plain projection, as with an adapter on it."""
    projection = model.get_output_embeddings()
    if type(projection) is not torch.nn.Linear:
        return None
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(projection.weight, projection.bias, scale / divisor, softcap)


def token_logps(
    hidden: Float[Tensor, "scored hidden"], targets: Int[Tensor, " scored"], head: Head
) -> Float[Tensor, " scored"]:
    """Return log p(target) in nats, fp32, with a gradient by the hidden states and by a head that is trained."""
    return token_logps_beside(hidden, targets, head, None)[0]


def token_logps_beside(
    hidden: Float[Tensor, "scored hidden"], targets: Int[Tensor, " scored"], head: Head, statistic: Statistic | None
) -> tuple[Float[Tensor, " scored"], Float[Tensor, " scored"] | None]:
    """Return `token_logps`, and what a statistic says of each whole distribution: fp32, without a gradient.

    The statistic sees the distributions while they are there, so nothing is computed twice.
    """
    if head.weight.dtype != hidden.dtype:
        bias = None if head.bias is None else head.bias.to(hidden.dtype)
        head = replace(head, weight=head.weight.to(hidden.dtype), bias=bias)
    beside = None if statistic is None else hidden.new_empty(len(targets), dtype=torch.float32)

    def passing(part: slice, logps: Tensor) -> None:
        if statistic is not None and beside is not None:
            beside[part] = statistic(logps)

    needs_grad = torch.is_grad_enabled()
    trained = head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)
    if not needs_grad or not trained:
        found: Tensor = _FrozenHead.apply(  # type: ignore[no-untyped-call]
            hidden, targets, head, needs_grad and hidden.requires_grad, passing
        )
    else:
        found = _TrainedHead.apply(hidden, head.weight, head.bias, targets, head, passing)  # type: ignore[no-untyped-call]
    return found, beside


def plain_token_logps(
    logits: Float[Tensor, "rows kept vocabulary"],
    input_ids: Int[Tensor, "rows time"],
    completion_mask: Bool[Tensor, "rows time"],
    first: int,
) -> Float[Tensor, " scored"]:
    """Return the log-probabilities (nats) of the scored tokens, row after row: the slow, obvious form.

    `logits` are those of positions first .. time − 2, which predict the tokens at first + 1 .. time − 1. The softmax is
    computed in fp32 whatever the model's dtype.
    """
    targets, scored = input_ids[:, first + 1 :], completion_mask[:, first + 1 :]
    logits = logits.float()
    # Selected, not multiplied by a mask: padding may hold inf, and inf * 0 is NaN.
    return (logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1))[scored]


def plain_beside(
    logits: Float[Tensor, "rows kept vocabulary"],
    completion_mask: Bool[Tensor, "rows time"],
    first: int,
    statistic: Statistic,
) -> Float[Tensor, " scored"]:
    """Return what a statistic says of the distribution of each scored token, row after row, without a gradient."""
    scored = logits.detach()[completion_mask[:, first + 1 :]]
    return torch.cat([statistic(scored[part].float().log_softmax(-1)) for part in _chunks(len(scored))])


def _chunks(num: int) -> Iterator[slice]:
    for start in range(0, num, CHUNK):
        yield slice(start, start + CHUNK)


def _slopes(logps: Tensor, logits: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Return d log p(target) / d (product of hidden state and weight), overwriting `logps`: onehot − p, chained."""
    slopes = logps.exp_().neg_()
    slopes.scatter_add_(1, targets.unsqueeze(1), torch.ones_like(targets, dtype=slopes.dtype).unsqueeze(1))
    if head.softcap is not None:
        slopes.mul_(1 - (logits / head.softcap).square_())
    return slopes if head.scale == 1.0 else slopes.mul_(head.scale)


def _picked(logps: Tensor, targets: Tensor) -> Tensor:
    return logps.gather(1, targets.unsqueeze(1)).squeeze(1)


class _FrozenHead(torch.autograd.Function):
    """Two products: the logits, and the gradient of each log-probability by its hidden state."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, head: Head, needs_grad: bool, passing: Passing) -> Tensor:
        found = hidden.new_empty(len(targets), dtype=torch.float32)
        slopes_by_hidden = torch.empty_like(hidden) if needs_grad else None
        for part in _chunks(len(targets)):
            logits = head.logits(hidden[part])
            logps = logits.log_softmax(-1)
            found[part] = _picked(logps, targets[part])
            passing(part, logps)
            if slopes_by_hidden is not None:
                slopes = _slopes(logps, logits, targets[part], head)
                slopes_by_hidden[part] = times_weight(slopes.to(hidden.dtype), head.weight.T)
        if slopes_by_hidden is not None:
            ctx.save_for_backward(slopes_by_hidden)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slopes_by_hidden,) = ctx.saved_tensors
        return slopes_by_hidden * gradient.unsqueeze(1).to(slopes_by_hidden.dtype), None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """Three products where the probabilities could be kept, four where they are computed again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        head: Head,
        passing: Passing,
    ) -> Tensor:
        found = hidden.new_empty(len(targets), dtype=torch.float32)
        kept: dict[int, Tensor] = {}
        affordable = KEPT_BYTES // (4 * weight.shape[0] * CHUNK)
        for part in _chunks(len(targets)):
            logits = head.logits(hidden[part])
            logps = logits.log_softmax(-1)
            found[part] = _picked(logps, targets[part])
            passing(part, logps)
            if len(kept) < affordable:
                kept[part.start] = _slopes(logps, logits, targets[part], head)
        ctx.save_for_backward(hidden, weight, *(() if bias is None else (bias,)), targets, *kept.values())
        ctx.head, ctx.kept_at, ctx.has_bias = head, list(kept), bias is not None
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *rest = ctx.saved_tensors
        bias = rest.pop(0) if ctx.has_bias else None
        targets, *kept = rest
        slopes_at = dict(zip(ctx.kept_at, kept, strict=True))
        by_hidden, by_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        by_bias = None if bias is None else torch.zeros_like(bias)
        for part in _chunks(len(targets)):
            slopes = slopes_at.get(part.start)
            if slopes is None:
                logits = ctx.head.logits(hidden[part])
                slopes = _slopes(logits.log_softmax(-1), logits, targets[part], ctx.head)
            slopes = (slopes * gradient[part].unsqueeze(1)).to(hidden.dtype)
            by_hidden[part] = times_weight(slopes, weight.T)
            by_weight.addmm_(slopes.T, hidden[part])
            if by_bias is not None:
                by_bias += slopes.sum(0)
        return by_hidden, by_weight, by_bias, None, None, None
