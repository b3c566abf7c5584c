"""Answers that were generated, kept until the evaluation is whole: a run that is cut off does not ask for them again.

Owns the file and what makes an answer the same: who answers, sampling and chat. Rows are appended batch by batch; a
last line that was torn is forgotten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tiebreak.engine.answers.answerer import Answer, Answerer, Chat, Done, Sampling, nothing
from tiebreak.fingerprint import fingerprint


class Kept:
    """An answerer that remembers in a file what it was asked."""

    def __init__(self, answerer: Answerer, path: Path) -> None:
        self._answerer = answerer
        self._path = path
        self.identity = answerer.identity
        """That of who answers."""

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return one answer for each chat, in order; what the file knows is not asked again.

        The file knows whole batches, so the others are batched as they would have been. A full disk costs only that
        answers are generated again.
        """
        keys = [fingerprint([self.identity, asdict(sampling), chat.as_dict()]) for chat in chats]
        kept = _read(self._path)
        known = [(index, kept[key]) for index, key in enumerate(keys) if key in kept]
        missing = [index for index, key in enumerate(keys) if key not in kept]
        if known:
            done(known)

        def keep(made: Sequence[tuple[int, Answer]]) -> None:
            rows = [{"key": keys[missing[place]], **asdict(answer)} for place, answer in made]
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
            done([(missing[place], answer) for place, answer in made])

        fresh = self._answerer.answer([chats[index] for index in missing], sampling, keep) if missing else []
        found = dict([*known, *zip(missing, fresh, strict=True)])
        return [found[index] for index in range(len(chats))]


def _read(path: Path) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a torn line ends it
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            answer = Answer(str(row["text"]), tuple(map(int, row["ids"])), bool(row["finished"]))
            found[str(row["key"])] = answer
    return found
