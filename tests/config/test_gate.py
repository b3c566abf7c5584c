from __future__ import annotations

import pytest
import yaml

from tiebreak.config import GateConfig, build_config, describe_config, dump_config, load_config
from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.errors import ConfigError


def test_a_part_of_a_default_rule_changes_it_null_takes_it_away_and_others_stay():
    gate = load_config(
        None,
        [
            "gate.rules.repetition.margin=0.1",
            "gate.rules.distinct=null",
            "gate.rules.preferred.value=0.55",
            "gate.rules.longer={kind: at_most, value: 200}",
            "gate.rules.mine={measure: capability/arc, kind: superior, margin: 0}",
        ],
    ).gate
    assert gate.rules["repetition"] == DEFAULT_RULES["repetition"].model_copy(update={"margin": 0.1})
    assert gate.rules["distinct"] is None
    assert gate.rules["preferred"].value == 0.55
    assert (gate.rules["longer"].kind, gate.rules["longer"].value, gate.rules["longer"].margin) == (
        "at_most",
        200,
        None,
    )
    assert gate.rules["mine"].margin == 0
    assert gate.rules["accuracy"] == DEFAULT_RULES["accuracy"]


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("gate.rules.distinct=null", {"distinct": "taken away"}),
        ("gate.rules.repetition.margin=0.1", {"repetition": "margin 0.1 instead of 0.05"}),
        ("gate.rules.preferred.value=0.4", {"preferred": "value 0.4 instead of 0.5"}),
        ("gate.rules.moved.value=0", {"moved": "value 0 instead of 0.1"}),
        ("gate.rules.kl.value=5", {"kl": "value 5 instead of 0.5"}),
        ("gate.rules.shorter.required=false", {"shorter": "not required"}),
        ("gate.rules.longer={kind: at_most, value: 200}", {"longer": "asks answers/length to be at_most by value 200"}),
        ("gate.rules.tasks.measure=capability/a", {"tasks": "asks capability/a to be not_below_base by margin 0.03"}),
        ("gate.rules.preferred={measure: margin}", {"preferred": "asks margin to be superior by value 0.5"}),
        ("gate.min_prompts=2", {"gate.min_prompts": "2 instead of 20"}),
        ("gate.confidence=0.5", {"gate.confidence": "0.5 instead of 0.95"}),
        # What asks more, or in other words, or beside.
        *(
            (said, {})
            for said in (
                *("gate.rules.repetition.margin=0.01", "gate.rules.preferred.value=0.6", "gate.rules.kl.value=0.1"),
                *("gate.rules.kl.required=true", "gate.rules.kl.says=far", "gate.min_prompts=50"),
                *("gate.confidence=0.99", "gate.overrides.longer=x"),
                "gate.rules.mine={measure: kl, kind: at_most, value: 100}",
            )
        ),
    ],
)
def test_what_is_asked_less_than_by_default_is_known_by_name(said, how):
    assert load_config(None, [said]).gate.loosened == how


def test_rules_survive_being_written_down():
    config = load_config(None, ["gate.rules.distinct=null", "gate.overrides.longer=wanted"])
    assert build_config(yaml.safe_load(dump_config(config))) == config
    shown = yaml.safe_load(describe_config())["gate"]
    assert shown["rules"].keys() == DEFAULT_RULES.keys()
    assert GateConfig.model_validate(shown) == GateConfig()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("gate.rules.x={measure: acuracy, kind: superior, value: 0.5}", "Did you mean 'accuracy'"),
        ("gate.rules.x={measure: capability/, kind: superior, value: 0.5}", "no measure has this key"),
        ("gate.rules.x={measure: kl, kind: at_most}", "takes value; found neither"),
        ("gate.rules.x={measure: kl, kind: at_most, margin: 1}", "takes value; found margin"),
        ("gate.rules.x={measure: kl, kind: superior, margin: 1, value: 1}", "value or margin; found value and margin"),
        ("gate.rules.x={measure: kl, kind: not_below_base, value: 1}", "takes margin; found value"),
        ("gate.rules.repetition.margin=-1", "greater than or equal to 0"),
        ("gate.rules.repetition.margin=.nan", "finite"),
        ("gate.rules.repetition.margn=1", "gate.rules.repetition.margn"),
        ("gate.rules.x={}", "is missing"),
        ("gate.rules.x=3", "gate.rules.x: found 3"),
        ("gate.rules={'a b': {measure: kl, kind: at_most, value: 1}}", "no name of a rule"),
        ("gate.overrides.acuracy=why", "no rule is called 'acuracy'. Did you mean 'accuracy'"),
        ("gate.overrides.accuracy=' '", "wants the reason"),
        ("gate.confidence=1", "less than 1"),
        ("gate.min_prompts=1", "greater than or equal to 2"),
        ("gate.rule=3", "Did you mean 'gate.rules'"),
    ],
)  # fmt: skip
def test_a_rule_that_says_nothing_or_something_else_is_refused_by_name(said, words):
    with pytest.raises(ConfigError) as raised:
        load_config(None, [said])
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_override_of_a_rule_that_was_taken_away_is_refused():
    with pytest.raises(ConfigError, match="no rule is called 'longer'"):
        load_config(None, ["gate.rules.longer=null", "gate.overrides.longer=wanted"])
