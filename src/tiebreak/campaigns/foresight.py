"""What a loop of rounds would ask of whom, and what it costs: for whoever asks before it is begun.

Owns that estimate. Prompts are read and their tokens counted; no weights are loaded, nothing is written, and
nobody is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak.campaigns.bench import KEPT
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import Rounds
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.models import load_renderer
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES, check_for_rounds, named
from tiebreak.progress import Progress, Silent
from tiebreak.reporting.numbers import count, numbered
from tiebreak.stations.harvest import extent, sampling_of
from tiebreak.stations.ruling import foreseen
from tiebreak.stations.walk import Walk, open_walk
from tiebreak.training.settled import check_settings


@dataclass(frozen=True)
class Part:
    """What the held-out prompts, or one round, would take."""

    name: str
    num_prompts: int
    num_answers: int
    most_tokens: int
    """All answers together; most end before."""
    num_ratings: int
    num_comparisons: int
    num_calls: int
    tokens_in: int
    most_tokens_out: int
    most_cost: float | None
    """None where a judge is asked over a network and no price is known."""


@dataclass(frozen=True)
class Foresight:
    """What a loop would take at most: parts, and all together."""

    folder: Path
    judge: str
    measured_by: str
    parts: Sequence[Part]
    cap: float | None

    @property
    def most_cost(self) -> float | None:
        """What all judging costs at most; None where that is not known."""
        costs = [one.most_cost for one in self.parts]
        return None if None in costs else sum(one for one in costs if one is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "folder": str(self.folder), "most_cost": self.most_cost}

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"{self.folder}: judged by {self.judge}, measured by {self.measured_by}; nothing is asked now"
        for one in self.parts:
            judged = [numbered(one.num_ratings, "rating")] if one.num_ratings else []
            judged += [numbered(one.num_comparisons, "comparison")] if one.num_comparisons else []
            told = f"{numbered(one.num_prompts, 'prompt')}, {numbered(one.num_answers, 'answer')} of at most "
            yield f"  {one.name}: {told}{count(one.most_tokens)} tokens; {', '.join(judged) or 'nothing judged'}"
        calls, tokens_in, tokens_out = (
            sum(getattr(one, key) for one in self.parts) for key in ("num_calls", "tokens_in", "most_tokens_out")
        )
        if not calls:
            yield "calls of a server to judge: none; price: nothing"
            return
        price = (
            "not known without price_in and price_out" if self.most_cost is None else f"at most {self.most_cost:.4g}"
        )
        yield f"calls of a server to judge: at most {count(calls)}, {count(tokens_in)} tokens sent at most, and "
        yield f"  {count(tokens_out)} answered; price: {price}" + (f", capped at {self.cap:g}" if self.cap else "")


def refuse_unworkable(asked: Rounds, walk: Walk, progress: Progress) -> None:
    """Refuse, before anything is sampled, judges that cannot be one, and settings that no round could be trained by."""
    settings = asked.settings
    chats = [(chat, ()) for chat in (*walk.prompts, *walk.heldout)]
    given = Given(answered=chats, folder=asked.folder, kept=asked.folder / KEPT)
    check_for_rounds(settings.judge, asked.base.evaluation.judge, given, settings.stop.cost)
    lineup = Lineup(asked, progress)
    for number in (1, 2):
        check_settings(lineup.config(number), progress)
    if settings.pairing.rule == "rso" and settings.sampling.n < 4 * settings.pairing.num_accepted:
        progress.warn(
            f"rounds.pairing: rso accepts {settings.pairing.num_accepted} of {settings.sampling.n} answers, and where "
            "it can reject hardly any, it samples no other policy: n of 4 × num_accepted is advised (Liu et al. 2024)"
        )


def foresight(asked: Rounds, progress: Progress | None = None) -> Foresight:
    """Return what a loop would take at most; raises DataError, ModelError or ConfigError as the loop would."""
    settings, base, told = asked.settings, asked.base, progress or Silent()
    renderer, context = load_renderer(base.model, base.data, told.say)
    walk = open_walk(settings, base.data, renderer, context.most, told)
    refuse_unworkable(asked, walk, told)
    own = base.evaluation.judge or settings.judge
    given = Given(kept=asked.folder / KEPT)
    most = settings.sampling.max_new_tokens
    measures = JUDGES[own.kind].measures
    heldout, num = list(walk.heldout), settings.measure_draws

    def part(name: str, number: int, chats: Sequence[Chat], *, against: int) -> Part:
        """Return what a round takes, whose policy is then measured against so many others."""
        drawn = extent(len(chats), sampling_of(settings.sampling, number))
        judged = foreseen(settings.judge, chats, settings.sampling.n, most, given)
        duels = [foreseen(own, heldout, 2, most, given)] * (against if measures else 0)
        duels += [foreseen(own, heldout, 1, most, given)] if measures else []
        estimates = [one.estimate for one in (judged, *duels)]
        costs = [one.most_cost for one in estimates]
        answers = len(heldout) * (1 + (num if number else 0))
        return Part(
            name,
            len(chats),
            drawn.num_answers + answers,
            drawn.most_tokens + answers * most,
            sum(one.num_ratings for one in (judged, *duels)),
            sum(one.num_comparisons for one in (judged, *duels)),
            sum(one.num_calls for one in estimates),
            sum(one.tokens_in for one in estimates),
            sum(one.most_tokens_out for one in estimates),
            None if None in costs else sum(one for one in costs if one is not None),
        )

    parts = [part("held-out prompts", 0, heldout, against=0)]
    for number in range(1, settings.count + 1):
        parts.append(part(f"round {number}", number, walk.round_of(number), against=min(number, 2)))
    measured_by = "the first model" if JUDGES[own.kind].changes else named(own)
    return Foresight(asked.folder, named(settings.judge), measured_by, parts, settings.stop.cost)
