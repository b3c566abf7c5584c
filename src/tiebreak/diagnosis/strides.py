"""How far the weights were moved: learning rate and beta, too high and too low.

What "too far" is stands in the default rules of the gate, where each number has its reason.
"""

from __future__ import annotations

import math
from statistics import fmean, median

from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.diagnosis.cause import Finding
from tiebreak.diagnosis.signals import Pull, Signals

MOVED = DEFAULT_RULES["moved"].value or 0.0
"""Nats by which rounding alone moves a gap."""
MOSTLY_ALIKE = 0.75
"""Share of words in both sides: of four tokens that rejected is pushed down by, three are chosen's, too."""
SETTLED = 4.0
"""A margin at which a pair's slope is σ(−4) = 1.8 % of what it learns from at the start (half)."""
UNFELT = 0.1
"""A margin at which a pair keeps σ(−0.1) = 48 % of slope, 95 % of what it began with: the loss has hardly moved."""
NOT_FINITE = "not finite"
"""What an error says of numbers that training, or what it led to, made NaN or infinite."""
AT_THE_START = "before the first step"
"""What the start check begins each error with: nothing was trained yet."""
BESIDE = 10
"""Times that a beta lies outside its range from where on it is named for that, if the loss shows it."""


def rate_too_high(signals: Signals) -> Finding | None:
    """A loss that is no number; or a policy that went far and whose answers are broken."""
    settings = signals.settings
    if settings is None or _nothing_holds(signals) or too_many_passes(signals):
        return None
    lower = f"training.learning_rate: {_round(settings.learning_rate / 10)}, a tenth of {settings.learning_rate:g}"
    if signals.rollbacks or _is_not_finite(signals.error):
        step = signals.last_step
        went = f"training went back {len(signals.rollbacks)} times" if signals.rollbacks else f"{signals.error}"
        return Finding(f"a loss or gradient was no longer a number (step {step})", (went,), f"set {lower}", step)
    far, broken = gone_far(signals), garbled(signals)
    if not (far and broken) or pushed_down_with_its_like(signals):
        return None
    best = best_probe(signals)
    back = f"; of this run, step {best} was the best that was probed" if best else ""
    return Finding(
        f"at a rate of {settings.learning_rate:g} the policy left its reference and its answers broke: {broken[0]}",
        (*far, *broken[1:], *_norms(signals)),
        f"set {lower}, with the same data{back}",
        first_garbled(signals) or best,
    )


def rate_too_low(signals: Signals) -> Finding | None:
    """No pair moved by more than what rounding moves it by."""
    settings, gaps = signals.settings, signals.measures.get("logratio_gap")
    if settings is None or gaps is None or gaps.at_end is None or beta_too_high(signals):
        return None
    typical = median(map(abs, gaps.after))
    # On the whole and pair by pair: labels that contradict each other move single pairs far, and their mean not.
    if gaps.at_end.high >= MOVED or typical >= MOVED:
        return None
    losses = signals.of_steps("loss")
    evidence = [f"the gap between chosen and rejected grew by {gaps.at_end:.3g} nats; rounding alone moves it by 0.03"]
    if losses:
        evidence.append(f"the loss went from {losses[0]:.4f} to {fmean(losses[-len(losses) // 5 or -1 :]):.4f}")
    if same := signals.measures.get("answers/unchanged"):
        evidence.append(f"{fmean(same.after):.0%} of the answers are the same letter for letter")
    norms = signals.of_steps("grad_norm")
    if norms and not any(norms):
        return Finding(
            f"the gradient was exactly 0 in all of {len(norms)} steps: no rate would have moved the weights",
            tuple(evidence),
            "look at what the loss reads: weights of 0, soft labels of 0.5, or a beta or margins that settle every "
            "pair from the start; training.learning_rate may stay",
        )
    usual = max(10 * settings.learning_rate, min(settings.usual_rate, 1000 * settings.learning_rate))
    return Finding(
        f"after {signals.last_step} steps at a rate of {settings.learning_rate:g} half of all pairs moved by less than "
        f"{max(typical, 1e-6):.2g} nats",
        tuple(evidence),
        f"set training.learning_rate: {_round(usual)}; where that is still too little, ten times as much, or more "
        "epochs",
    )


def beta_too_low(signals: Signals) -> Finding | None:
    """A beta below its range, and a loss that does not feel how far the policy went, or how far sides are apart."""
    return _nothing_holds(signals) or _unfelt(signals)


