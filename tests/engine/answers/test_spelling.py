"""The bytes of an answer's tokens, one after the other, are those of its text."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from tiebreak.engine.answers.spelling import Spelling

TEXTS = ["the cat sat", " yes", "naïve ✂️ 🐈‍⬛ — 漢字", "a\n\nb  c\t", "don't . ,", "\N{REPLACEMENT CHARACTER}", "aé"]


def _spelled(tokenizer, ids):
    spelling = Spelling(tokenizer)
    return [spelling.bytes_of(token, first=place == 0) for place, token in enumerate(ids)]


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_a_byte_level_tokenizer_spell_their_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    found = _spelled(tokenizer, ids)
    assert b"".join(found) == text.encode()
    assert all(found)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_a_tokenizer_that_falls_back_to_bytes_spell_their_text(stories, text):
    tokenizer = AutoTokenizer.from_pretrained(stories, trust_remote_code=False)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert b"".join(_spelled(tokenizer, ids)) == tokenizer.decode(ids, clean_up_tokenization_spaces=False).encode()


def test_a_part_of_a_character_is_its_bytes_and_a_control_token_its_name(tokenizer):
    ids = tokenizer.encode("✂", add_special_tokens=False)
    assert [len(one) for one in _spelled(tokenizer, ids)] == [1, 1, 1]
    assert _spelled(tokenizer, [tokenizer.eos_token_id]) == [b"<|im_end|>"]
