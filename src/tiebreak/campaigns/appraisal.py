"""What became of the policy: each round measured on the same held-out prompts, against the first model and the last.

Owns who judges that: `evaluation.judge`, where one is named, so that the policy is not measured by what it was trained
for; else the judge of the rounds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tiebreak.campaigns.bench import KEPT
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import JudgeConfig, Rounds
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.model import Model
from tiebreak.evaluation.judges.capped import Spent
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Judge
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.progress import Progress
from tiebreak.stations import standing
from tiebreak.stations.harvest import harvest, read_answered
from tiebreak.stations.rows import Answered


class Appraisal:
    """Measures rounds, each on the same prompts."""

    def __init__(self, asked: Rounds, lineup: Lineup, chats: Sequence[Chat], progress: Progress) -> None:
        self._asked, self._lineup, self._chats, self._progress = asked, lineup, chats, progress
        self._settings, self._seed = asked.settings, asked.settings.sampling.seed
        self._greedy = Sampling(self._settings.sampling.max_new_tokens)
        self.cost = 0.0
        """What the judge of the last measurement was paid, where it is priced."""

    @property
    def judge(self) -> JudgeConfig:
        """Who judges."""
        return self._asked.base.evaluation.judge or self._settings.judge

    def of_first(self) -> dict[str, Any]:
        """Return what is counted of the first model's answers, and their scores."""
        with self._lineup.frozen(0) as model:
            answers = harvest(model, self._chats, self._greedy, self._lineup.heldout / "answers.jsonl", self._progress)
            with self._judging(model) as judge:
                score = standing.scored(judge, answers, self._seed) if judge else None
        return {"counted": standing.counted(answers), "score": score}

    def of(self, number: int) -> dict[str, Any]:
        """Return how a round's policy stands: win rates with intervals, KL, score, length, ends and loops."""
        drawn = standing.drawn(self._settings.sampling, self._settings.measure_draws)
        place = self._lineup.place(number)
        with self._lineup.frozen(number) as policy:
            answers = harvest(policy, self._chats, self._greedy, place / "answers.jsonl", self._progress)
            draws = harvest(policy, self._chats, drawn, place / "draws.jsonl", self._progress) if drawn.num else []
            own = standing.token_logps(policy, draws, drawn) if draws else []
            found = {"counted": standing.counted(answers)} | self._judged(number, policy, answers)
        before = {"kl_first": 0} | ({"kl_previous": number - 1} if number > 1 else {})
        for key, other in before.items() if draws else ():
            with self._lineup.frozen(other) as model:
                found[key] = standing.divergence(own, standing.token_logps(model, draws, drawn), draws, self._seed)
        return found

    def _judged(self, number: int, policy: Model, answers: Sequence[Answered]) -> dict[str, Any]:
        """Return what the judge says of greedy answers, against those of the first model and of the round before."""
        with self._judging(policy) as judge:
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

    def answers_of(self, number: int) -> list[Answered]:
        """Return the greedy answers of a round that is measured; 0: of the first model."""
        place = self._lineup.place(number) if number else self._lineup.heldout
        return read_answered(place / "answers.jsonl", self._chats, 1)

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
    def _judging(self, policy: Model) -> Iterator[Judge | None]:
        """Give the judge; None where nobody waits for its word, as for that of people."""
        spent: list[Spent] = []
        kind = JUDGES[self.judge.kind]
        if not kind.measures:
            yield None
            return
        given = Given(
            self._progress,
            self._asked.folder / KEPT,
            policy=policy,
            answered=[(chat, ()) for chat in self._chats],
            spent=spent.append,
        )
        try:
            with kind.make(self.judge, given) as judge:
                yield judge
        finally:
            self.cost = sum((one.cost or 0.0) for one in spent)
