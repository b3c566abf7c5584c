"""From messages to token ids: the template, the seam between prompt and completion, EOS, truncation.

Owns every decision about which tokens exist and which are scored. Training, evaluation, sampling and chat all render
here, so the ids that are trained are the ids that generation will see. It takes any tokenizer with the four calls of
`Tokenizer` and knows nothing of models.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.data.encoding import Encoder, Tokenizer
from tiebreak.data.templates import Exceeded, rendered
from tiebreak.errors import RenderError, one_line
from tiebreak.records import Message, Pair, TokenizedPair

# Breaks control tokens inside content; of the Unicode private-use area, so no font, keyboard or tokenizer gives it.
_BREAK = "\uf8f5"


_Chat = list[dict[str, Any]]
_Tools = list[dict[str, Any]] | None


class Renderer:
    """Turns pairs into `TokenizedPair` and prompts into ids, for one tokenizer and one set of limits."""

    def __init__(
        self, tokenizer: Tokenizer, eos_ids: Collection[int], data: DataConfig, positions: int | None = None
    ) -> None:
        """`eos_ids` end a turn; the first is appended where the template writes none.

        A model that has only so many `positions` takes no more tokens, whatever `data` allows.
        """
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._eos_ids = tuple(eos_ids)
        self._truncation = data.truncation
        self._max_length, self._limit = data.max_length, f"data.max_length {data.max_length}"
        if positions is not None and positions < data.max_length:
            self._max_length = positions
            self._limit = f"the {positions} positions of the model (data.max_length is {data.max_length})"
        self._exceeded: Exceeded | None = None
        added = tokenizer.added_tokens_decoder
        self._control = _Breaker(token.content for i, token in added.items() if token.special or i in eos_ids)
        self._any_added = _Breaker(token.content for token in added.values() if token.content.strip())

    def pair(self, pair: Pair) -> TokenizedPair:
        """Return the pair as ids, truncated if allowed; raises RenderError with a reason code."""
        messages, tools = self._disarmed(pair.prompt, pair.tools)
        prompt = self._text(messages, tools, generation=True)
        chosen_ids, rejected_ids = (
            self._completion(messages, tools, completion, prompt) for completion in (pair.chosen, pair.rejected)
        )
        if chosen_ids == rejected_ids:
            raise RenderError("identical_tokens", "both completions are the same after the chat template")
        whole = self._encode(prompt)
        kept = self._fitted(whole, room=self._max_length - max(len(chosen_ids), len(rejected_ids)))
        num_cut, weight = len(whole) - len(kept), pair.preference.weight
        return TokenizedPair(pair.pair_id, pair.prompt_id, tuple(kept), chosen_ids, rejected_ids, num_cut, weight)

    def pairs(self, pairs: Iterable[Pair]) -> Iterator[TokenizedPair | RenderError]:
        """Yield what `pair` returns or raises for each of many, in their order."""
        for pair in pairs:
            try:
                yield self.pair(pair)
            except RenderError as error:
                yield error

    def prompt(self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return the ids that generation starts from, the assistant's header included."""
        return tuple(self._encode(self._text(*self._disarmed(prompt, tools), generation=True)))

    def text(self, ids: Sequence[int]) -> str:
        """Return generated ids as text, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _fitted(self, prompt_ids: list[int], room: int) -> list[int]:
        if len(prompt_ids) <= room:
            return prompt_ids
        if self._truncation == "drop" or room < 1:
            longest = len(prompt_ids) + self._max_length - room
            raise RenderError("too_long", f"{longest} tokens, more than {self._limit}")
        return prompt_ids[-room:]

    def _completion(self, messages: _Chat, tools: _Tools, completion: Message, prompt: str) -> tuple[int, ...]:
        """Return the scored ids: what the template writes after the prompt, to the first EOS and no further."""
        last, _ = self._disarmed([completion], ())
        full = self._text([*messages, *last], tools, generation=False)
        if not full.startswith(prompt):
            raise RenderError("seam", _seam_fault(prompt, full))
        ids = self._encode(full[len(prompt) :], continuing=prompt)
        end = min((ids.index(eos) for eos in self._eos_ids if eos in ids), default=None)
        body = ids if end is None else ids[:end]
        if not body:
            raise RenderError("empty_completion", "the chat template leaves nothing of the completion")
        return (*body, self._eos_ids[0] if end is None else ids[end])

    def _text(self, messages: _Chat, tools: _Tools, *, generation: bool) -> str:
        if self._exceeded:  # it would cost seconds again, for each pair of a file
            raise RenderError("template", str(self._exceeded))
        try:
            with _template_errors():
                return rendered(self._tokenizer, messages, tools, generation)
        except Exceeded as error:
            self._exceeded = error
            raise RenderError("template", str(error)) from None

    def _disarmed(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[_Chat, _Tools]:
        """Return messages and tools as templates take them, with every control token in their content broken.

        Added tokens that are not special, like `<think>`, are broken in what others write and kept where the model
        itself is the writer: there they are how it really writes.
        """
        with _template_errors():
            return [self._disarmed_message(message) for message in messages], self._any_added.broken(tools) or None

    def _disarmed_message(self, message: Message) -> dict[str, Any]:
        breaker = self._control if message.role == "assistant" else self._any_added
        content = breaker.closed(message.content)
        if not (message.name or message.tool_calls or message.tool_call_id):
            return {"role": message.role, "content": content}
        broken: dict[str, Any] = breaker.broken(_with_parsed_arguments(message.as_dict()))
        return broken | {"role": message.role, "content": content}

    def _encode(self, text: str, continuing: str = "") -> list[int]:
        """Return the ids of a text whose pieces, split at `_BREAK`, never join into a control token."""
        ids: list[int] = []
        for piece in text.split(_BREAK):
            before = continuing.rpartition(_BREAK)[2]
            ids += self._encoder.continuation(piece, before) if continuing else self._encoder.ids(piece)
            continuing = continuing or piece
        return ids


class _Breaker:
    """Puts `_BREAK` into every spelling of some tokens."""

    def __init__(self, tokens: Iterable[str]) -> None:
        longest_first = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._begun = {token[:length] for token in longest_first for length in range(1, len(token))}
        self._longest = len(longest_first[0]) if longest_first else 0
        self._firsts = {token[0] for token in longest_first}

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
        return text + _BREAK if self._ends_begun(text) else text

    def _ends_begun(self, text: str) -> bool:
        if self._firsts.isdisjoint(text[1 - self._longest :]):
            return False
        return any(text[-length:] in self._begun for length in range(1, self._longest))

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


@contextlib.contextmanager
def _template_errors() -> Iterator[None]:
    try:
        yield
    except Exceeded:
        raise
    except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
        cause = one_line(error, 200) or type(error).__name__
        raise RenderError("template", f"the chat template refuses the messages: {cause}") from None
