"""Which script a text is written in, as a stand-in for its language.

Owns the ranges of scripts, by blocks of Unicode. Han and kana count as one script, since Japanese mixes them.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

# First code point of each stretch, and the script from there on; "" is no letter.
_STRETCHES = (
    (0x0000, ""), (0x0041, "Latin"), (0x005B, ""), (0x0061, "Latin"), (0x007B, ""), (0x00C0, "Latin"), (0x0250, ""),
    (0x0370, "Greek"), (0x0400, "Cyrillic"), (0x0530, "Armenian"), (0x0590, "Hebrew"), (0x0600, "Arabic"),
    (0x0700, "Syriac"), (0x0750, "Arabic"), (0x0780, "Thaana"), (0x07C0, "other"), (0x08A0, "Arabic"),
    (0x0900, "Devanagari"), (0x0980, "Bengali"), (0x0A00, "Gurmukhi"), (0x0A80, "Gujarati"), (0x0B00, "Odia"),
    (0x0B80, "Tamil"), (0x0C00, "Telugu"), (0x0C80, "Kannada"), (0x0D00, "Malayalam"), (0x0D80, "Sinhala"),
    (0x0E00, "Thai"), (0x0E80, "Lao"), (0x0F00, "Tibetan"), (0x1000, "Myanmar"), (0x10A0, "Georgian"),
    (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, "other"), (0x1780, "Khmer"), (0x1800, "Mongolian"),
    (0x18B0, "other"), (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x2C60, "Latin"), (0x2C80, "other"),
    (0x2E00, ""), (0x2E80, "Han"), (0x3000, ""), (0x3005, "Han"), (0x3008, ""), (0x3040, "Han"), (0x30FB, ""),
    (0x30FC, "Han"), (0x3130, "Hangul"), (0x3190, "Han"), (0x3200, ""), (0x3400, "Han"), (0x4DC0, ""), (0x4E00, "Han"),
    (0xA000, "other"), (0xAC00, "Hangul"), (0xD800, ""), (0xF900, "Han"), (0xFB00, "Latin"), (0xFB1D, "Hebrew"),
    (0xFB50, "Arabic"), (0xFE00, ""), (0xFE70, "Arabic"), (0xFF00, ""), (0xFF21, "Latin"), (0xFF3B, ""),
    (0xFF41, "Latin"), (0xFF5B, ""), (0xFF66, "Han"), (0xFFA0, "Hangul"), (0xFFE0, ""), (0x10000, "other"),
    (0x1F000, ""), (0x20000, "Han"), (0x40000, ""),
)  # fmt: skip
# Everything that is neither Latin nor among the blocks of punctuation and symbols: what makes counting worth while.
_FOREIGN = re.compile("[\u0370-\u1dff\u1f00-\u1fff\u2c80-\ufeff\uff66-\uffdf\U00010000-\U0010ffff]")
_NAMES = sorted({script for _, script in _STRETCHES})  # "" sorts first: code 0 is no letter
_STARTS = np.array([start for start, _ in _STRETCHES], np.uint32)
_CODES = np.array([_NAMES.index(script) for _, script in _STRETCHES], np.int64)


def other_script_share(prompt: str, completion: str) -> float:
    """Return the share of the completion's letters (0..1) that are not of the prompt's main script; 0 without any."""
    if _FOREIGN.search(prompt) is None and _FOREIGN.search(completion) is None:
        return 0.0
    of_prompt, of_completion = _letters(prompt), _letters(completion)
    total = int(of_completion.sum())
    if not total or not of_prompt.any():
        return 0.0
    return 1.0 - float(of_completion[of_prompt.argmax()]) / total


def _letters(text: str) -> NDArray[np.int64]:
    """Return how many letters of each script a text has."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    scripts = _CODES[np.searchsorted(_STARTS, points, side="right") - 1]
    counts = np.bincount(scripts, minlength=len(_NAMES))
    counts[0] = 0
    return counts