def _unfelt(signals: Signals) -> Finding | None:
    """Sides so far apart that the highest beta would call it settled, at a loss that has hardly moved."""
    settings, gaps = signals.settings, signals.measures.get("logratio_gap")
    if settings is None or settings.beta is None or gaps is None or gaps.at_end is None:
        return None
    beta = settings.beta
    is_beside = BESIDE * beta.value < beta.low or math.isclose(BESIDE * beta.value, beta.low)
    if not is_beside or beta.high * gaps.at_end.low < SETTLED or beta.value * gaps.at_end.high > UNFELT:
        return None
    return Finding(
        f"loss.beta {beta.value:g} is {beta.low / beta.value:.3g} times below where it is known to work: chosen and "
        f"rejected are {gaps.at_end.value:.0f} nats apart, and the loss sees a margin of "
        f"{beta.value * gaps.at_end.value:.3f}",
        (_loss_still(signals), "KL and chosen are still within the gate's bounds; the loss will not keep them there"),
        f"set loss.beta: {_round(min(10 * beta.low, beta.high))}, within {beta.low:g} to {beta.high:g}",
        level="warning",
    )


def _nothing_holds(signals: Signals) -> Finding | None:
    settings = signals.settings
    if settings is None or settings.beta is None or settings.beta.value >= settings.beta.low:
        return None
    beta, far = settings.beta, gone_far(signals)
    margin = _margin(signals)
    # A margin below 1: where the policy went, the loss still asks for more at over half of its first slope.
    if not far or margin is None or margin >= 1:
        return None
    gap = margin / beta.value
    return Finding(
        f"with loss.beta {beta.value:g} nothing holds the policy: chosen and rejected are {gap:.0f} nats apart, and "
        f"the margin that the loss sees is {margin:.3f}",
        (*far, *garbled(signals), _loss_still(signals)),
        f"set loss.beta: {_round(10 * beta.low if 10 * beta.low <= beta.high else beta.low)}, within "
        f"{beta.low:g} to {beta.high:g}",
        best_probe(signals),
    )


def beta_too_high(signals: Signals) -> Finding | None:
    """A beta above its range: pairs are settled after a gap that no reader would notice, right or wrong."""
    settings, gaps = signals.settings, signals.measures.get("logratio_gap")
    if settings is None or settings.beta is None or settings.beta.value <= settings.beta.high or gaps is None:
        return None
    beta = settings.beta
    settled = fmean(beta.value * abs(gap) > SETTLED for gap in gaps.after)
    typical = median(map(abs, gaps.after))
    if settled < 0.5:
        return None
    # Half of the pairs have no slope any more at a gap that the highest beta known to work would still learn from.
    if beta.high * typical > SETTLED:
        return _settled_anyway(beta, settled, typical, _loss_still(signals))
    wrong = fmean(gap < 0 for gap in gaps.after)
    return Finding(
        f"with loss.beta {beta.value:g} a gap of {SETTLED / beta.value:.2g} nats settles a pair, and {settled:.0%} are "
        f"settled: half of all pairs moved by less than {typical:.2g} nats",
        (f"{wrong:.0%} of the held-out pairs are settled the wrong way or lean to it", _loss_still(signals)),
        f"set loss.beta: {_round(beta.high / 5)}, within {beta.low:g} to {beta.high:g}",
    )


def _settled_anyway(beta: Pull, settled: float, typical: float, loss: str) -> Finding | None:
    """At these gaps every beta would call pairs settled; this one did at gaps that are so much smaller."""
    if beta.value < BESIDE * beta.high and not math.isclose(beta.value, BESIDE * beta.high):
        return None
    return Finding(
        f"loss.beta {beta.value:g} is {beta.value / beta.high:.3g} times above where it is known to work, and "
        f"{settled:.0%} of the held-out pairs are settled: half at a margin over {beta.value * typical:.0f}, where "
        f"{SETTLED:g} leaves nothing to learn",
        (loss, f"a gap of {SETTLED / beta.value:.2g} nats settles a pair, half are {typical:.0f} nats apart"),
        f"set loss.beta: {_round(beta.high / 5)}, within {beta.low:g} to {beta.high:g}",
        level="warning",
    )


