"""What is wrong with one text: control tokens, role headers, hidden characters, secrets, personal data.

Owns which rules look at which text and how a finding is shown: at most 60 characters, in which whatever is secret or
personal is masked and whatever is hidden is spelled out. The forms themselves are in `controls`, `secrets`, `personal`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from tiebreak.doctor.texts.controls import (
    Hit,
    control_tokens,
    hidden_text,
    prompt_headers,
    role_headers,
    shown,
    without_hidden,
)
from tiebreak.doctor.texts.leftovers import missing_values, repeated_prompts
from tiebreak.doctor.texts.personal import personal_data
from tiebreak.doctor.texts.secrets import secrets
from tiebreak.records import Judgement, Message

__all__ = ["MAX_EXCERPT", "TEXT_RULES", "Flaw", "flaws", "masked", "visible", "without_hidden"]

TEXT_RULES = (
    "control_token", "role_header", "hidden_text", "secret", "personal_data", "role_header_in_prompt", "missing_value",
    "prompt_in_completion",
)  # fmt: skip
"""Codes that `flaws` gives."""
MAX_EXCERPT = 60
_CONTEXT = 16


class Flaw(NamedTuple):
    """One thing that a text should not hold: rule code, kind of thing, where, and how to show it."""

    code: str
    kind: str
    start: int
    excerpt: str


def flaws(text: str, *, prompt: str | None = None, asked: str = "") -> list[Flaw]:
    """Return the first flaw of each code and kind, in the order of the text; linear in its length.

    A completion is given with its `prompt`, so that a dialogue that was asked for is none that runs on, and with the
    last message of it, which was `asked`.
    """
    masked = [("secret", hit) for hit in secrets(text)] + [("personal_data", hit) for hit in personal_data(text)]
    firsts: dict[tuple[str, str], Hit] = {}
    plain = [("control_token", hit) for hit in control_tokens(text)] + [("hidden_text", h) for h in hidden_text(text)]
    plain += [("missing_value", hit) for hit in missing_values(text, whole=prompt is not None)]
    if prompt is None:
        turns = [("role_header_in_prompt", hit) for hit in prompt_headers(text)]
    else:
        turns = [("role_header", hit) for hit in role_headers(text, prompt)]
        turns += [("prompt_in_completion", hit) for hit in repeated_prompts(text, asked)]
    for code, hit in (*masked, *plain, *turns):
        firsts.setdefault((code, hit.kind), hit)
    if not firsts:
        return []
    spans = _apart(hit for _, hit in masked)
    found = sorted(firsts.items(), key=lambda item: item[1].start)
    return [Flaw(code, kind, hit.start, _excerpt(text, hit, spans)) for (code, kind), hit in found]


def masked(text: str) -> str:
    """Return a text in which two characters are left of everything secret or personal."""
    pieces, at = [], 0
    for start, end in _apart(hit for find in (secrets, personal_data) for hit in find(text)):
        pieces += [text[at:start], text[start : start + 2], "…"]
        at = end
    return "".join(pieces) + text[at:]


def _apart(hits: Iterable[Hit]) -> list[tuple[int, int]]:
    """Return where hits are, in order: one span for those that overlap, since several forms may know one secret."""
    spans: list[tuple[int, int]] = []
    for start, end in sorted((hit.start, hit.end) for hit in hits):
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def visible(judged: Judgement) -> Judgement:
    """Return a pair, or a completion on its own, without its hidden characters, whatever is left of it then."""
    return judged.saying(tuple(map(_visible, judged.prompt)), *map(_visible, judged.verdicts.values()))


def _visible(message: Message) -> Message:
    return replace(message, content=without_hidden(message.content), reasoning=without_hidden(message.reasoning))


def _excerpt(text: str, hit: Hit, masked: Sequence[tuple[int, int]]) -> str:
    """Return the surroundings of a hit on one line; two characters are left of each span in `masked`."""
    start, end = max(hit.start - _CONTEXT, 0), min(hit.start + MAX_EXCERPT, len(text))
    pieces, at = [], start
    first = bisect_left(masked, start, key=lambda span: span[1])
    for left, right in masked[first : first + MAX_EXCERPT]:
        if left >= end:
            break
        pieces += [text[at : max(left, at)], text[left : left + 2], "…"]
        at = right
    line = " ".join(shown("".join(pieces) + text[at:end]).split())
    return line if len(line) <= MAX_EXCERPT else line[: MAX_EXCERPT - 1] + "…"
