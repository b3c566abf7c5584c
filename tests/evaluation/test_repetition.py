"""The measure of repetition against its own invariants and against a labelled set of looping and sound answers.

looping_answers.jsonl was written for this project: a text, its kind, and whether a reader would call it a loop. The
measure was tuned on the half `even` alone; a text's half is a hash of it.
"""

from __future__ import annotations

import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds import hang_after, num_lines
from tiebreak.evaluation.repetition import LOOPING, is_looping, looping

DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"
LABELLED = [
    json.loads(line)
    for line in Path(__file__).with_name("looping_answers.jsonl").read_text(encoding="utf-8").splitlines()
]
DRAW = random.Random(1)
SENTENCE = "The harbour was quiet, and nobody came to meet the boat. "


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("  \n ", 0.0),
        ("Yes.", 0.0),
        ("mmmmmm", 5 / 6),
        ("------", 5 / 6),
        (SENTENCE * 2, 1 / 2),
        (SENTENCE * 10, 9 / 10),
        ("- When you are sick\n" * 10, 9 / 10),
        ("0" * 40, 39 / 40),
        ("猫が好きです" * 10, 9 / 10),
        ("🎉🎂" * 10, 9 / 10),
    ],
)
def test_what_is_said_for_the_first_time_is_new_and_all_else_goes_on(text, share):
    assert looping(text) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    "text",
    [
        "1. Draw hands.2. Draw hands.3. Draw hands.",
        "1. Draw hands\n2. Draw hands\n3. Draw hands\n4. Draw hands",
        "(a) Draw hands (b) Draw hands (c) Draw hands (d) Draw hands",
        "A. Draw hands.\nB. Draw hands.\nC. Draw hands.\nD. Draw hands.",
        "1. 2. 3. 4. 5. 6. 7. 8.",
        "1. 1. 1. 2. 3.",
        "Beat 2 eggs in a bowl. Beat 3 eggs in a bowl. Beat 4 eggs in a bowl. Beat 5 eggs in a bowl.",
        "Wait 10 minutes and stir. Wait 20 minutes and stir. Wait 30 minutes and stir. Wait 40 minutes and stir.",
        ", ".join(map(str, range(1, 200))),
        "\n".join(f"- {number}" for number in range(1, 90)),
        '{"id": 1, "name": "Tom"}, {"id": 2, "name": "Tom"}, {"id": 3, "name": "Tom"}, {"id": 4, "name": "Tom"}',
        "Reading https://example.org/" + "a/" * 40,
    ],
)
def test_counters_and_numbers_that_count_on_do_not_hide_a_loop(text):
    assert is_looping(text)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"7 x {i} = {7 * i}" for i in range(1, 11)),
        "\n".join(" ".join(str(i * j) for j in range(1, 11)) for i in range(1, 11)),
        "\n".join(" ".join(str(DRAW.randint(0, 9)) for _ in range(12)) for _ in range(12)),
        "\n".join(f"2024-03-{day:02},{DRAW.randint(-3, 9)},{DRAW.randint(8, 20)}" for day in range(1, 31)),
        "\n".join(f"- name: {name}\n  type: string\n  required: true" for name in ("first", "last", "email", "city")),
        " ".join("".join(DRAW.choices("01", k=8)) for _ in range(20)),
        "".join(DRAW.choices("ACGT", k=300)),
        "Mon \u2588\u2588\u2588\nTue \u2588\u2588\u2588\u2588\u2588\u2588\u2588\nWed \u2588\u2588\nThu \u2588",
        "A) Apple\nB) Hammer\nC) Chair\nD) Shoe\n\nA) Dog\nB) Robin\nC) Salmon\nD) Ant",
        "\n".join(
            f"{number}. What is the capital of {land}?" for number, land in enumerate(("Spain", "Italy", "Peru"))
        ),
    ],
)
def test_what_is_alike_by_nature_is_no_loop(text):
    assert looping(text) < 0.2


