"""An answer as a vector: what a frozen model makes of it.

Owns what is looked at: the mean hidden state, and numbers that say how likely the answer is and whether it answers its
own prompt. All of it stands in one forward pass over the prompt and its answers, and a short one behind another prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.features import Completions, Reading, readings
from tiebreak.engine.model import Model
from tiebreak.engine.scorer import Cut
from tiebreak.progress import Advance
from tiebreak.records import Ids

Floats = NDArray[np.float64]
NUM_NUMBERS = 3
"""Behind the state: mean log-probability of a token, that of the least likely window of tokens, and how much likelier
the beginning is behind its own prompt than behind another one."""
WINDOW = 16
FIRST_TOKENS = 16


def nobody(amount: int = 1, numbers: object = None) -> None:
    """Take no notice of progress."""


class Reader:
    """Turns answers into vectors of [hidden + `NUM_NUMBERS`]."""

    def __init__(self, model: Model, elsewhere: tuple[Ids, Ids], data: DataConfig, cut: Cut | None = None) -> None:
        """`elsewhere` are two prompts: the first stands for any other one, the second for that of the first."""
        self._model = model
        self._elsewhere = elsewhere
        self._renderer = model.renderer(data)
        self._cut = cut
        self.most_tokens = model.context.limit(data.max_length)
        """Of prompt and answer together."""

    def answered(self, chat: Chat, text: str) -> tuple[Ids, Ids]:
        """Return the ids of a prompt and a finished answer as training has them; raises RenderError."""
        return self._renderer.answered(chat.messages, chat.tools, text)

    def text(self, ids: Ids) -> str:
        """Return ids as text, without control tokens."""
        return self._renderer.text(ids)

    def encoded(self, text: str, like: Ids, most: int) -> Ids:
        """Return at most so many ids of a text, ended as `like` is, without any other control token."""
        special = {*self._model.tokenizer.all_special_ids, *self._model.eos_ids}
        ids = self._model.tokenizer.encode(text, add_special_tokens=False)
        return (*[token for token in ids if token not in special][:most], like[-1])

    def vectors(self, examples: Sequence[Completions], advance: Advance = nobody) -> list[Floats]:
        """Return for each example [completions, hidden + `NUM_NUMBERS`]."""
        elsewhere = []
        for example in examples:
            prompt = self._elsewhere[int(example.prompt_ids == self._elsewhere[0])]
            begin = slice(max(1, min(FIRST_TOKENS, self.most_tokens - len(prompt))))
            elsewhere.append(Completions(prompt, tuple(completion[begin] for completion in example.completions)))
        own, other = self._read(examples, advance), self._read(elsewhere)
        return [
            np.array([_vector(one, two) for one, two in zip(*both, strict=True)])
            for both in zip(own, other, strict=True)
        ]

    def states(self, examples: Sequence[Completions], advance: Advance = nobody) -> list[Floats]:
        """Return for each example [completions, hidden] alone, without the pass behind another prompt."""
        return [np.array([one.state for one in read], np.float64) for read in self._read(examples, advance)]

    def _read(self, examples: Sequence[Completions], advance: Advance = nobody) -> list[list[Reading]]:
        found: dict[int, list[Reading]] = {}
        for place, read in readings(self._model, examples, self._cut):
            found[place] = read
            advance(1)
        return [found[place] for place in range(len(examples))]


def _vector(own: Reading, elsewhere: Reading) -> Floats:
    # Whether an answer ended by itself is not told by its text: the EOS counts only where there is nothing else.
    logps = (own.logps[:-1] if len(own.logps) > 1 else own.logps).astype(np.float64)
    size = min(WINDOW, len(logps))
    windows = np.convolve(logps, np.full(size, 1 / size), mode="valid")
    begin = min(len(logps), len(elsewhere.logps))
    gain = logps[:begin].mean() - elsewhere.logps[:begin].astype(np.float64).mean()
    return np.concatenate([own.state.astype(np.float64), [logps.mean(), windows.min(), gain]])
