"""Where settings of objectives are known to work, and what is said of those that lie outside."""

from __future__ import annotations

import pytest

from tiebreak.config import build_config, warnings_of
from tiebreak.config.losses import SECTIONS
from tiebreak.config.losses.loss import MODIFIERS

OF_THE_DATA = {
    "eta": {"rpo_backward", "rpo_forward", "rpo_square"},  # has the unit of scores
    "delta": {"bco", "bco_unpaired", "mpo"},  # is what good and bad rewards have between them
    "desirable_weight": {"kto"},  # follows the numbers of good and bad
    "undesirable_weight": {"kto"},
}
"""Numbers that no range can be told for before the data are seen."""
ANYWHERE = {"divergence_alpha", "max_reward"}
"""Modifiers that are a choice and no strength."""
NUMBERS = [
    (name, key)
    for name, section in SECTIONS.items()
    for key, field in section.model_fields.items()
    if "float" in str(field.annotation) and "tuple" not in str(field.annotation)
]


@pytest.mark.parametrize(("name", "key"), NUMBERS, ids=[f"{name}-{key}" for name, key in NUMBERS])
def test_every_number_has_a_safe_range_in_which_its_default_lies(name, key):
    safe, section = SECTIONS[name].safe(key), SECTIONS[name]()
    if name in OF_THE_DATA.get(key, ()) or key in ANYWHERE:
        assert safe is None
        return
    value = getattr(section, key)
    unit = getattr(section, safe.times) if safe.times else 1.0
    assert safe.low < safe.high
    assert (value is None and key in MODIFIERS) or safe.holds(value, unit)


@pytest.mark.parametrize("name", SECTIONS)
def test_defaults_are_told_nothing_of(name):
    assert SECTIONS[name]().unsafe() == []


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        ({"name": "dpo", "beta": 0.5}, []),
        ({"name": "dpo", "beta": 0.51}, ["loss.beta 0.51 is outside 0.01 to 0.5, where dpo is known to work"]),
        ({"name": "sigmoid_norm", "beta": 0.1}, ["loss.beta 0.1 is outside 2 to 10, where dpo_norm is known to work"]),
        ({"name": "dpo", "token_decay": 0.9}, ["loss.token_decay 0.9 is outside 0.95 to 1"]),
        # A margin is seen beside its beta; the last bit of a product decides nothing.
        ({"name": "simpo", "beta": 10.0, "gamma": 5.0}, []),
        ({"name": "simpo", "beta": 3.0, "gamma": 0.3}, []),
        ({"name": "simpo", "gamma": 5.0}, ["loss.gamma 5 is outside 0.1 to 1.6 times beta"]),
        ({"name": "dpo", "beta_schedule": {"to": 0.001}}, ["loss.beta_schedule.to 0.001 is outside 0.01 to 0.5"]),
        (
            {"terms": [{"name": "simpo", "beta": 0.1, "gamma": 0.05}, {"name": "hinge", "beta": 5}, "sft"]},
            ["loss.terms.0.beta 0.1 is outside 2 to 10", "loss.terms.1.beta 5 is outside 0.01 to 0.5"],
        ),
    ],
)
def test_a_setting_outside_its_safe_range_is_told_in_one_line(loss, told):
    found = warnings_of(build_config({"loss": loss}))
    assert len(found) == len(told)
    for line, words in zip(found, told, strict=True):
        assert line.startswith(words)
        assert line.endswith("' says what to watch")
        assert "\n" not in line
