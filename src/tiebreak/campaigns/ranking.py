"""What the trials of a sweep show: which is best by held-out accuracy, which at the same KL, and what of it was luck.

Owns the ranking: by what was measured on held-out prompts, never by training loss. Trials are compared on the pairs
that all of them were measured on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tiebreak.errors import RunError
from tiebreak.evaluation.contrast import told_apart
from tiebreak.evaluation.heldout import Evidence
from tiebreak.evaluation.rows import Row
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.frontier import FURTHEST, matched_kl, pareto, win_rate_of_one
from tiebreak.maths.paired import resampled
from tiebreak.maths.stats import Estimate, clustered_mean, clustered_share, difference
from tiebreak.runs import Run, as_a_run_writes

WIN_RATE, KL = "answers/preferred", "kl"
Scores = Mapping[str, tuple[float, str]]
"""What a trial is chosen by, an item each, with its prompt."""


@dataclass(frozen=True)
class Measurements:
    """What was measured of one trial on held-out prompts."""

    wins: Mapping[str, float]
    """By the pair, as `told_apart` names it."""
    gaps: Mapping[str, float]
    """By how much more chosen gained than rejected, nats: alike for every beta, which margins are not."""
    prompts: Mapping[str, str]
    win_rate: Row | None
    """Of its answers against those of the reference; None where nobody judged them."""
    kl: Row | None

    @property
    def has_win_rate(self) -> bool:
        """Whether its answers were judged and scored, and all of it is numbers."""
        return all(row is not None and all(map(math.isfinite, row.after)) for row in (self.win_rate, self.kl))

    def scores(self, best_by: str, kl: float | None) -> Scores:
        """Return what a trial is chosen by, an item each with its prompt: wins on pairs, or those of its answers.

        The latter as they would be at `kl`, where the trial went as far: its win rate lies on a line through one half.
        """
        if best_by == "accuracy" or not (self.has_win_rate and self.win_rate and self.kl and kl):
            return {pair: (win, self.prompts[pair]) for pair, win in self.wins.items()}
        share = min(1.0, kl / max(statistics.fmean(self.kl.after), kl))
        rows = zip(self.win_rate.prompts, self.win_rate.after, strict=True)
        return {prompt: (0.5 + share * (win - 0.5), prompt) for prompt, win in rows}

    @classmethod
    def of(cls, run: Run) -> Measurements:
        """Read them from a run, or from one of its evaluations."""
        with as_a_run_writes(run.path):
            evidence = run.rows(run.evidence_file)
            pairs = dict(zip(told_apart([str(row["pair_id"]) for row in evidence]), evidence, strict=True))
            rows = {row["key"]: Row.from_dict(row) for row in run.rows(run.measures_file)}
            if not pairs:
                raise RunError(f"{run.path}: holds no evidence of held-out pairs")
            return cls(
                {pair: float(row["win"]) for pair, row in pairs.items()},
                {pair: Evidence(**row).logratio_gap for pair, row in pairs.items()},
                {pair: str(row["prompt_id"]) for pair, row in pairs.items()},
                rows.get(WIN_RATE),
                rows.get(KL),
            )


@dataclass(frozen=True)
class Standing:
    """Where a trial stands among the others."""

    name: str
    accuracy: Estimate
    gap: Estimate
    """Mean difference of log-ratios, nats, which breaks ties."""
    behind: Estimate | None
    """Accuracy of the best less its own, on the same pairs; None of the best."""
    win_rate: Estimate | None
    kl: Estimate | None
    matched: Estimate | None
    """Win rate at the KL that all reach; None where it is not compared there."""
    matched_behind: Estimate | None
    """That of the best there less its own, as of independent measurements; None of that best, or without a rival."""
    not_compared: str | None
    """Why its win rate is known and not compared at the same KL."""
    has_moved: bool
    """Whether it learned more than rounding: by the gap, above the bound that the gate has for it."""
    on_front: bool

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """All trials that were measured, the best first."""

    standings: Sequence[Standing]
    num_pairs: int
    num_left_out: int
    """Pairs that not all trials were measured on."""
    matched_kl: float | None
    best_by: str
    """What decided: win rates where they were to and two trials can be compared by them, else accuracy."""
    best_by_accuracy: str
    best_by_win_rate: str | None
    """None where fewer than two trials can be compared at the same KL."""
    tied: Sequence[str]
    """Trials whose accuracy is that of the best, with it, where accuracy decided: the gap broke the tie."""
    least_gap: float


def ranked(found: Mapping[str, Measurements], best_by: str, seed: int, least_gap: float = -math.inf) -> Ranking:
    """Rank trials by their measurements; raises RunError where they have no pair in common.

    A trial whose mean gap is not above `least_gap` has learned nothing, and stands behind all others.
    """
    common = [pair for pair in next(iter(found.values())).wins if all(pair in one.wins for one in found.values())]
    if not common:
        raise RunError("the trials were measured on other held-out pairs, each on its own, and cannot be compared")
    stream = derive_seed(seed, "sweep")
    prompts = [next(iter(found.values())).prompts[pair] for pair in common]
    wins = {name: [one.wins[pair] for pair in common] for name, one in found.items()}
    gaps = {name: [one.gaps[pair] for pair in common] for name, one in found.items()}
    moved = {name: statistics.fmean(gaps[name]) > least_gap for name in found}
    order = sorted(
        found, key=lambda name: (not moved[name], -statistics.fmean(wins[name]), -statistics.fmean(gaps[name]))
    )
    by_accuracy = order[0]
    rates = {name: _estimate(one.win_rate, stream) for name, one in found.items()}
    kls = {name: _estimate(one.kl, stream) for name, one in found.items()}
    known = {name: (kl, rate) for name in found if (kl := kls[name]) and (rate := rates[name])}
    # k1 has no bias and much noise: where its interval holds 0, nobody knows that the policy went anywhere.
    surely = {name: (kl, rate) for name, (kl, rate) in known.items() if kl.low > 0}
    front = dict(zip(surely, pareto([(kl.mean, rate.mean) for kl, rate in surely.values()]), strict=True))
    kl_of_all = matched_kl([kl.mean for kl, _ in surely.values()])
    reasons = {name: _no_numbers(one) for name, one in found.items()}
    reasons |= {name: _not_compared(kl, kl_of_all) for name, (kl, _) in known.items()}
    matched = _at(kl_of_all, {name: ends for name, ends in surely.items() if reasons[name] is None})
    by_rate = sorted(matched, key=lambda name: (not moved[name], -matched[name].mean, order.index(name)))
    best_by = best_by if len(by_rate) > 1 else "accuracy"
    if best_by == "win_rate":
        order = [*by_rate, *(name for name in order if name not in by_rate)]
    listed = {name: {pair: (win, prompts[at]) for at, (pair, win) in enumerate(zip(common, some, strict=True))}
              for name, some in wins.items()}  # fmt: skip
    standings = [
        Standing(
            name, clustered_share(wins[name], prompts, stream), clustered_mean(gaps[name], prompts, stream),
            None if name == order[0] else _lead_of(listed[order[0]], listed[name], stream), rates[name], kls[name],
            matched.get(name), difference(matched[by_rate[0]], matched[name]) if name in by_rate[1:] else None,
            reasons[name], moved[name], front.get(name, False),
        )
        for name in order
    ]  # fmt: skip
    left_out = len({pair for one in found.values() for pair in one.wins}) - len(common)
    return Ranking(
        standings,
        len(common),
        left_out,
        kl_of_all,
        best_by,
        by_accuracy,
        by_rate[0] if len(by_rate) > 1 else None,
        _tied(standings) if best_by == "accuracy" else (),
        least_gap,
    )


def _at(kl: float | None, known: Mapping[str, tuple[Estimate, Estimate]]) -> dict[str, Estimate]:
    """Return win rates at a KL, by trials that are known where they ended: their KL and win rate there."""
    return {} if kl is None else {name: win_rate_of_one(kl, *ends) for name, ends in known.items()}


def _tied(standings: Sequence[Standing]) -> Sequence[str]:
    """Return the trials whose accuracy is that of the first one, with it; none where it has it for itself."""
    best = standings[0]
    alike = [
        one.name
        for one in standings
        if one.has_moved == best.has_moved and math.isclose(one.accuracy.mean, best.accuracy.mean)
    ]
    return alike if len(alike) > 1 else ()


def _no_numbers(one: Measurements) -> str | None:
    """Return which of a trial's values are no numbers; None where all are, or nobody measured it."""
    for what, row in (("KL", one.kl), ("win rate", one.win_rate)):
        if row and (num := sum(not math.isfinite(value) for value in row.after)):
            return f"{num} of the {len(row.after)} values of its {what} are no numbers"
    return None