def test_a_loop_reads_the_same_whatever_its_case_blanks_and_width():
    texts = [SENTENCE * 4, SENTENCE.upper() * 2 + SENTENCE * 2, SENTENCE.replace(" ", "\n\n  ") * 4]
    assert [looping(text) for text in texts] == pytest.approx([0.75] * 3)
    assert looping("\uff21\uff22\uff23\uff11\uff12 abc12 ABC12 abc12") == pytest.approx(looping("abc12 " * 4))


def test_a_text_of_new_words_reads_zero_and_its_end_in_a_loop_reads_the_share_of_the_loop():
    draw = random.Random(3)
    new = " ".join("".join(draw.choices("abcdefghijklmnoprstuvw", k=8)) for _ in range(100))
    assert looping(new) == 0.0
    assert looping(new + " stop" * 200) == pytest.approx(199 / 400)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.integers(2, 6))
def test_any_text_has_a_share_and_saying_it_again_never_lowers_it(text, times):
    once, often = looping(text), looping((text + "\n") * times)
    assert 0 <= once <= 1
    assert 0 <= often <= 1
    if sum(character.isalpha() for character in text) >= 30:
        assert often >= 1 - 1 / times - 1e-9


@pytest.mark.parametrize("text", ["\ud800" * 50, "\x00" * 50, "\u200b" * 50, "1" * 5000, "́" * 300, "(" * 5000])
def test_odd_characters_have_a_share_too(text):
    assert looping(text) > 0.9


def test_time_grows_with_the_length_and_no_faster():
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=6)) for _ in range(3000)]
    with hang_after():
        short, long = (num_lines(lambda text=text: looping(text)) for text in (" ".join(words), " ".join(words * 10)))
        for text in ("a" * 200_000, "1. " * 60_000, "ab" * 100_000, "\n" * 200_000):
            looping(text)
    assert long < 11 * short


def test_precision_and_recall_on_the_labelled_set_are_what_the_docs_say():
    assert len(LABELLED) >= 100
    assert len({row["text"] for row in LABELLED}) == len(LABELLED)
    assert 0.4 < sum(row["looping"] for row in LABELLED) / len(LABELLED) < 0.6
    lines = [
        "| half | answers | measure | at | precision | recall | sound answers called loops | loops missed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for half in ("even", "odd"):
        rows = [row for row in LABELLED if _half(row["text"]) == half]
        name = "tuned on" if half == "even" else "not seen"
        for measure, threshold, said in ((looping, LOOPING, "this one"), (_bigrams_said_again, 0.25, "1 − distinct-2")):
            found = [measure(row["text"]) >= threshold for row in rows]
            right = sum(one and row["looping"] for one, row in zip(found, rows, strict=True))
            false, missed = sum(found) - right, sum(row["looping"] for row in rows) - right
            precision, recall = right / sum(found), right / (right + missed)
            shares = f"{100 * precision:.0f} % | {100 * recall:.0f} %"
            lines.append(f"| {name} | {len(rows)} | {said} | {threshold} | {shares} | {false} | {missed} |")
            if measure is looping:
                assert min(precision, recall) >= 0.95, half
    assert "\n".join(lines) in DOCS.read_text(encoding="utf-8"), "docs/evaluation.md wants\n" + "\n".join(lines)


def test_lists_that_were_written_by_hand_are_no_loops():
    lists = Path(__file__).parents[2] / "recipes" / "lists" / "pairs.jsonl"
    rows = [json.loads(line) for line in lists.read_text(encoding="utf-8").splitlines()]
    written = [row["preferred_output"][0]["content"] for row in rows]
    assert sum(map(is_looping, written)) == 0
    assert sum(map(looping, written)) / len(written) < 0.01


def _half(text: str) -> str:
    return ("even", "odd")[int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2]


def _bigrams_said_again(text: str) -> float:
    words = text.split()
    pairs = list(pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0
