"""What a judge is asked and what it says; how ratings, and both orders, become preferences and standings.

Owns these shapes and nothing of any judge. A judge has two faces: it prefers one of two answers, and it stands over all
answers to a prompt. Where it could not say there is no verdict: neither a preference nor a score, but a reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Protocol

from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.maths.pairing import rates_of_wins
from tiebreak.records import Message, Pair

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

    @staticmethod
    def of_pair(pair: Pair) -> Question:
        """Return what is asked of a pair, calls of tools and all but thoughts: is chosen better than rejected?"""
        first, second = (in_words(replace(one, reasoning="")) for one in (pair.chosen, pair.rejected))
        return Question(Chat(pair.prompt, pair.tools), first, second)

    def turned(self) -> Question:
        """Return the same question with its answers the other way round."""
        return replace(self, first=self.second, second=self.first)


def in_words(message: Message) -> str:
    """Return what a judge reads of a message: its text, and behind it what else it holds, calls of tools, as JSON."""
    told = {name: value for name, value in message.as_dict().items() if name not in ("role", "content")}
    return message.content + (json.dumps(told, ensure_ascii=False) if told else "")


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


@dataclass(frozen=True)
class Standing:
    """How the answers to one prompt stand, in their order; equal texts stand alike."""

    scores: tuple[float | None, ...]
    """A number for each answer, larger is better: its rating, or its rate; None where the judge did not say."""
    reasons: tuple[str, ...] = ()
    """Why texts have no rating, or comparisons no verdict, one for each: a reason that is counted, a colon, more."""
    rates: tuple[float | None, ...] = ()
    """The mean probability of each answer to win against the other answers, as `maths.pairing.rates_of_wins` has it of
    `wins`: an equal text is an opponent like any other, and a tie. Empty where answers are rated."""
    num_compared: int = 0
    """Comparisons that were asked, both orders being one; 0 where answers are rated."""
    num_flipped: int = 0
    """Comparisons where the order of the answers changed what was said."""
    wins: tuple[tuple[float | None, ...], ...] = ()
    """Where answers were compared, for each its probability to win against each of them: one half for another answer
    of the same text; None where nobody said, and against itself. A text of which nobody said how it stands against any
    other has none at all, so that it has no rate for being drawn twice."""


Done = Callable[[Sequence[tuple[int, Preference]]], None]
"""Is told preferences as they come, with the places of their questions."""
Stood = Callable[[Sequence[tuple[int, Standing]]], None]
"""Is told standings as they come, with the places of their prompts."""


def nothing(_: object) -> None:
    """Take no notice."""


def unsaid(preferences: Sequence[Preference]) -> dict[str, int]:
    """Return how many preferences are none, by reason, the most frequent first."""
    reasons = Counter(one.says.partition(":")[0] for one in preferences if one.first is None)
    return dict(reasons.most_common())


class Comparer(Protocol):
    """Compares two answers."""

    @property
    def identity(self) -> str:
        """What preferences depend on besides the question, as a fingerprint."""

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Return one preference for each question, in order; `done` is told each as it is made."""


