"""Objectives as slow float64 loops, written from the papers. Nothing of tiebreak is imported here.

An example is a dictionary: `w`, `l` and `rw`, `rl` (log-probabilities of chosen and rejected, nats, summed; of policy
and reference), `nw`, `nl` (tokens), and what annotators said: `margin`, `soft`, `pw`, `pl` (win rates). An oracle takes
the examples of a step and gives one number: the mean over them, or the loss of the step. Objectives of completions on
their own take both sides of each example, chosen as good and rejected as bad, and `z`, the baseline of the step.
`hw`, `hl` are the reference's mean next-token entropies as shares of log V; `kw`, `kl` are how far whole distributions
of both sides are from the reference's, nats, summed over tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Pair = Mapping[str, float]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def psi(x: float) -> float:
    """−log σ(x)."""
    return math.log1p(math.exp(-x)) if x >= 0 else -x + math.log1p(math.exp(x))


def gap(p: Pair) -> float:
    return (p["w"] - p["rw"]) - (p["l"] - p["rl"])


def mean_gap(p: Pair) -> float:
    return (p["w"] - p["rw"]) / p["nw"] - (p["l"] - p["rl"]) / p["nl"]


def a_w(p: Pair) -> float:
    return p["w"] / p["nw"]


def a_l(p: Pair) -> float:
    return p["l"] / p["nl"]


def smoothed(h: float, epsilon: float) -> float:
    return (1 - epsilon) * psi(h) + epsilon * psi(-h)


def kl(p: float, q: float) -> float:
    """KL of two coins."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def log_odds(a: float) -> float:
    return math.log(math.exp(a) / (1 - math.exp(a)))


def each(loss: Callable[..., float]) -> Callable[..., float]:
    """The mean over the examples of a step."""
    return lambda pairs, **settings: sum(loss(pair, **settings) for pair in pairs) / len(pairs)


def dpo(p: Pair, beta: float, label_smoothing: float, soft_labels: bool) -> float:
    label = p["soft"] if soft_labels else 1.0
    seen = label * (1 - label_smoothing) + (1 - label) * label_smoothing
    return seen * psi(beta * gap(p)) + (1 - seen) * psi(-beta * gap(p))


def robust(p: Pair, beta: float, label_smoothing: float) -> float:
    h = beta * gap(p)
    return ((1 - label_smoothing) * psi(h) - label_smoothing * psi(-h)) / (1 - 2 * label_smoothing)


def ipo(p: Pair, tau: float, length: str) -> float:
    return ((gap(p) if length == "sum" else mean_gap(p)) - 1 / (2 * tau)) ** 2


def discopop(p: Pair, beta: float, tau: float) -> float:
    h = beta * gap(p)
    m = sigmoid(h / tau)
    return (1 - m) * psi(h) + m * math.exp(-h)


def alphapo(p: Pair, beta: float, alpha: float, gamma: float) -> float:
    reward = lambda a: beta * (1 - math.exp(-alpha * a)) / alpha  # noqa: E731 - e^(-αa) of the mean, as the paper
    return psi(reward(a_w(p)) - reward(a_l(p)) - gamma)


def sft(p: Pair, length: str) -> float:
    return -p["w"] if length == "sum" else -a_w(p)


def simpo(p: Pair, beta: float, gamma: float) -> float:
    return psi(beta * (a_w(p) - a_l(p)) - gamma)


def nca(p: Pair, beta: float) -> float:
    r_w, r_l = beta * (p["w"] - p["rw"]), beta * (p["l"] - p["rl"])
    return psi(r_w) + psi(-r_w) / 2 + psi(-r_l) / 2


def apo_zero(p: Pair, beta: float) -> float:
    return -sigmoid(beta * (p["w"] - p["rw"])) + sigmoid(beta * (p["l"] - p["rl"]))


def apo_down(p: Pair, beta: float) -> float:
    return sigmoid(beta * (p["w"] - p["rw"])) - sigmoid(beta * gap(p))


def sppo(p: Pair, beta: float, win: float, lose: float) -> float:
    return (p["w"] - p["rw"] - (win - 0.5) / beta) ** 2 + (p["l"] - p["rl"] - (lose - 0.5) / beta) ** 2


