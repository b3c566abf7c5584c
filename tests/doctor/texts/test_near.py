"""Normal forms, signatures and clusters: against sets counted by hand and a quadratic loop."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from bounds import hang_after
from tiebreak.doctor.texts.near import SHINGLE, SLOTS, clusters, signatures_of, similarities
from tiebreak.doctor.texts.wordhashes import _MULTIPLIERS, mixed, ngrams, normalised, words

VOCABULARY = [f"word{number}" for number in range(5000)]


def signatures(texts):
    return signatures_of(words([normalised(text) for text in texts]))


def text_of(chooser, length):
    return " ".join(chooser.choices(VOCABULARY, k=length))


def jaccard(first, second):
    one, other = (
        set(zip(*(text.split()[start:] for start in range(SHINGLE)), strict=False)) for text in (first, second)
    )
    return len(one & other) / len(one | other)


def with_changed_words(chooser, text, count):
    changed = text.split()
    for place in chooser.sample(range(len(changed)), count):
        changed[place] = "changed" + changed[place]
    return " ".join(changed)


# -------------------------------------------------------------------------------------------------------- normal form


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Hello, World!", "hello world"),
        ("a  b\n\nc\td", "A b c d"),
        ("\u201cIt\u2019s\u201d \u2014 fine\u2026", "it's - fine..."),
        ("\uff21\uff22\uff23", "abc"),
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01ne", "fine"),
        ("STRASSE", "stra\u00dfe"),
        ("zero\u200bwidth", "zerowidth"),
        ("\u4f60\u597d\u3002\u4e16\u754c", "\u4f60\u597d\u4e16\u754c"),
        ("\u00bfQu\u00e9?", "qu\u00e9"),
        ("- one\n- two", "* one * two"),
    ],
)
def test_case_spacing_punctuation_and_unicode_forms_do_not_count(first, second):
    left, right = normalised(first).replace(b" * ", b" "), normalised(second).replace(b" * ", b" ")
    assert left.lstrip(b"* ") == right.lstrip(b"* ")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("it is -5", "it is 5"),
        ("x > 3", "x < 3"),
        ("2 + 2", "2 \u2212 2 + 0"),
        ("3.14", "314"),
        ("!!!", "???"),
        ("", "."),
        ("```\na[0]\n```", "```\na(0)\n```"),
        ("```\nA\n```", "```\na\n```"),
        ("na\u00efve", "naive"),
        ("yes", "no"),
        ("\U0001f600", "\U0001f622"),
    ],
)
def test_what_changes_the_meaning_stays(first, second):
    assert normalised(first) != normalised(second)


def test_normal_form_is_final_and_linear():
    for text in ("Hello, World!", "-5 - 3", "\u4f60\u597d world", "```x  y```", "?!", "a\u2014b"):
        once = normalised(text).decode()
        assert normalised(once).decode() == once
    for unit in ("-1", "\u4e16", "\u2026", "a\u0301", "\u200b", "``` ", "\ufdfa"):
        with hang_after():
            normalised(unit * (1_000_000 // len(unit)))


# ------------------------------------------------------------------------------------------------------------- hashes


def test_words_are_those_of_split_and_equal_words_have_equal_hashes():
    texts = [b"one two one", b"", b"two", b"onetwo"]
    found = words(texts)
    assert found.counts.tolist() == [3, 1, 1, 1]
    one, two, again, empty, second, joined = found.hashes.tolist()
    assert one == again
    assert two == second
    assert len({one, two, empty, joined}) == 4


def test_a_text_has_the_same_hashes_in_whatever_block_it_stands():
    chooser = random.Random(1)
    texts = [text_of(chooser, length) for length in (1, 2, 3, 4, 5, 6, 40, 300)] + ["", "a"]
    together = signatures(texts)
    for row, text in enumerate(texts):
        assert np.array_equal(signatures([text])[0], together[row])


def test_runs_of_words_are_counted_as_by_hand():
    normals = [b"a b c d e f", b"a b", b"c d e f a", b""]
    hashes, offsets = ngrams(words(normals), 5)
    assert offsets.tolist() == [0, 2, 3, 4]
    assert len(hashes) == 5
    assert len(set(hashes.tolist())) == 5
    alone, _ = ngrams(words([b"a b c d e"]), 5)
    assert alone[0] == hashes[0]


def test_a_run_hash_is_the_mixed_sum_of_its_words():
    found = words([b"a b c d e"])
    total = sum(int(word) * int(factor) for word, factor in zip(found.hashes, _MULTIPLIERS, strict=False)) % 2**32
    assert ngrams(found, 5)[0][0] == mixed(np.array([total], np.uint32))[0]


def test_different_words_hardly_ever_share_a_hash():
    texts = [f"{left}{right}".encode() for left in range(300) for right in "abcdefghij"]
    assert len(np.unique(words(texts).hashes)) == len(texts)


def test_nothing_comes_of_nothing():
    assert signatures([]).shape == (0, SLOTS)
    assert clusters(signatures([])).tolist() == []


# --------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_the_share_of_equal_slots_estimates_the_jaccard_similarity(count):
    chooser = random.Random(count)
    firsts = [text_of(chooser, 200) for _ in range(300)]
    seconds = [with_changed_words(chooser, text, count) for text in firsts]
    exact = np.array([jaccard(*both) for both in zip(firsts, seconds, strict=True)])
    both = np.concatenate([signatures(firsts), signatures(seconds)])
    estimated = similarities(both, np.arange(300), np.arange(300, 600))
    # Standard error of one estimate: sqrt(J (1 - J) / 32); of the mean of 300, a 17th of that.
    assert abs((estimated - exact).mean()) < 4 * np.sqrt((exact * (1 - exact)).mean() / SLOTS / 300)
    assert (estimated - exact).std() < 1.3 * np.sqrt((exact * (1 - exact)).mean() / SLOTS)


def test_unrelated_texts_share_nothing():
    chooser = random.Random(3)
    found = signatures([text_of(chooser, 100) for _ in range(400)])
    first, second = np.array(list(combinations(range(400), 2))).T
    assert similarities(found, first, second).max() < 0.1


def test_signatures_are_the_same_in_every_process():
    texts = ["a b c d e f", "x", "\u4f60 y"]
    code = (
        "from tiebreak.doctor.texts.near import signatures_of; "
        "from tiebreak.doctor.texts.wordhashes import normalised, words; "
        f"print(signatures_of(words([normalised(text) for text in {texts!a}])).tolist())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {f"{signatures(texts).tolist()}\n"}


# ----------------------------------------------------------------------------------------------------------- clusters


def test_near_copies_are_found_and_others_are_not():
    chooser = random.Random(4)
    originals = [text_of(chooser, 300) for _ in range(500)]
    copies = [with_changed_words(chooser, text, 1) for text in originals]  # Jaccard 291 / 301 = 0.967
    cousins = [with_changed_words(chooser, text, 25) for text in originals]  # Jaccard about 0.5
    assert min(jaccard(*both) for both in zip(originals, copies, strict=True)) > 0.96
    assert max(jaccard(*both) for both in zip(originals, cousins, strict=True)) < 0.65
    labels = clusters(signatures(originals + copies + cousins))
    assert (labels[500:1000] == np.arange(500)).mean() > 0.99
    assert (labels[1000:] == np.arange(1000, 1500)).mean() > 0.99
    assert labels[:500].tolist() == list(range(500))


def test_clusters_are_those_of_the_quadratic_loop():
    chooser = random.Random(5)
    originals = [text_of(chooser, 120) for _ in range(60)]
    texts = [with_changed_words(chooser, chooser.choice(originals), chooser.randrange(4)) for _ in range(240)]
    found = signatures(texts)
    labels = clusters(found, threshold=0.8)
    first, second = np.array(list(combinations(range(len(texts)), 2))).T
    near = similarities(found, first, second) >= 0.8
    expected = list(range(len(texts)))
    for left, right in zip(first[near].tolist(), second[near].tolist(), strict=True):
        low, high = sorted((expected[left], expected[right]))
        expected = [low if label == high else label for label in expected]
    assert (labels == np.array(expected)).mean() > 0.99  # a pair at the threshold may meet in no band


def test_a_label_is_the_first_member_of_its_cluster():
    labels = clusters(signatures(["a b c d e f g", "x y", "A b, c d e f g!", "x  Y.", "z"]))
    assert labels.tolist() == [0, 1, 0, 1, 4]


def test_short_texts_are_near_only_where_they_are_equal_in_normal_form():
    labels = clusters(signatures(["Yes.", "No.", "yes", "Yes, sir", "a b c d", "a b c e", "a b c d.", "", "..."]))
    assert labels.tolist() == [0, 1, 0, 3, 4, 5, 4, 7, 8]


def test_every_part_of_two_rows_has_to_be_near():
    chooser = random.Random(6)
    shared, one, other = (text_of(chooser, 100) for _ in range(3))
    parts = [signatures([shared, shared, shared]), signatures([one, one, other]), signatures([other, other, one])]
    assert clusters(np.concatenate(parts, axis=1)).tolist() == [0, 0, 2]
    swapped = np.stack([signatures([shared, *sides]).ravel() for sides in ((one, other), (other, one))])
    assert clusters(swapped).tolist() == [0, 1]


def test_the_order_of_rows_does_not_change_the_clusters():
    chooser = random.Random(7)
    originals = [text_of(chooser, 150) for _ in range(80)]
    texts = originals + [with_changed_words(chooser, text, 1) for text in originals]
    found, order = signatures(texts), np.random.default_rng(0).permutation(160)
    labels, moved = clusters(found), clusters(found[order])
    same = labels[order][:, None] == labels[order][None, :]
    assert np.array_equal(same, moved[:, None] == moved[None, :])


def test_copies_among_boilerplate_are_found_in_linear_time():
    random_numbers = np.random.default_rng(1)

    def table(num_rows):
        found = random_numbers.integers(0, 2**16, (num_rows, 3 * SLOTS), dtype=np.uint16)
        shared = random_numbers.random(found.shape) < 0.55
        found[shared] = np.broadcast_to(found[0], found.shape)[shared]
        copies = np.arange(num_rows // 2, num_rows // 2 + num_rows // 10)
        found[copies] = found[copies - num_rows // 2]
        found[copies, 5] += 1
        return found, copies

    def memory(num_rows):
        found, copies = table(num_rows)
        tracemalloc.start()
        try:
            labels = clusters(found)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert (labels[copies] == copies - num_rows // 2).mean() > 0.99
        assert (np.delete(labels, copies) == np.delete(np.arange(num_rows), copies)).mean() > 0.99
        return taken

    with hang_after():
        assert memory(40_000) < 12 * memory(5_000)  # 8 times the rows; quadratic were 64 times


def test_a_hundred_thousand_equal_rows_are_one_cluster():
    assert not clusters(np.repeat(signatures(["a b c d e f"]), 100_000, axis=0)).any()
