from __future__ import annotations

import pytest

from tiebreak.engine.answers.pieces import Pieces


def _told(ids, text_of):
    """What is handed out for each token, and at the end."""
    told: list[str] = []
    pieces, counts = Pieces(text_of, told.append), []
    for token in ids:
        pieces.take(token)
        counts.append("".join(told))
    pieces.end(text_of(ids))
    return counts, "".join(told)


@pytest.mark.parametrize(
    "text", ["été", "a \N{GRINNING FACE}!", "\N{CJK UNIFIED IDEOGRAPH-4F60}\n\nx ", "\x1b[31m", "  a  b"]
)
def test_a_character_over_several_tokens_is_handed_out_once_it_is_whole(text):
    data = text.encode()
    told, all_of_it = _told(data, lambda ids: bytes(ids).decode("utf-8", "replace"))
    assert all_of_it == text
    for place, said in enumerate(told):
        assert text.startswith(said)
        assert said.strip(" ") == data[: place + 1].decode("utf-8", "ignore").strip(" ")


def test_bytes_that_are_no_text_are_handed_out_as_they_are_read():
    _, told = _told(b"a\xff\xfeb\xc3", lambda ids: bytes(ids).decode("utf-8", "replace"))
    assert told == b"a\xff\xfeb\xc3".decode("utf-8", "replace")


def test_a_decoder_that_takes_back_a_blank_says_it_once():
    words = ["do", "n't", "stop", ".", "now"]

    def text_of(ids):
        return " ".join(words[one] for one in ids).replace(" .", ".").replace(" n't", "n't")

    _, told = _told(range(5), text_of)
    assert told == "don't stop. now"


def test_tokens_without_text_tell_nothing():
    calls: list[str] = []
    pieces = Pieces(lambda ids: "a" * sum(ids), calls.append)
    for token in (0, 1, 0, 2, 0):
        pieces.take(token)
    pieces.end("aaa")
    assert calls == ["a", "aa"]
