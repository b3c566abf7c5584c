"""Points in numbers: decimals are read, what may be thousands is asked about."""

from __future__ import annotations

import pytest

from tiebreak.config import SourceConfig
from tiebreak.data.reader import open_files
from tiebreak.errors import DataError


def opened(tmp_path, numbers, columns=None, names=("score_a", "score_b")):
    path = tmp_path / "scores.csv"
    told = "".join(f"Is it {n}?,One {n}.,Two {n}.,{one},{other}\n" for n, (one, other) in enumerate(numbers))
    path.write_text(f"prompt,response_a,response_b,{names[0]},{names[1]}\n{told}")
    return open_files(SourceConfig(path=str(path), columns=columns))


THOUSANDS = [("1.234", "900"), ("12.500", "87")]
MAPPING = {
    "prompt": "prompt",
    "completion_a": "response_a",
    "completion_b": "response_b",
    "score_a": "x",
    "score_b": "y",
}


def test_thousands_by_a_point_are_asked_about(tmp_path):
    with pytest.raises(DataError, match=r"1\.234 beside 900, which may be 1234"):
        opened(tmp_path, THOUSANDS)
    with pytest.raises(DataError, match="write thousands without a point"):
        opened(tmp_path, THOUSANDS, MAPPING, ("x", "y"))


DECIMALS = {
    "all with decimals": [("1.234", "12.500"), ("3.000", "900.000")],
    "shares of a hundred": [("66.667", "100"), ("33.333", "0")],
    "some with fewer": [("1.234", "900"), ("1.5", "2")],
    "below one": [("0.125", "900"), ("1.234", "2")],
    "whole numbers": [("1234", "900"), ("3", "2")],
}


@pytest.mark.parametrize("numbers", DECIMALS.values(), ids=DECIMALS)
def test_what_can_be_decimals_alone_is_read(tmp_path, numbers):
    (file,) = opened(tmp_path, numbers)
    assert file.look.first is not None
