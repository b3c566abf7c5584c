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
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from tiebreak.engine.products import times_weight
from tiebreak.errors import ModelError
from tiebreak.maths.distributions import Statistic, divergence

CHUNK = 128
"""Scored positions whose logits are held at once."""
KEPT_BYTES = 256 * 2**20
"""A trainable head keeps the probabilities of this many bytes for its backward pass and computes the rest again."""


Passing = Callable[[slice, Tensor], None]
"""Is shown the log-probabilities of some scored positions, as they pass by."""
Others = Callable[[slice], Tensor]
"""Returns what another model says at some scored positions: log-probabilities [positions, vocabulary]."""


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

    def of(self, dtype: torch.dtype) -> Head:
        """Return the head for hidden states of a dtype."""
        if self.weight.dtype == dtype:
            return self
        bias = None if self.bias is None else self.bias.to(dtype)
        return replace(self, weight=self.weight.to(dtype), bias=bias)


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
    hidden: Float[Tensor, "scored hidden"],
    targets: Int[Tensor, " scored"],
    head: Head,
    statistic: Statistic | None,
    others: Others | None = None,
) -> tuple[Float[Tensor, " scored"], Float[Tensor, " scored"] | None, Float[Tensor, " scored"] | None]:
    """Return `token_logps`; what a statistic says of each whole distribution, fp32, without a gradient; and KL(others ‖
    own) of each, with the gradients that log-probabilities have.

    All of them see the distributions while they are there, so nothing is computed twice.
    """
    head = head.of(hidden.dtype)
    beside = None if statistic is None else hidden.new_empty(len(targets), dtype=torch.float32)

    def passing(part: slice, logps: Tensor) -> None:
        if statistic is not None and beside is not None:
            beside[part] = statistic(logps)

    needs_grad = torch.is_grad_enabled()
    trained = head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)
    if not needs_grad or not trained:
        found, *apart = _FrozenHead.apply(  # type: ignore[no-untyped-call]
            hidden, targets, head, needs_grad and hidden.requires_grad, passing, others
        )
    else:
        found, *apart = _TrainedHead.apply(  # type: ignore[no-untyped-call]
            hidden, head.weight, head.bias, targets, head, passing, others
        )
    return found, beside, apart[0] if apart else None


def plain_token_logps(
    logits: Float[Tensor, "rows kept vocabulary"],
    input_ids: Int[Tensor, "rows time"],
    predictors: Int[Tensor, " scored"],
    first: int,
) -> Float[Tensor, " scored"]:
    """Return the log-probabilities (nats) of the scored tokens, row after row: the slow, obvious form.

    `logits` are those of positions first .. time − 2, which predict the tokens at first + 1 .. time − 1; `predictors`
    are those among them that predict a scored one. The softmax is computed in fp32 whatever the model's dtype.
    """
    targets, logits = input_ids[:, first + 1 :], logits.float()
    # Selected, not multiplied by a mask: padding may hold inf, and inf * 0 is NaN.
    return at_places(logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1), predictors)


def plain_beside(
    logits: Float[Tensor, "rows kept vocabulary"], predictors: Int[Tensor, " scored"], statistic: Statistic
) -> Float[Tensor, " scored"]:
    """Return what a statistic says of the distribution of each scored token, row after row, without a gradient."""
    scored = at_places(logits.detach(), predictors)
    return torch.cat([statistic(scored[part].float().log_softmax(-1)) for part in _chunks(len(scored))])


def plain_distributions(
    logits: Float[Tensor, "rows kept vocabulary"], predictors: Int[Tensor, " scored"]
) -> Float[Tensor, "scored vocabulary"]:
    """Return the log-probabilities of all that could stand at each scored position, row after row."""
    return at_places(logits, predictors).float().log_softmax(-1)


def at_places(values: Float[Tensor, "rows kept *each"], places: Int[Tensor, " scored"]) -> Float[Tensor, scored * each]:
    """Return what stands at some places of all rows behind one another."""
    return values.flatten(end_dim=1).index_select(0, places)


def divergences(
    others: Float[Tensor, "scored vocabulary"], own: Float[Tensor, "scored words"]
) -> Float[Tensor, " scored"]:
    """Return KL(others ‖ own) of each distribution; raises ModelError where they are not of the same tokens."""
    if others.shape != own.shape:
        raise ModelError(
            f"the reference has {others.shape[-1]} tokens in its vocabulary and the policy {own.shape[-1]}: their "
            "whole distributions, which this loss compares, are not of the same tokens"
        )
    return divergence(others, own)


def _chunks(num: int) -> Iterator[slice]:
    for start in range(0, num, CHUNK):
        yield slice(start, start + CHUNK)