def _not_compared(kl: Estimate, matched: float | None) -> str | None:
    """Return why a trial is not compared at a KL; None where it is."""
    if kl.low <= 0:
        return "its KL is not told from 0"
    if matched is None or kl.mean < matched:
        return "it does not reach that KL"
    return "it went too far for a comparison there" if kl.mean > FURTHEST * matched else None


@dataclass(frozen=True)
class Luck:
    """The lead of the best trial over another one, where it was chosen and where nobody had looked."""

    best: str
    against: str
    choosing: Estimate
    confirming: Estimate
    lost: Estimate
    """The lead on the prompts that it was chosen by, less that on others: what was luck."""
    of: str
    """What it leads in: win rate where all answers were judged, both times, else accuracy."""
    accuracy: Estimate
    """Held-out accuracy of the best, on prompts that no trial was chosen by."""
    win_rate: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)

    @property
    def says(self) -> str:
        """What of the lead was luck, in a sentence."""
        chosen, confirmed = 100 * self.choosing.mean, 100 * self.confirming.mean
        told = (
            f"its lead over {self.against} in {_CALLED[self.of]} is {chosen:+.1f} points where it was chosen and "
            f"{confirmed:+.1f} on others"
        )
        if chosen <= 0:
            return f"{told}: there was none to lose"
        luck = min(1.0, max(0.0, self.lost.mean / self.choosing.mean))
        sure = "" if self.confirming.low > 0 else "; that there is any lead is not known"
        return f"{told}: {luck:.0%} of it was luck{sure}"


