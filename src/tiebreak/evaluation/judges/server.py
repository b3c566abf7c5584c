"""A judge behind any OpenAI-compatible endpoint: asked in both orders, each raw answer kept as it comes.

Owns the order of things: what is kept is not asked, what would be asked is said first, several are asked at once, and
whatever ends it, what was answered is kept. An answer that is no clear verdict, and a call that failed, is no verdict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tiebreak import faults
from tiebreak.config import ServerJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.answers.at_once import AtOnce
from tiebreak.engine.answers.wire import OPENAI
from tiebreak.errors import JudgeError, one_line
from tiebreak.evaluation.judges.asking import NO_ANSWER, messages_for, verdict_of
from tiebreak.evaluation.judges.capped import Estimate, Purse
from tiebreak.evaluation.judges.endpoint import Endpoint, NoAnswer, size_of
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import BothOrders, Done, Judge, Preference, Question, nothing
from tiebreak.evaluation.judges.kept import KeptAnswers, answers_in, default_file
from tiebreak.fingerprint import fingerprint

Kept = Callable[[Sequence[str]], dict[str, str]]
"""Returns the answers that are kept, by key."""
_LAST_SECONDS = 0.7
"""How long an interruption waits for what is under way."""


@contextlib.contextmanager
def make(settings: ServerJudge, given: Given) -> Iterator[Judge]:
    """Open the judge; what it spent is told when it is closed."""
    purse = Purse(settings, given.paid)
    with KeptAnswers(given.kept or default_file()) as kept, contextlib.ExitStack() as last:
        endpoint = Endpoint(settings, purse, given.progress, given.where)
        last.callback(endpoint.close)
        last.callback(lambda: given.spent(purse.spent))
        yield BothOrders(Server(settings, endpoint, kept, purse, given))


def estimate(settings: ServerJudge, questions: Sequence[Question], given: Given) -> Estimate:
    """Return what judging these questions would take; nothing is sent or written, and no key is needed."""
    asked = [one for question in questions if question.first != question.second
             for one in (question, question.turned())]  # fmt: skip
    kept = partial(answers_in, given.kept or default_file())
    return _planned(settings, asked, kept, Purse(settings))[2]


def check(settings: ServerJudge, given: Given) -> None:
    """Raise ConfigError where settings make no judge, JudgeError where answers cannot be kept; nothing is written."""
    Endpoint(settings, Purse(settings), given.progress, given.where).close()
    answers_in(given.kept or default_file(), [])


class Server:
    """Asks a server once about each question."""

    def __init__(
        self, settings: ServerJudge, endpoint: Endpoint, kept: KeptAnswers, purse: Purse, given: Given
    ) -> None:
        self._settings, self._endpoint, self._kept, self._purse, self._given = settings, endpoint, kept, purse, given
        self.identity = _identity(settings)

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Ask about what is not kept, several at once.

        Raises JudgeError where asking on is of no use or against a cap; what was answered is kept.
        """
        keys, known, estimate = _planned(self._settings, questions, self._kept.get, self._purse)
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        found: dict[int, Preference] = {}

        def take(key: str, preference: Preference) -> None:
            made = [(place, preference) for place in places[key]]
            found.update(made)
            done(made)

        # Those that it refuses one by one are asked first in a second run, and back to back.
        self._endpoint.has_answered |= bool(known)
        self._purse.take_kept(len(known))
        self._given.progress.say(f"{self._settings.model}: {estimate.says}")
        for key, answer in known.items():
            take(key, _understood(answer))
        missing = [key for key in places if key not in known]
        asked = AtOnce(lambda key: self._ask(key, questions[places[key][0]]), missing, self._settings.num_at_once)
        try:
            for key, preference in asked:
                take(key, preference)
        except BaseException as error:
            self._endpoint.stop()
            # What is under way is paid for; but whoever interrupts does not wait for a server.
            for key, preference in asked.rest(None if isinstance(error, JudgeError) else _LAST_SECONDS):
                take(key, preference)
            if not isinstance(error, JudgeError):
                raise
            num_kept = len(self._kept.get(list(places)))
            raise type(error)(
                f"{error}; {num_kept} of {len(places)} answers are kept; once that is mended, or the cap is "
                "higher, the same command goes on there"
            ) from None
        unsaid = [one.says for _, one in sorted(found.items(), key=lambda it: it[0]) if one.first is None]
        if unsaid:
            told = f"{len(unsaid)} of {len(questions)} requests brought no verdict, the first: {unsaid[0]}"
            self._given.progress.warn(f"{self._settings.model}: {told}")
        return [found[place] for place in range(len(questions))]

    def _ask(self, key: str, question: Question) -> Preference:
        """Ask about one question; what it took is told, then the answer is kept, before anything is done with it.

        A kill between the two costs the answer: it is asked for and paid for once more, and both times are counted,
        as both were paid. The other way round it would be kept, never asked for again, and its cost counted never.
        What is under way when a kill comes is counted by nobody: at most one request for each that is asked at once.
        """
        try:
            answer = self._endpoint.ask(messages_for(question, self._settings.criteria))
        except NoAnswer as error:
            return Preference(None, says=f"{NO_ANSWER}: {error}")
        finally:
            self._given.spending(self._purse.spent)
        faults.point("judge:keep")
        self._kept.keep(key, answer)
        return _understood(answer)


def _planned(
    settings: ServerJudge, questions: Sequence[Question], kept: Kept, purse: Purse
) -> tuple[list[str], dict[str, str], Estimate]:
    """Return the key of each question, the answers that are kept by key, and what the others would take."""
    identity, sizes = _identity(settings), dict[str, int]()
    keys = []
    for question in questions:
        messages = messages_for(question, settings.criteria)
        keys.append(fingerprint([identity, messages]))
        sizes[keys[-1]] = size_of(messages)
    known = kept(list(sizes))
    return keys, known, purse.estimate(len(known), [size for key, size in sizes.items() if key not in known])


def _identity(settings: ServerJudge) -> str:
    wording = messages_for(Question(Chat(()), "", ""), settings.criteria)
    told = (settings.base_url or OPENAI, settings.model, settings.max_tokens, settings.temperature)
    return fingerprint(["server", *told, wording])


def _understood(answer: str) -> Preference:
    verdict = verdict_of(answer)
    if verdict is None:
        return Preference(None, says=f"no clear verdict: {one_line(answer, 200)}")
    return Preference(verdict, says=answer)
