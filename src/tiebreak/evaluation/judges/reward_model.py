"""A reward model as a rater: any sequence classifier with one label.

Owns which conversations it can rate. One that does not fit, or that the template refuses, has no rating and is counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tiebreak.config import ModelConfig
from tiebreak.config.judges import RewardModelJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.bundled import Say
from tiebreak.engine.classifier import Classifier
from tiebreak.engine.models import load_classifier
from tiebreak.errors import RenderError
from tiebreak.records import Ids, Message


class RewardModel:
    """Rates an answer by what a classifier says of the conversation that it ends."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self.unrated: Counter[str] = Counter()
        """Why answers have no rating: too_long, not_finite, or the code that the template was refused with."""

    @staticmethod
    def load(settings: RewardModelJudge, say: Say = lambda _: None) -> RewardModel:
        """Return the rater that settings name; raises ModelError where it is no such model."""
        return RewardModel(load_classifier(ModelConfig(name=settings.model, revision=settings.revision), say))

    @property
    def identity(self) -> str:
        """That of the classifier: weights and chat template."""
        return self._classifier.identity

    def rate(self, chats: Sequence[Chat], answers: Sequence[str]) -> list[float | None]:
        """Return what the classifier says of each chat with its answer; None where it cannot be asked."""
        rows = [self._row(chat, answer) for chat, answer in zip(chats, answers, strict=True)]
        asked = list(dict.fromkeys(row for row in rows if row))
        said = dict(zip(asked, self._classifier.rate(asked), strict=True))
        found: list[float | None] = []
        for row in rows:
            number = said[row] if row else None
            if number is not None and not math.isfinite(number):
                number = None
                self.unrated["not_finite"] += 1
            found.append(number)
        return found

    def _row(self, chat: Chat, answer: str) -> Ids | None:
        """Return the conversation as ids, whole; None, counted, where it is too long or cannot be written."""
        try:
            messages = (*chat.messages, Message("assistant", answer))
            ids = self._classifier.framed(self._classifier.renderer.conversation(messages, chat.tools))
        except RenderError as error:
            self.unrated[error.reason] += 1
            return None
        most = self._classifier.most_tokens
        if most is not None and len(ids) > most:
            self.unrated["too_long"] += 1
            return None
        return ids
