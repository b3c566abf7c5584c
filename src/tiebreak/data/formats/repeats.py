"""Completions that begin with their prompt once more: whole texts, as files have them whose writers scored whole texts.

Owns what such a repetition is, and that a file in which nearly all completions have it is read without it. It knows no
form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from tiebreak.data.formats.candidates import PROMPTS
from tiebreak.data.formats.cells import column_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pieces import prompt_messages
from tiebreak.data.formats.proportions import NEARLY_ALL
from tiebreak.records import Message

_FEWEST = 3
_TELLING = 16
"""Characters of a prompt from which its repetition is no accident: an answer may begin with the word it explains."""
_JOINT = re.compile(r"(?:[ \t]*\r?\n)+|[ \t]")


def after_prompt(text: str, asked: str, *, least: int = _TELLING) -> str | None:
    """Return what of a completion comes after the prompt that it begins with, None where it begins with none.

    A prompt of fewer than `least` characters counts as none, and so does one that goes on in the middle of a word.
    """
    start, said = asked.strip(), text.lstrip()
    if len(start) < max(least, 1) or not said.startswith(start):
        return None
    rest = said[len(start) :]
    if start[-1].isalnum() and rest[:1].isalnum():
        return None
    joint = _JOINT.match(rest)
    return rest[joint.end() :] if joint else rest


def without_prompts(form: Format, rows: Sequence[Row], pairing: Pairing) -> Format:
    """Return a form that cuts the prompt from completions which begin with it, where nearly all of a file's do."""
    num_repeated = num_others = 0
    for row in rows:
        with suppress(RowError):
            if not form.matches(row):
                continue
            reading = form.read(row, pairing)
            asked = row.get(dict(form.mapping).get("prompt", column_in(row, PROMPTS)[0]))
            told = [_is_repeated(row, asked, prompt, said) for prompt, said in _completions(reading)]
            if None not in told:
                num_repeated, num_others = num_repeated + all(told), num_others + (not all(told))
        if num_others > (1 - NEARLY_ALL) * len(rows):
            return form
    if num_repeated < max(_FEWEST, NEARLY_ALL * (num_repeated + num_others)):
        return form
    title = f"{form.title}; completions begin with the prompt, which is cut (data.columns keeps it)"
    return replace(form, title=title, read=partial(_read_cut, form))


def _completions(reading: Reading) -> Iterator[tuple[Sequence[Message], Message]]:
    for pair in reading.pairs:
        yield from ((pair.prompt, pair.chosen), (pair.prompt, pair.rejected))
    yield from ((one.prompt, one.completion) for one in reading.alone)


def _is_repeated(row: Row, asked: Any, prompt: Sequence[Message], said: Message) -> bool | None:
    """Whether a completion repeats its prompt, the text `asked`; None of a prompt that is too short to tell.

    Where the prompt is told as messages, or with a system text or earlier rounds before it, nobody writes whole texts:
    an answer that begins with its question is meant.
    """
    if not isinstance(asked, str) or (len(prompt) > 1 and tuple(prompt_messages(asked)) != tuple(prompt)):
        return False
    if len(prompt[-1].content.strip()) < _TELLING:
        return None
    return any(after_prompt(said.content, asked) is not None for asked in _spellings(row, prompt))


def _spellings(row: Row, prompt: Sequence[Message]) -> list[str]:
    """Return what a completion may repeat: the prompt as its column has it, its last message."""
    return [*(row[name] for name in PROMPTS if isinstance(row.get(name), str)), prompt[-1].content]


def _read_cut(form: Format, row: Row, pairing: Pairing) -> Reading:
    reading = form.read(row, pairing)

    def cut(prompt: Sequence[Message], said: Message) -> Message:
        found = (after_prompt(said.content, asked, least=1) for asked in _spellings(dict(row), prompt))
        rest = next((text for text in found if text is not None), said.content)
        return replace(said, content=rest)

    return replace(
        reading,
        pairs=tuple(
            replace(pair, chosen=cut(pair.prompt, pair.chosen), rejected=cut(pair.prompt, pair.rejected))
            for pair in reading.pairs
        ),
        thumbs=tuple(replace(one, completion=cut(one.prompt, one.completion)) for one in reading.thumbs),
        rated=tuple(replace(one, completion=cut(one.prompt, one.completion)) for one in reading.rated),
    )
