"""What Python and NumPy print is read back as it was, or not at all; nothing is evaluated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds import hang_after
from tiebreak.data.literals import json_of

MESSAGES = [
    {"role": "user", "content": 'It\'s "x"\n\té\\ \u2028 \x00 🦊'},
    {"role": "assistant", "content": "a", "more": [None, True, False, 1.5, -2, 1e-7, [], {}, [[]]]},
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4))
def test_what_python_prints_comes_back(value):
    made = json_of(repr(value))
    assert made is not None
    assert json.loads(made) == value


@pytest.mark.parametrize("show", [str, repr])
def test_what_numpy_prints_comes_back(show):
    inner = [{"role": "assistant", "content": None, "calls": np.array([{"f": 1}, {"g": (1, 2)}], dtype=object)}]
    for value in (MESSAGES, inner):
        made = json_of(show(np.array(value, dtype=object)))
        assert made is not None
        wanted = json.dumps(value, default=lambda array: array.tolist())
        assert json.loads(made) == json.loads(wanted)
    assert json_of(show(np.array(["a b", "c"]))) == '["a b","c"]'


@pytest.mark.parametrize(
    "text",
    ["", "text", "[1", "[1, ...]", "[{'a': 1} ... {'a': 2}]", "{'a': 1 'b': 2}", "[b'x']", "[f'x']",
     "['a' % 3]", "[1)", "[,]", "1]", "[__import__('os')]", "[open('x')]", "['\\q']", "['\\N{DASH}']",
     "['\\U00110000']", "[" * 200 + "]" * 200, "[nan]", "[1 + 2]", "[x for x in y]", "array(1, evil=2)",
     "['a'", "[datetime.date(2024, 1, 1)]"],
)  # fmt: skip
def test_anything_else_is_nothing(text):
    assert json_of(text) is None


def test_reading_is_linear_whatever_the_text_is():
    for part in ("'a\\", "9", " ", "'aaa', ", "[", "\"'", "array(", ", dtype=object", "1e"):
        with hang_after():
            json_of("[" + part * 200_000)
