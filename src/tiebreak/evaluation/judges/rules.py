"""A judge by rule: a function that rates answers, built in or the user's own.

Owns how it is called and what its faults are worth: between two answers a fault is no verdict; over the answers to a
prompt it ends the judging, in one line that names function, prompt and value. A function of the user is their own code
and runs as such: it is named by who runs the command, never by data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from tiebreak.config import RuleJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import ConfigError, JudgeError, one_line
from tiebreak.evaluation.judges.forms import Form, Tried, form_for, told_as
from tiebreak.evaluation.judges.functions import Raised, found, numbers, of_the_user
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import (
    ByRating,
    Done,
    Judge,
    Preference,
    Question,
    Rating,
    Standing,
    Stood,
    by_rating,
    distinct,
    nothing,
)
from tiebreak.evaluation.judges.rewards import REWARDS
from tiebreak.evaluation.judges.signature import IDS, Signature, columns_of
from tiebreak.fingerprint import files_named, fingerprint

Ids = Sequence[Sequence[int]] | None


@contextlib.contextmanager
def make(settings: RuleJudge, given: Given) -> Iterator[Judge]:
    """Find the function and check its arguments. Raises ConfigError where it is not there or does not take them."""
    function, code = found(settings.reward)
    signature, where = Signature.of(function), f"rule {settings.reward}"
    is_built_in = settings.reward in REWARDS  # these have arguments of their own, and read no column
    columns = None if is_built_in or given.answered is None else columns_of([chat for chat, _ in given.answered])
    signature.check(where, settings.arguments, columns)
    if is_built_in:
        try:
            function(completions=[], **settings.arguments)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {one_line(error, 300)}") from None
    yield Rule(RuleRater(settings, function, code, signature, columns or (), given))


class Rule:
    """Prefers what a function rates higher."""

    def __init__(self, rater: RuleRater) -> None:
        self._rater = rater
        self.identity = rater.identity

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Return preferences; an answer that the function cannot rate makes none."""
        return ByRating(self._rater).prefer(questions, done)

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Return standings; raises JudgeError at the first fault of the function."""
        return by_rating(self._rater.rate_strictly, chats, answers, done)


class RuleRater:
    """Rates answers by a function."""

    def __init__(
        self,
        settings: RuleJudge,
        function: Callable[..., Any],
        code: str,
        signature: Signature,
        columns: Sequence[str],
        given: Given,
    ) -> None:
        self._settings, self._function, self._signature, self._given = settings, function, signature, given
        self._columns = columns
        self._where = f"rule {settings.reward}"
        self._form: Form | None = settings.completions if settings.completions != "auto" else None
        if settings.completions == "auto" and settings.reward in REWARDS:
            self._form = "messages"
        told = (settings.arguments, files_named(settings.arguments), settings.completions)
        name = settings.reward.rpartition(":")[2]
        self.identity = fingerprint(["rule", name, *told, code, metadata.version("tiebreak")])
        """A changed function, or one with other arguments or files that they name, is another judge."""

    def rate(self, chats: Sequence[Chat], answers: Sequence[str]) -> list[Rating]:
        """Return the function's numbers. Where it fails for all at once, each answer is tried alone.

        An answer that it cannot rate has no rating, and the first reason is told.
        """
        if not answers:
            return []
        form = self._form_for(chats, [Answer(text, (), finished=True) for text in answers])
        try:
            rated = self._call(form, chats, answers, None)
        except Raised:
            rated = []
            for chat, answer in zip(chats, answers, strict=True):
                try:
                    rated += self._call(form, [chat], [answer], None)
                except Raised as error:
                    rated.append(str(error))
        if reasons := [one for one in rated if isinstance(one, str)]:
            self._given.progress.warn(
                f"{self._where}: {len(reasons)} of {len(answers)} answers have no rating: {reasons[0]}"
            )
        return [None if isinstance(one, str) else one for one in rated]

    def rate_strictly(self, chats: Sequence[Chat], answers: Sequence[Answer]) -> Sequence[Rating]:
        """Return the function's numbers, None where it has nothing to say.

        Raises JudgeError, with function, prompt and value, where it gives anything else.
        """
        return self._strictly(self._form_for(chats, answers), list(zip(chats, answers, strict=True))) if answers else []

    def _strictly(self, form: Form, some: Tried) -> Sequence[Rating]:
        whole = self._attempt(form, some)
        if not isinstance(whole, str):
            return whole
        by_prompt: dict[str, list[tuple[Chat, Answer]]] = {}
        for chat, answer in some:
            by_prompt.setdefault(chat.prompt_id, []).append((chat, answer))
        for prompt, own in by_prompt.items():
            if isinstance(why := self._attempt(form, own), str):
                raise JudgeError(f"{self._where}: prompt {prompt[:12]}: {why}")
        raise JudgeError(f"{self._where}: {len(by_prompt)} prompts from {next(iter(by_prompt))[:12]} on: {whole}")

    def _attempt(self, form: Form, some: Tried) -> list[Rating] | str:
        """Return the function's numbers, or why they are none: its first fault."""
        ids = [answer.ids for _, answer in some]
        known = ids if all(answer.ids or not answer.text for _, answer in some) else None
        if known is None and IDS in self._signature.names:
            return f"it takes {IDS}, and those of these answers are not known"
        try:
            rated = self._call(form, [chat for chat, _ in some], [answer.text for _, answer in some], known)
        except Raised as error:
            return f"it raised {error}"
        return next((one for one in rated if isinstance(one, str)), rated)

    def _call(self, form: Form, chats: Sequence[Chat], texts: Sequence[str], ids: Ids) -> list[Rating]:
        told = told_as(form, chats, texts)
        keywords = self._signature.keywords(told, chats, ids, self._columns, self._settings.arguments)
        with of_the_user():  # what it returns may be of its own make, too
            return numbers(self._function(**keywords), len(texts))

    def _form_for(self, chats: Sequence[Chat], answers: Sequence[Answer]) -> Form:
        """Return how completions are given: decided once, on what is known beforehand, so that no restart changes it.

        Prompts that are messages, all or some of them, have answers that are messages.
        """
        if self._form is None:
            over = self._given.answered or ()
            some = [(chat, one) for chat, drawn in over for one in distinct(drawn).values()]
            some = some or list(zip(chats, answers, strict=True))
            if all(chat.is_text for chat, _ in some):
                self._form = form_for(self._where, some, self._strictly)
                self._given.progress.say(f"{self._where}: takes completions as {self._form}, as was tried")
            else:
                self._form = "messages"
        return self._form