def cal_dpo(p: Pair, beta: float) -> float:
    return psi(gap(p)) + (p["w"] - p["rw"] - 1 / (2 * beta)) ** 2 + (p["l"] - p["rl"] + 1 / (2 * beta)) ** 2


def bco(pairs: Sequence[Pair], beta: float, delta: float | str, shift: Sequence[Pair] | None = None) -> float:
    """`shift`: the examples that δ is of, which no gradient flows through; the same ones where none are given."""
    seen = pairs if shift is None else shift
    rewards = [beta * (p[side] - p[f"r{side}"]) for p in seen for side in "wl"]
    at = sum(rewards) / len(rewards) if delta == "step" else float(delta)
    found = [psi(beta * (p["w"] - p["rw"]) - at) + psi(-(beta * (p["l"] - p["rl"]) - at)) for p in pairs]
    return sum(found) / len(found)


def aot(pairs: Sequence[Pair], beta: float, label_smoothing: float) -> float:
    ours = sorted(p["w"] - p["l"] for p in pairs)
    theirs = sorted(p["rw"] - p["rl"] for p in pairs)
    return sum(smoothed(beta * (a - b), label_smoothing) for a, b in zip(ours, theirs, strict=True)) / len(pairs)


def aot_unpaired(pairs: Sequence[Pair], beta: float, label_smoothing: float) -> float:
    good = sorted(p["w"] - p["rw"] for p in pairs)
    bad = sorted(p["l"] - p["rl"] for p in pairs)
    return sum(smoothed(beta * (a - b), label_smoothing) for a, b in zip(good, bad, strict=True)) / len(pairs)


def dr_dpo(pairs: Sequence[Pair], beta: float, beta_prime: float) -> float:
    fits = [math.exp(-psi(beta * gap(p)) / beta_prime) for p in pairs]
    return -beta_prime * math.log(sum(fits) / len(fits))


def kept(pairs: Sequence[Pair], share: float, before: float, spread: float) -> list[int]:
    """Places of the pairs that β-DPO's filter keeps: one after the other, each time that of the largest log-weight with
    its own Gumbel number `g`; all where nothing was drawn.
    """
    left = list(range(len(pairs)))
    if "g" not in pairs[0]:
        return left
    found: list[int] = []
    while len(found) < max(1, int(len(pairs) * share + 1e-9)):
        best = max(left, key=lambda at: pairs[at]["g"] - ((gap(pairs[at]) - before) / spread) ** 2 / 2)
        found.append(best)
        left.remove(best)
    return found


def beta_dpo(
    pairs: Sequence[Pair], beta: float, alpha: float, kept_share: float, before: float = 0.0, spread: float = 1e-3,
    shift: Sequence[Pair] | None = None,
) -> float:  # fmt: skip
    """`before`, `spread`: M_0 and σ. `shift`: the examples that β_t and what is kept are of, as in `bco`."""
    seen = pairs if shift is None else shift
    places = kept(seen, kept_share, before, spread)
    own = max(1e-3, beta * (1 + alpha * (sum(gap(seen[at]) for at in places) / len(places) - before)))
    return sum(psi(own * gap(pairs[at])) for at in places) / len(places)


def alpha_dpo(
    pairs: Sequence[Pair], beta: float, alpha: float, gamma: float, before: tuple[float, float] = (0.0, 1e-3),
    shift: Sequence[Pair] | None = None,
) -> float:  # fmt: skip
    """`before`: μ and s, never below 1e-3. `shift`: the examples that z is of, which no gradient flows through."""
    total = 0.0
    for p, still in zip(pairs, pairs if shift is None else shift, strict=True):
        z = (mean_gap(still) - before[0]) / before[1]
        total += psi(beta * (a_w(p) - a_l(p)) - gamma - alpha * beta * z)
    return total / len(pairs)


def orpo(p: Pair, beta: float) -> float:
    return -a_w(p) + beta * psi(log_odds(a_w(p)) - log_odds(a_l(p)))


