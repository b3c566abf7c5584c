"""What a judge is asked and what it says; how a rating becomes a preference, and how both orders do.

Owns these shapes and nothing of any judge. A judge that could not say is no verdict: its preference is None.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tiebreak.engine.answers.answerer import Chat

FIRST, TIE, SECOND = 1.0, 0.5, 0.0


@dataclass(frozen=True)
class Question:
    """Two answers to one chat; which of them is better?"""

    chat: Chat
    first: str
    second: str

    @staticmethod
    def of_sample(sample: Mapping[str, Any]) -> Question:
        """Return what is asked of a row of samples.jsonl: is the answer after better than the one before?"""
        return Question(Chat.from_dict(sample), str(sample["after"]["text"]), str(sample["before"]["text"]))

    def turned(self) -> Question:
        """Return the same question with its answers the other way round."""
        return replace(self, first=self.second, second=self.first)


@dataclass(frozen=True)
class Preference:
    """What a judge said of one question."""

    first: float | None
    """1 where the first answer is better, 0 where the second is, 0.5 for a tie, or the probability that the first is;
    None where the judge did not say: a call failed, the text did not fit, a rule raised."""
    flipped: bool = False
    """Whether the judge contradicted itself when the answers were shown in the other order."""
    says: str = ""
    """What it said in its own words, or why it said nothing: a reason that is counted, then a colon and more of it."""
    at_first: float | None = None
    """How often, of both orders, it was for the answer that was shown first: 0.5 where the place did not matter; None
    where it cannot."""


Done = Callable[[Sequence[tuple[int, Preference]]], None]
"""Is told preferences as they come, with the places of their questions."""


def nothing(_: Sequence[tuple[int, Preference]]) -> None:
    """Take no notice."""


def unsaid(preferences: Sequence[Preference]) -> dict[str, int]:
    """Return how many preferences are none, by reason, the most frequent first."""
    reasons = Counter(one.says.partition(":")[0] for one in preferences if one.first is None)
    return dict(reasons.most_common())


class Judge(Protocol):
    """Compares two answers."""

    @property
    def identity(self) -> str:
        """What preferences depend on besides the question, as a fingerprint."""

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Return one preference for each question, in order; `done` is told each as it is made."""


Rating = float | str | None
"""A number, or why there is none: a reason that is counted, then a colon and more of it. None: nothing was said."""


class Rater(Protocol):
    """Gives one answer a number; larger is better."""

    @property
    def identity(self) -> str:
        """What ratings depend on besides chat and answer, as a fingerprint."""

    def rate(self, chats: Sequence[Chat], answers: Sequence[str]) -> Sequence[Rating]:
        """Return one rating for each chat and its answer, in order."""


class ByRating:
    """A judge that prefers what is rated higher; equal ratings are a tie. The order of answers cannot matter."""

    def __init__(self, rater: Rater) -> None:
        self._rater = rater
        self.identity = rater.identity

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Rate both answers of each question, all of them at once: numbers that are compared are of one call."""
        chats = [question.chat for question in questions]
        answers = [*(question.first for question in questions), *(question.second for question in questions)]
        rated = self._rater.rate([*chats, *chats], answers)
        found = [_compared(one, two) for one, two in zip(rated[: len(chats)], rated[len(chats) :], strict=True)]
        done(list(enumerate(found)))
        return found


def _compared(first: Rating, second: Rating) -> Preference:
    if first is None or second is None or isinstance(first, str) or isinstance(second, str):
        return Preference(None, says=next((one for one in (first, second) if isinstance(one, str)), "not rated"))
    says = f"{first:g} against {second:g}"
    return Preference(FIRST if first > second else SECOND if first < second else TIE, says=says)


class BothOrders:
    """A judge that is asked in both orders, and the mean of what it said.

    Where the orders are for different answers, it is a tie and counts as flipped; where one of them calls it a tie, the
    other counts half. Two answers that are the same text are a tie, and nobody is asked.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.identity = judge.identity

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Ask each question twice."""
        same = [(place, _SAME) for place, question in enumerate(questions) if question.first == question.second]
        if same:
            done(same)
        open_ = [place for place, question in enumerate(questions) if question.first != question.second]
        asked = [one for place in open_ for one in (questions[place], questions[place].turned())]
        said: dict[int, Preference] = {}

        def told(made: Sequence[tuple[int, Preference]]) -> None:
            said.update(made)
            whole = sorted({place // 2 for place, _ in made if {place, place ^ 1} <= said.keys()})
            if whole:
                done([(open_[index], _agreed(said[2 * index], said[2 * index + 1])) for index in whole])

        found = self._judge.prefer(asked, told) if asked else []
        both = [_agreed(one, two) for one, two in zip(found[0::2], found[1::2], strict=True)]
        judged = dict([*same, *zip(open_, both, strict=True)])
        return [judged[place] for place in range(len(questions))]


_SAME = Preference(TIE, says="the same answer twice")


def _agreed(straight: Preference, turned: Preference) -> Preference:
    if straight.first is None or turned.first is None:
        return Preference(None, says=straight.says if straight.first is None else turned.says)
    back = 1 - turned.first
    flipped = (straight.first - TIE) * (back - TIE) < 0
    first = TIE if flipped else (straight.first + back) / 2
    return Preference(first, flipped, straight.says, at_first=(straight.first + turned.first) / 2)
