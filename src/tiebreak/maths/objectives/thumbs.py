"""Objectives of completions that were judged one at a time, good or bad, with no partner.

Owns their formulas, in the notation of `gaps`: u is the log-ratio of a completion, r = βu its reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import thumb_metrics
from tiebreak.maths.objectives.formula import Formula, by_delta
from tiebreak.maths.objectives.said import NOTHING_STATED, Numbers, Side, Stated
from tiebreak.records import TokenizedThumb


@dataclass(frozen=True)
class Thumbs:
    """One completion of each example, and whether it is good."""

    side: Side
    good: Bool[Tensor, " examples"]
    baseline: Float[Tensor, ""] | None
    """What the policy gained on completions of other prompts, over the whole step, nats."""

    @staticmethod
    def of(policy: Logps, reference: Logps | None, stated: Stated = NOTHING_STATED) -> Thumbs:
        """Return completions with their verdicts; raises ValueError where none were given."""
        if stated.liked is None:
            raise ValueError("this objective reads whether a completion is good, and nothing was said")
        side = Side(policy.sums, None if reference is None else reference.sums, policy.num_tokens)
        return Thumbs(side, stated.liked > 0.5, stated.baseline)

    def each(self, good: Numbers, bad: Numbers) -> Numbers:
        """Return the one for good completions, the other for bad ones."""
        return torch.where(self.good, good, bad)


def kto(thumbs: Thumbs, *, beta: float, desirable_weight: float, undesirable_weight: float) -> Losses:
    """λ_D (1 − σ(β(u − z_0))) where good, λ_U (1 − σ(β(z_0 − u))) where bad.

    z_0 = max(0, mean over the step of log π/π_ref(y_j|x_i)), y_j a completion of another prompt; without a gradient.
    """
    if thumbs.baseline is None:
        raise ValueError("this objective compares with a baseline over the step, and none was given")
    gain = beta * (thumbs.side.ratio - thumbs.baseline)
    # 1 − σ(x) = σ(−x), which does not cancel where σ is near 1.
    losses = thumbs.each(desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))
    return Losses(losses, beta * thumbs.side.ratio)


def bco_unpaired(thumbs: Thumbs, *, beta: float, delta: float | Literal["step"]) -> Losses:
    """ψ(r − δ) where good, ψ(δ − r) where bad; δ a number, or ½(mean r of good + mean r of bad) over the step."""
    rewards = beta * thumbs.side.ratio
    shift = _between(rewards.detach(), thumbs.good) if delta == "step" else delta
    return Losses(-thumbs.each(logsigmoid(rewards - shift), logsigmoid(shift - rewards)), rewards)


def _between(rewards: Numbers, good: Bool[Tensor, " examples"]) -> Float[Tensor, ""]:
    """Return the mean of both verdicts' mean rewards, or that of the one verdict that is there.

    A micro-batch that is looked at by itself may hold one verdict alone; a step does not.
    """
    kinds = torch.stack([good, ~good])
    nums = kinds.sum(1)
    means = torch.where(kinds, rewards, 0.0).sum(1) / nums.clamp(min=1)
    return means.sum() / (nums > 0).sum()


def apo_zero_unpaired(thumbs: Thumbs, *, beta: float) -> Losses:
    """−σ(r) where good, +σ(r) where bad."""
    rewards = beta * thumbs.side.ratio
    return Losses(thumbs.each(-torch.sigmoid(rewards), torch.sigmoid(rewards)), rewards)


def sft_unpaired(thumbs: Thumbs, *, length: Literal["mean", "sum"]) -> Losses:
    """−a, or −log π(y), where good; nothing where bad."""
    side = thumbs.side
    told = side.mean if length == "mean" else side.policy
    return Losses(thumbs.each(-told, torch.zeros_like(told)), side.mean)


ROWS = {
    "kto": Formula(
        kto,
        "Ethayarajh et al. 2024 (2402.01306), Eqs. 7 and 8",
        "Completions were judged one at a time, good or bad, and have no partner.",
        "kl is the baseline: where it grows fast the policy runs away from its reference. Where one verdict "
        "outweighs the other, rewards/chosen and rewards/rejected move the same way: set the two weights.",
        TokenizedThumb,
        Thumbs.of,
        thumb_metrics,
        tex=r"\lambda_D (1 - \sigma(\beta (u - z_0))) \text{ (good)}, \quad \lambda_U (1 - \sigma(\beta (z_0 - u))) "
        r"\text{ (bad)}, \quad z_0 = \operatorname{sg} \max\left(0, \frac{1}{n} \sum_{i=1}^{n} \log "
        r"\frac{\pi(y_j | x_i)}{\pi_{ref}(y_j | x_i)}\right)",
        asks_baseline=True,
    ),
    "bco_unpaired": Formula(
        bco_unpaired,
        "Jung et al. 2024 (2404.04656)",
        "Completions without a partner, and the prompts of good and bad ones differ little.",
        "Where prompts of good and bad differ, it learns to tell prompts: loss falls while held-out accuracy stays "
        "near one half. rewards/chosen and rewards/rejected on one side of delta: one verdict is no longer learned.",
        TokenizedThumb,
        Thumbs.of,
        thumb_metrics,
        tex=r"\psi(r - \delta) \text{ (good)}, \quad \psi(\delta - r) \text{ (bad)}, \quad \delta \text{ a number, "
        r"or } \operatorname{sg} \frac{1}{2} (\bar{r}_{good} + \bar{r}_{bad})",
        is_coupled=by_delta,
    ),
    "apo_zero_unpaired": Formula(
        apo_zero_unpaired,
        "D'Oosterlinck et al. 2024 (2408.06266), Eq. 7",
        "Completions without a partner, and the good ones are better than the model's own.",
        "Where one verdict outweighs the other, rewards/chosen and rewards/rejected move the same way. Some nats "
        "from the start its slope is gone: rewards that stand still with grad_norm near 0.",
        TokenizedThumb,
        Thumbs.of,
        thumb_metrics,
        tex=r"-\sigma(r) \text{ (good)}, \quad +\sigma(r) \text{ (bad)}",
    ),
    "sft_unpaired": Formula(
        sft_unpaired,
        "maximum likelihood",
        "Before preferences: demonstrations, or the good completions of what was judged.",
        "It teaches to answer, not to prefer. Trained too long, the loss of held-out completions rises while that of "
        "the step falls, and answers repeat demonstrations word by word, or loop (answers/repetition).",
        TokenizedThumb,
        Thumbs.of,
        thumb_metrics,
        tex=r"-a \text{ (mean) or } -\log \pi(y) \text{ (sum) (good)}, \quad 0 \text{ (bad)}",
        asks_reference=False,
        learns_good_alone=True,
    ),
}
