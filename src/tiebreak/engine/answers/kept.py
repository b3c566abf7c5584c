"""Answers that were generated, kept until the evaluation is whole: a run that is cut off does not ask for them again.

Owns the file and what makes an answer the same: model, sampling and prompt. Rows are appended batch by batch; a last
line that was torn is forgotten.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from tiebreak.engine.answers.local import Answer, Sampling
from tiebreak.fingerprint import fingerprint


class AnswerFile:
    """Answers of one model under one way of sampling."""

    def __init__(self, path: Path, model: str, sampling: Sampling) -> None:
        """`model` names the weights by their content."""
        self._path = path
        self._of = [model, sampling.max_new_tokens, list(sampling.eos_ids), sampling.temperature]
        self._known = dict(_read(path))

    def get(self, prompt: Sequence[int]) -> Answer | None:
        """Return the answer to a prompt, where it is known."""
        return self._known.get(self._key(prompt))

    def put(self, answers: Sequence[tuple[Sequence[int], Answer]]) -> None:
        """Keep the answers of one batch; a full disk costs only that they are generated again."""
        rows = [
            {"key": self._key(prompt), "ids": answer.ids, "finished": answer.finished} for prompt, answer in answers
        ]
        with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def _key(self, prompt: Sequence[int]) -> str:
        return fingerprint([*self._of, list(prompt)])


def _read(path: Path) -> list[tuple[str, Answer]]:
    found: list[tuple[str, Answer]] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a torn line ends it
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.append((row["key"], Answer(tuple(map(int, row["ids"])), bool(row["finished"]))))
    return found
