"""Judged completions of one prompt to pairs: who won which comparison, which comparisons become pairs, what they weigh.

Owns the majority rule and the weights; which of the comparisons that somebody won become pairs is known to
`maths.pairing`. It knows no form of row. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from tiebreak.data.formats.form import Pairing, Reading, RowError
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.pairing import CHOICES, Won, best_worst, is_decided
from tiebreak.records import Message, Pair, Preference, Vote, prompt_id_of

MAX_COMPLETIONS = 512
"""A record with more is refused: comparisons grow with the square."""


@dataclass(frozen=True)
class Ballot:
    """What one judge said of the completions, in their order: a score each, higher is better; None is nothing said."""

    scores: tuple[float | None, ...]
    annotator: str = ""


@dataclass(frozen=True)
class Judged:
    """The completions of one prompt and every ballot on them."""

    prompt: tuple[Message, ...]
    completions: tuple[Message, ...]
    ballots: tuple[Ballot, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    is_scored: bool = False
    """Scores have a unit of their own (not ranks, not votes): pairs keep them, averaged over the ballots."""
    is_voted: bool = False
    """Ballots are votes of people: pairs keep them, with a soft label."""


@dataclass(frozen=True, slots=True)
class _Contest:
    """Two completions that somebody compared; margins are those of `first` over `second`, one a ballot."""

    first: int
    second: int
    margins: tuple[float, ...]

    @property
    def margin(self) -> float:
        return sum(self.margins) / len(self.margins)


def pairs_of(judged: Judged, pairing: Pairing) -> Reading:
    """Return the pairs of one prompt's judged completions; `num_ties` counts every comparison that nobody won.

    A comparison is won by the completion that more ballots put first; scores that are equal, or differ by less than
    `min_margin` (which says nothing of ranks and votes), are a ballot for neither. Two completions that are the same
    are never a pair. `best_worst` takes the widest margin (of completions that share the best or the worst score, the
    first in the file's order, which breaks no preference), and so it is where completions are to stay apart;
    `best_second` the same best one against the one that it beats most narrowly, `best_random` against one of those that
    it beats. With `all`, the pairs of a record weigh 1 together (Ouyang et al. 2022, Eq. 1). Raises RowError
    `no_completion`, `tie` or `identical` where there is no pair.
    """
    if len(judged.completions) > MAX_COMPLETIONS:
        raise RowError("too_many_completions", f"{len(judged.completions)} completions, more than {MAX_COMPLETIONS}")
    min_margin = pairing.min_margin if judged.is_scored else 0.0
    couples = combinations(range(len(judged.completions)), 2)
    compared = (_Contest(first, second, _margins(judged, first, second)) for first, second in couples)
    contests = [contest for contest in compared if contest.margins]
    won: list[Won] = []
    for contest in contests:
        wins, losses, _ = _tally(contest, min_margin)
        margin = contest.margin  # a majority against the mean decides nothing
        if wins > losses and margin >= 0:
            won.append(Won(contest.first, contest.second, margin))
        elif losses > wins and margin <= 0:
            won.append(Won(contest.second, contest.first, -margin))
    found = [item for item in won if judged.completions[item.winner] != judged.completions[item.loser]]
    if not found:
        raise _without_pair(judged, contests, min_margin, is_identical=bool(won))
    found.sort(key=lambda item: (item.winner, item.loser))

    def pick(num: int) -> int:
        return derive_seed(0, prompt_id_of(judged.prompt, judged.tools)) % num

    choose = best_worst if pairing.keeps_apart else CHOICES[pairing.choose]
    pairs = [_pair(judged, item, min_margin) for item in choose(found, pick)]
    return Reading(tuple(weighed(pairs, 1.0)), num_ties=len(contests) - len(found))


def against_each(
    prompt: tuple[Message, ...],
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    tools: tuple[Mapping[str, Any], ...] = (),
) -> Judged:
    """Return the judgement that each chosen completion is better than each rejected one; nothing else was compared."""
    completions = (*chosen, *rejected)
    duels = [
        {better: 1.0, worse: 0.0} for better in range(len(chosen)) for worse in range(len(chosen), len(completions))
    ]
    ballots = tuple(Ballot(tuple(map(duel.get, range(len(completions))))) for duel in duels)
    return Judged(prompt, completions, ballots, tools)


def _margins(judged: Judged, first: int, second: int) -> tuple[float, ...]:
    """Return how much better the first completion is than the second, for each ballot on both."""
    both = [(ballot.scores[first], ballot.scores[second]) for ballot in judged.ballots]
    return tuple(one - other for one, other in both if one is not None and other is not None)


def _tally(contest: _Contest, min_margin: float) -> tuple[int, int, int]:
    """Return the ballots for the first completion, those for the second, and ties."""
    wins = sum(margin > 0 for margin in contest.margins if is_decided(margin, min_margin))
    losses = sum(margin < 0 for margin in contest.margins if is_decided(margin, min_margin))
    return wins, losses, len(contest.margins) - wins - losses


def _pair(judged: Judged, won: Won, min_margin: float) -> Pair:
    both = [ballot for ballot in judged.ballots if None not in (ballot.scores[won.winner], ballot.scores[won.loser])]
    stated: dict[str, Any] = {}
    if judged.is_scored:
        stated = {
            "chosen_score": _mean_score(both, won.winner),
            "rejected_score": _mean_score(both, won.loser),
            "margin": won.margin,
        }
    if judged.is_voted:
        margins = _margins(judged, won.winner, won.loser)
        votes = [
            vote_of(margin if is_decided(margin, min_margin) else 0.0, ballot.annotator)
            for margin, ballot in zip(margins, both, strict=True)
        ]
        stated |= {"votes": tuple(votes), "soft_label": soft_label(votes)}
    completions = judged.completions[won.winner], judged.completions[won.loser]
    return Pair(judged.prompt, *completions, judged.tools, None, Preference(**stated))


def _mean_score(ballots: Sequence[Ballot], index: int) -> float:
    scores = [score for ballot in ballots if (score := ballot.scores[index]) is not None]
    return sum(scores) / len(scores)


def vote_of(margin: float, annotator: str = "") -> Vote:
    """Return the vote of one who found chosen better by `margin`: for it, against it, a tie at zero."""
    return Vote("tie" if margin == 0 else "chosen" if margin > 0 else "rejected", annotator)


def soft_label(votes: Sequence[Vote]) -> float:
    """Return the share of votes for chosen, a tie being half a vote."""
    return sum({"chosen": 1.0, "tie": 0.5, "rejected": 0.0}[vote.choice] for vote in votes) / len(votes)


def weighed(pairs: Sequence[Pair], total: float) -> list[Pair]:
    """Return the pairs with equal weights that add up to `total`."""
    if len(pairs) == total:
        return list(pairs)
    return [replace(pair, preference=replace(pair.preference, weight=total / len(pairs))) for pair in pairs]


def _without_pair(judged: Judged, contests: Sequence[_Contest], min_margin: float, *, is_identical: bool) -> RowError:
    if not contests:
        return RowError("no_completion", "fewer than two completions with text were judged against each other")
    if is_identical:
        return RowError("identical", "the completions that were judged differently are the same")
    if len(contests) == 1 and judged.is_voted:
        wins, losses, ties = _tally(contests[0], min_margin)
        return RowError("tie", f"votes {wins}:{losses}, {ties} {'tie' if ties == 1 else 'ties'}")
    margin = f" by {min_margin:g}" if min_margin else ""
    return RowError("tie", f"nobody won{margin}: {len(contests)} of {len(contests)} comparisons are ties")