def cpo(p: Pair, beta: float, alpha: float, length: str) -> float:
    return psi(beta * (p["w"] - p["l"])) + alpha * sft(p, length)


def mpo(
    pairs: Sequence[Pair],
    beta: float,
    delta: float | str,
    dpo_weight: float,
    bco_weight: float,
    sft_weight: float,
    shift: Sequence[Pair] | None = None,
) -> float:
    plain = each(dpo)(pairs, beta=beta, label_smoothing=0, soft_labels=False)
    return (
        dpo_weight * plain + bco_weight * bco(pairs, beta, delta, shift) + sft_weight * each(sft)(pairs, length="mean")
    )


def alone(good: Callable[..., float], bad: Callable[..., float]) -> Callable[..., float]:
    """The mean over completions that have no partner."""
    return lambda pairs, **settings: (
        sum(good(p, p["w"] - p["rw"], **settings) + bad(p, p["l"] - p["rl"], **settings) for p in pairs)
        / (2 * len(pairs))
    )


def bco_unpaired(pairs: Sequence[Pair], shift: Sequence[Pair] | None = None, **settings: float | str) -> float:
    """As many of each verdict: then half the sum of both means is the mean of all, and so it is bco, halved."""
    return bco(pairs, shift=shift, **settings) / 2  # type: ignore[arg-type]


ORACLES: dict[str, Callable[..., float]] = {
    "dpo": each(dpo),
    "dpo_norm": each(lambda p, beta, label_smoothing: smoothed(beta * mean_gap(p), label_smoothing)),
    "robust": each(robust),
    "ipo": each(ipo),
    "hinge": each(lambda p, beta: max(0.0, 1 - beta * gap(p))),
    "slic": each(lambda p, delta, sft_weight: max(0.0, delta - p["w"] + p["l"]) - sft_weight * p["w"]),
    "exo": each(lambda p, beta, label_smoothing: kl(sigmoid(beta * gap(p)), 1 - label_smoothing)),
    "discopop": each(discopop),
    "odpo": each(
        lambda p, beta, alpha, scale: psi(
            beta * gap(p) - alpha * (math.log(p["margin"]) if scale == "log" else p["margin"])
        )
    ),
    "rpo_backward": each(lambda p, beta, eta: kl(sigmoid(eta * p["margin"]), sigmoid(beta * gap(p)))),
    "rpo_forward": each(lambda p, beta, eta: kl(sigmoid(beta * gap(p)), sigmoid(eta * p["margin"]))),
    "rpo_square": each(lambda p, beta, eta: (beta * gap(p) - eta * p["margin"]) ** 2),
    "r_dpo": each(lambda p, beta, alpha: psi(beta * gap(p) + alpha * (p["nw"] - p["nl"]))),
    "dpop": each(lambda p, beta, penalty: psi(beta * (gap(p) - penalty * max(0.0, p["rw"] - p["w"])))),
    "dpo_shift": each(lambda p, beta, shift: psi(beta * ((p["w"] - p["rw"]) - shift * (p["l"] - p["rl"])))),
    "simpo": each(simpo),
    "alpha_dpo": alpha_dpo,
    "alphapo": each(alphapo),
    "mallows": each(lambda p, beta, phi: psi(-phi * math.log((p["hw"] + p["hl"]) / 2) * beta * gap(p))),
    "tdpo1": each(lambda p, beta: psi(beta * gap(p) - beta * (p["kl"] - p["kw"]))),
    "tdpo2": each(lambda p, beta, alpha: psi(beta * gap(p) - alpha * beta * (p["kl"] - p["kw"]))),
    "repo": each(lambda p, gamma: max(0.0, gamma - (a_w(p) - a_l(p)))),
    "nca": each(nca),
    "bco": bco,
    "apo_zero": each(apo_zero),
    "apo_down": each(apo_down),
    "sppo_hard": each(lambda p, beta: sppo(p, beta, 1, 0)),
    "sppo_soft": each(lambda p, beta: sppo(p, beta, p["pw"], p["pl"])),
    "cal_dpo": each(cal_dpo),
    "simper": each(lambda p: -math.exp(a_w(p)) + math.exp(a_l(p))),
    "sft": each(sft),
    "aot": aot,
    "aot_unpaired": aot_unpaired,
    "beta_dpo": beta_dpo,
    "dr_dpo": dr_dpo,
    "orpo": each(orpo),
    "cpo": each(cpo),
    "cpo_simpo": each(lambda p, beta, gamma, alpha: simpo(p, beta, gamma) - alpha * a_w(p)),
    "iterative_rpo": each(lambda p, beta, alpha: psi(beta * gap(p)) - alpha * a_w(p)),
    "regularised_po": each(lambda p, beta, eta: psi(beta * gap(p)) - eta * p["w"]),
    "mpo": mpo,
    "kto": alone(
        lambda p, u, beta, desirable_weight, undesirable_weight: desirable_weight * (1 - sigmoid(beta * (u - p["z"]))),
        lambda p, u, beta, desirable_weight, undesirable_weight: (
            undesirable_weight * (1 - sigmoid(beta * (p["z"] - u)))
        ),
    ),
    "bco_unpaired": bco_unpaired,
    "sft_unpaired": alone(lambda p, u, length: -p["w"] if length == "sum" else -a_w(p), lambda p, u, length: 0.0),
    "apo_zero_unpaired": alone(lambda p, u, beta: -sigmoid(beta * u), lambda p, u, beta: sigmoid(beta * u)),
}
STOPPED = {"bco", "mpo", "bco_unpaired", "beta_dpo", "alpha_dpo"}
"""Oracles that take the examples of their statistic apart, since no gradient flows through it."""


