"""The verb chat: talk to a trained run, and to what it was before.

Owns a conversation's state. The same rendering as training.
"""

from __future__ import annotations

from dataclasses import replace

from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.errors import ConfigError, DataError
from tiebreak.records import Message
from tiebreak.training.trained import Loaded

LOWEST, HIGHEST = 1e-6, 1e6
"""Between these, logits divided by a temperature neither overflow nor vanish."""


def check_temperature(temperature: float) -> None:
    """Raise ConfigError for a temperature that answers cannot be drawn with."""
    if not (temperature == 0 or LOWEST <= temperature <= HIGHEST):
        raise ConfigError(
            f"temperature {temperature}: wanted 0, which is greedy, or a number from {LOWEST:g} to {HIGHEST:g}"
        )


class Conversation:
    """Messages so far, answered by the policy or by its reference.

    Where answers are drawn, each question has a seed of its own, the same for both: what is asked again after `reset`
    is drawn anew, and whoever says the same again from the start is told the same.
    """

    def __init__(self, loaded: Loaded, *, max_new_tokens: int = 256, temperature: float = 0.0) -> None:
        check_temperature(temperature)
        self._loaded = loaded
        self._sampling = Sampling(max_new_tokens, temperature)
        """Its seed is the number of questions that the policy was asked before."""
        self.messages: tuple[Message, ...] = ()

    def ask(self, text: str) -> str:
        """Return the policy's answer and keep both in the conversation."""
        asked = (*self.messages, Message("user", text))
        self._refuse_full(asked)
        [answer] = self._loaded.policy.answer([Chat(asked)], self._sampling)
        self._sampling = replace(self._sampling, seed=self._sampling.seed + 1)
        self.messages = (*asked, Message("assistant", answer.text))
        return answer.text

    def before(self, text: str) -> str:
        """Return what the reference would have answered; the conversation stays as it is."""
        asked = (*self.messages, Message("user", text))
        self._refuse_full(asked)
        with self._loaded.reference.model() as reference:
            [answer] = reference.answer([Chat(asked)], self._sampling)
        return answer.text

    def _refuse_full(self, asked: tuple[Message, ...]) -> None:
        """Raise DataError where the model has no position left for an answer: nothing is forgotten unseen."""
        policy = self._loaded.policy
        num_tokens, most = len(policy.renderer(DataConfig()).prompt(asked)), policy.context.most
        if most is not None and num_tokens >= most:
            raise DataError(
                f"the conversation has {num_tokens} tokens and the model {most} positions, so that none is left for an "
                "answer; start over (/reset), or ask something shorter"
            )

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = ()
