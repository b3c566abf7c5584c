"""The verb chat: talk to a trained run, and to what it was before.

Owns a conversation's state. The same rendering as training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tiebreak.config import DataConfig
from tiebreak.config.commands import CHAT_TOKENS
from tiebreak.data.writer import require_new, writing
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.answers.pieces import Hear, unheard
from tiebreak.errors import ConfigError, DataError
from tiebreak.files import write_jsonl
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

    def __init__(self, loaded: Loaded, *, max_new_tokens: int = CHAT_TOKENS, temperature: float = 0.0) -> None:
        check_temperature(temperature)
        self._loaded = loaded
        self._sampling = Sampling(max_new_tokens, temperature)
        """Its seed is the number of questions that the policy was asked before."""
        self.messages: tuple[Message, ...] = ()

    def ask(self, text: str, hear: Hear = unheard) -> str:
        """Return the policy's answer and keep both in the conversation; `hear` is told the answer while it comes.

        A KeyboardInterrupt stops it and is raised again; what was said until then is kept as the answer.
        """
        asked = self._asked(text)
        said: list[str] = []

        def heard(piece: str) -> None:
            said.append(piece)
            hear(piece)

        try:
            answer = self._loaded.policy.tell(Chat(asked), self._sampling, heard).text
        except KeyboardInterrupt:
            if said:
                self._keep(asked, "".join(said))
            raise
        self._keep(asked, answer)
        return answer

    def before(self, text: str, hear: Hear = unheard) -> str:
        """Return what the reference would have answered; the conversation stays as it is."""
        asked = self._asked(text)
        with self._loaded.reference.model() as reference:
            return reference.tell(Chat(asked), self._sampling, hear).text

    def save(self, path: str | Path) -> Path:
        """Write the conversation to a new file, as one line of JSON with its `messages`, and return its path.

        Raises DataError where nothing was said, where the file is there already, or where it cannot be written.
        """
        target = Path(path)
        if not self.messages:
            raise DataError(f"{target}: not written, nothing was said yet")
        require_new(target)
        with writing(target):
            write_jsonl(target, [{"messages": [message.as_dict() for message in self.messages]}])
        return target

    def reset(self) -> None:
        """Forget what was said."""
        self.messages = ()

    def _keep(self, asked: tuple[Message, ...], answer: str) -> None:
        self._sampling = replace(self._sampling, seed=self._sampling.seed + 1)
        self.messages = (*asked, Message("assistant", answer))

    def _asked(self, text: str) -> tuple[Message, ...]:
        """Return the messages that the next answer follows; refuse what nobody could answer: nothing is cut unseen.

        Raises DataError where the text holds half a character, or the model has no position left for an answer.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the message is no text at its character {error.start + 1}; wanted UTF-8") from None
        asked = (*self.messages, Message("user", text))
        policy = self._loaded.policy
        num_tokens, most = len(policy.renderer(DataConfig()).prompt(asked)), policy.context.most
        if most is not None and num_tokens >= most:
            raise DataError(
                f"the conversation has {num_tokens} tokens and the model {most} positions, so that none is left for an "
                "answer; start over (/reset), or ask something shorter"
            )
        return asked
