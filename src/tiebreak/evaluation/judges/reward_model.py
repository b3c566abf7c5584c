"""A reward model as a rater: any sequence classifier with one label.

Owns which conversations it can rate. One that does not fit, or that the template refuses, has no rating but a reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tiebreak.config import ModelConfig
from tiebreak.config.judges import RewardModelJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.bundled import Say
from tiebreak.engine.classifier import Classifier, load_classifier, look_at_classifier
from tiebreak.errors import RenderError
from tiebreak.records import Ids, Message


def check(settings: RewardModelJudge) -> None:
    """Raise ModelError where settings name no reward model; weights are not read."""
    look_at_classifier(_config(settings))


class RewardModel:
    """Rates an answer by what a classifier says of the conversation that it ends."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @staticmethod
    def load(settings: RewardModelJudge, say: Say = lambda _: None) -> RewardModel:
        """Return the rater that settings name; raises ModelError where it is no such model."""
        return RewardModel(load_classifier(_config(settings), say))

    @property
    def identity(self) -> str:
        """That of the classifier: weights and chat template."""
        return self._classifier.identity

    def rate(self, chats: Sequence[Chat], answers: Sequence[str]) -> list[float | str]:
        """Return what the classifier says of each chat with its answer, or why it says nothing."""
        rows = [self._row(chat, answer) for chat, answer in zip(chats, answers, strict=True)]
        asked = list(dict.fromkeys(row for row in rows if not isinstance(row, str)))
        numbers = dict(zip(asked, self._classifier.rate(asked), strict=True))
        said = {row: one if math.isfinite(one) else f"not_finite: {one}" for row, one in numbers.items()}
        return [row if isinstance(row, str) else said[row] for row in rows]

    def _row(self, chat: Chat, answer: str) -> Ids | str:
        """Return the conversation as ids, whole, or why it cannot be rated."""
        try:
            messages = (*chat.messages, Message("assistant", answer))
            ids = self._classifier.framed(self._classifier.renderer.conversation(messages, chat.tools))
        except RenderError as error:
            return f"{error.reason}: {error}"
        most = self._classifier.most_tokens
        if most is not None and len(ids) > most:
            return f"too_long: {len(ids)} tokens, and the classifier has {most} positions"
        return ids


def _config(settings: RewardModelJudge) -> ModelConfig:
    return ModelConfig(name=settings.model, revision=settings.revision)
