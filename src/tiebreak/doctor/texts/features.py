"""Numbers about the surface of a completion: how far they alone tell chosen from rejected is the shortcut baseline.

Owns what a feature is. None of them looks at meaning: a data set whose labels they predict teaches them first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.texts.phrases import agrees, first_person, refuses
from tiebreak.doctor.texts.scripts import other_script_share
from tiebreak.doctor.texts.wordhashes import Words, ngrams

DESCRIPTIONS = {
    "log_length": "log of 1 + characters",
    "list_items": "log of 1 + lines that begin with a bullet or a number",
    "markdown": "log of 1 + headings, bold or italic spans, code fences and table rows",
    "refusal": "1 where the first 240 characters hold a phrase of refusal, else 0",
    "first_person": "1 where it opens with 'I' or 'My', else 0",
    "agreement": "1 where it opens with assent such as 'Sure' or 'Here is', else 0",
    "questions": "log of 1 + question marks",
    "other_script": "share of letters (0..1) that are not of the script of most letters of the prompt",
    "repetition": "share of runs of three words (0..1) that stand in the completion before",
    "unfinished": "1 where it ends with a letter, a digit or a comma, as a text that was cut does, else 0",
    "emoji": "log of 1 + emoji, each with its modifiers and joiners",
    "leading_blanks": "log of 1 + blanks and line breaks before the first other character",
    "trailing_blanks": "log of 1 + blanks and line breaks after the last other character",
}
NAMES = tuple(DESCRIPTIONS)
NUM_FEATURES = len(NAMES)

_LIST_ITEM = re.compile(r"\n[ \t]{0,12}(?:[-*+•–]|\d{1,3}[.)])[ \t]")
_HEADING = re.compile(r"\n#{1,6}[ \t]")
_PICTURE = (
    "[\u203c\u2049\u231a\u231b\u23e9-\u23f3\u25aa-\u25fe\u2600-\u27bf\u2b05-\u2b55\U0001f000-\U0001f1e5"
    "\U0001f200-\U0001f3fa\U0001f400-\U0001faff]"
)
_EMOJI = re.compile(
    f"(?:[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]{{0,2}}"
    f"(?:\u200d{_PICTURE}[\ufe0f\U0001f3fb-\U0001f3ff]{{0,2}}){{0,8}})"
)
_TABLE_ROW = re.compile(r"\n[ \t]{0,4}\|")

Features = NDArray[np.float32]


def features_of(prompts: Sequence[str], completions: Sequence[str], found: Words) -> Features:
    """Return the features of completions whose words are known, [completions, 13]."""
    surfaces = [_surface(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    table = np.array(surfaces, np.float32).reshape(len(surfaces), NUM_FEATURES)
    counts = [number for number, said in enumerate(DESCRIPTIONS.values()) if said.startswith("log of 1 + ")]
    table[:, counts] = np.log1p(table[:, counts])
    table[:, NAMES.index("repetition")] = _repetitions(found)
    return table


def _surface(prompt: str, completion: str) -> tuple[float, ...]:
    """Return one row: lengths and numbers as counts, repetition left at 0."""
    begun = completion.lstrip()
    lines, last = "\n" + completion, completion.rstrip()[-1:]
    marks = completion.count("**") // 2 + completion.count("```") // 2
    marks += len(_HEADING.findall(lines)) if "#" in completion else 0
    marks += len(_TABLE_ROW.findall(lines)) if "|" in completion else 0
    return (
        len(completion),
        len(_LIST_ITEM.findall(lines)),
        marks,
        refuses(completion),
        first_person(completion),
        agrees(completion),
        completion.count("?"),
        other_script_share(prompt, completion),
        0.0,
        last.isalnum() or last == ",",
        0 if completion.isascii() else len(_EMOJI.findall(completion)),
        len(completion) - len(begun),
        len(begun) - len(begun.rstrip()),
    )


def _repetitions(found: Words) -> NDArray[np.float64]:
    """Return for each text the share of its runs of three words that repeat an earlier one of the same text."""
    hashes, starts = ngrams(found, 3)
    totals = np.diff(np.append(starts, len(hashes)))
    texts = np.repeat(np.arange(len(starts), dtype=np.uint64), totals)
    keys = np.sort((texts << np.uint64(32)) | hashes)
    repeated = (keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)).astype(np.int64)
    return np.asarray(np.bincount(repeated, minlength=len(starts)) / np.maximum(totals, 1))
