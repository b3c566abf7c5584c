"""Identity by content."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.fingerprint import derive_seed, file_digest, fingerprint, unit_interval

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_the_fingerprint_is_the_sha256_of_canonical_json():
    expected = hashlib.sha256(b'{"a":["\\u00e9",1.5,null],"b":true}').hexdigest()
    assert fingerprint({"b": True, "a": ["é", 1.5, None]}) == expected


@given(st.dictionaries(st.text(max_size=3), JSON, max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))
    assert len(fingerprint(value)) == 64


@given(st.lists(st.text(st.characters()), max_size=4), st.lists(st.text(st.characters()), max_size=4))
def test_different_lists_of_texts_have_different_fingerprints(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


def test_numbers_texts_and_nothing_are_told_apart():
    values = [None, 0, "0", False, "", [], {}, [0], "null", 1, True, "1", [[]]]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_a_file_is_known_by_its_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a\x00\n" * 100_000)
    other.write_bytes(one.read_bytes())
    assert file_digest(one) == file_digest(other) == hashlib.sha256(b"a\x00\n" * 100_000).hexdigest()
    other.write_bytes(b"b")
    assert file_digest(one) != file_digest(other)


@given(st.integers(0, 2**64), st.text(st.characters()), st.integers(0, 100))
def test_seeds_are_fixed_63_bit_numbers(seed, name, epoch):
    assert derive_seed(seed, name, epoch) == derive_seed(seed, name, epoch)
    assert 0 <= derive_seed(seed, name, epoch) < 2**63


def test_two_purposes_never_share_a_seed():
    seeds = [
        derive_seed(s, *names) for s in range(50) for names in ((), ("order",), ("order", 0), ("order", "0"), ("o", 1))
    ]
    assert len(set(seeds)) == len(seeds)


def test_the_seed_of_a_name_never_changes():
    digest = hashlib.sha256(b'[7, "adapter"]').digest()
    assert derive_seed(7, "adapter") == int.from_bytes(digest[:8], "big") >> 1


@given(st.text())
def test_a_fingerprint_falls_into_the_unit_interval(text):
    assert 0 <= unit_interval(fingerprint(text)) < 1


def test_the_unit_interval_is_filled_evenly():
    found = [unit_interval(fingerprint(number)) for number in range(5000)]
    for tenth in range(10):
        share = sum(tenth / 10 <= value < (tenth + 1) / 10 for value in found) / len(found)
        assert share == pytest.approx(0.1, abs=0.02)
    assert unit_interval("0" * 64) == 0
    assert unit_interval("f" * 64) < 1
