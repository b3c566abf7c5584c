"""Damaged answers are damaged, each in its own way, and the same ones each time."""

from __future__ import annotations

import random

import pytest

from tiebreak.evaluation.judges.damage import TAUGHT, UNSEEN, Sound
from tiebreak.evaluation.repetition import is_looping

SOUND = Sound(
    "How do I boil an egg?",
    "Bring water to a boil. Lower the egg in with a spoon. Wait seven minutes, then cool it under the tap.",
    "The capital of France is Paris, which lies on the Seine.",
)


@pytest.mark.parametrize("kind", [*TAUGHT, *UNSEEN])
def test_each_kind_makes_something_else_of_a_sound_answer(kind):
    made = (TAUGHT | UNSEEN)[kind](SOUND, random.Random(0))
    assert made.strip()
    assert made != SOUND.text
    assert len(made) < 1000


@pytest.mark.parametrize("kind", [*TAUGHT, *UNSEEN])
@pytest.mark.parametrize("text", ["", "word", "\u0414\u0430", "\n\n"])
def test_each_kind_makes_do_with_very_little(kind, text):
    assert isinstance((TAUGHT | UNSEEN)[kind](Sound("", text, ""), random.Random(0)), str)


def test_the_same_stream_makes_the_same():
    one, two = ([damage(SOUND, random.Random(3)) for damage in TAUGHT.values()] for _ in range(2))
    assert one == two


def test_no_kind_that_it_is_tested_with_is_taught():
    assert not set(TAUGHT) & set(UNSEEN)
    taught = {damage(SOUND, random.Random(seed)) for damage in TAUGHT.values() for seed in range(20)}
    assert not taught & {damage(SOUND, random.Random(0)) for damage in UNSEEN.values()}


def test_those_that_repeat_go_round_in_circles():
    for kind in ("first sentence over and over", "one word over and over"):
        assert is_looping(TAUGHT[kind](SOUND, random.Random(0)))
