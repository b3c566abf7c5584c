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
from dataclasses import replace
from datetime import datetime
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.data import thoughts
from tiebreak.data.completeness import Part, left_out, parts_of_completion, parts_of_prompt, reasoning_left_out
from tiebreak.data.encoding import Encoder, Tokenizer
from tiebreak.data.templates import SWITCHES, Exceeded, names_read, rendered
from tiebreak.errors import RenderError, one_line
from tiebreak.records import Message, Pair, TokenizedPair

# Breaks control tokens inside content; of the Unicode private-use area, so no font, keyboard or tokenizer gives it.
_BREAK = "\uf8f5"
NOT_RENDERED = "not_rendered"
"""Of a part that the template leaves out; `data.allow` may name it."""

_Chat = list[dict[str, Any]]
_Tools = list[dict[str, Any]] | None


class Renderer:
    """Turns pairs into `TokenizedPair` and prompts into ids, for one tokenizer and one set of limits."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        eos_ids: Collection[int],
        data: DataConfig,
        now: datetime | None = None,
        positions: int | None = None,
    ) -> None:
        """`eos_ids` end a turn; the first is appended where the template writes none.

        `now` is what a template that reads the clock is told; None is the real time. A model that has only so many
        `positions` takes no more tokens, whatever `data` allows.
        """
        self._tokenizer = tokenizer
        self._now = now
        self._encoder = Encoder(tokenizer)
        self._eos_ids = tuple(eos_ids)
        self._truncation = data.truncation
        self._may_leave_out = NOT_RENDERED in data.allow
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
        self._refuse_left_out(parts_of_prompt(messages, tools or ()), prompt)
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
        written = self._written(messages, tools, completion, prompt)
        ids = self._encode(written, continuing=prompt)
        end = min((ids.index(eos) for eos in self._eos_ids if eos in ids), default=None)
        body = ids if end is None else ids[:end]
        if not body:
            raise RenderError("empty_completion", "the chat template leaves nothing of the completion")
        return (*body, self._eos_ids[0] if end is None else ids[end])

    def _written(self, messages: _Chat, tools: _Tools, completion: Message, prompt: str) -> str:
        """Return what follows a prompt, as the template writes it, the reasoning included.

        A template that cuts the reasoning out of finished turns, or opens it where an answer begins, writes the rest of
        the turn; the reasoning is put before it as a model would write it there.
        """
        last, _ = self._disarmed([completion], ())
        spoken = self._spoken(completion)
        parts = parts_of_completion(last[0], spoken)
        full = self._text([*messages, *last], tools, generation=False)
        written = full[len(prompt) :] if full.startswith(prompt) else None
        # Marks that are control tokens were broken in the content, and a template does not know them again.
        broken = spoken is not None and self._control.broken(spoken.mark.end) != spoken.mark.end
        if written is None or broken or reasoning_left_out(parts, spoken, written, _BREAK):
            opening = thoughts.opening_of(prompt)
            composed = self._with_reasoning(messages, tools, completion, spoken, prompt, opening)
            if composed is None and written is None:
                raise RenderError("seam", self._opened_fault(opening) if opening else _seam_fault(prompt, full))
            written = written if composed is None else composed
        self._refuse_left_out(parts, written or "")
        return written or ""

    def _spoken(self, completion: Message) -> thoughts.Spoken | None:
        """Return a completion that reasons in its text taken apart, with every control token in it broken."""
        spoken = None if completion.reasoning else thoughts.spoken_of(completion.content)
        if spoken is None:
            return None
        return replace(spoken, thought=self._control.closed(spoken.thought), answer=self._control.closed(spoken.answer))

    def _with_reasoning(
        self,
        messages: _Chat,
        tools: _Tools,
        completion: Message,
        spoken: thoughts.Spoken | None,
        prompt: str,
        opening: thoughts.Opening | None,
    ) -> str | None:
        """Return the reasoning of a completion, and what the template writes of the rest of it; None where it cannot.

        A prompt that opens the reasoning wants a completion that has some, and one that closes it again one that has
        none.
        """
        if completion.reasoning:
            mark = opening.mark if opening else thoughts.mark_in(self._tokenizer.get_chat_template(tools=tools))
            thought = self._control.closed(completion.reasoning)
            spoken = thoughts.told(thought, completion.content, mark) if mark else None
        if (spoken is None) != (opening is not None and opening.closed):
            return None
        before, answer = ("", completion.content) if spoken is None else thoughts.behind(opening, spoken)
        rest, _ = self._disarmed([replace(completion, content=answer, reasoning="")], ())
        full = self._text([*messages, *rest], tools, generation=False)
        head = prompt.removesuffix(opening.text) if opening else prompt
        return before + thoughts.without_empty(full[len(head) :]) if full.startswith(head) else None

    def _opened_fault(self, opening: thoughts.Opening) -> str:
        """Return why a completion does not go on behind reasoning that a prompt opens, or closes, and the way out."""
        names = names_read(self._tokenizer.get_chat_template())
        switch = next((name for name in SWITCHES if name in names), None)
        setting = f"set model.chat_template_arguments: {{{switch}: {str(opening.closed).lower()}}}" if switch else ""
        does, has = ("close", "some") if opening.closed else ("open", "none")
        other = f"name a template that does not {does} it as model.chat_template"
        return (
            f"the chat template {does}s the reasoning ({opening.mark.begin}) before the answer begins, and the "
            f"completion has {has}; {' or '.join(filter(None, (setting, other)))}"
        )

    def _refuse_left_out(self, parts: Sequence[Part], written: str) -> None:
        """Refuse a chat of which the template did not write all, unless that is allowed."""
        if not self._may_leave_out and (what := left_out(parts, written, _BREAK)):
            raise RenderError(
                "not_rendered",
                f"the chat template leaves out {what}; name one that writes it as model.chat_template, or go on "
                f"without it with data.allow: [{NOT_RENDERED}]",
            )

    def _text(self, messages: _Chat, tools: _Tools, *, generation: bool) -> str:
        if self._exceeded:  # it would cost seconds again, for each pair of a file
            raise RenderError("template", str(self._exceeded))
        try:
            with _template_errors():
                return rendered(self._tokenizer, messages, tools, generation, self._now)
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
        if not (message.name or message.tool_calls or message.tool_call_id or message.reasoning):
            return {"role": message.role, "content": content}
        broken: dict[str, Any] = breaker.broken(_with_parsed_arguments(message.as_dict()))
        if message.reasoning:  # each template reads one of these names, and some of them the first that is there
            broken |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), breaker.closed(message.reasoning))
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
        f"{prompt[max(0, at - 20) : at + 20]!r} becomes {full[max(0, at - 20) : at + 20]!r}; name a template that only "
        "appends turns as model.chat_template"
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