def _slopes(logps: Tensor, logits: Tensor, targets: Tensor, head: Head, theirs: Tensor | None) -> list[Tensor]:
    """Return derivatives by the product of hidden state and weight, overwriting both log-probabilities.

    Of log p(target): onehot − p, chained; and of KL(q ‖ p), where q is given as `theirs`: p − q, chained.
    """
    shares = logps.exp_()
    apart = [] if theirs is None else [shares - theirs.exp_()]
    slopes = shares.neg_()
    slopes.scatter_add_(1, targets.unsqueeze(1), torch.ones_like(targets, dtype=slopes.dtype).unsqueeze(1))
    for one in (found := [slopes, *apart]):
        if head.softcap is not None:
            one.mul_(1 - (logits / head.softcap).square_())
        if head.scale != 1.0:
            one.mul_(head.scale)
    return found


def _told(logps: Tensor, targets: Tensor, theirs: Tensor | None) -> list[Tensor]:
    """Return the numbers of some scored positions whose derivatives are `_slopes`."""
    found = [logps.gather(1, targets.unsqueeze(1)).squeeze(1)]
    if theirs is not None:
        found.append(divergences(theirs, logps))
    return found


class _FrozenHead(torch.autograd.Function):
    """Two products: the logits, and the gradient of each log-probability by its hidden state; with others, four."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Tensor,
        head: Head,
        needs_grad: bool,
        passing: Passing,
        others: Others | None,
    ) -> tuple[Tensor, ...]:
        found = _empty(targets, others)
        slopes_by_hidden = [torch.empty_like(hidden) for _ in found] if needs_grad else []
        for part in _chunks(len(targets)):
            logits = head.logits(hidden[part])
            logps = logits.log_softmax(-1)
            theirs = None if others is None else others(part)
            for numbers, told in zip(found, _told(logps, targets[part], theirs), strict=True):
                numbers[part] = told
            passing(part, logps)
            if needs_grad:
                for by_hidden, slopes in zip(
                    slopes_by_hidden, _slopes(logps, logits, targets[part], head, theirs), strict=True
                ):
                    by_hidden[part] = times_weight(slopes.to(hidden.dtype), head.weight.T)
        ctx.save_for_backward(*slopes_by_hidden)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, *more = (
            by_hidden * gradient.unsqueeze(1).to(by_hidden.dtype)
            for by_hidden, gradient in zip(ctx.saved_tensors, gradients, strict=True)
        )
        return sum(more, first), None, None, None, None, None


def _empty(targets: Tensor, others: Others | None) -> tuple[Tensor, ...]:
    """Return room for log-probabilities, and for divergences where there are others to differ from."""
    return tuple(targets.new_empty(len(targets), dtype=torch.float32) for _ in range(1 if others is None else 2))


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
        others: Others | None,
    ) -> tuple[Tensor, ...]:
        found = _empty(targets, others)
        kept: dict[int, list[Tensor]] = {}
        affordable = KEPT_BYTES // (4 * weight.shape[0] * CHUNK * len(found))
        for part in _chunks(len(targets)):
            logits = head.logits(hidden[part])
            logps = logits.log_softmax(-1)
            theirs = None if others is None else others(part)
            for numbers, told in zip(found, _told(logps, targets[part], theirs), strict=True):
                numbers[part] = told
            passing(part, logps)
            if len(kept) < affordable:
                kept[part.start] = _slopes(logps, logits, targets[part], head, theirs)
        every = [slopes for both in kept.values() for slopes in both]
        ctx.save_for_backward(hidden, weight, *(() if bias is None else (bias,)), targets, *every)
        ctx.head, ctx.kept_at, ctx.has_bias, ctx.others = head, list(kept), bias is not None, others
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *rest = ctx.saved_tensors
        bias = rest.pop(0) if ctx.has_bias else None
        targets, *kept = rest
        num = len(gradients)
        slopes_at = {start: kept[num * at : num * (at + 1)] for at, start in enumerate(ctx.kept_at)}
        # Sums of many chunks, in fp32: in bfloat16 a chunk below 1/512 of the sum so far would be lost.
        wide = torch.promote_types(weight.dtype, torch.float32)
        by_hidden, by_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=wide)
        by_bias = None if bias is None else torch.zeros_like(bias, dtype=wide)
        for part in _chunks(len(targets)):
            each = slopes_at.get(part.start)
            if each is None:
                logits = ctx.head.logits(hidden[part])
                theirs = None if ctx.others is None else ctx.others(part)
                each = _slopes(logits.log_softmax(-1), logits, targets[part], ctx.head, theirs)
            first, *more = (one * gradient[part].unsqueeze(1) for one, gradient in zip(each, gradients, strict=True))
            slopes = sum(more, first).to(hidden.dtype)
            by_hidden[part] = times_weight(slopes, weight.T)
            if wide == weight.dtype:
                by_weight.addmm_(slopes.T, hidden[part])
            else:
                by_weight += slopes.T @ hidden[part]
            if by_bias is not None:
                by_bias += slopes.sum(0)
        by_bias = None if bias is None or by_bias is None else by_bias.to(bias.dtype)
        return by_hidden, by_weight.to(weight.dtype), by_bias, None, None, None, None
