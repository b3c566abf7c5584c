"""From messages to token ids: the template, the seam between prompt and completion, EOS, truncation.

Owns every decision about which tokens exist and which are scored. Training, evaluation, sampling and chat all render
here, so the ids that are trained are the ids that generation will see. It takes any tokenizer with the four calls of
`Tokenizer` and knows nothing of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tiebreak.config import DataConfig
from tiebreak.errors import RenderError, one_line
from tiebreak.records import Message, Pair, TokenizedPair

# Breaks control tokens inside content; of the Unicode private-use area, so no font, keyboard or tokenizer gives it.
_BREAK = "\uf8f5"
# Texts that a continuation can be tokenised behind, for tokenizers that treat the start of a text specially.
_ANCHORS = ("\n", ".", ":", "a")


class Tokenizer(Protocol):
    """What rendering needs of a tokenizer; transformers' tokenizers have it."""

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> Any:
        """Return the conversation as one text."""

    def encode(self, text: str, **kwargs: Any) -> list[int]:
        """Return token ids."""

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> Any:
        """Return text."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Id to added token (`content`, `special`)."""


class Renderer:
    """Turns pairs into `TokenizedPair` and prompts into ids, for one tokenizer and one set of limits."""

    def __init__(self, tokenizer: Tokenizer, eos_ids: Collection[int], data: DataConfig) -> None:
        """`eos_ids` end a turn; the first is appended where the template writes none."""
        self._tokenizer = tokenizer
        self._eos_ids = tuple(eos_ids)
        self._data = data
        added = tokenizer.added_tokens_decoder
        self._control = _Breaker(token.content for i, token in added.items() if token.special or i in eos_ids)
        self._any_added = _Breaker(token.content for token in added.values() if token.content.strip())

    def pair(self, pair: Pair) -> TokenizedPair:
        """Return the pair as ids, truncated if allowed; raises RenderError with a reason code."""
        prompt = self._text(pair.prompt, pair.tools, generation=True)
        chosen_ids = self._completion(pair, pair.chosen, prompt)
        rejected_ids = self._completion(pair, pair.rejected, prompt)
        if chosen_ids == rejected_ids:
            raise RenderError("identical_tokens", "both completions are the same after the chat template")
        whole = self._encode(prompt)
        kept = self._fitted(whole, room=self._data.max_length - max(len(chosen_ids), len(rejected_ids)))
        num_cut = len(whole) - len(kept)
        return TokenizedPair(pair.pair_id, pair.prompt_id, tuple(kept), chosen_ids, rejected_ids, num_cut)

    def prompt(self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return the ids that generation starts from, the assistant's header included."""
        return tuple(self._encode(self._text(prompt, tools, generation=True)))

    def text(self, ids: Sequence[int]) -> str:
        """Return generated ids as text, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _fitted(self, prompt_ids: list[int], room: int) -> list[int]:
        if len(prompt_ids) <= room:
            return prompt_ids
        if self._data.truncation == "drop" or room < 1:
            longest = len(prompt_ids) + self._data.max_length - room
            raise RenderError("too_long", f"{longest} tokens, more than data.max_length {self._data.max_length}")
        return prompt_ids[-room:]

    def _completion(self, pair: Pair, message: Message, prompt: str) -> tuple[int, ...]:
        """Return the scored ids: what the template writes after the prompt, to the first EOS and no further."""
        full = self._text((*pair.prompt, message), pair.tools, generation=False)
        if not full.startswith(prompt):
            raise RenderError("seam", _seam_fault(prompt, full))
        ids = self._encode(full[len(prompt) :], continuing=prompt)
        end = next((index for index, token in enumerate(ids) if token in self._eos_ids), None)
        body = ids if end is None else ids[:end]
        if not body:
            raise RenderError("empty_completion", "the chat template leaves nothing of the completion")
        return (*body, self._eos_ids[0] if end is None else ids[end])

    def _text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, generation: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [self._disarmed(message) for message in messages],
                    tools=self._any_added.broken(tools) or None,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
            )
        except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
            raise RenderError("template", f"the chat template refuses the messages: {_cause(error)}") from None

    def _disarmed(self, message: Message) -> dict[str, Any]:
        """Return the message with every control token in its content broken.

        Added tokens that are not special, like `<think>`, are broken in what others write and kept where the model
        itself is the writer: there they are how it really writes.
        """
        breaker = self._control if message.role == "assistant" else self._any_added
        broken: dict[str, Any] = breaker.broken(_with_parsed_arguments(message.as_dict()))
        return broken | {"role": message.role, "content": breaker.closed(message.content)}

    def _encode(self, text: str, continuing: str = "") -> list[int]:
        """Return the ids of a text whose pieces, split at `_BREAK`, never join into a control token."""
        ids: list[int] = []
        for piece in text.split(_BREAK):
            ids += self._continuation(piece, continuing) if continuing else self._ids(piece)
            continuing = continuing or piece
        return ids

    def _ids(self, text: str) -> list[int]:
        try:
            return list(self._tokenizer.encode(text, add_special_tokens=False))
        except Exception as error:  # noqa: BLE001 - so may a tokenizer, on half a surrogate pair for one
            raise RenderError("tokenizer", f"the tokenizer refuses the text: {_cause(error)}") from None

    def _continuation(self, text: str, before: str) -> list[int]:
        """Return the ids of `text` as the continuation of another text, which keeps its own ids.

        Tokenised on its own, a text may get a leading space (SentencePiece); tokenised together, a token may reach
        over the seam. So it is tokenised behind an anchor whose ids stay the same with and without it.
        """
        if not text:
            return []
        for anchor in (before.rpartition(_BREAK)[2], *_ANCHORS):
            head, joint = self._ids(anchor), self._ids(anchor + text)
            if joint[: len(head)] == head:
                return joint[len(head) :]
        raise RenderError("seam", f"the tokenizer cannot continue the prompt at {text[:40]!r}")


class _Breaker:
    """Puts `_BREAK` into every spelling of some tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._begun = {token[:length] for token in longest_first for length in range(1, len(token))}
        self._longest = len(longest_first[0]) if longest_first else 0

    def broken(self, value: Any) -> Any:
        """Return a value of JSON with the tokens broken in all its texts."""
        if isinstance(value, str):
            return self._broken_text(value)
        if isinstance(value, Mapping):
            return {self.broken(key): self.broken(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.broken(item) for item in value]
        return value

    def closed(self, text: str) -> str:
        """Return a broken text that no token can reach out of: templates may write messages back to back."""
        text = self._broken_text(text)
        ends_begun = any(text[-length:] in self._begun for length in range(1, self._longest))
        return text + _BREAK if ends_begun else text

    def _broken_text(self, text: str) -> str:
        text = text.replace(_BREAK, "")
        while self._whole and self._whole.search(text):  # again, since a broken token may hold a shorter one
            text = self._whole.sub(lambda found: found[0][0] + _BREAK + found[0][1:], text)
        return text


def _with_parsed_arguments(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose tool calls hold their arguments as objects.

    OpenAI writes them as JSON text; chat templates write JSON themselves and would encode that text once more.
    """
    if "tool_calls" not in message:
        return message
    return message | {"tool_calls": [_parsed_call(call) for call in message["tool_calls"]]}


def _parsed_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _seam_fault(prompt: str, full: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b), min(len(prompt), len(full)))
    return (
        "the chat template writes the prompt differently once a completion follows: "
        f"{prompt[max(0, at - 20) : at + 20]!r} becomes {full[max(0, at - 20) : at + 20]!r}"
    )


def _cause(error: Exception) -> str:
    return one_line(error, 200) or type(error).__name__
