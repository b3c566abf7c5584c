from __future__ import annotations

import pytest

from tiebreak.config import SIGNALS, load_config
from tiebreak.errors import ConfigError
from tiebreak.progress import Noting, Silent
from tiebreak.training.preamble import tell_watch
from tiebreak.training.settled import check_settings


def _stopping(*rules, **settings):
    return load_config(
        None, {"stopping.rules": list(rules)} | {key.replace("__", "."): v for key, v in settings.items()}
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (
            {"signal": "sampled/kll", "at_most": 4},
            r"rules\.0\.signal.*nothing is recorded.*Did you mean 'sampled/kl'\?",
        ),
        ({"signal": "heldout/acuracies", "at_least": 4}, r"Did you mean 'heldout/rewards/accuracies'\?"),
        ({"signal": "sampled/kl"}, r"stopping\.rules: .*at_most, at_least, or both"),
        ({"signal": "loss", "at_most": 1, "at_least": 2}, r"at_most is the larger one"),
        ({"signal": "loss", "at_most": ".inf"}, r"at_most"),
        ({"signal": "loss", "above": 1}, r"unknown key 'stopping\.rules\.0\.above'"),
    ],
)
def test_a_rule_that_could_not_be_held_is_refused_in_one_line(rule, told):
    with pytest.raises(ConfigError, match=told) as error:
        _stopping(rule)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rule", "settings", "told"),
    [
        (None, {"stopping__patience": 2, "evaluation__probes": 0}, r"stopping\.patience 2: counts probes"),
        ("heldout/displaced", {"evaluation__probes": 0}, r"heldout/displaced is measured by probes.*is 0; raise it"),
        ("sampled/looping", {"signals__looks": 0}, r"sampled/looping is measured by looks, and signals\.looks is 0"),
        ("sampled/kl", {"signals__temperature": 0.7}, r"sampled/kl is known at signals\.temperature 1"),
        ("sampled/kl_k3", {"signals__kl": "off"}, r"sampled/kl_k3 is known at"),
    ],
)
def test_a_bound_on_what_the_settings_never_measure_is_refused(rule, settings, told):
    config = _stopping(*([{"signal": rule, "at_most": 1}] if rule else []), **settings)
    with pytest.raises(ConfigError, match=told):
        check_settings(config, Silent())


def test_every_signal_may_be_in_a_rule_and_has_a_meaning():
    for signal, meaning in SIGNALS.items():
        assert meaning
        check_settings(_stopping({"signal": signal, "at_least": 0}), Silent())


def test_a_run_says_before_it_trains_how_it_is_watched_and_what_ends_it():
    said = []

    class Listening(Silent):
        def say(self, text):
            said.append(text)

    progress = Noting(Listening())
    rule = {"signal": "sampled/kl", "at_most": 40, "at_least": 0}
    config = _stopping(rule, stopping__patience=2, evaluation__probes=2)
    tell_watch(config.signals, config.stopping, config.evaluation, 100, progress)
    assert said == [
        "watched: held-out pairs at 2 steps; what the policy says to 8 prompts at 5, in at most 10% of the time",
        "training ends early after 2 probes without a better loss, or where sampled/kl is above 40 or below 0",
    ]
    assert [text.partition(":")[0] for text in progress.warnings] == [
        "stopping.patience 2",
        "stopping.rules about sampled/ are held against the looks that there is time for; signals.most_share null takes "
        "all of them",
    ]
