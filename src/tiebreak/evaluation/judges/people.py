"""People as a judge: couples of answers are written into a queue, and until enough votes are there, the loop waits.

Owns two files in one folder, and what a vote is. Items are named by their content, so that votes are never of others.

    queue.jsonl   {"item": "i-7f3a…", "prompt": [{"role": "user", "content": "…"}], "completion_a": "…",
                   "completion_b": "…"}
    votes.jsonl   {"item": "i-7f3a…", "annotator": "ann", "choice": "a"}
                  {"item": "i-7f3a…", "annotator": "ben", "choice": "left", "shown": {"left": "b", "right": "a"}}

`choice` is a, b, tie, both_bad (a tie as well) or skip (no vote, and an earlier one is taken back); left and right are
read by `shown`, which says what stood where. The last line of an annotator on an item counts.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import PeopleJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import ConfigError, DataError, Waiting
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import (
    FIRST,
    SECOND,
    TIE,
    Couples,
    Done,
    Judge,
    Preference,
    Question,
    Standing,
    Stood,
    by_comparing,
    every_couple,
    nothing,
)
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress

QUEUE, VOTES = "queue.jsonl", "votes.jsonl"
_MEANS: Mapping[str, float | None] = {"a": FIRST, "b": SECOND, "tie": TIE, "both_bad": TIE, "skip": None}


@contextlib.contextmanager
def make(settings: PeopleJudge, given: Given) -> Iterator[Judge]:
    """Give the people who look into a folder; raises ConfigError where there is none."""
    if given.folder is None:
        raise ConfigError("judge people: votes on a queue beside a round's answers; rounds have one")
    yield People(settings, given.folder, given.progress)


def couples_of(settings: PeopleJudge) -> Couples:
    """Return which answers to a prompt are compared."""
    return every_couple if settings.couples == "all" else lambda num: zip(range(num), range(1, num), strict=False)


class People:
    """Says what people said."""

    def __init__(self, settings: PeopleJudge, folder: Path, progress: Progress) -> None:
        self._settings, self._folder, self._progress = settings, folder, progress
        self.identity = fingerprint(["people", settings.votes_needed, settings.couples])

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Return the mean of the votes on each question.

        Raises Waiting where one has too few: the queue holds all of them. Raises DataError where a vote is none.
        """
        rows = {_item(question): question for question in questions}
        queue, file = self._folder / QUEUE, self._folder / VOTES
        files.write_jsonl(queue, [_row(item, question) for item, question in rows.items()])
        votes = self._votes(file, rows.keys())
        needed = self._settings.votes_needed
        lacking = [max(0, needed - len(votes[item])) for item in rows]
        if sum(lacking):
            raise Waiting(
                f"{file}: {sum(lacking)} votes are missing on {sum(map(bool, lacking))} of {len(rows)} couples, which "
                f"stand in {queue}; once they are there, the same command goes on"
            )
        found = []
        for question in questions:
            said = [votes[_item(question)][name] for name in sorted(votes[_item(question)])]
            found.append(Preference(math.fsum(said) / len(said), says=f"{len(said)} votes"))
        done(list(enumerate(found)))
        return found

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Ask about all couples of a prompt, or a chain of them."""
        return by_comparing(self.prefer, chats, answers, done, couples_of(self._settings))

    def _votes(self, file: Path, items: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return votes by item and annotator; what a writer that was cut off left of a line is forgotten, and said."""
        found: dict[str, dict[str, float]] = {item: {} for item in items}
        num_others = 0
        *lines, torn = file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else [""]
        for number, line in enumerate([*lines, torn], 1):
            if not line.strip():
                continue
            try:
                item, annotator, vote = _vote(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                if number > len(lines):
                    self._progress.warn(f"{file}:{number}: is cut off, and is not counted")
                    continue
                raise DataError(
                    f'{file}:{number}: is no vote; wanted {{"item": "i-…", "annotator": "…", "choice": "a"}}, with a '
                    f"choice of {', '.join(_MEANS)}, or left and right with what was shown there"
                ) from None
            if item not in found:
                num_others += 1
            elif vote is None:
                found[item].pop(annotator, None)
            else:
                found[item][annotator] = vote
        if num_others:
            self._progress.warn(f"{file}: {num_others} votes are on items that are not in {QUEUE}, and are not counted")
        return found


def _item(question: Question) -> str:
    return f"i-{fingerprint([question.chat.as_dict(), question.first, question.second])[:16]}"


def _row(item: str, question: Question) -> dict[str, Any]:
    prompt = [message.as_dict() for message in question.chat.messages]
    tools = {"tools": list(question.chat.tools)} if question.chat.tools else {}
    return {"item": item, "prompt": prompt, **tools, "completion_a": question.first, "completion_b": question.second}


def _vote(row: Mapping[str, Any]) -> tuple[str, str, float | None]:
    """Return item, annotator and vote of a line; raises KeyError or TypeError where it is none."""
    choice, annotator = row["choice"], row["annotator"]
    if not (isinstance(annotator, str) and annotator.strip()):
        raise TypeError
    if choice in ("left", "right"):
        choice = row["shown"][choice]
        if choice not in ("a", "b"):
            raise KeyError
    return str(row["item"]), annotator, _MEANS[choice]
