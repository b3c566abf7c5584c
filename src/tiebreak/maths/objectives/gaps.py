"""Objectives of a difference: one link on the gap between what is scored of chosen and of rejected.

Owns their formulas. Notation: u = log π − log π_ref of a completion, |y| its tokens, a = log π / |y|, D = u_w − u_l,
ψ(h) = −log σ(h). The reward of a completion is the score that the gap is made of, without margins.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.nn.functional import relu

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import links
from tiebreak.maths.objectives.formula import Formula
from tiebreak.maths.objectives.said import Numbers, Pairs


def dpo(pairs: Pairs, *, beta: float, label_smoothing: float, soft_labels: bool) -> Losses:
    """ψ(βD), labels smoothed or soft."""
    label = _label(pairs, label_smoothing, soft=soft_labels)
    return Losses.of_pairs(links.logistic(pairs.gap(beta), label), *pairs.rewards(beta))


def dpo_norm(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """ψ(β(u_w/|y_w| − u_l/|y_l|))."""
    chosen, rejected = beta * pairs.chosen.mean_ratio, beta * pairs.rejected.mean_ratio
    label = _label(pairs, label_smoothing)
    return Losses.of_pairs(links.logistic(chosen - rejected, label), chosen, rejected)


def robust(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """((1−ε) ψ(βD) − ε ψ(−βD)) / (1−2ε)."""
    return Losses.of_pairs(links.unbiased(pairs.gap(beta), label_smoothing), *pairs.rewards(beta))


def ipo(pairs: Pairs, *, tau: float, length: Literal["mean", "sum"]) -> Losses:
    """(D − 1/2τ)², of sums or of means per token."""
    chosen, rejected = (side.mean_ratio if length == "mean" else side.ratio for side in (pairs.chosen, pairs.rejected))
    return Losses.of_pairs(links.squared(chosen - rejected, 1 / (2 * tau)), tau * chosen, tau * rejected)


def hinge(pairs: Pairs, *, beta: float) -> Losses:
    """max(0, 1 − βD)."""
    return Losses.of_pairs(links.hinge(pairs.gap(beta)), *pairs.rewards(beta))


def slic(pairs: Pairs, *, delta: float, sft_weight: float) -> Losses:
    """max(0, δ − log π(y_w) + log π(y_l)) − λ log π(y_w)."""
    chosen, rejected = pairs.chosen.policy, pairs.rejected.policy
    return Losses.of_pairs(links.hinge(chosen - rejected, delta) - sft_weight * chosen, chosen, rejected)


def exo(pairs: Pairs, *, beta: float, label_smoothing: float) -> Losses:
    """KL(σ(βD) ‖ 1−ε)."""
    log_label, log_other = math.log1p(-label_smoothing), math.log(label_smoothing)
    return Losses.of_pairs(links.divergence_from(pairs.gap(beta), log_label, log_other), *pairs.rewards(beta))


def discopop(pairs: Pairs, *, beta: float, tau: float) -> Losses:
    """(1−m) ψ(h) + m e^−h with h = βD, m = σ(h/τ)."""
    return Losses.of_pairs(links.log_ratio_modulated(pairs.gap(beta), tau), *pairs.rewards(beta))


def odpo(pairs: Pairs, *, beta: float, alpha: float, scale: Literal["log", "linear"]) -> Losses:
    """ψ(βD − α f(Δs)), f the logarithm or the difference of scores itself."""
    margin = _stated(pairs.stated.margin, "margins")
    offset = alpha * (margin.log() if scale == "log" else margin)
    return Losses.of_pairs(links.logistic(pairs.gap(beta) - offset), *pairs.rewards(beta))


def rpo_backward(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """KL(σ(ηΔs) ‖ σ(βD))."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    return Losses.of_pairs(links.divergence_to(pairs.gap(beta), wanted), *pairs.rewards(beta))


