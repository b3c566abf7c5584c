"""The verb chat: talk to a trained run, and to what it was before.

Owns a conversation's state. The same rendering as training.
"""

from __future__ import annotations

from collections.abc import Sequence

from tiebreak.config import DataConfig
from tiebreak.engine.answers.local import generate
from tiebreak.engine.model import Policy
from tiebreak.errors import ConfigError
from tiebreak.records import Message

LOWEST, HIGHEST = 1e-6, 1e6
"""Between these, logits divided by a temperature neither overflow nor vanish."""


def check_temperature(temperature: float) -> None:
    """Raise ConfigError for a temperature that answers cannot be drawn with."""
    if not (temperature == 0 or LOWEST <= temperature <= HIGHEST):
        raise ConfigError(
            f"temperature {temperature}: wanted 0, which is greedy, or a number from {LOWEST:g} to {HIGHEST:g}"
        )


class Conversation:
    """Messages so far, answered by the policy or by its reference."""

    def __init__(
        self, policy: Policy, data: DataConfig, *, max_new_tokens: int = 256, temperature: float = 0.0
    ) -> None:
        check_temperature(temperature)
        self._policy = policy
        self._renderer = policy.renderer(data)
        self._sampling = policy.sampling(max_new_tokens, temperature)
        self.messages: tuple[Message, ...] = ()

    def ask(self, text: str) -> str:
        """Return the policy's answer and keep both in the conversation."""
        asked = (*self.messages, Message("user", text))
        answer = self._answer(self._policy.model, asked)
        self.messages = (*asked, Message("assistant", answer))
        return answer

    def before(self, text: str) -> str:
        """Return what the reference would have answered; the conversation stays as it is."""
        with self._policy.reference.model() as model:
            return self._answer(model, (*self.messages, Message("user", text)))

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = ()

    def _answer(self, model: object, messages: Sequence[Message]) -> str:
        [answer] = generate(model, [self._renderer.prompt(messages)], self._sampling)  # type: ignore[arg-type]
        return self._renderer.text(answer.ids)