def confidence(logps: Sequence[float], distributions: Sequence[Sequence[float]]) -> float:
    """Mean over tokens of log π − log Σ_v π²: of the token that follows, and of the distribution that it is from."""
    apart = [one - math.log(sum(p * p for p in all_of)) for one, all_of in zip(logps, distributions, strict=True)]
    return sum(apart) / len(apart)


def entropy(distributions: Sequence[Sequence[float]]) -> float:
    """Mean over tokens of −Σ_v p log p / log V. Chen et al. 2024 (MallowsPO)."""
    each = [-sum(p * math.log(p) for p in all_of if p > 0) / math.log(len(all_of)) for all_of in distributions]
    return sum(each) / len(each)


def tokens_gap(p: Mapping[str, Sequence[float]], view: str, setting: Any) -> float:
    """D of a pair whose `w`, `l`, `rw`, `rl` are those of every token, as a view of tokens has it."""
    shorter = min(len(p["w"]), len(p["l"]))
    total = 0.0
    for sign, side in ((1, "w"), (-1, "l")):
        for place, (ours, theirs) in enumerate(zip(p[side], p[f"r{side}"], strict=True)):
            ratio = ours - theirs
            if view == "length_desensitised":
                ratio *= setting if place >= shorter else 1
            if view == "token_decay":
                ratio *= setting**place
            if view == "humanline":
                ratio = min(max(ratio, setting[0]), setting[1])
            total += sign * ratio
    return total


LINKS: dict[str, Callable[..., float]] = {
    "forward_kl": lambda u: -math.exp(-u),
    "js": lambda u: math.log(2 / (1 + math.exp(-u))),
    "alpha": lambda u, order: -math.exp(-order * u) / order,
    "chi_po": lambda u: math.exp(u) + u,
}
"""f'(e^u) of each divergence, as f-DPO (Table 1) and χPO (Algorithm 1) print it; constants cancel in a gap."""


def under(p: Pair, divergence: str, beta: float, order: float | None, max_reward: float | None) -> Pair:
    """The pair whose log-ratios have the gap that a divergence makes of its own ones."""
    said = {} if order is None else {"order": order}
    apart = LINKS[divergence](p["w"] - p["rw"], **said) - LINKS[divergence](p["l"] - p["rl"], **said)
    if max_reward is not None:
        apart = min(max(beta * apart, -2 * max_reward), 2 * max_reward) / beta
    return {**p, "w": p["rw"] + apart, "l": p["rl"]}
