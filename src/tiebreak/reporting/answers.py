"""Answers as a page shows them: before beside after with the words that differ, and one prompt's answer over training.

Owns what differs, what counts as worse, and how much text a page takes: longer answers are cut, and what no longer fits
is counted. Pure: rows of samples, judgements and looks in, values for a template out.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from tiebreak.reporting.numbers import is_number
from tiebreak.reporting.visible import harmless

Rows = Sequence[Mapping[str, Any]]

MOST_BYTES = 1_000_000
"""Of all answers before and after on a page, as they are written into it; of looks a third of it."""
MOST_TEXT, MOST_WORDS = 4000, 1500
"""Characters of a text that are shown; words of two answers between which the differences are looked for."""
SAME, OTHER = False, True
Piece = tuple[str, bool]
"""A part of an answer, and whether the other answer lacks it."""


@dataclass(frozen=True)
class Side:
    """An answer: its pieces, how much of it is left out, and what is known of it."""

    pieces: Sequence[Piece]
    num_left_out: int
    num_tokens: Any
    finished: bool
    looping: bool
    matches_rule: bool | None


@dataclass(frozen=True)
class Compared:
    """A prompt with both answers; `marks` are what filters ask for."""

    prompt: Sequence[tuple[str, str]]
    before: Side
    after: Side
    marks: Sequence[str]
    length: int
    """Tokens of the longer answer."""
    says: str
    """Of whoever judged."""
    chosen: str
    rejected: str


def compared(samples: Rows, judgements: Rows) -> tuple[list[Compared], int]:
    """Return the samples that fit on a page, and how many do not; `judgements` are rows of the same prompts."""
    said = {str(row["prompt_id"]): row for row in judgements}
    found: list[Compared] = []
    room = MOST_BYTES
    for sample in samples:
        one = _compared(sample, said.get(str(sample.get("prompt_id")), {}))
        room -= _bytes_of(one)
        if room < 0:
            break
        found.append(one)
    return found, len(samples) - len(found)


def marks_of(sample: Mapping[str, Any], preferred: Any) -> list[str]:
    """Return what filters ask for: changed, better, worse.

    Better and worse are what the judge or the rule says; an answer that began to go round in circles is worse whatever
    they say.
    """
    before, after = sample["before"], sample["after"]
    met = [side.get("matches_rule") for side in (before, after)]
    verdict = preferred if is_number(preferred) else (1 + met[1] - met[0]) / 2 if None not in met else 0.5
    circles = bool(after.get("looping")) and not before.get("looping")
    told = {
        "changed": before["text"] != after["text"],
        "better": verdict > 0.5 and not circles,
        "worse": verdict < 0.5 or circles,
    }
    return [mark for mark, holds in told.items() if holds]


def differences(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces, word by word; of very long ones nothing is marked."""
    one, other = (re.findall(r"\s*\S+|\s+", text) for text in (before, after))
    if len(one) + len(other) > MOST_WORDS:
        return [(before, SAME)], [(after, SAME)]
    # White space stands before a word, differs from none, and is not marked.
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in one], [word.strip() for word in other], False)
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, start, end, begin, stop in matcher.get_opcodes():
        for pieces, words in ((left, one[start:end]), (right, other[begin:stop])):
            text = "".join(words)
            bare = text.lstrip()
            parts = [(text, SAME)] if kind == "equal" else [(text[: len(text) - len(bare)], SAME), (bare, OTHER)]
            pieces += [(part, differs) for part, differs in parts if part]
    return left, right


@dataclass(frozen=True)
class Course:
    """What one prompt was answered on the way: a step, the answer, and what is known of it."""

    prompt: Sequence[tuple[str, str]]
    answers: Sequence[tuple[int, Side]]


def courses(looks: Sequence[tuple[int, Rows]]) -> tuple[list[Course], int]:
    """Return the prompts that fit on a page with their answer at each look, and how many do not.

    Each answer is held against the one of the look before.
    """
    by_prompt: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for step, rows in looks:
        for row in rows:
            by_prompt.setdefault(str(row["prompt_id"]), []).append((step, row))
    found: list[Course] = []
    room = MOST_BYTES // 3
    for seen in by_prompt.values():
        texts = [str(row["text"])[:MOST_TEXT] for _, row in seen]
        pieces = [
            differences(earlier, text)[1] if place else [(text, SAME)]
            for place, (earlier, text) in enumerate(zip(["", *texts], texts, strict=False))
        ]
        answers = [(step, _side(row, one)) for (step, row), one in zip(seen, pieces, strict=True)]
        room -= sum(map(_written, texts))
        if room < 0:
            break
        found.append(Course(_prompt(seen[0][1]), answers))
    return found, len(by_prompt) - len(found)


def _compared(sample: Mapping[str, Any], judged: Mapping[str, Any]) -> Compared:
    before, after = sample["before"], sample["after"]
    pieces = differences(str(before["text"])[:MOST_TEXT], str(after["text"])[:MOST_TEXT])
    lengths = [side["num_tokens"] for side in (before, after) if is_number(side.get("num_tokens"))]
    return Compared(
        prompt=_prompt(sample),
        before=_side(before, pieces[0]),
        after=_side(after, pieces[1]),
        marks=marks_of(sample, judged.get("preferred")),
        length=int(max(lengths, default=0)),
        says=_cut(str(judged.get("says") or ""), 600),
        chosen=_cut(str(sample.get("chosen") or "")),
        rejected=_cut(str(sample.get("rejected") or "")),
    )


def _side(answer: Mapping[str, Any], pieces: Sequence[Piece]) -> Side:
    return Side(
        pieces=pieces,
        num_left_out=max(0, len(str(answer["text"])) - MOST_TEXT),
        num_tokens=answer.get("num_tokens"),
        finished=bool(answer.get("finished")),
        looping=bool(answer.get("looping")),
        matches_rule=answer.get("matches_rule"),
    )


def _prompt(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(message["role"]), _cut(str(message["content"]))) for message in row["prompt"]]


def _cut(text: str, most: int = MOST_TEXT) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} more characters)"


def _bytes_of(one: Compared) -> int:
    texts = [text for _, text in one.prompt] + [text for side in (one.before, one.after) for text, _ in side.pieces]
    return 1000 + sum(map(_written, [*texts, one.says, one.chosen, one.rejected]))


def _written(text: str) -> int:
    """Return how many bytes a text takes on a page."""
    return len(escape(harmless(text)).encode())
