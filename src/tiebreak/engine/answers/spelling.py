"""Which bytes each token of an answer stands for: exactly, also where they are a part of a character.

Owns how a token is read alone. A tokenizer decodes texts; a token that holds a part of a character has no text, and its
bytes stand in its name, as byte-level tokenizers and those that fall back to bytes write it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SHOWN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
_HIDDEN = [byte for byte in range(256) if byte not in _SHOWN]
_BYTES = {chr(byte): byte for byte in _SHOWN} | {chr(256 + place): byte for place, byte in enumerate(_HIDDEN)}
"""Bytes by the characters that byte-level tokenizers write for them: printable ones stand for themselves, the others
follow from 256 on in their order (GPT-2)."""
_MOST_KEPT = 2**16


class Spelling:
    """Says which bytes tokens are, for one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
        self.bytes_of = lru_cache(_MOST_KEPT)(self._bytes_of)

    def _bytes_of(self, token: int, *, first: bool = False) -> bytes:
        """Return the bytes of a token behind others, or as the `first` of an answer: some write no blank there."""
        before = [] if first else self._anchor
        head, text = self._decoded(before), self._decoded([*before, token])
        text = text.removeprefix(head)
        name = str(self._tokenizer.convert_ids_to_tokens(token))
        if byte := _BYTE.fullmatch(name):
            return bytes([int(byte[1], 16)])
        if "\N{REPLACEMENT CHARACTER}" in text and all(character in _BYTES for character in name):
            return bytes(_BYTES[character] for character in name)
        return text.encode()

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
