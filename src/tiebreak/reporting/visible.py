"""Text from data as people may safely look at it.

Owns what a hidden character looks like on pages, plots and in excerpts, and how text is escaped for Markdown. Escaping
for HTML is the template's.
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


def in_markdown(text: object) -> str:
    """Return text as one line of Markdown that means itself: in a sentence, a heading, a list or a cell of a table.

    What Markdown reads gets a backslash, what HTML reads becomes an entity.
    """
    line = harmless(" ".join(str(text).split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", line)


def code_span(text: object) -> str:
    """Return text as one line of code in Markdown, outside of tables; longer backticks stand around those it holds."""
    line = harmless(" ".join(str(text).split()))
    ticks = "`" * (_longest_ticks(line) + 1)
    pad = " " if line[:1] in ("", "`") or line[-1:] == "`" else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def code_block(text: str, language: str) -> str:
    """Return text as a block of code in Markdown that ends where the text does."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}{language}\n{harmless(text).rstrip()}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


# Where a line begins with a text of ours, its #, + and - say nothing; a link needs its brackets or ://.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~$]|://)")


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
