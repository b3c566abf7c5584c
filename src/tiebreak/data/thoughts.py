"""Reasoning inside text: the marks that models set around it, in an answer and at the end of a prompt that opens it.

Owns these marks, how a text is taken apart at them, and how it is put together behind a prompt. It knows no template
and no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple


class Mark(NamedTuple):
    """What stands around reasoning, and the blanks that most models write inside and behind it."""

    begin: str
    end: str
    inside: str = "\n"
    behind: str = "\n\n"


MARKS = (
    Mark("<think>", "</think>"),
    Mark("<thinking>", "</thinking>"),
    Mark("<thought>", "</thought>"),
    Mark("<thoughts>", "</thoughts>"),
    Mark("<reasoning>", "</reasoning>"),
    Mark("<reflection>", "</reflection>"),
    Mark("<analysis>", "</analysis>"),
    Mark("<scratchpad>", "</scratchpad>"),
    Mark("<seed:think>", "</seed:think>"),
    Mark("<longcat_think>", "</longcat_think>"),
    Mark("◁think▷", "◁/think▷"),
    Mark("<|begin_of_thought|>", "<|end_of_thought|>"),
    Mark("[THINK]", "[/THINK]", "", ""),
    Mark("<|START_THINKING|>", "<|END_THINKING|>", "", ""),
    Mark("<|inner_prefix|>", "<|inner_suffix|>", "", ""),
    Mark("<|channel>thought", "<channel|>", "\n", ""),
)
"""How public models mark the begin and the end of their reasoning."""
_NEAR = 80
_BEGINS = frozenset(mark.begin[0] for mark in MARKS)
_BLOCKS = tuple(
    (mark, re.compile(rf"{re.escape(mark.begin)}(?P<inside>\s*)(?P<close>{re.escape(mark.end)}\s*)?")) for mark in MARKS
)


@dataclass(frozen=True)
class Opening:
    """How a prompt ends that begins the reasoning itself: what it writes, and whether it closes it again at once."""

    text: str
    mark: Mark
    closed: bool


@dataclass(frozen=True)
class Spoken:
    """An answer taken apart: its reasoning, and what was said after it, nothing of either changed."""

    mark: Mark
    thought: str
    answer: str
    begins: bool
    """Whether the mark of the begin is written; behind a prompt that opens the reasoning, models do not write it."""
    ends: bool
    """Whether the mark of the end is written; where it is not, the reasoning was cut off."""


def marks_in(text: str) -> tuple[Mark, ...]:
    """Return the marks of reasoning that a template speaks of."""
    return tuple(mark for mark in MARKS if mark.begin in text or mark.end in text)


def opening_of(prompt: str) -> Opening | None:
    """Return the reasoning that a prompt opens at its very end, if it does."""
    tail = prompt[-_NEAR:]
    for mark, block in _BLOCKS:
        at = tail.rfind(mark.begin)
        if at >= 0 and (found := block.fullmatch(tail, at)):
            return Opening(found[0], mark, found["close"] is not None)
    return None


def without_empty(text: str) -> str:
    """Return a text without the closed and empty reasoning that it begins with, if it does."""
    stripped = text.lstrip()
    for _, block in _BLOCKS:
        if (found := block.match(stripped)) and found["close"] is not None:
            return stripped[found.end() :]
    return text


def spoken_of(content: str, marks: Collection[Mark] = MARKS) -> Spoken | None:
    """Return the reasoning that a text begins with, be its first mark written or not; None where there is none.

    No other marks than `marks` are any: `</analysis>` may be what an answer is about.
    """
    if not any(first in content for first in _BEGINS):
        return None
    stripped = content.lstrip()
    for mark in marks:
        begins = stripped.startswith(mark.begin)
        thought, end, answer = (stripped[len(mark.begin) :] if begins else content).partition(mark.end)
        if begins or (end and mark.begin not in thought):
            return Spoken(mark, thought, answer, begins, bool(end))
    return None


def behind(opening: Opening | None, spoken: Spoken) -> tuple[str, str]:
    """Return what a model writes of an answer behind a prompt, up to what is said after the reasoning; and that."""
    thought, blank = spoken.thought, ""
    if opening is not None and spoken.begins:
        blank = opening.text[len(opening.mark.begin) :]
        thought = thought[len(blank) :] if thought.startswith(blank) else thought.lstrip()
    begin = spoken.mark.begin if opening is None else ""
    answer = spoken.answer.lstrip()
    between = spoken.answer[: len(spoken.answer) - len(answer)]
    return f"{begin}{thought}{spoken.mark.end if spoken.ends else ''}{between}", answer


def told(thought: str, answer: str, mark: Mark) -> Spoken:
    """Return reasoning that was told apart from the answer as most models write the two."""
    return Spoken(
        mark,
        f"{mark.inside}{thought.strip()}{mark.inside}",
        f"{mark.behind}{answer.lstrip()}",
        begins=True,
        ends=True,
    )
