"""Numbers in answers are read by value, and only as people write them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tiebreak.evaluation.numerals import number_in, number_of, only_number_in


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("She has $1,234.50 left.", "1234.50"),
        ("It is 7.", "7"),
        ("between 2-3", "3"),
        ("about -4 degrees", "-4"),
        ("\u22125", "-5"),
        ("5 apples, so 12 in all", "12"),
        ("1,2", "2"),
        ("12,345,678", "12345678"),
        ("1234,567", "567"),
        (".5", "0.5"),
        ("3.14.", "3.14"),
        ("10'000", "10000"),
        ("1e-05", "0.00001"),
        ("about 6.02e23 of them", "6.02e23"),
        ("-1.5E+3.", "-1500"),
        ("12 apples", "12"),
        ("3/4 of them, so 9", "9"),
        ("2 * 9 = **18**", "18"),
        ("room 1e5b2", "2"),
        ("1e99999", "99999"),
        ("60 km/h", "60"),
        ("9.8 m/s^2", "9.8"),
        ("an area of 12 cm^{2}.", "12"),
        ("12 m\u00b2", "12"),
        ("1 000 000", "1000000"),
        ("10{,}000", "10000"),
        ("$1\\,000$", "1000"),
        ("Step 2: **18**", "18"),
        ("for question 2 **18**", "18"),
        ("\\boxed{18}", "18"),
        ("\\sqrt{16} = 4", "4"),
        ("in 2023 500 came", "500"),
    ],
)
def test_the_last_number_of_a_text_is_read_by_value(text, number):
    assert number_in(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["none at all", "1/2", "10^6", "10^{6}", "it is 3 / 4", "(1+2)/3", "3×4", "",
     r"\frac{3}{4}", r"\dfrac34", r"\frac{3}{x}", r"\sqrt{2}", "10**6", "10 ** 6", "x^2", "m/s^2", "2^n", "1\u20442",
     "10\u207b\u00b3", "2\u00bd", "2 \u00bd", "10 500", "100 200 300", "1 234.5"],
)  # fmt: skip
def test_no_number_and_a_part_of_another_are_none(text):
    assert number_in(text) is None


def test_numbers_of_any_length_are_equal_only_where_they_are():
    long = "1" * 60
    assert number_in(long) == Decimal(long) != number_in(long[:-1] + "2")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,250", (1250, "")), ("+5", (5, "")), (" .5 ", (Decimal("0.5"), "")), ("5.0 %", (5, "%")),
        ("1\u202f000\u202f000", (1000000, "")), ("1, 2, 3", None), ("1 23", None), ("1,25", None), ("12_3", None),
        ("5 %%", None), ("%", None), ("", None), ("five", None), ("5 apples", None), ("--5", None), ("1.2.3", None),
    ],
)  # fmt: skip
def test_a_text_that_is_one_number_has_its_value_and_a_percentage_is_another_one(text, value):
    assert number_of(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("#### 1,200", 1200), ("18 apples", 18), ("12 m^2", 12), ("3 of 4", None), ("48/2 = 24", None), ("a", None)],
)
def test_what_holds_one_number_alone_has_its_value(text, value):
    assert only_number_in(text) == value
