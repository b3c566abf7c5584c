"""What writing a file left in its texts: words that stand for nothing, and the prompt once more before the answer.

Owns which words these are. That they may be meant (the answer to "Which of these is a prime?" may be None) is why the
rules about them only tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tiebreak.data.formats.repeats import after_prompt
from tiebreak.doctor.texts.controls import Hit

_NOTHING = r"(?:none|nan|nat|null|undefined|#?n/a|<na>)"
_WHOLE = re.compile(rf"\s*({_NOTHING})\s*", re.IGNORECASE)
# What stands before a question or below it, a system text or an input, is a line of its own.
_LAST = re.compile(rf"\n({_NOTHING})\s*", re.IGNORECASE)
_FIRST = re.compile(rf"\s*({_NOTHING})\n", re.IGNORECASE)
_LONGEST = 32


def missing_values(text: str, *, whole: bool) -> Iterator[Hit]:
    """Yield the word by which pandas, Python, JSON or a table writes that nothing is there; the kind is the word.

    It is all of the text, or unless `whole` is asked for, its first or its last line.
    """
    found = _WHOLE.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None and not whole:
        last = max(text.rstrip().rfind("\n"), 0)
        found = _FIRST.match(text) or _LAST.fullmatch(text, last)
    if found:
        yield Hit(found[1], *found.span(1))


def repeated_prompts(completion: str, asked: str) -> Iterator[Hit]:
    """Yield the last message of the prompt where a completion begins with all of it."""
    if after_prompt(completion, asked) is not None:
        start = len(completion) - len(completion.lstrip())
        yield Hit("at its start", start, start + len(asked.strip()))
