"""Slow, obvious float64 loops written from the papers. Nothing of tiebreak is imported here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import torch


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def sequence_logp(logits: Sequence[Sequence[float]], ids: Sequence[int], num_prompt: int) -> tuple[float, int]:
    """Sum over completion tokens t of log softmax(logits[t − 1])[ids[t]], and how many there are.

    `logits` has one row for each position of `ids`: the one unpadded sequence prompt + completion.
    """
    total, count = 0.0, 0
    for t in range(num_prompt, len(ids)):
        row = logits[t - 1]
        top = max(row)
        log_partition = top + math.log(sum(math.exp(value - top) for value in row))
        total += row[ids[t]] - log_partition
        count += 1
    return total, count


def dpo_loss(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float) -> float:
    """Rafailov et al. 2023, Eq. 7: −log sigmoid(β log π(y_w)/π_ref(y_w) − β log π(y_l)/π_ref(y_l))."""
    return -log_sigmoid(beta * (chosen - ref_chosen) - beta * (rejected - ref_rejected))


def dpo_gradient(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float
) -> tuple[float, float]:
    """The equation after Eq. 7: −β sigmoid(r̂(y_l) − r̂(y_w)) times ∇ log π(y_w), and its negative times ∇ log π(y_l)."""
    weight = sigmoid(beta * (rejected - ref_rejected) - beta * (chosen - ref_chosen))
    return -beta * weight, beta * weight


def conservative_dpo_loss(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, epsilon: float
) -> float:
    """Mitchell 2023, Eq. 3: (1 − ε) times the loss of the pair, plus ε times that of the pair flipped."""
    kept = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    flipped = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta)
    return (1 - epsilon) * kept + epsilon * flipped


def conservative_dpo_gradient(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, epsilon: float
) -> tuple[float, float]:
    kept = dpo_gradient(chosen, rejected, ref_chosen, ref_rejected, beta)
    flipped = dpo_gradient(rejected, chosen, ref_rejected, ref_chosen, beta)
    return tuple((1 - epsilon) * a + epsilon * b for a, b in zip(kept, reversed(flipped), strict=True))  # type: ignore[return-value]


def diffusion_dpo_loss(
    noise: tuple[Sequence[float], Sequence[float]],
    policy: tuple[Sequence[float], Sequence[float]],
    reference: tuple[Sequence[float], Sequence[float]],
    scale: float,
) -> float:
    """Wallace et al. 2023, Eq. 14, of one pair (winner, loser) of flat images; `scale` is β T ω(λ_t)."""
    further = [0.0, 0.0]
    for side in (0, 1):
        for pixel, true in enumerate(noise[side]):
            further[side] += (true - policy[side][pixel]) ** 2
            further[side] -= (true - reference[side][pixel]) ** 2
    return -log_sigmoid(-scale * (further[0] - further[1]))


def gaussian_logp(values: Sequence[float], means: Sequence[float], variance: float) -> float:
    """Log-density of independent normal variables of one variance."""
    total = 0.0
    for value, mean in zip(values, means, strict=True):
        total -= (value - mean) ** 2 / (2 * variance) + math.log(2 * math.pi * variance) / 2
    return total


def implicit_reward(logp: float, ref_logp: float, beta: float) -> float:
    """Rafailov et al. 2023, below Eq. 7: r̂(x, y) = β log π(y|x) / π_ref(y|x)."""
    return beta * (logp - ref_logp)


def accuracy(margins: Sequence[float]) -> float:
    """Share of pairs whose chosen completion has the higher reward; a tie is one half."""
    points = 0.0
    for margin in margins:
        points += 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
    return points / len(margins)


def adamw(
    weight: Sequence[float],
    gradients: Sequence[Sequence[float]],
    rates: Sequence[float],
    decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
) -> list[float]:
    """Loshchilov & Hutter 2019, Algorithm 2, the decay multiplied by the rate of the step as PyTorch does."""
    now, m, v = list(weight), [0.0] * len(weight), [0.0] * len(weight)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i, g in enumerate(gradient):
            m[i] = betas[0] * m[i] + (1 - betas[0]) * g
            v[i] = betas[1] * v[i] + (1 - betas[1]) * g * g
            m_hat, v_hat = m[i] / (1 - betas[0] ** t), v[i] / (1 - betas[1] ** t)
            now[i] -= rate * decay * now[i] + rate * m_hat / (math.sqrt(v_hat) + epsilon)
    return now


def rates(num_steps: int, num_warmup: int, peak: float, schedule: str) -> list[float]:
    """Equal parts up to the peak, then a line or half a cosine that reaches zero one step after the last."""
    found = [peak * (step + 1) / (num_warmup + 1) for step in range(num_warmup)]
    left = num_steps - num_warmup
    for step in range(left):
        shapes = {"constant": 1.0, "linear": (left - step) / left, "cosine": (1 + math.cos(math.pi * step / left)) / 2}
        found.append(peak * shapes[schedule])
    return found


def clipped(gradient: Sequence[float], limit: float) -> tuple[list[float], float]:
    """Pascanu et al. 2013: scaled down to the limit where the norm is larger; and the norm before."""
    norm = math.sqrt(sum(g * g for g in gradient))
    return [g * min(1.0, limit / norm) for g in gradient], norm


def cluster_bootstrap_means(values: Sequence[float], clusters: Sequence[str]) -> list[float]:
    """The mean of every one of the k^k ways to draw k clusters with replacement, sorted."""
    groups: dict[str, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    means = []
    for drawn in itertools.product(groups.values(), repeat=len(groups)):
        together = [value for group in drawn for value in group]
        means.append(sum(together) / len(together))
    return sorted(means)


def dpo_step_gradient(
    model: torch.nn.Module,
    pairs: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]],
    reference: Sequence[tuple[float, float]],
    beta: float,
) -> tuple[float, dict[str, list[float]]]:
    """Mean loss over (prompt, chosen, rejected) and its gradient, one unpadded sequence at a time.

    The model gives only ∇ log π(y); the rest is the paper's expression for the gradient.
    """
    total, gradient = 0.0, {name: torch.zeros_like(p) for name, p in model.named_parameters() if p.requires_grad}
    for (prompt, chosen, rejected), (ref_chosen, ref_rejected) in zip(pairs, reference, strict=True):
        ours = [differentiable_logp(model, prompt, completion) for completion in (chosen, rejected)]
        terms = (ours[0].item(), ours[1].item(), ref_chosen, ref_rejected, beta)
        total += dpo_loss(*terms)
        for logp, factor in zip(ours, dpo_gradient(*terms), strict=True):
            model.zero_grad()
            logp.backward()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None and name in gradient:
                    gradient[name] += factor * parameter.grad / len(pairs)
    model.zero_grad()
    return total / len(pairs), {name: g.flatten().tolist() for name, g in gradient.items()}


def differentiable_logp(model: torch.nn.Module, prompt: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
    """log π(completion | prompt), one token at a time."""
    ids = [*prompt, *completion]
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    total: torch.Tensor | float = 0.0
    for t in range(len(prompt), len(ids)):
        total = total + torch.log_softmax(logits[t - 1], -1)[ids[t]]
    return total  # type: ignore[return-value]


def sequential_kl(
    reference: Sequence[Sequence[float]], policy: Sequence[Sequence[float]], num_prompt: int, length: int
) -> float:
    """Zeng et al. 2024 (TDPO): Σ over completion tokens t of Σ_v π_ref(v|<t) log(π_ref(v|<t) / π(v|<t)), of logits."""
    total = 0.0
    for t in range(num_prompt, length):
        theirs, ours = reference[t - 1], policy[t - 1]
        parts = [math.log(sum(math.exp(value - max(row)) for value in row)) + max(row) for row in (theirs, ours)]
        for one, other in zip(theirs, ours, strict=True):
            total += math.exp(one - parts[0]) * ((one - parts[0]) - (other - parts[1]))
    return total


def sequential_kl_slope(reference: Sequence[float], policy: Sequence[float]) -> list[float]:
    """By the policy's logits of one token: softmax π − softmax π_ref."""
    shares = []
    for row in (reference, policy):
        total = sum(math.exp(value - max(row)) for value in row)
        shares.append([math.exp(value - max(row)) / total for value in row])
    return [ours - theirs for theirs, ours in zip(*shares, strict=True)]


