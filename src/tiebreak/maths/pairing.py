"""Which of one prompt's candidates become pairs, by numbers alone.

Owns when a difference decides, which of the comparisons that somebody won are taken, and what a win rate is. It knows
no text: a candidate is its place. Pure: what is drawn comes from whoever is handed in. A number that is none (None,
NaN, infinite) says nothing: its candidate is in no pair, in no mean and no opponent of anybody.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tiebreak.config.rounds import PairingConfig

Number = float | None
Pick = Callable[[int], int]
"""Returns one of so many places, counted from 0."""
Uniform = Callable[[], float]
"""Returns the next number of [0, 1)."""
_ROUNDING = 1e-9  # 0.3 and 0.1 differ by 0.2 as people count, not as floats do


@dataclass(frozen=True, slots=True)
class Won:
    """A comparison of two candidates that somebody won, and by how much; two that were closer are none."""

    winner: int
    loser: int
    margin: float


def is_decided(margin: float, min_margin: float) -> bool:
    """Say whether a difference makes one of two the better one: it is not zero, and not below `min_margin`."""
    return margin != 0 and abs(margin) >= min_margin - _ROUNDING


def comparisons(values: Sequence[Number], min_margin: float = 0.0) -> list[Won]:
    """Return every comparison that somebody won, larger being better, in the order of their winners, then losers."""
    known = known_of(values)
    every = (Won(one, other, known[one] - known[other]) for one in known for other in known)
    return [won for won in every if won.margin > 0 and is_decided(won.margin, min_margin)]


def known_of(values: Sequence[Number]) -> dict[int, float]:
    """Return the numbers that say something, by their places."""
    return {place: value for place, value in enumerate(values) if value is not None and math.isfinite(value)}


def best_worst(won: Sequence[Won], _: Pick) -> list[Won]:
    """Return the comparison with the widest margin, the first of several."""
    return [max(won, key=lambda one: one.margin)]


def best_second(won: Sequence[Won], _: Pick) -> list[Won]:
    """Return the best one's narrowest victory: where numbers rank them, that over the best of all that it beats."""
    return [min(_of_best(won), key=lambda one: one.margin)]


def best_random(won: Sequence[Won], pick: Pick) -> list[Won]:
    """Return one of the best one's victories, as `pick` has it."""
    beaten = _of_best(won)
    return [beaten[pick(len(beaten))]]


def every_one(won: Sequence[Won], _: Pick) -> list[Won]:
    """Return every comparison that somebody won."""
    return list(won)


def _of_best(won: Sequence[Won]) -> list[Won]:
    best = max(won, key=lambda one: one.margin).winner
    return [one for one in won if one.winner == best]


CHOICES: dict[str, Callable[[Sequence[Won], Pick], list[Won]]] = {
    "best_worst": best_worst,
    "best_second": best_second,
    "best_random": best_random,
    "all": every_one,
}
"""Which of the comparisons that somebody won, of which there is at least one, become pairs."""


def accepted(rewards: Sequence[Number], beta: float, num_accepted: int, uniform: Uniform) -> list[int]:
    """Return the places of candidates as statistical rejection sampling accepts them, in the order of acceptance.

    Liu et al. 2024, "Statistical Rejection Sampling Improves Preference Optimization", Algorithm 1: in passes over who
    remains, a candidate is accepted with probability exp((r − max r) / beta), the maximum being that of the candidates
    that are not yet accepted as the pass begins (their Theorem 1 and Equation 14). So the first pass holds each of them
    against the best of all, and every pass accepts at least one: it ends after at most as many passes as candidates,
    where a maximum over all of them might never let the others in. Other than there, candidates are told apart by their
    places, not by their texts, and it ends where none is left. Of n samples of a policy those that are accepted are
    approximately samples of that policy ∝ exp(r / beta).
    """
    remaining = known_of(rewards)
    found: list[int] = []
    while remaining and len(found) < num_accepted:
        highest = max(remaining.values())
        for place, reward in list(remaining.items()):
            if len(found) < num_accepted and uniform() < math.exp((reward - highest) / beta):
                found.append(place)
                del remaining[place]
    return found


def first_round(order: Sequence[int], values: Sequence[Number], min_margin: float = 0.0) -> list[Won]:
    """Return who won between neighbours, the first against the second, the third against the fourth, and so on.

    Liu et al. 2024 (5.2, first-round-rank): n / 2 comparisons; who has no neighbour is in none, nor is a tie.
    """
    return _matched(order, known_of(values), min_margin)[0]


