"""Answers that were generated, kept until the evaluation is whole: a run that is cut off does not ask for them again.

Owns the file and what makes an answer the same: who answers, sampling, chat and number. A chat's answers are appended
together, when it has all of them; a line that was torn is left out, and with it a chat that lacks an answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tiebreak.engine.answers.answerer import Answer, Answerer, Chat, Done, Sampling, nothing
from tiebreak.files import append_jsonl, appended_jsonl
from tiebreak.fingerprint import fingerprint


class Kept:
    """An answerer that remembers in a file what it was asked."""

    def __init__(self, answerer: Answerer, path: Path) -> None:
        self._answerer = answerer
        self._path = path
        self.identity = answerer.identity
        """That of who answers."""

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return `sampling.num` answers for each chat, chat after chat; what the file knows is not asked again.

        A full disk costs only that answers are generated again.
        """
        num = sampling.num
        keys = [fingerprint([self.identity, sampling.as_dict(), chat.as_dict()]) for chat in chats]
        kept = _read(self._path, num)
        known = [index for index, key in enumerate(keys) if key in kept]
        missing = [index for index, key in enumerate(keys) if key not in kept]
        if known:
            done([(index * num + number, one) for index in known for number, one in enumerate(kept[keys[index]])])
        found = {index: kept[keys[index]] for index in known}
        coming: dict[int, dict[int, Answer]] = {}

        def keep(made: Sequence[tuple[int, Answer]]) -> None:
            places = [(missing[place // num], place % num, answer) for place, answer in made]
            for index, number, answer in places:
                coming.setdefault(index, {})[number] = answer
            whole = [index for index in dict.fromkeys(index for index, *_ in places) if len(coming[index]) == num]
            rows = [
                {"key": keys[index], "number": number, **asdict(answer)}
                for index in whole
                for number, answer in sorted(coming.pop(index).items())
            ]
            append_jsonl(self._path, rows)
            done([(index * num + number, answer) for index, number, answer in places])

        fresh = self._answerer.answer([chats[index] for index in missing], sampling, keep) if missing else []
        found |= {index: fresh[at * num : (at + 1) * num] for at, index in enumerate(missing)}
        return [answer for index in range(len(chats)) for answer in found[index]]


def _read(path: Path, num: int) -> dict[str, list[Answer]]:
    """Return the answers by key, of chats that have all of them."""
    found: dict[str, dict[int, Answer]] = {}
    for row in appended_jsonl(path):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # what is no answer is asked for again
            answer = Answer(str(row["text"]), tuple(map(int, row["ids"])), bool(row["finished"]))
            # Older files have no number: there was one answer to each chat.
            found.setdefault(str(row["key"]), {})[int(row.get("number", 0))] = answer
    return {key: [one[number] for number in range(num)] for key, one in found.items() if set(one) >= set(range(num))}