class Judge(Comparer, Protocol):
    """Compares two answers, and stands over all answers to a prompt."""

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Return how the answers to each chat stand, in order; `done` is told each standing as it is made."""


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

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Rate each text once, all of one call."""

        def rate(asked: Sequence[Chat], some: Sequence[Answer]) -> Sequence[Rating]:
            return self._rater.rate(asked, [one.text for one in some])

        return by_rating(rate, chats, answers, done)


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

    def __init__(self, judge: Comparer) -> None:
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

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Compare every couple of different texts of a prompt, in both orders."""
        return by_comparing(self.prefer, chats, answers, done)


_SAME = Preference(TIE, says="the same answer twice")


def where_they_differ(judge: Comparer, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
    """Return preferences: of two answers that are the same text a tie that nobody is asked about."""
    open_ = [place for place, one in enumerate(questions) if one.first != one.second]
    found = [Preference(TIE, says="the same answer")] * len(questions)
    for place, said in zip(open_, judge.prefer([questions[at] for at in open_], done), strict=True):
        found[place] = said
    return found


def num_heard(questions: Sequence[Question], said: Sequence[Preference]) -> tuple[int, int]:
    """Return how many questions with two different texts have a verdict, and how many there are."""
    heard = [one.first is not None for asked, one in zip(questions, said, strict=True) if asked.first != asked.second]
    return sum(heard), len(heard)


def _agreed(straight: Preference, turned: Preference) -> Preference:
    if straight.first is None or turned.first is None:
        return Preference(None, says=straight.says if straight.first is None else turned.says)
    back = 1 - turned.first
    flipped = (straight.first - TIE) * (back - TIE) < 0
    first = TIE if flipped else (straight.first + back) / 2
    return Preference(first, flipped, straight.says, at_first=(straight.first + turned.first) / 2)


# ----------------------------------------------------------------------------------------- over all answers to a prompt

Couples = Callable[[int], Iterable[tuple[int, int]]]
"""Which of so many texts are compared with each other."""


def every_couple(num: int) -> Iterable[tuple[int, int]]:
    """Return all couples of `num` texts."""
    return combinations(range(num), 2)


def distinct(answers: Sequence[Answer]) -> dict[str, Answer]:
    """Return the answers by their texts, the first of each."""
    found: dict[str, Answer] = {}
    for one in answers:
        found.setdefault(one.text, one)
    return found


def by_rating(
    rate: Callable[[Sequence[Chat], Sequence[Answer]], Sequence[Rating]],
    chats: Sequence[Chat],
    answers: Sequence[Sequence[Answer]],
    done: Stood = nothing,
) -> list[Standing]:
    """Return standings by ratings: each text of a prompt is rated once, all in one call."""
    asked = [(place, one) for place, some in enumerate(answers) for one in distinct(some).values()]
    rated = rate([chats[place] for place, _ in asked], [one for _, one in asked])
    said: list[dict[str, Rating]] = [{} for _ in chats]
    for (place, one), rating in zip(asked, rated, strict=True):
        said[place][one.text] = "not rated: nothing is said of it" if rating is None else rating
    found = []
    for some, told in zip(answers, said, strict=True):
        numbers = {text: float(rating) for text, rating in told.items() if isinstance(rating, int | float)}
        reasons = tuple(rating for rating in told.values() if isinstance(rating, str))
        found.append(Standing(tuple(numbers.get(one.text) for one in some), reasons))
    done(list(enumerate(found)))
    return found


def by_comparing(
    prefer: Callable[[Sequence[Question], Done], Sequence[Preference]],
    chats: Sequence[Chat],
    answers: Sequence[Sequence[Answer]],
    done: Stood = nothing,
    couples: Couples = every_couple,
) -> list[Standing]:
    """Return standings by comparisons of couples of different texts of a prompt, all asked at once."""
    texts = [list(distinct(some)) for some in answers]
    asked = [(place, *couple) for place, some in enumerate(texts) for couple in couples(len(some))]
    wanted = Counter(place for place, *_ in asked)
    said: list[dict[tuple[int, int], Preference]] = [{} for _ in chats]
    found: dict[int, Standing] = {}

    def settle(places: Iterable[int]) -> None:
        whole = [place for place in places if place not in found and len(said[place]) == wanted[place]]
        made = [(place, _stood(answers[place], texts[place], said[place])) for place in whole]
        found.update(made)
        if made:
            done(made)

    def told(made: Sequence[tuple[int, Preference]]) -> None:
        for index, preference in made:
            place, one, two = asked[index]
            said[place][one, two] = preference
        settle(sorted({asked[index][0] for index, _ in made}))

    settle(range(len(chats)))
    if asked:
        questions = [Question(chats[place], texts[place][one], texts[place][two]) for place, one, two in asked]
        told(list(enumerate(prefer(questions, told))))
    return [found[place] for place in range(len(chats))]


def _stood(answers: Sequence[Answer], texts: Sequence[str], said: Mapping[tuple[int, int], Preference]) -> Standing:
    """Return the standing of answers by what was said of couples of their texts, in whatever order it came."""
    told = {(texts[one], texts[two]): preference.first for (one, two), preference in said.items()}
    told |= {(two, one): None if first is None else 1 - first for (one, two), first in told.items()}
    # The same answer again and again is a tie that nobody is asked about.
    heard = {one for (one, _), first in told.items() if first is not None} if len(texts) > 1 else texts
    told |= {(one, one): TIE for one in heard}
    wins = tuple(
        tuple(None if here == there else told.get((one.text, two.text)) for there, two in enumerate(answers))
        for here, one in enumerate(answers)
    )
    rates = tuple(rates_of_wins(wins))
    reasons = [one.says or "not judged" for _, one in sorted(said.items(), key=lambda it: it[0]) if one.first is None]
    if len(answers) == 1:
        reasons.append("alone: there is no other answer to compare it with")
    flipped = sum(preference.flipped for preference in said.values())
    return Standing(rates, tuple(reasons), rates, len(said), flipped, wins)