def rpo_forward(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """KL(σ(βD) ‖ σ(ηΔs))."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    found = links.divergence_from(
        pairs.gap(beta), torch.nn.functional.logsigmoid(wanted), torch.nn.functional.logsigmoid(-wanted)
    )
    return Losses.of_pairs(found, *pairs.rewards(beta))


def rpo_square(pairs: Pairs, *, beta: float, eta: float) -> Losses:
    """(βD − ηΔs)²."""
    wanted = eta * _stated(pairs.stated.margin, "margins")
    return Losses.of_pairs(links.squared(pairs.gap(beta), wanted), *pairs.rewards(beta))


def r_dpo(pairs: Pairs, *, beta: float, alpha: float) -> Losses:
    """ψ(βD + α(|y_w| − |y_l|))."""
    gap = pairs.gap(beta)
    longer = alpha * (pairs.chosen.num_tokens - pairs.rejected.num_tokens).to(gap.dtype)
    return Losses.of_pairs(links.logistic(gap + longer), *pairs.rewards(beta))


def dpop(pairs: Pairs, *, beta: float, penalty: float) -> Losses:
    """ψ(β(D − λ max(0, −u_w)))."""
    fallen = penalty * relu(-pairs.chosen.ratio)  # slope 0 at the start, where torch.clamp has 1 and maximum a half
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(links.logistic(chosen - rejected - beta * fallen), chosen, rejected)


def dpo_shift(pairs: Pairs, *, beta: float, shift: float) -> Losses:
    """ψ(β(u_w − λ u_l))."""
    chosen, rejected = pairs.rewards(beta)
    return Losses.of_pairs(links.logistic(chosen - shift * rejected), chosen, rejected)


def simpo(pairs: Pairs, *, beta: float, gamma: float) -> Losses:
    """ψ(β(a_w − a_l) − γ)."""
    chosen, rejected = beta * pairs.chosen.mean, beta * pairs.rejected.mean
    return Losses.of_pairs(links.logistic(chosen - rejected - gamma), chosen, rejected)


def alpha_dpo(pairs: Pairs, *, beta: float, alpha: float, gamma: float) -> Losses:
    """ψ(β(a_w − a_l) − γ − αβz) with z = (u_w/|y_w| − u_l/|y_l| − μ)/s, μ and s of steps before, running.

    No gradient flows through z.
    """
    gap = pairs.chosen.mean_ratio - pairs.rejected.mean_ratio
    chosen, rejected = beta * pairs.chosen.mean, beta * pairs.rejected.mean
    wanted = gamma + alpha * beta * pairs.running.standard(gap.detach())
    return Losses.of_pairs(links.logistic(chosen - rejected - wanted), chosen, rejected, gap)


def alphapo(pairs: Pairs, *, beta: float, alpha: float, gamma: float) -> Losses:
    """ψ(r_w − r_l − γ) with r = β(1 − e^(−αa)) / α."""
    chosen, rejected = (-beta * torch.expm1(-alpha * side.mean) / alpha for side in (pairs.chosen, pairs.rejected))
    return Losses.of_pairs(links.logistic(chosen - rejected - gamma), chosen, rejected)


def repo(pairs: Pairs, *, gamma: float) -> Losses:
    """max(0, γ − (a_w − a_l))."""
    chosen, rejected = pairs.chosen.mean, pairs.rejected.mean
    return Losses.of_pairs(links.hinge(chosen - rejected, gamma), chosen, rejected)


def _label(pairs: Pairs, smoothing: float, *, soft: bool = False) -> Numbers | float:
    """Return the probability that chosen is better: 1, or what was stated, as it is seen through flipped labels."""
    stated = _stated(pairs.stated.soft_label, "soft labels") if soft else 1.0
    return stated * (1 - smoothing) + (1 - stated) * smoothing


def _stated(found: Numbers | None, what: str) -> Numbers:
    if found is None:
        raise ValueError(f"this objective reads {what}, and none were given")
    return found


ROWS = {
    "dpo": Formula(
        dpo,
        "Rafailov et al. 2023 (2305.18290), Eq. 7; smoothing: Mitchell 2023, Eq. 3",
        "To start with. soft_labels where votes say how sure the label is; label_smoothing where labels are noisy.",
        "Only the gap is fixed, so chosen may lose likelihood along with rejected: rewards/chosen sinks below 0 "
        "while rewards/margins grow. With a small beta answers lengthen or loop (answers/length, "
        "answers/repetition).",
        tex=r"p \psi(\beta D) + (1 - p) \psi(-\beta D), \quad p = (1 - \varepsilon) s + \varepsilon (1 - s), \quad s "
        r"= 1 \text{ or the soft label}",
    ),
    "dpo_norm": Formula(
        dpo_norm,
        "Lambert et al. 2024 (Tülu 3, 2411.15124), Eq. 6",
        "Where the lengths of chosen and rejected differ much, or answers grow.",
        "With a beta of dpo's size (0.1) it hardly moves: loss stays near 0.693. A short rejected completion is "
        "pushed down hardest, token by token, and may take chosen along: logps/chosen sinks.",
        tex=r"(1 - \varepsilon) \psi(h) + \varepsilon \psi(-h), \quad h = \beta \left(\frac{u_w}{|y_w|} - "
        r"\frac{u_l}{|y_l|}\right)",
    ),
    "robust": Formula(
        robust,
        "Chowdhury et al. 2024 (2403.00409)",
        "Where the share of flipped labels was measured; its gap grows without bound.",
        "It has no minimum: loss goes below 0 and rewards/margins grow without end. A share that was guessed too "
        "high turns noise into signal: rewards/margins grow faster while held-out rewards/accuracies fall.",
        tex=r"\frac{(1 - \varepsilon) \psi(\beta D) - \varepsilon \psi(-\beta D)}{1 - 2 \varepsilon}",
    ),
    "ipo": Formula(
        ipo,
        "Azar et al. 2023 (2310.12036), Eq. 17 (of sums)",
        "Few, clear-cut pairs that would be overfitted: the gap has a target.",
        "rewards/margins should come to 1/2 and stay there: the target is 1/(2 tau). With length mean and tau 0.1 "
        "that is 5 nats a token, which no pair reaches: the push never ends and logps/chosen sinks; 0.5 to 2 is a "
        "target.",
        tex=r"\left(h - \frac{1}{2 \tau}\right)^2, \quad h = \frac{u_w}{|y_w|} - \frac{u_l}{|y_l|} \text{ (mean) or "
        r"} D \text{ (sum)}",
    ),
    "hinge": Formula(
        hinge,
        "Liu et al. 2023 (RSO, 2309.06657), hinge-norm",
        "Like dpo, with no pull at all once a pair is 1/beta nats apart.",
        "A pair beyond 1/beta nats (rewards/margins 1) teaches nothing more: loss and grad_norm near 0 early mean "
        "that beta is too large. Flipped labels pull at full strength to the end.",
        tex=r"\max(0, 1 - \beta D)",
    ),
    "slic": Formula(
        slic,
        "Zhao et al. 2023 (2305.10425)",
        "No memory for a reference, and sums of log-probabilities are wanted.",
        "Nothing holds it to where it came from: logps/chosen and logps/rejected may sink together while "
        "rewards/margins grow. Sums grow with length: long chosen completions rule the loss through sft_weight.",
        tex=r"\max(0, \delta - \log \pi(y_w) + \log \pi(y_l)) - \lambda \log \pi(y_w)",
        asks_reference=False,
    ),
    "exo": Formula(
        exo,
        "Ji et al. 2024 (2402.00856), Eq. 16",
        "A finite target with the reverse divergence; start near the reference, since far from it nothing pulls.",
        "Where a pair lies far on the wrong side nothing pulls: rewards/accuracies stand still with grad_norm near "
        "0 while loss is high. The smaller label_smoothing, the wider the margin asked for: 6.9 at 0.001.",
        tex=r"q \log \frac{q}{1 - \varepsilon} + (1 - q) \log \frac{1 - q}{\varepsilon}, \quad q = \sigma(\beta D)",
    ),
    "discopop": Formula(
        discopop,
        "Lu et al. 2024 (2406.08414), Eq. 5",
        "For comparison: its first steps lower the margin.",
        "rewards/margins fall at first, since its slope at 0 points the wrong way. It may settle in the dip at "
        "-0.12 behind a hump at 0.07: rewards/accuracies then stay below one half.",
        tex=r"(1 - m) \psi(h) + m e^{-h}, \quad h = \beta D, \quad m = \sigma(h / \tau)",
    ),
    "odpo": Formula(
        odpo,
        "Amini et al. 2024 (2402.10571)",
        "Scores are there, and a clear win should be a wide one.",
        "The offset has the unit of the scores: where it is far above beta times what a pair can gain, loss stays "
        "high and rewards/margins run after it without end. With the logarithm, a margin below 1 lowers the bar.",
        tex=r"\psi(\beta D - \alpha f(\Delta s)), \quad f(\Delta s) = \log \Delta s \text{ or } \Delta s",
    ),
    "rpo_backward": Formula(
        rpo_backward,
        "Adler et al. 2024 (Nemotron-4, 2406.11704); Sun et al. 2025 (2502.00203)",
        "Scores are there: they become soft labels. Scale them by eta first.",
        "eta times the margin is what rewards/margins come to. Scores on a large scale make hard labels, and it is "
        "dpo again; on a small one all labels are one half, and rewards/margins stay at 0.",
        tex=r"p \log \frac{p}{q} + (1 - p) \log \frac{1 - p}{1 - q}, \quad p = \sigma(\eta \Delta s), \quad q = "
        r"\sigma(\beta D)",
    ),
    "rpo_forward": Formula(
        rpo_forward,
        "Sun et al. 2025 (2502.00203)",
        "Scores are there, and the model's own certainty is measured against them.",
        "Nothing pulls where the model is certain, rightly or wrongly: rewards/accuracies stand still with "
        "grad_norm near 0. Scale scores first: rewards/margins come to eta times the margin.",
        tex=r"q \log \frac{q}{p} + (1 - q) \log \frac{1 - q}{1 - p}, \quad p = \sigma(\eta \Delta s), \quad q = "
        r"\sigma(\beta D)",
    ),
    "rpo_square": Formula(
        rpo_square,
        "Sun et al. 2025 (2502.00203); Gao et al. 2024 (REBEL, 2404.16767)",
        "Scores are there, and the gap is to be their difference.",
        "It is a square of scores: one outlier among them rules its step, and grad_norm jumps. rewards/margins "
        "beyond eta times the margin are pulled back, on purpose.",
        tex=r"(\beta D - \eta \Delta s)^2",
    ),
    "r_dpo": Formula(
        r_dpo,
        "Park et al. 2024 (2403.19159)",
        "Answers grow: a longer winner is learned from less.",
        "A loss that starts far from 0.693 says that lengths outweigh preferences: longer winners count as learned "
        "already, their rewards/accuracies do not rise, and answers/length shrinks.",
        tex=r"\psi(\beta D + \alpha (|y_w| - |y_l|))",
    ),
    "dpop": Formula(
        dpop,
        "Pal et al. 2024 (2402.13228), Eq. 3",
        "Chosen loses likelihood: near-identical pairs, mathematics, code.",
        "The penalty multiplies every nat that chosen falls: loss far above 0.693 and leaps of grad_norm are it at "
        "work. Too large, and it imitates: rewards/chosen rises while rewards/accuracies stand still.",
        tex=r"\psi(\beta (D - \lambda \max(0, -u_w)))",
    ),
    "dpo_shift": Formula(
        dpo_shift,
        "Yang et al. 2025 (2502.07599)",
        "Chosen loses likelihood, and a smaller margin is a fair price.",
        "rewards/margins below those of dpo are its price and no failure; rewards/chosen that still sinks is one: "
        "take a smaller shift. Too small, and rewards/rejected rises along with chosen.",
        tex=r"\psi(\beta (u_w - \lambda u_l))",
    ),
    "simpo": Formula(
        simpo,
        "Meng et al. 2024 (2405.14734), Eq. 6",
        "No memory for a reference; a learning rate of 1e-6 or less for full fine-tuning, and an eye on repetition.",
        "Nothing holds it to where it came from: with too high a rate or margin rewards/margins keep growing while "
        "logps/chosen sinks and answers loop (answers/repetition).",
        tex=r"\psi(\beta (a_w - a_l) - \gamma)",
        asks_reference=False,
    ),
    "alpha_dpo": Formula(
        alpha_dpo,
        "Wu et al. 2024 (2410.10148)",
        "simpo whose margin is wider for pairs that already moved apart against the reference.",
        "The margin grows for pairs that are ahead, so that running away feeds itself: logratio_gap that grows "
        "without settling says that alpha is too large. Else as simpo: logps/chosen, answers/repetition.",
        tex=r"\psi(\beta (a_w - a_l) - \gamma - \alpha \beta \operatorname{sg} z), \quad z = \frac{u_w / |y_w| - u_l "
        r"/ |y_l| - \mu}{\max(s, 10^{-3})}",
    ),
    "alphapo": Formula(
        alphapo,
        "Gupta et al. 2025 (2501.03884)",
        "simpo, with a reward that slows down (alpha above 0) or speeds up.",
        "Above 0, alpha blows the pull on unlikely completions up: grad_norm leaps and a few pairs rule the step; "
        "below 0 it fades there, and rewards/accuracies stand still. Else as simpo: logps/chosen, "
        "answers/repetition.",
        tex=r"\psi(r_w - r_l - \gamma), \quad r = \frac{\beta (1 - e^{-\alpha a})}{\alpha}",
        asks_reference=False,
    ),
    "repo": Formula(
        repo,
        "Wu et al. 2025 (2503.07426)",
        "simpo with one setting: no pull once a pair is gamma apart.",
        "A pair beyond gamma teaches nothing more: loss near 0 early means that gamma is too small. Too large, "
        "every pair pulls to the end: logps/chosen sinks and answers loop (answers/repetition).",
        tex=r"\max(0, \gamma - (a_w - a_l))",
        asks_reference=False,
    ),
}
