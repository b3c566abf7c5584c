"""What became of the policy: each round measured on the same held-out prompts, against the first model and the last.

Owns who judges that: `evaluation.judge`, where one is named, so that the policy is not measured by what it was trained
for; else the judge of the rounds. Where that is the policy itself it is the first model in every round: win rates by
judges that differ are not to be ranked, and no policy is to be measured by its own taste.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiebreak.campaigns.bench import KEPT
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import Rounds
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Judge
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.maths.kl import Floats
from tiebreak.progress import Progress
from tiebreak.stations import standing
from tiebreak.stations.harvest import harvest, read_answered
from tiebreak.stations.journal import Journal
from tiebreak.stations.rows import Answered
from tiebreak.stations.ruling import another_judge


class Appraisal:
    """Measures rounds, each on the same prompts."""

    def __init__(self, asked: Rounds, lineup: Lineup, chats: Sequence[Chat], progress: Progress) -> None:
        self._asked, self._lineup, self._chats, self._progress = asked, lineup, chats, progress
        self._settings, self._seed = asked.settings, asked.settings.sampling.seed
        self._judge = asked.base.evaluation.judge or asked.settings.judge
        self._drawn = standing.drawn(self._settings.sampling, self._settings.measure_draws)
        self._greedy = Sampling(self._settings.sampling.max_new_tokens)

    def of_first(self, left: float | None) -> dict[str, Any]:
        """Return what is counted of the first model's answers, and their scores; judging may cost what is `left`."""
        answers, _ = self._answered(0)
        with self._judging(0, left) as judge:
            score = standing.scored(judge, answers, self._seed) if judge else None
        return {"counted": standing.counted(answers), "score": score}

    def of(self, number: int, left: float | None) -> dict[str, Any]:
        """Return how a round's policy stands: win rates with intervals, KL, score, length, ends and loops.

        One model is in memory at a time. Judging may cost what is `left`.
        """
        answers, draws = self._answered(number)
        found = {"counted": standing.counted(answers)} | self._judged(number, answers, left)
        if draws:
            own = self._said_by(number, draws)
            before = {"kl_first": 0} | ({"kl_previous": number - 1} if number > 1 else {})
            for key, other in before.items():
                found[key] = standing.divergence(own, self._said_by(other, draws), draws, self._seed)
        return found

    def _answered(self, number: int) -> tuple[list[Answered], list[Answered]]:
        """Return greedy answers of a policy, and what it draws for the KL; of the first model nothing is drawn."""
        place, drawn = self._place(number), self._drawn
        with self._lineup.frozen(number) as model:
            answers = harvest(model, self._chats, self._greedy, place / "answers.jsonl", self._progress)
            if not number or not drawn.num:
                return answers, []
            return answers, harvest(model, self._chats, drawn, place / "draws.jsonl", self._progress)

    def _said_by(self, number: int, draws: Sequence[Answered]) -> list[Floats]:
        """Return what a policy says of each token of drawn answers."""
        with self._lineup.frozen(number) as model:
            return standing.token_logps(model, draws, self._drawn)

    def _judged(self, number: int, answers: Sequence[Answered], left: float | None) -> dict[str, Any]:
        """Return what the judge says of greedy answers, against those of the first model and of the round before."""
        with self._judging(number, left) as judge:
            if judge is None:
                return {}
            found: dict[str, Any] = {"score": standing.scored(judge, answers, self._seed)}
            for key, other in {"vs_first": 0, "vs_previous": number - 1}.items():
                if key == "vs_previous" and not other:
                    found[key] = found["vs_first"]
                else:
                    then = self.answers_of(other)
                    found[key] = standing.against(judge, answers, then, self._seed, self._progress).as_dict()
        return found

    def is_whole(self, measured: Mapping[str, Any]) -> bool:
        """Whether nothing that was measured of a round lacks what the judge may say when it is asked again."""
        return not any(standing.may_be_known(measured[key]) for key in ("vs_first", "vs_previous") if key in measured)

    def cost_of(self, number: int) -> float:
        """Return what measuring a round has cost, in all goes at it, where that is priced."""
        spent = self._journal(number).spent
        return (spent and spent.cost) or 0.0

    def _journal(self, number: int) -> Journal:
        return Journal(self._place(number) / "measuring.jsonl")

    def _place(self, number: int) -> Path:
        return self._lineup.place(number) if number else self._lineup.heldout

    def answers_of(self, number: int) -> list[Answered]:
        """Return the greedy answers of a round that is measured; 0: of the first model."""
        path = self._place(number) / "answers.jsonl"
        return read_answered(path, self._chats, 1) if path.exists() else self._answered(number)[0]

    def beside_first(self, number: int, wins: Sequence[float | None]) -> list[dict[str, Any]]:
        """Return a row for each held-out prompt: what the first model and a round answer, and who is preferred."""
        both = zip(self.answers_of(0), self.answers_of(number), wins, strict=True)
        return [
            {
                "prompt": "\n\n".join(message.content for message in one.chat.messages),
                "first": one.answers[0].text,
                "round": two.answers[0].text,
                "win": win,
            }
            for one, two, win in both
        ]

    @contextlib.contextmanager
    def _judging(self, number: int, left: float | None) -> Iterator[Judge | None]:
        """Give the judge; None where nobody waits for its word, as for that of people."""
        kind, settings = JUDGES[self._judge.kind], self._judge
        if not kind.measures:
            yield None
            return
        if left is not None:
            settings = kind.within(settings, left)
        journal = self._journal(number)
        answered = [(chat, ()) for chat in self._chats]
        with self._lineup.frozen(0) if kind.changes else contextlib.nullcontext() as policy:
            given = Given(
                self._progress,
                self._asked.folder / KEPT,
                policy=policy,
                answered=answered,
                spending=journal.pay,
                spent=journal.pay,
                paid=journal.spent,
            )
            with kind.make(settings, given) as judge:
                first = self._journal(0).judge
                if number and first != judge.identity:
                    raise another_judge(self._place(number))
                journal.open(judge.identity, "")
                yield judge
