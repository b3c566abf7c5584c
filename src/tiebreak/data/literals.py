"""Lists and objects as Python and NumPy print them, to JSON text.

Owns this spelling: quotes of both kinds, None, True and False, tuples, and the arrays of NumPy, which prints no commas.
Nothing is evaluated. It takes one pass over the text; what follows the grammar of JSON is the JSON reader's to judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<space>\s++)|(?P<text>'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")"""
    r"""|(?P<number>[-+]?(?:\d++(?:\.\d*+)?+|\.\d++)(?:[eE][-+]?\d++)?+(?![\w.]))|(?P<word>None|True|False)(?!\w)"""
    r"""|(?P<array>(?:np\.|numpy\.)?array\()|(?P<dtype>,\s*dtype=(?:object|['"]?<?U\d+['"]?|\w+)(?=\s*\)))"""
    r"""|(?P<open>[\[({])|(?P<mark>[\])}:,])""",
    re.DOTALL,
)
_WORDS = {"None": "null", "True": "true", "False": "false"}
_BEGINS = ("[", "{", "(", "array(", "np.array(", "numpy.array(")
_CLOSED_BY = {"[": "]", "(": ")", "{": "}", "array": ")"}
_CLOSED_AS = {"[": "]", "(": "]", "{": "}", "array": ""}
MAX_DEPTH = 100


class _Other(Exception):  # noqa: N818 - a finding
    """The text is nothing that Python prints of values that JSON has."""


def json_of(text: str) -> str | None:
    """Return the JSON text of a printed list or object, or None where the text is no such thing, or not surely.

    Between two values of a list a comma may be missing, as NumPy prints them; its `…` for what it left out makes None.
    """
    try:
        return "".join(_converted(text)) if text.startswith(_BEGINS) else None
    except _Other:
        return None


def _converted(text: str) -> list[str]:
    made: list[str] = []
    opened: list[str] = []
    is_after_value = False
    for kind, said in _tokens(text):
        if said in (",", ":"):
            if not is_after_value:
                raise _Other
            made.append(said)
            is_after_value = False
        elif said in ("]", ")", "}"):
            last = opened.pop() if opened else ""
            if _CLOSED_BY.get(last) != said:
                raise _Other
            if made[-1] == ",":
                made.pop()  # of a tuple of one
            made.append(_CLOSED_AS[last])
            is_after_value = True
        else:
            if is_after_value:
                if opened[-1:] in ([], ["{"]):
                    raise _Other
                made.append(",")
            made.append(_value(kind, said))
            is_after_value = kind not in ("open", "array")
            if not is_after_value:
                opened.append("array" if kind == "array" else said)
                if len(opened) > MAX_DEPTH:
                    raise _Other
    if opened:
        raise _Other
    return made


def _tokens(text: str) -> Iterator[tuple[str | None, str]]:
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _Other
        at = token.end()
        if token.lastgroup not in ("space", "dtype"):
            yield token.lastgroup, token[0]


def _value(kind: str | None, said: str) -> str:
    """Return the JSON of a token that is a value or begins one."""
    if kind in ("open", "array"):
        return {"array": "", "(": "["}.get(kind if kind == "array" else said, said)
    if kind == "word":
        return _WORDS[said]
    if kind == "number":
        return said if re.fullmatch(r"-?(0|[1-9]\d*)", said) else repr(float(said))
    if not _KNOWN.fullmatch(said[1:-1]):
        raise _Other
    return json.dumps(_ESCAPE.sub(_unescaped, said[1:-1]), ensure_ascii="\\" in said)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1][1:] if len(found[1]) > 1 else ""
    return chr(int(code, 16)) if code else _ESCAPES[found[1]]


_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"""\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U000[0-9a-f]{5}|U0010[0-9a-f]{4}|[\\'"nrt])""")
_KNOWN = re.compile(rf"(?:[^\\]|{_ESCAPE.pattern})*+")
"""Text with no other escapes than those that Python prints."""
