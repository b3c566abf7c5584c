"""Whether a chat template wrote all of a chat: each part of it must have left its text.

Owns how that is known. A chat of the same shape whose parts are words that stand nowhere else tells which of them the
template writes, whatever short or common words the real ones are; it is written once for each shape. What it leaves out
is certain where the real chat, too, stays the same without it. A template may still decide by what a text says: so each
text is looked for as it is, in the spellings of JSON, Python and HTML, or word by word where it was arranged anew.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tiebreak.data.chat_template import ChatTemplate
from tiebreak.data.markers import Chat, Part, Put, bare, is_written, marked, with_one
from tiebreak.errors import RenderError

Visit = Callable[[Put], Chat]
"""A chat whose parts can be exchanged."""
Message = Mapping[str, Any]
_MOST_SHAPES = 20_000
_SHORT = 24
"""Characters of a text that may stand inside of another by chance."""
_WORD = re.compile(r"\w+")
_ESCAPE = re.compile(r"\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[bfnrt])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&#39;", '"': "&#34;"})
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: text.translate(_HTML),
)


class Told:
    """A prompt, in words that stand nowhere else: made once, for all completions that follow it."""

    def __init__(self, visit: Visit) -> None:
        """`visit` gives messages and tools with their parts exchanged."""
        self.visit = visit
        self.chat, self.parts = marked(visit)
        self.shape = repr(self.chat)


class Completeness:
    """Tells what a template leaves out of a chat, and remembers what it leaves out of which shape."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[str, frozenset[int] | None] = {}

    def of_prompt(self, prompt: Told, written: str) -> str | None:
        """Return what the first part of a prompt is that left no text in what was written, None where all did."""
        missing = self._missing(prompt.shape, prompt.chat, True, prompt.parts, 0)

        def without(place: int) -> str:
            return self._template.written(*with_one(prompt.visit, place), generation=True)

        return _left_out(prompt.parts, missing, without, written, written)

    def of_completion(self, prompt: Told, visit: Callable[[Put], Message], whole: str, written: str) -> str | None:
        """Return that of a completion; `whole` is what the template wrote of prompt and completion together."""
        first, (messages, tools) = len(prompt.parts), prompt.chat
        message, parts = marked(visit, first)
        missing = self._missing(f"{prompt.shape}{message!r}", ([*messages, message], tools), False, parts, first)

        def without(place: int) -> str:
            before, known = prompt.visit(lambda _, value: value)
            return self._template.written([*before, with_one(visit, place)], known, generation=False)

        return _left_out(parts, missing, without, whole, written)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave what it remembers where it is."""
        return Completeness, (self._template,)

    def _missing(
        self, shape: str, chat: Chat, generation: bool, parts: Sequence[Part], first: int
    ) -> frozenset[int] | None:
        """Return the places of the parts that are not written of a chat of this shape; None where it is refused."""
        if shape not in self._known:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            try:
                text = self._template.written(*chat, generation=generation).casefold()
                left = (place for place, part in enumerate(parts) if not is_written(text, first + place, part))
                self._known[shape] = frozenset(left)
            except RenderError:
                self._known[shape] = None
        return self._known[shape]


def _left_out(
    parts: Sequence[Part], missing: Collection[int] | None, without: Callable[[int], str], whole: str, written: str
) -> str | None:
    """Return what is left out; `without` gives what the template writes where one part is another."""
    for place in sorted(missing or ()):
        with contextlib.suppress(RenderError):
            if without(place) == whole:
                return parts[place][0]
    return text_left_out(parts, written, whole_words=missing is None)


def text_left_out(parts: Sequence[Part], written: str, *, whole_words: bool = False) -> str | None:
    """Return what the first part is whose text is not in what was written, None where all are; numbers are not asked.

    A text that also stands in another part must be there as often as in all of them. A text that was arranged anew
    counts as written where its words are, be it inside of longer ones unless `whole_words` are wanted. Costs one search
    of `written` for all parts, where they stand in it in their order.
    """
    told = [(what, text) for what, value in parts if isinstance(value, str) and (text := bare(value))]
    if whole_words:
        return _missing(told, written, whole_words)
    at = 0
    for _, text in told:
        at = written.find(text, at)
        if at < 0:
            return _missing(told, written, whole_words)
        at += len(text)
    return None


def _missing(parts: Sequence[tuple[str, str]], written: str, whole_words: bool) -> str | None:
    texts = [text for _, text in parts]
    lower = ""
    needed: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for what, text in parts:
        times = sum(other.count(text) for other in texts if len(other) >= len(text))
        count = _count_whole if whole_words and len(text) < _SHORT else str.count
        if any(count(written, form) >= times for form in _forms(text)):
            continue
        if not lower:
            lower = written.casefold()
            there.update(_words(lower))
            needed.update(word for other in texts for word in _words(other.casefold()))
        own = set(_words(text.casefold()))
        # Signs alone, arranged anew: the words in their place were written.
        if (whole_words and not own) or any(
            (there[word] if whole_words else lower.count(word)) < needed[word] for word in own
        ):
            return what
    return None


def _count_whole(written: str, text: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", written))


def _forms(text: str) -> set[str]:
    """Return a text in the spellings that templates are known to give one, and in those spelled once more."""
    once = {text, *(spell(text) for spell in _SPELLINGS)}
    return once | {spell(form) for form in once for spell in _SPELLINGS}


def _words(text: str) -> list[str]:
    return _WORD.findall(_ESCAPE.sub(" ", text))