_CALLED = {"win_rate": "win rate", "accuracy": "held-out accuracy"}


def luck_of(
    best: str,
    against: str,
    choosing: Mapping[str, Measurements],
    confirming: Mapping[str, Measurements],
    ranking: Ranking,
    seed: int,
) -> Luck:
    """Return what of the lead of the best over another trial is left on prompts that no trial was chosen by."""
    stream, own = derive_seed(seed, "luck"), confirming[best]
    judged = all(found[name].has_win_rate for found in (choosing, confirming) for name in (best, against))
    # One for all four: a win rate less an accuracy is a lead in nothing.
    of = "win_rate" if judged and ranking.best_by == "win_rate" and ranking.matched_kl else "accuracy"

    def lead(found: Mapping[str, Measurements]) -> Estimate:
        one, other = (found[name].scores(of, ranking.matched_kl) for name in (best, against))
        return _lead_of(one, other, stream)

    before, after = lead(choosing), lead(confirming)
    accuracy = clustered_share([*own.wins.values()], [*own.prompts.values()], stream)
    lost = difference(before, after)
    return Luck(best, against, before, after, lost, of, accuracy, _estimate(own.win_rate, stream))


def compared_with(ranking: Ranking, default: str | None) -> str:
    """Return the trial that the best is held against: that of the defaults, or else the median.

    The median is that of the others; raises RunError where there is none.
    """
    others = [one.name for one in ranking.standings[1:]]
    if not others:
        raise RunError("one trial alone was trained to its end: there is none to hold it against")
    if default in others:
        return str(default)
    return others[(len(others) - 1) // 2]


def _lead_of(one: Scores, other: Scores, seed: int) -> Estimate:
    """Return by how much one scores more than another on the items that both have."""
    items = [item for item in one if item in other]
    if not items:
        raise RunError("two trials were measured on other held-out prompts, each on its own, and cannot be compared")
    differences = [one[item][0] - other[item][0] for item in items]
    return resampled(differences, [one[item][1] for item in items], (-1.0, 1.0), seed).interval()


def _estimate(row: Row | None, seed: int) -> Estimate | None:
    """Return the mean of a measure with its interval; None where nobody measured it, or not all of it is numbers."""
    if row is None or not all(map(math.isfinite, row.after)):
        return None
    return resampled(row.after, row.prompts, (0.0, 1.0) if row.key == WIN_RATE else None, seed).interval()