def tournament(order: Sequence[int], values: Sequence[Number], min_margin: float = 0.0) -> list[Won]:
    """Return who won in a tournament: neighbours, then the winners as neighbours, until one is left.

    Liu et al. 2024 (5.2, tournament-rank): n − 1 comparisons, of which each puts one out. Who has no neighbour goes on.
    A tie is no comparison won; the larger of two that are closer than `min_margin` goes on, the first of two equals.
    """
    known = known_of(values)
    found: list[Won] = []
    while len(order) > 1:
        won, order = _matched(order, known, min_margin)
        found += won
    return found


def _matched(order: Sequence[int], known: dict[int, float], min_margin: float) -> tuple[list[Won], list[int]]:
    """Return the comparisons of neighbours that somebody won, and who goes on."""
    found: list[Won] = []
    ahead: list[int] = []
    for one, other in zip(order[0::2], order[1::2], strict=False):
        winner, loser = (one, other) if known[one] >= known[other] else (other, one)
        ahead.append(winner)
        if is_decided(margin := known[winner] - known[loser], min_margin):
            found.append(Won(winner, loser, margin))
    return found, [*ahead, *order[2 * len(ahead) :]]


MATCHES: dict[str, Callable[[Sequence[int], Sequence[Number], float], list[Won]]] = {
    "first_round": first_round,
    "tournament": tournament,
}
"""Who of those that were accepted is held against whom."""


def rates_of_wins(wins: Sequence[Sequence[Number]]) -> list[Number]:
    """Return how often each candidate wins against another of the policy's samples; None where nobody compared it.

    P̂(y_i ≻ π) = mean over j ≠ i of P(y_i ≻ y_j), from `wins[i][j]` = P(y_i ≻ y_j) (Wu et al. 2024, "Self-Play
    Preference Optimization", Section 4 and Algorithm 1, estimated by the samples themselves). The mean is over those
    j that were compared with i; the comparison with itself, which is one half whatever it is, is left out, while their
    code takes it in and so pulls all rates towards one half. Two samples that are the same text are a tie like any
    other: that the policy says the same again is what it is. Where one order is known alone, P(y_j ≻ y_i) is the rest.
    """
    places = range(len(wins))
    return [mean_of([chance(wins, place, other) for other in places if other != place]) for place in places]


def chance(wins: Sequence[Sequence[Number]], one: int, other: int) -> Number:
    """Return P(one ≻ other), told as it is, or as what is left of P(other ≻ one); None where neither was."""
    straight, back = known_of((wins[one][other],)), known_of((wins[other][one],))
    return straight[0] if straight else 1.0 - back[0] if back else None


def rates_of_scores(scores: Sequence[Number], min_margin: float = 0.0) -> list[Number]:
    """Return the same where numbers rank the candidates: 1 for the larger, 0 for the smaller, ½ for a tie."""
    known = known_of(scores)
    return [
        mean_of([_points(known[place] - known[other], min_margin) for other in known if other != place])
        if place in known
        else None
        for place in range(len(scores))
    ]


def _points(margin: float, min_margin: float) -> float:
    return 0.5 if not is_decided(margin, min_margin) else 1.0 if margin > 0 else 0.0


def mean_of(values: Sequence[Number]) -> Number:
    """Return the mean of those that say something, None where none does: equal numbers have themselves as their mean.

    It is the exact one, rounded once, so that neither the order nor the number of summands makes or breaks a tie.
    """
    known = list(known_of(values).values())
    return statistics.mean(known) if known else None


@dataclass(frozen=True)
class PairingRule:
    """A rule by which the candidates of one prompt become pairs."""

    compares: Literal["scores", "rates"]
    """What it reads of a candidate: its score, or its win rate."""
    pairs: Callable[[Sequence[Number], PairingConfig, Uniform], list[Won]]
    """Returns the pairs, from one such number for each candidate; none where nobody won."""


def _chosen(values: Sequence[Number], settings: PairingConfig, uniform: Uniform) -> list[Won]:
    won = comparisons(values, settings.min_margin)
    return CHOICES[settings.rule](won, lambda num: int(uniform() * num)) if won else []


def _rso(values: Sequence[Number], settings: PairingConfig, uniform: Uniform) -> list[Won]:
    order = accepted(values, settings.beta, settings.num_accepted, uniform)
    return MATCHES[settings.match](order, values, settings.min_margin)


def _sppo(values: Sequence[Number], _settings: PairingConfig, _uniform: Uniform) -> list[Won]:
    """Take the largest win rate as chosen and the smallest as rejected, the first of several each."""
    won = comparisons(values)  # min_margin is one of scores
    return best_worst(won, lambda _: 0) if won else []


PAIRINGS: dict[str, PairingRule] = {
    **{name: PairingRule("scores", _chosen) for name in CHOICES},
    "rso": PairingRule("scores", _rso),
    "sppo": PairingRule("rates", _sppo),
}
"""The rules by their names."""
