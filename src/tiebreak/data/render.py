"""From messages to token ids: the template, the seam between prompt and completion, EOS, truncation.

Owns every decision about which tokens exist and which are scored. Training, evaluation, sampling and chat all render
here, so the ids that are trained are the ids that generation will see. It takes any tokenizer with the four calls of
`Tokenizer` and knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.data import thoughts
from tiebreak.data.breaks import Breaker, pieces
from tiebreak.data.chat_template import ChatTemplate, template_errors
from tiebreak.data.completeness import Completeness, Told, text_left_out
from tiebreak.data.conventions import with_objects
from tiebreak.data.encoding import Encoder, Tokenizer
from tiebreak.data.markers import REASONING, Put, completion_with, parts_of, prompt_with
from tiebreak.data.templates import SWITCHES
from tiebreak.errors import RenderError
from tiebreak.fingerprint import fingerprint
from tiebreak.records import FACTS, Judgement, Message, Pair, Thumb, Tokenized, TokenizedPair, TokenizedThumb

NOT_RENDERED = "not_rendered"
"""Of a part that the template leaves out; `data.allow` may name it."""

_SHORTEST = 2
"""Tokens of the shortest completion: one, and its EOS."""

_Chat = list[dict[str, Any]]
_Tools = list[dict[str, Any]] | None


class Renderer:
    """Turns pairs and thumbs into token ids, and prompts into ids, for one tokenizer and one set of limits."""

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
        self._template, self._now = ChatTemplate(tokenizer, now), now
        self._encoder = Encoder(tokenizer)
        self._eos_ids = tuple(eos_ids)
        self._truncation = data.truncation
        self._may_leave_out = NOT_RENDERED in data.allow
        self._max_length, self._limit = data.max_length, f"data.max_length {data.max_length}"
        if positions is not None and positions < data.max_length:
            self._max_length = positions
            self._limit = f"the {positions} positions of the model (data.max_length is {data.max_length})"
        self._completeness = Completeness(self._template)
        added = tokenizer.added_tokens_decoder
        self._control = Breaker(token.content for i, token in added.items() if token.special or i in eos_ids)
        self._any_added = Breaker(token.content for token in added.values() if token.content.strip())

    @property
    def identity(self) -> str | None:
        """A fingerprint of all that the ids of a text depend on; None where they may be others the next time."""
        encoder = self._encoder.identity
        if encoder is None or self._template.asks_the_time:
            return None
        limits = [self._eos_ids, self._max_length, self._limit, self._truncation, self._may_leave_out]
        return fingerprint([encoder, str(self._now), *limits])

    def pair(self, pair: Pair) -> TokenizedPair:
        """Return the pair as ids, truncated if allowed; raises RenderError with a reason code."""
        prompt = self._opened(pair.prompt, pair.tools)
        chosen_ids, rejected_ids = (self._completion(prompt, completion) for completion in (pair.chosen, pair.rejected))
        if chosen_ids == rejected_ids:
            raise RenderError("identical_tokens", "both completions are the same after the chat template")
        self._template.went_well()
        whole = self._encode(prompt.text)
        kept = self._fitted(whole, room=self._max_length - max(len(chosen_ids), len(rejected_ids)))
        names, num_cut, stated = (pair.pair_id, pair.prompt_id), len(whole) - len(kept), pair.preference
        facts = {name: getattr(stated, name) for name in ("weight", *FACTS)}
        return TokenizedPair(*names, tuple(kept), chosen_ids, rejected_ids, num_cut, **facts)

    def thumb(self, thumb: Thumb) -> TokenizedThumb:
        """Return a completion that was judged on its own as ids, truncated if allowed; raises RenderError."""
        whole, ids, kept = self._behind(thumb.prompt, thumb.tools, thumb.completion)
        names, num_cut = (thumb.example_id, thumb.prompt_id), len(whole) - len(kept)
        return TokenizedThumb(*names, tuple(kept), ids, thumb.liked, num_cut, thumb.weight)

    def answered(
        self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]], text: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the ids of a prompt and of a finished answer to it, as `pair` has them; raises RenderError."""
        _, ids, kept = self._behind(prompt, tools, Message("assistant", text))
        return tuple(kept), ids

    def _behind(
        self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]], completion: Message
    ) -> tuple[list[int], tuple[int, ...], list[int]]:
        """Return the ids of a prompt, of the completion behind it, and of as much of the prompt as fits with it."""
        opened = self._opened(prompt, tools)
        ids = self._completion(opened, completion)
        self._template.went_well()
        whole = self._encode(opened.text)
        return whole, ids, self._fitted(whole, room=self._max_length - len(ids))

    def examples(self, judged: Iterable[Judgement]) -> Iterator[Tokenized | RenderError]:
        """Yield what `pair` or `thumb` returns or raises for each of many, in their order."""
        for one in judged:
            try:
                yield self.pair(one) if isinstance(one, Pair) else self.thumb(one)
            except RenderError as error:
                yield error

    def prompt(self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return the ids that generation starts from, the assistant's header included."""
        return tuple(self._encode(self._template.written(*self._disarmed(prompt, tools), generation=True)))

    def asked(self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return what `prompt` does; raises RenderError where no pair of this prompt could be rendered or would fit."""
        opened = self._opened(prompt, tools)
        self._template.went_well()
        return tuple(self._fitted(self._encode(opened.text), room=self._max_length - _SHORTEST))

    def conversation(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return the ids of a chat as it stands, with no answer begun behind it."""
        return tuple(self._encode(self._template.written(*self._disarmed(messages, tools), generation=False)))

    def text(self, ids: Sequence[int]) -> str:
        """Return generated ids as text, without control tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _opened(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> _Prompt:
        """Return a prompt as the template writes it, refused where that leaves something out."""
        disarmed, given = self._disarmed(messages, tools)
        text = self._template.written(disarmed, given, generation=True)
        prompt = _Prompt(disarmed, given, text, thoughts.opening_of(text), self._template.marks(given))
        if not self._may_leave_out:
            with template_errors():
                self._refuse_left_out(self._completeness.of_prompt(prompt.told, text))
        return prompt

    def _fitted(self, prompt_ids: list[int], room: int) -> list[int]:
        if len(prompt_ids) <= room:
            return prompt_ids
        if self._truncation == "drop" or room < 1:
            longest = len(prompt_ids) + self._max_length - room
            raise RenderError("too_long", f"{longest} tokens, more than {self._limit}")
        return prompt_ids[-room:]

    def _completion(self, prompt: _Prompt, completion: Message) -> tuple[int, ...]:
        """Return the scored ids: what the template writes after the prompt, to the first EOS and no further."""
        ids = self._encode(self._written(prompt, completion), continuing=prompt.text)
        end = min((ids.index(eos) for eos in self._eos_ids if eos in ids), default=None)
        body = ids if end is None else ids[:end]
        if not body:
            raise RenderError("empty_completion", "the chat template leaves nothing of the completion")
        return (*body, self._eos_ids[0] if end is None else ids[end])

    def _written(self, prompt: _Prompt, completion: Message) -> str:
        """Return what follows a prompt, as the template writes it, the reasoning included.

        A template that cuts the reasoning out of finished turns, or opens it where an answer begins, writes the rest of
        the turn; the reasoning is put before it as a model would write it there. So is reasoning that was cut off:
        templates take it for an answer.
        """
        [last], _ = self._disarmed([completion], ())
        spoken = self._spoken(completion, prompt.known)
        full = self._template.written([*prompt.messages, last], prompt.tools, generation=False)
        written = full[len(prompt.text) :] if full.startswith(prompt.text) else None
        # Marks that are control tokens were broken in the content, and a template does not know them again.
        broken = spoken is not None and self._control.broken(spoken.mark.end) != spoken.mark.end
        unended = spoken is not None and not spoken.ends
        if written is None or broken or unended or self._hides_reasoning(prompt, last, spoken, full, written):
            composed = self._with_reasoning(prompt, completion, spoken)
            if composed is not None:
                return composed
            if written is None or unended:
                fault = self._opened_fault(prompt.opening, prompt.tools) if prompt.opening else None
                raise RenderError("seam", fault or _seam_fault(prompt.text, full))
        self._refuse_left_out(self._lacking(prompt, last, full, written))
        return written

    def _spoken(self, completion: Message, marks: Collection[thoughts.Mark]) -> thoughts.Spoken | None:
        """Return a completion that reasons in its text taken apart, with every control token in it broken."""
        spoken = None if completion.reasoning else thoughts.spoken_of(completion.content, marks)
        if spoken is None:
            return None
        return replace(spoken, thought=self._control.closed(spoken.thought), answer=self._control.closed(spoken.answer))

    def _hides_reasoning(
        self, prompt: _Prompt, last: dict[str, Any], spoken: thoughts.Spoken | None, full: str, written: str
    ) -> bool:
        """Whether a completion reasons, and that is not in what was written of it before its answer begins."""
        own = [part for part in parts_of(lambda put: completion_with(put, last, prompt.known)) if part[0] == REASONING]
        if not own:
            return False
        before = written.partition(spoken.mark.end)[0] if spoken else written
        return text_left_out(own, before) is not None or self._lacking(prompt, last, full, written) == REASONING

    def _with_reasoning(self, prompt: _Prompt, completion: Message, spoken: thoughts.Spoken | None) -> str | None:
        """Return the reasoning of a completion, and what the template writes of the rest of it; None where it cannot.

        A prompt that opens the reasoning wants a completion that has some, and one that closes it again one that has
        none.
        """
        opening = prompt.opening
        if completion.reasoning:
            mark = opening.mark if opening else self._template.own_mark(prompt.tools)
            thought = self._control.closed(completion.reasoning)
            spoken = thoughts.told(thought, completion.content, mark) if mark else None
        if (spoken is None) != (opening is not None and opening.closed):
            return None
        before, answer = ("", completion.content) if spoken is None else thoughts.behind(opening, spoken)
        [rest], _ = self._disarmed([replace(completion, content=answer, reasoning="")], ())
        full = self._template.written([*prompt.messages, rest], prompt.tools, generation=False)
        head = prompt.text.removesuffix(opening.text) if opening else prompt.text
        if not full.startswith(head):
            return None
        composed = before + thoughts.without_empty(full[len(head) :])
        self._refuse_left_out(self._lacking(prompt, rest, full, composed))
        return composed

    def _opened_fault(self, opening: thoughts.Opening, tools: _Tools) -> str:
        """Return why a completion does not go on behind reasoning that a prompt opens, or closes, and the way out."""
        names = self._template.names_read(tools)
        switch = next((name for name in SWITCHES if name in names), None)
        setting = f"set model.chat_template_arguments: {{{switch}: {str(opening.closed).lower()}}}" if switch else ""
        does, has = ("close", "some") if opening.closed else ("open", "none")
        other = f"name a template that does not {does} it as model.chat_template"
        return (
            f"the chat template {does}s the reasoning ({opening.mark.begin}) before the answer begins, and the "
            f"completion has {has}; {' or '.join(filter(None, (setting, other)))}"
        )

    def _lacking(self, prompt: _Prompt, last: dict[str, Any], full: str, written: str) -> str | None:
        """Return what a template left out of a completion."""

        def visit(put: Put) -> dict[str, Any]:
            return completion_with(put, last, prompt.known)

        with template_errors():
            return self._completeness.of_completion(prompt.told, visit, full, written)

    def _refuse_left_out(self, what: str | None) -> None:
        """Refuse a chat of which the template did not write all, unless that is allowed."""
        if what and not self._may_leave_out:
            raise RenderError(
                "not_rendered",
                f"the chat template leaves out {what}; name one that writes it as model.chat_template, or go on "
                f"without it with data.allow: [{NOT_RENDERED}]",
            )

    def _disarmed(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> tuple[_Chat, _Tools]:
        """Return messages and tools as templates take them, with every control token in their content broken.

        Added tokens that are not special, like `<think>`, are broken in what others write and kept where the model
        itself is the writer: there they are how it really writes.
        """
        with template_errors():
            return [self._disarmed_message(message) for message in messages], self._any_added.broken(tools) or None

    def _disarmed_message(self, message: Message) -> dict[str, Any]:
        breaker = self._control if message.role == "assistant" else self._any_added
        content = breaker.closed(message.content)
        if not (message.name or message.tool_calls or message.tool_call_id or message.reasoning):
            return {"role": message.role, "content": content}
        broken: dict[str, Any] = breaker.broken(with_objects(message.as_dict()))
        if message.reasoning:  # each template reads one of these names, and some of them the first that is there
            broken |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), breaker.closed(message.reasoning))
        return broken | {"role": message.role, "content": content}

    def _encode(self, text: str, continuing: str = "") -> list[int]:
        """Return the ids of a text whose pieces, split at every break, never join into a control token."""
        ids: list[int] = []
        for piece in pieces(text):
            before = pieces(continuing)[-1]
            ids += self._encoder.continuation(piece, before) if continuing else self._encoder.ids(piece)
            continuing = continuing or piece
        return ids


@dataclass(frozen=True)
class _Prompt:
    """A prompt as it was given to the template, and what came of it."""

    messages: _Chat
    tools: _Tools
    text: str
    opening: thoughts.Opening | None
    marks: tuple[thoughts.Mark, ...]

    @property
    def known(self) -> tuple[thoughts.Mark, ...]:
        """The marks that mean reasoning in a completion: behind an opened one, no other."""
        return (self.opening.mark,) if self.opening else self.marks

    @cached_property
    def told(self) -> Told:
        """What it says."""
        return Told(lambda put: prompt_with(put, self.messages, self.tools or (), self.marks))


def _seam_fault(prompt: str, full: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b), min(len(prompt), len(full)))
    return (
        "the chat template writes the prompt differently once a completion follows: "
        f"{prompt[max(0, at - 20) : at + 20]!r} becomes {full[max(0, at - 20) : at + 20]!r}; name a template that only "
        "appends turns as model.chat_template"
    )
