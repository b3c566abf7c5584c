"""A tokenizer's chat template in use: written to as it wants, and given up where chat after chat costs too much.

Owns when a template is given up, and which marks of reasoning it knows. Knows nothing of tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from tiebreak.data.conventions import TOOL, Conventions, of_calls, of_content
from tiebreak.data.encoding import Tokenizer
from tiebreak.data.templates import Exceeded, names_read, reads_clock, rendered
from tiebreak.data.thoughts import Mark, marks_in
from tiebreak.errors import RenderError, one_line

_MOST_EXCEEDED, _MOST_IN_A_ROW = 100, 3
"""Chats that may take more steps than any needs, some seconds each, before the template is given up."""
_Chat = list[dict[str, Any]]
_Tools = Sequence[Any] | None


class ChatTemplate:
    """Writes chats as the template of one tokenizer does."""

    def __init__(self, tokenizer: Tokenizer, now: datetime | None = None) -> None:
        """`now` is what a template that reads the clock is told; None is the real time."""
        self._tokenizer, self._now = tokenizer, now
        self._added = " ".join(token.content for token in tokenizer.added_tokens_decoder.values())
        self._marks: dict[str, tuple[Mark, ...]] = {}
        self._wanted: dict[tuple[bool, bool], Conventions] = {}
        self._exceeded: Exceeded | None = None
        self._num_exceeded = self._num_in_a_row = 0

    def written(self, messages: _Chat, tools: _Tools, *, generation: bool) -> str:
        """Return a chat as text, up to what an answer begins with for `generation`; raises RenderError."""
        calls = any("tool_calls" in message for message in messages)
        return self._rendered(self._conventions(bool(tools), calls).applied(messages), tools, generation)

    def went_well(self) -> None:
        """Take note that a pair was written: what one costs is not what all do."""
        self._num_in_a_row = 0

    def marks(self, tools: _Tools) -> tuple[Mark, ...]:
        """Return the marks of reasoning that the template speaks of, or that are tokens of their own."""
        source = self._source(tools)
        if source not in self._marks:
            self._marks[source] = marks_in(source + self._added)
        return self._marks[source]

    def own_mark(self, tools: _Tools) -> Mark | None:
        """Return the mark that the template puts before reasoning, if it speaks of any."""
        return next(iter(marks_in(self._source(tools))), None)

    def names_read(self, tools: _Tools) -> frozenset[str]:
        """Return the names that the template takes from outside."""
        return names_read(self._source(tools))

    @property
    def asks_the_time(self) -> bool:
        """Whether what it writes depends on when that is: it reads the clock, and no time is set."""
        return self._now is None and any(reads_clock(self._source(tools)) for tools in (None, [TOOL]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave what it has found out where it is: another process asks anew."""
        return ChatTemplate, (self._tokenizer, self._now)

    def _source(self, tools: _Tools) -> str:
        return self._tokenizer.get_chat_template(tools=list(tools) if tools else None)

    def _conventions(self, tools: bool, calls: bool) -> Conventions:
        """Return what the template wants of chats with or without tools and calls."""
        if (tools, calls) not in self._wanted:

            def render(chat: _Chat) -> str:
                return self._rendered(chat, [TOOL] if tools else None, True)

            found = of_calls(render, self._conventions(tools, False)) if calls else of_content(render)
            self._wanted[tools, calls] = found
        return self._wanted[tools, calls]

    def _rendered(self, messages: _Chat, tools: _Tools, generation: bool) -> str:
        if self._exceeded and (self._num_in_a_row >= _MOST_IN_A_ROW or self._num_exceeded >= _MOST_EXCEEDED):
            raise RenderError("template", f"{self._exceeded}; given up after {self._num_exceeded} such chats")
        try:
            with template_errors():
                return rendered(self._tokenizer, messages, list(tools) if tools else None, generation, self._now)
        except Exceeded as error:
            self._exceeded = error
            self._num_exceeded, self._num_in_a_row = self._num_exceeded + 1, self._num_in_a_row + 1
            raise RenderError("template", str(error)) from None


@contextlib.contextmanager
def template_errors() -> Iterator[None]:
    """Turn whatever a template raises, or a chat that is nested too deeply, into one line."""
    try:
        yield
    except (Exceeded, RenderError):
        raise
    except Exception as error:  # noqa: BLE001 - a template is foreign code and may raise anything
        cause = one_line(error, 200) or type(error).__name__
        raise RenderError("template", f"the chat template refuses the messages: {cause}") from None
