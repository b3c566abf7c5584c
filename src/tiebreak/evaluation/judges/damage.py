"""Sound answers damaged on purpose: what no judge may prefer to the answer it was made of.

Owns the kinds of damage: those that a judge is taught, and others that it is tested with and has never seen. Pure: text
and a stream of random numbers in, text out.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

MOST_CHARACTERS = 400
"""Of what is made of nothing but repetition."""


@dataclass(frozen=True)
class Sound:
    """A sound answer, the prompt it answers, and a sound answer to another prompt."""

    prompt: str
    text: str
    other: str

    @property
    def words(self) -> list[str]:
        """What stands between blanks; at least one word."""
        return self.text.split() or ["the"]

    @property
    def sentences(self) -> list[str]:
        """Sentences and lines; at least one."""
        parts = re.split(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n+", self.text.strip())
        return [part[:MOST_CHARACTERS] for part in parts if part.strip()] or ["the"]

    def repeated(self, piece: str, least: int = 4) -> str:
        """Return a piece over and over: as long as the answer, and at least so many times."""
        length = min(max(len(self.text), 60), MOST_CHARACTERS)
        return (piece * max(least, length // len(piece) + 1)).strip()


Damage: TypeAlias = Callable[[Sound, random.Random], str]


def _shuffled(sound: Sound, draw: random.Random) -> str:
    words = sound.words[:80]
    draw.shuffle(words)
    return " ".join(words)


def _letters(sound: Sound, draw: random.Random) -> str:
    lengths = [draw.randint(1, 9) for _ in range(min(len(sound.words), 25) + 3)]
    return " ".join("".join(draw.choices(string.ascii_lowercase, k=length)) for length in lengths)


def _dashes(sound: Sound, draw: random.Random) -> str:
    return sound.repeated(draw.choice(["-", "- ", "\u2014", "=", "* ", "_ "]), 20)


TAUGHT: Mapping[str, Damage] = {
    "first sentence over and over": lambda sound, _: sound.repeated(sound.sentences[0] + " "),
    "one word over and over": lambda sound, draw: sound.repeated(draw.choice(sound.words)[:20] + " ", 12),
    "dashes": _dashes,
    "words shuffled": _shuffled,
    "cut off in the middle": lambda sound, _: sound.text[: max(1, len(sound.text) // 2)],
    "answer to another prompt": lambda sound, _: sound.other,
    "next to nothing": lambda _, draw: draw.choice([".", "Yes.", "?", "Ok", "...", "No.", "I", "\u2026"]),
    "letters drawn at random": _letters,
}
"""What a judge learns to be worse than a sound answer."""

UNSEEN: Mapping[str, Damage] = {
    "numbers counting up": lambda sound, _: " ".join(map(str, range(1, 20 + min(len(sound.words), 60)))),
    "one emoji over and over": lambda sound, _: "\U0001f600" * min(20 + len(sound.words), 80),
    "all capitals": lambda sound, _: sound.text.upper(),
    "one item, numbered": lambda sound, _: "\n".join(f"{n}. {sound.sentences[0][:120]}" for n in range(1, 7)),
    "the prompt echoed": lambda sound, _: sound.prompt,
    "answer to another prompt, twice": lambda sound, _: f"{sound.other} {sound.other}",
    "sound, then a loop": lambda sound, _: f"{sound.text} " + sound.repeated(sound.sentences[-1][:60] + " ", 10),
    "ten exclamation marks a word": lambda sound, _: " ".join(f"{word}{'!' * 10}" for word in sound.words[:40]),
}
"""What it is tested with: kinds that it was never shown."""
