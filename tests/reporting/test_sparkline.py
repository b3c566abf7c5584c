"""A few numbers as blocks."""

from __future__ import annotations

from tiebreak.reporting.sparkline import BLOCKS, HeldOutCurve, sparkline


def test_the_lowest_is_the_lowest_block_and_the_highest_the_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BLOCKS
    assert sparkline([0.5, 0.5]) == "▄▄"
    assert sparkline([]) == sparkline([float("nan")]) == ""


def test_of_many_the_first_and_last_are_kept():
    drawn = sparkline([9.0, *range(1, 8), *[5.0] * 90, 0.0], 10)
    assert len(drawn) == 10
    assert (drawn[0], drawn[-1]) == ("█", "▁")


def test_an_encoding_without_blocks_has_digits():
    assert sparkline([0, 1], encoding="ascii") == "18"


def test_the_held_out_curve_grows_and_gives_way():
    curve = HeldOutCurve()
    assert curve.within(80, "utf-8") == ""
    assert not curve.takes({"loss": 0.6})
    for accuracy, loss in ((0.5, 0.693), (0.7, 0.6)):
        assert curve.takes({"heldout/rewards/accuracies": accuracy, "heldout/loss": loss})
    assert curve.within(80, "utf-8") == "held out ▁█ acc 50% → 70% · loss 0.693 → 0.600"
    assert curve.within(40, "utf-8") == "held out ▁█ acc 50% → 70%"