def gone_far(signals: Signals) -> list[str]:
    """Return how the policy left its reference by more than the gate allows, in words."""
    found = []
    most = DEFAULT_RULES["kl"].value or math.inf
    kl, chosen = signals.measures.get("kl_token"), signals.measures.get("chosen_logps")
    # What was not measured at the last step is read of the last look, and of the last probe.
    seen = signals.of_steps("sampled/kl_token", signals.looks)[-1:] if not kl or signals.measured_earlier else []
    moved = signals.of_steps("heldout/chosen_moved", signals.probes)[-1:]
    moved = moved if not chosen or signals.measured_earlier else []
    if kl and kl.at_end and kl.at_end.low > most:
        found.append(f"KL to the reference is {kl.at_end:.2f} nats a token on its own answers, over {most:g}")
    elif seen and seen[0] > most:
        found.append(f"KL to the reference is {seen[0]:.2f} nats a token on its own answers, over {most:g}")
    least = -(DEFAULT_RULES["chosen"].margin or math.inf)
    if chosen and chosen.change and chosen.change.high < least:
        found.append(f"chosen completions lost {-chosen.change.value:.2f} nats a token, over {-least:g}")
    elif moved and moved[0] < least:
        found.append(f"chosen completions lost {-moved[0]:.2f} nats a token, over {-least:g}")
    return found


def garbled(signals: Signals) -> list[str]:
    """Return how the answers broke by more than the gate allows, in words."""
    found = []
    for key, rule, says in (
        ("answers/repetition", "repetition", "repeated parts of an answer"),
        ("answers/unfinished", "unfinished", "answers that do not end by themselves"),
    ):
        measure, most = signals.measures.get(key), DEFAULT_RULES[rule].margin or math.inf
        if rule == "unfinished" and not signals.sees_ends:
            continue
        if measure and measure.change and measure.at_start and measure.at_end and measure.change.low > most:
            found.append(f"{says} went from {measure.at_start.value:.0%} to {measure.at_end.value:.0%}")
    unmeasured = "answers/repetition" not in signals.measures or signals.measured_earlier
    if unmeasured and not found and first_garbled(signals):
        seen = signals.of_steps("sampled/repetition", signals.looks)
        found.append(f"repeated parts of a sampled answer went from {seen[0]:.0%} to {seen[-1]:.0%}")
    return found


def first_garbled(signals: Signals) -> int | None:
    """Return the step of the first look at which answers repeat themselves more than at the start."""
    most = DEFAULT_RULES["repetition"].margin or math.inf
    begun = None
    for row in signals.looks:
        before = row.get("sampled/before/repetition", begun)
        begun = row["sampled/repetition"] if before is None else before
        if row["sampled/repetition"] > begun + most:
            return int(row["step"])
    return None


def best_probe(signals: Signals) -> int | None:
    """Return the step of the best probe; None where it was the last, or none was probed."""
    best = signals.lowest_probe
    return None if best is None or best is signals.probes[-1] else int(best["step"])


def pushed_down_with_its_like(signals: Signals) -> bool:
    """Whether sides share most of their words and held-out loss fell to the end: what harms is the push, not its size.

    Steps that are too long miss what they aim at: the loss of pairs that were not trained on rises.
    """
    losses = signals.probed_scores
    return (signals.alike or 0.0) >= MOSTLY_ALIKE and len(losses) > 1 and losses[-1] == min(losses)


def too_many_passes(signals: Signals) -> bool:
    """Whether held-out loss fell through the first pass, and rose above its start since: steps were not too long, but
    too many."""
    best, first, scores = best_probe(signals), signals.epoch(0), signals.probed_scores
    return bool(best and first and best >= first[-1]["step"] and scores[-1] > scores[0])


def _is_not_finite(error: str | None) -> bool:
    """Whether what ended a run is a number that training made, and not one that was there before the first step."""
    return bool(error) and NOT_FINITE in str(error) and AT_THE_START not in str(error)


def _margin(signals: Signals) -> float | None:
    measure = signals.measures.get("margin")
    if measure and measure.at_end:
        return measure.at_end.value
    probed = signals.of_steps("heldout/rewards/margins", signals.probes)
    return probed[-1] if probed else None


def _loss_still(signals: Signals) -> str:
    losses = signals.of_steps("heldout/loss", signals.probes)
    return (
        f"held-out loss: {losses[0]:.4f} before the first step, {losses[-1]:.4f} at the end" if losses else "no probe"
    )


def _norms(signals: Signals) -> list[str]:
    norms = signals.of_steps("grad_norm")
    return [f"gradient norm: {norms[0]:.3g} in the first step, at most {max(norms):.3g}"] if norms else []


def _round(value: float) -> str:
    return f"{value:.1g}"
