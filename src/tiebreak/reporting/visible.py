"""Text from data as people may safely look at it.

Owns what a hidden character looks like on pages, plots and in excerpts. Escaping for HTML is the template's.
"""

from __future__ import annotations


def visible(text: object, limit: int = 300) -> str:
    """Return text as one line of at most `limit` characters in which everything can be seen.

    Runs of white space become one space; controls, NUL, lone surrogates, zero-width characters and marks that reorder
    text become escapes like `\\u202e`. Linear in `limit`, however long the text is.
    """
    raw = str(text)
    line = " ".join(raw[: 4 * limit].split())
    cut = line[: limit - 1] + "…" if len(line) > limit or len(raw) > 4 * limit else line
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in cut)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