def differentiable_kl(
    model: torch.nn.Module, reference: torch.nn.Module, prompt: Sequence[int], completion: Sequence[int]
) -> torch.Tensor:
    """The same of one unpadded sequence, with a graph of the model."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        theirs = torch.log_softmax(reference(input_ids=ids).logits[0], -1)
    ours = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    total: torch.Tensor | float = 0.0
    for t in range(len(prompt), ids.shape[1]):
        total = total + (theirs[t - 1].exp() * (theirs[t - 1] - ours[t - 1])).sum()
    return total  # type: ignore[return-value]


def slope(function: Callable[[float], float], at: float, width: float = 1e-5) -> float:
    """Central difference."""
    return (function(at + width) - function(at - width)) / (2 * width)


def sign_test(above: int, below: int) -> float:
    """Twice the chance that a fair coin falls on the rarer side as seldom or more seldom, at most 1."""
    num, rarer = above + below, min(above, below)
    return min(1.0, 2 * sum(math.comb(num, k) for k in range(rarer + 1)) / 2**num)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm 1979: the largest, over all p-values that are not larger, of p times how many are not smaller."""
    return [
        max(min(1.0, q * sum(r >= q for r in p_values)) for q in p_values if q <= p)
        for p in p_values
    ]  # fmt: skip


