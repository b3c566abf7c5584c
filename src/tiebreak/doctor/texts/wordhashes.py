"""Texts as numbers: the normal form in which two texts count as equal, and hashes of its words and runs of words.

Owns what "the same but for case, spacing and punctuation" means. Hashes depend on the text alone, never on the process,
the machine or the block that a text stands in. It knows nothing of pairs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from tiebreak.data.spacing import spaced

Hashes = NDArray[np.uint32]
Offsets = NDArray[np.int64]

_PLAIN = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2212": "-"}
_SPACE = bytes(32 if i <= 32 or i == 127 else i for i in range(256))
_NO_PUNCTUATION = bytes(32 if i <= 32 or i == 127 or i in b"!\"#%&'()*,-./:;?@[\\]_{}`" else i for i in range(256))
_MARKS = re.compile(
    "[\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3001-\u3003\u3008-\u3011\u3014-\u301f\u30fb"
    "\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u0589\u05be\u05f3\u05f4]"
)
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_HYPHEN = re.compile(r"-(?=\d)")


def normalised(text: str) -> bytes:
    """Return the text in UTF-8 without what does not change its meaning: case, spacing, punctuation, Unicode forms.

    Words are separated by one space; a sign before a number stays, and so does every mathematical symbol. A text that
    shows code keeps case and punctuation, and one that is nothing but punctuation is kept as it is.
    """
    for sign, plain in _PLAIN.items():
        text = text.replace(sign, plain)
    if not text.isascii():
        text = _HIDDEN.sub("", _MARKS.sub(" ", unicodedata.normalize("NFKC", text)))
        text = spaced(text)
    if "```" in text:
        return _collapsed(text, _SPACE)
    if "-" in text:
        text = _HYPHEN.sub(_sign, text)
    return _collapsed(text.casefold(), _NO_PUNCTUATION) or _collapsed(text, _SPACE)


def _sign(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    return "\u2212" if not before or before in " \n\t(=" else " "


def _collapsed(text: str, table: bytes) -> bytes:
    return b" ".join(text.encode("utf-8", "surrogatepass").translate(table).split())


def key(content: bytes) -> int:
    """Return the 64-bit content hash of some bytes."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Words:
    """Hashes of the words of many texts: those of text i are `hashes[offsets[i]:offsets[i + 1]]`, at least one."""

    hashes: Hashes
    offsets: Offsets

    @property
    def counts(self) -> Offsets:
        """Words of each text."""
        return np.diff(self.offsets)


def words(normals: Sequence[bytes]) -> Words:
    """Return the word hashes of texts in normal form; an empty text has one empty word."""
    counts = np.fromiter((normal.count(b" ") + 1 for normal in normals), np.int64, len(normals))
    characters = np.frombuffer(b" ".join(normals) + b" ", np.uint8)
    ends = np.flatnonzero(characters == 32)
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    # A word ends with its space, so that no word is empty and 'ab' is not 'a' before a word that begins with 'b'.
    position = np.arange(len(characters), dtype=np.int32) - np.repeat(starts.astype(np.int32), ends - starts + 1)
    terms = characters * _MULTIPLIERS[position & (len(_MULTIPLIERS) - 1)]
    hashes = np.add.reduceat(terms, starts) if len(starts) else np.empty(0, np.uint32)
    return Words(mixed(hashes), np.concatenate(([0], np.cumsum(counts))))


def ngrams(found: Words, size: int) -> tuple[Hashes, Offsets]:
    """Return the hashes of all runs of `size` words and where each text's begin; a shorter text is one run."""
    lengths = np.maximum(found.counts - size + 1, 1)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    starts = np.arange(offsets[-1]) + np.repeat(found.offsets[:-1] - offsets[:-1], lengths)
    padded = np.concatenate((found.hashes, np.zeros(size, np.uint32)))
    hashes = np.zeros(len(starts), np.uint32)
    for place in range(size):
        hashes += padded[starts + place] * _MULTIPLIERS[place]
    # The one run of a shorter text is made anew: it reached into the next text.
    short = np.flatnonzero(found.counts < size)
    total = np.zeros(len(short), np.uint32)
    for place in range(size - 1):
        inside = found.counts[short] > place
        total += np.where(inside, found.hashes[(found.offsets[short] + place) * inside] * _MULTIPLIERS[place], 0)
    hashes[offsets[short]] = total
    return mixed(hashes), offsets[:-1]


def mixed(hashes: Hashes) -> Hashes:
    """Return each hash with its bits spread over the word (the finaliser of MurmurHash3): one to one."""
    hashes = (hashes ^ (hashes >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    hashes = (hashes ^ (hashes >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return np.asarray(hashes ^ (hashes >> np.uint32(16)), np.uint32)


def odd_numbers(name: str, count: int) -> Hashes:
    """Return pseudo-random odd numbers that are the same everywhere and for ever."""
    stream = b"".join(blake2b(f"{name}:{index}".encode(), digest_size=64).digest() for index in range(count // 16 + 1))
    return np.frombuffer(stream, "<u4")[:count].astype(np.uint32) | np.uint32(1)


_MULTIPLIERS = odd_numbers("word", 1024)
