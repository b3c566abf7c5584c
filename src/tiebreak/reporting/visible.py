"""Text from data as people may safely look at it.

Owns what a hidden character looks like on pages, plots and in excerpts. Escaping for HTML is the template's.
"""

from __future__ import annotations

import re

# Controls, halves of characters, and marks that reorder text. Joiners stay: emoji and some scripts are made of them.
_HARMFUL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\U000e0000-\U000e007f]"
)


def visible(text: object, limit: int = 300) -> str:
    """Return text as one line of at most `limit` characters in which everything can be seen.

    Runs of white space become one space; controls, NUL, lone surrogates, zero-width characters and marks that reorder
    text become escapes like `\\u202e`. Linear in `limit`, however long the text is.
    """
    raw = str(text)
    line = " ".join(raw[: 4 * limit].split())
    cut = line[: limit - 1] + "…" if len(line) > limit or len(raw) > 4 * limit else line
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in cut)


def harmless(text: str) -> str:
    """Return text with its lines and its length, in which nothing but letters can reach the page."""
    return _HARMFUL.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