def nucleus(logits: Sequence[float], temperature: float, top_p: float) -> list[float]:
    """Nucleus sampling (Holtzman et al. 2020, eq. 2-3): what each token's probability is; equal ones stay together."""
    weights = [math.exp((one - max(logits)) / temperature) for one in logits]
    total, kept, mass = sum(weights), set(), 0.0
    for level in sorted(set(weights), reverse=True):
        if mass >= top_p * total:
            break
        same = [token for token, weight in enumerate(weights) if weight == level]
        kept.update(same)
        mass += level * len(same)
    return [weight / mass if token in kept else 0.0 for token, weight in enumerate(weights)]


def rejection_sampled(rewards: Sequence[float], beta: float, num: int, uniforms: Iterator[float]) -> list[int]:
    """Liu et al. 2024, Algorithm 1, by place, and with an end: the maximum is over who is left as a pass begins."""
    found: list[int] = []
    while len(found) < num and len(found) < len(rewards):
        left = [place for place in range(len(rewards)) if place not in found]
        best = max(rewards[place] for place in left)
        for place in left:
            if len(found) == num:
                break
            if not next(uniforms) >= math.exp((rewards[place] - best) / beta):
                found.append(place)
    return found


def win_rates(chances: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Wu et al. 2024, of samples: the mean of P(y_i ≻ y_j) over each j ≠ i that it was compared with."""
    rates: list[float | None] = []
    for i in range(len(chances)):
        total, num = 0.0, 0
        for j in range(len(chances)):
            chance = chances[i][j]
            if i != j and chance is not None and not math.isnan(chance):
                total, num = total + chance, num + 1
        rates.append(total / num if num else None)
    return rates


def clustered_standard_error(values: Sequence[float], clusters: Sequence[str]) -> float:
    """Cochran 1977, ch. 6: of the ratio of a cluster's sums to its counts, linearised."""
    mean, names = sum(values) / len(values), sorted(set(clusters))
    total = 0.0
    for name in names:
        total += sum(value - mean for value, cluster in zip(values, clusters, strict=True) if cluster == name) ** 2
    return math.sqrt(total * len(names) / (len(names) - 1)) / len(values)


def pearson(one: Sequence[float], two: Sequence[float]) -> float:
    """Correlation of two lists of numbers."""
    means = [math.fsum(side) / len(side) for side in (one, two)]
    apart = [[value - mean for value in side] for side, mean in zip((one, two), means, strict=True)]
    squares = [math.fsum(value * value for value in side) for side in apart]
    return math.fsum(a * b for a, b in zip(*apart, strict=True)) / math.sqrt(squares[0] * squares[1])


def clustered_error(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Standard error of a mean whose values hang together in clusters."""
    mean, sums = math.fsum(values) / len(values), dict[object, float]()
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value - mean
    squares = math.fsum(one * one for one in sums.values())
    return math.sqrt(squares * len(sums) / (len(sums) - 1)) / len(values)


NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
"""Quantiles of a normal distribution (QLoRA, Dettmers et al. 2023, appendix E)."""


def nf4(weight, block=64):
    """The numbers that a weight becomes in four bits: in each block, the nearest quantile times the largest size."""
    flat, found = [float(one) for one in weight.flatten()], []
    for start in range(0, len(flat), block):
        some = flat[start : start + block]
        largest = max(abs(one) for one in some)
        found += [largest * min(NF4, key=lambda code: abs(one / largest - code)) for one in some]
    return torch.tensor(found, dtype=torch.float64).view(weight.shape)
