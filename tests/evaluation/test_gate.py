from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.config import GateConfig
from tiebreak.evaluation.gate import decide, not_heard
from tiebreak.evaluation.rows import Row

ONE_RULE = {"preferred": {"measure": "answers/preferred", "kind": "superior", "value": 0.5}}


def _gate(rules=(), **more):
    """A gate of these rules alone."""
    return GateConfig.model_validate({"rules": dict.fromkeys(GateConfig().rules) | dict(rules), **more})


def _row(key, after, before=None, *, unit="share", better="higher", prompts=None, **more):
    before = [0.5] * len(after) if before is None else before
    return Row(key, key, unit, better, prompts or [str(i) for i in range(len(after))], before, list(after), **more)


def _decide(gate, *rows, told=()):
    return decide({row.key: row for row in rows}, gate, told, num_resamples=2000)


def _wins(won, lost, tied=0):
    return _row("answers/preferred", [1.0] * won + [0.0] * lost + [0.5] * tied)


@pytest.mark.parametrize(
    ("won", "lost", "tied", "verdict"),
    [(80, 20, 0, "pass"), (20, 80, 0, "fail"), (55, 45, 0, "inconclusive"), (20, 0, 0, "pass"),
     (19, 0, 0, "inconclusive"), (0, 0, 400, "inconclusive"), (3, 0, 0, "inconclusive"),
     (0, 3, 0, "inconclusive"), (0, 60, 0, "fail"),     (30, 2, 30, "pass")],
)  # fmt: skip
def test_answers_are_better_worse_or_it_is_not_known(won, lost, tied, verdict):
    decision = _decide(_gate(ONE_RULE), _wins(won, lost, tied))
    assert decision.verdict == verdict
    [check] = decision.checks
    assert check.observed == pytest.approx((won + tied / 2) / (won + lost + tied))
    assert check.low <= check.observed <= check.high
    assert f"over {won + lost + tied} prompts" in decision.reason
    assert "\n" not in decision.reason


@given(
    st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60),
    st.lists(st.floats(-2, 2), min_size=60, max_size=60),
    st.sampled_from(["superior", "at_least", "at_most", "not_below_base", "not_above_base"]),
    st.floats(0, 1),
)
def test_no_pass_without_enough_prompts_or_with_the_threshold_inside_the_interval(wins, noise, kind, number):
    name = "value" if kind in ("superior", "at_least", "at_most") else "margin"
    gate = _gate(ONE_RULE | {"mine": {"measure": "margin", "kind": kind, name: number}})
    shifted = [value - noise[0] for value in noise]
    decision = _decide(gate, _row("answers/preferred", wins), _row("margin", noise, shifted, unit="nats"))
    for check in decision.checks:
        if check.verdict == "pass":
            assert check.num_prompts >= gate.min_prompts
            assert not check.low < check.threshold < check.high
            assert check.prompts_to_decide is None
        if check.verdict == "inconclusive":
            assert check.prompts_to_decide is None or check.prompts_to_decide >= gate.min_prompts
    if decision.verdict == "pass":
        assert all(check.verdict == "pass" for check in decision.checks)
    assert json.loads(json.dumps(decision.as_dict(), allow_nan=False))["verdict"] == decision.verdict


KINDS = {
    "above a value": ("at_least", "value", 0.5, "higher", [0.8, 0.5, 0.2], ["pass", "inconclusive", "fail"]),
    "below a value": ("at_most", "value", 0.5, "higher", [0.2, 0.5, 0.8], ["pass", "inconclusive", "fail"]),
    "better, more is better": ("superior", "value", 0.5, "higher", [0.8, 0.5, 0.2], ["pass", "inconclusive", "fail"]),
    "better, less is better": ("superior", "value", 0.5, "lower", [0.2, 0.5, 0.8], ["pass", "inconclusive", "fail"]),
    "better than before": ("superior", "margin", 0.1, "higher", [0.9, 0.6, 0.5], ["pass", "inconclusive", "fail"]),
    "less than before": ("superior", "margin", 0.1, "lower", [0.1, 0.4, 0.5], ["pass", "inconclusive", "fail"]),
    "fallen": ("not_below_base", "margin", 0.1, "higher", [0.5, 0.4, 0.1], ["pass", "inconclusive", "fail"]),
    "risen": ("not_above_base", "margin", 0.1, "lower", [0.5, 0.6, 0.9], ["pass", "inconclusive", "fail"]),
}


@pytest.mark.parametrize(("kind", "number", "value", "better", "means", "verdicts"), KINDS.values(), ids=KINDS)
def test_each_kind_of_rule_holds_fails_and_does_not_know(kind, number, value, better, means, verdicts):
    noise = np.random.default_rng(0).normal(0, 0.1, 200)
    gate = _gate({"mine": {"measure": "margin", "kind": kind, number: value}})
    noise -= noise.mean()
    rows = [_row("margin", (mean + noise).tolist(), unit="nats", better=better) for mean in means]
    assert [_decide(gate, row).checks[0].verdict for row in rows] == verdicts


def test_a_change_of_tokens_is_a_factor():
    gate = _gate({"longer": {"measure": "answers/length", "kind": "not_above_base", "margin": math.log(2)}})
    before = [10.0 + i for i in range(60)]
    tripled = _row("answers/length", [3 * x for x in before], before, unit="tokens", better="neither")
    found = _decide(gate, tripled)
    assert found.verdict == "fail"
    assert "× 3.00" in found.reason
    assert "at most × 2.00" in found.reason


def test_accuracy_alone_passes_nothing():
    found = _decide(GateConfig(), _row("accuracy", [1.0] * 200), _row("logratio_gap", [20.0] * 200, unit="nats"))
    assert found.verdict == "inconclusive"
    assert "no rule or judge says whether answers got better; set evaluation.rule or evaluation.judge" in found.reason
    alone = _gate({"accuracy": {"measure": "accuracy", "kind": "superior", "value": 0.5}})
    found = _decide(alone, _row("accuracy", [1.0] * 200))
    assert (found.verdict, found.checks[0].verdict) == ("inconclusive", "pass")
    assert "held-out pairs alone pass nothing" in found.reason


def test_a_policy_that_did_not_move_fails_although_its_accuracy_is_100_percent():
    still = _row("logratio_gap", [0.007] * 200, [0.0] * 200, unit="nats")
    found = _decide(GateConfig(), _row("accuracy", [1.0] * 200), still)
    assert found.verdict == "fail"
    assert "the preference has not moved by more than rounding" in found.reason


def test_one_certain_failure_fails_and_is_told_first_whatever_is_not_known():
    gate = _gate(
        ONE_RULE
        | {
            "quiet": {"measure": "answers/repetition", "kind": "not_above_base", "margin": 0.05, "says": "it loops"},
            "gone": {"measure": "kl", "kind": "at_most", "value": 5.0},
        }
    )
    looping = _row("answers/repetition", [0.9] * 50, [0.1] * 50, better="lower")
    found = _decide(gate, _wins(28, 22), looping)
    assert found.verdict == "fail"
    assert found.reason.startswith("answers/repetition +80.0 points")
    assert ": it loops; default rules taken away: " in found.reason


def test_a_rule_over_what_nothing_measured_is_inconclusive_by_name_unless_it_does_not_insist():
    rule = {"measure": "kl", "kind": "at_most", "value": 5.0}
    found = _decide(_gate(ONE_RULE | {"budget": rule}), _wins(80, 20))
    assert found.verdict == "inconclusive"
    assert "budget: nothing measured kl" in found.reason
    lenient = _decide(_gate(ONE_RULE | {"budget": rule | {"required": False}}), _wins(80, 20))
    assert (lenient.verdict, lenient.unmeasured) == ("pass", ["budget"])


def test_nothing_measured_and_no_rules_are_no_pass():
    assert _decide(GateConfig()).verdict == "inconclusive"
    assert _decide(_gate()).verdict == "inconclusive"
    assert _decide(_gate(), _wins(80, 20)).verdict == "inconclusive"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
@pytest.mark.parametrize("key", ["answers/preferred", "entropy of somebody's own"])
def test_what_is_no_number_fails_by_the_name_of_its_measure_and_cannot_be_overridden(bad, key):
    spoilt = _row(key, [1.0] * 79 + [bad], unit="score")
    found = _decide(_gate(ONE_RULE, overrides={"preferred": "we know"}), _wins(80, 20), spoilt)
    assert found.verdict == "fail"
    assert f"{key}: 1 of 80 values are not finite" in found.reason


def test_each_of_a_user_s_tasks_is_held_against_the_rule_for_all_of_them():
    rule = {"measure": "capability/*", "kind": "not_below_base", "margin": 0.03, "required": False}
    right = [1.0] * 300 + [0.0] * 100
    kept, lost = (_row(f"capability/{name}", after, right) for name, after in (("a", right), ("b", [0.0] * 400)))
    found = _decide(_gate(ONE_RULE | {"tasks": rule}), _wins(80, 20), kept, lost)
    assert [(check.measure, check.verdict) for check in found.checks[1:]] == [
        ("capability/a", "pass"),
        ("capability/b", "fail"),
    ]
    assert found.verdict == "fail"


def test_an_inconclusive_rule_says_how_many_prompts_would_decide():
    found = _decide(_gate(ONE_RULE), _wins(56, 44))
    [check] = found.checks
    assert 450 <= check.prompts_to_decide <= 650
    assert f"about {check.prompts_to_decide} prompts would decide" in found.reason
    assert check.minimum_detectable == pytest.approx(2.8 * 0.5 / 10, rel=0.05)
    # That many more of the same do decide.
    factor = math.ceil(check.prompts_to_decide / 100)
    assert _decide(_gate(ONE_RULE), _wins(56 * factor, 44 * factor)).verdict == "pass"
    assert "no number would decide" in _decide(_gate(ONE_RULE), _wins(0, 0, 40)).reason


def test_a_guard_without_a_single_bad_case_needs_as_many_prompts_as_its_margin_says():
    gate = _gate(ONE_RULE | {"cut": {"measure": "answers/unfinished", "kind": "not_above_base", "margin": 0.05}})
    few, enough = (_row("answers/unfinished", [0.0] * num, [0.0] * num, better="lower") for num in (60, 80))
    found = _decide(gate, _wins(80, 20), few)
    assert found.verdict == "inconclusive"
    assert found.checks[1].prompts_to_decide == 72
    assert _decide(gate, _wins(80, 20), enough).verdict == "pass"


def test_claims_share_their_error_and_guards_do_not():
    barely = _wins(61, 40)
    claims = {f"more{i}": {"measure": "answers/rule", "kind": "superior", "value": 0.5} for i in range(3)}
    strong, weak = _row("answers/rule", [1.0] * 70 + [0.0] * 30), _row("answers/rule", [1.0] * 61 + [0.0] * 40)
    alone = _decide(_gate(ONE_RULE), barely)
    beside = _decide(_gate(ONE_RULE | claims), barely, weak)
    assert (alone.verdict, beside.verdict) == ("pass", "inconclusive")
    assert beside.checks[0].p == pytest.approx(min(1, 4 * alone.checks[0].p), rel=0.5)
    assert _decide(_gate(ONE_RULE | claims), _wins(70, 30), strong).verdict == "pass"


def test_an_override_lets_one_rule_fail_and_is_told():
    loud = _row("answers/repetition", [0.9] * 50, [0.1] * 50, better="lower")
    rules = ONE_RULE | {"quiet": {"measure": "answers/repetition", "kind": "not_above_base", "margin": 0.05}}
    found = _decide(_gate(rules, overrides={"quiet": "poems repeat"}), _wins(80, 20), loud)
    assert found.verdict == "pass"
    assert found.checks[1].verdict == "fail"
    assert found.overridden == {"quiet": "poems repeat"}
    assert "quiet is overridden (poems repeat)" in found.reason
    needless = _decide(_gate(ONE_RULE, overrides={"preferred": "in any case"}), _wins(80, 20))
    assert needless.overridden == {}
    assert "nothing shows better answers" not in found.reason


@pytest.mark.parametrize("rows", [[_wins(30, 70)], [_wins(51, 49)], []], ids=["lost", "open", "unmeasured"])
def test_a_pass_without_a_claim_that_holds_says_so_in_its_first_line(rows):
    accurate = {"accurate": {"measure": "accuracy", "kind": "superior", "value": 0.5}}
    sure = _row("accuracy", [1.0] * 100, [0.5] * 100)
    found = _decide(_gate(accurate | ONE_RULE, overrides={"preferred": "read by hand"}), sure, *rows)
    assert found.verdict == "pass"
    assert "nothing shows better answers, and what should is overridden" in found.reason


@pytest.mark.parametrize(
    ("measure", "rule", "before", "after", "verdict"),
    [
        ("capability", {"value": -100.0}, -3.0, -3.0, "inconclusive"),
        ("capability", {"value": -2.0}, -3.0, -1.0, "pass"),
        ("capability", {"margin": 0.0}, -3.0, -1.0, "pass"),
        ("answers/preferred", {"value": 0.4}, 0.5, 0.9, "inconclusive"),
        ("answers/preferred", {"value": 0.5}, 0.5, 0.9, "pass"),
        ("answers/repetition", {"value": 0.9}, 0.1, 0.2, "inconclusive"),
        ("answers/repetition", {"value": 0.2}, 0.4, 0.0, "pass"),
        # What changes without one answer being better.
        ("neutral_logps", {"margin": 0.0}, -3.0, -1.0, "inconclusive"),
        ("answers/length", {"margin": 0.0}, 10.0, 30.0, "inconclusive"),
        ("answers/unchanged", {"value": 0.9}, 1.0, 0.0, "inconclusive"),
    ],
)
def test_what_was_so_before_training_is_no_claim(measure, rule, before, after, verdict):
    gate = _gate({"mine": {"measure": measure, "kind": "superior"} | rule})
    found = _decide(gate, Row.of(measure, [str(one) for one in range(200)], [before] * 200, [after] * 200))
    assert (found.verdict, found.checks[0].verdict) == (verdict, "pass")
    if verdict != "pass":
        assert "no rule claims that what the model answers got better" in found.reason
    assert found.checks[0].reached_before == ("mine asks what was so before training" in found.reason)


def test_a_value_that_was_reached_before_guards_beside_a_claim():
    reached = {"able": {"measure": "capability", "kind": "superior", "value": -4.0}}
    rows = _wins(80, 20), Row.of("capability", [str(one) for one in range(200)], [-3.0] * 200, [-3.0] * 200)
    found = _decide(_gate(ONE_RULE | reached), *rows)
    assert found.verdict == "pass"
    assert "1 guards hold" in found.reason
    assert _decide(_gate(ONE_RULE | {"able": reached["able"] | {"value": -2.0}}), *rows).verdict == "fail"


def test_default_rules_that_are_gone_or_looser_are_in_the_first_line():
    looser = _gate(ONE_RULE | {"repetition": GateConfig().rules["repetition"].model_dump() | {"margin": 0.2}})
    found = _decide(looser, _wins(80, 20), _row("answers/repetition", [0.1] * 100, [0.1] * 100, better="lower"))
    assert found.verdict == "pass"
    assert "default rules taken away: accuracy, moved, at_equal_length, unfinished" in found.reason
    assert "repetition is looser than by default (margin 0.2 instead of 0.05)" in found.reason
    assert found.as_dict()["loosened"] == looser.loosened
    plain = _decide(GateConfig(), _wins(80, 20))
    assert plain.loosened == {}
    assert "default" not in plain.reason


def test_facts_from_elsewhere_and_weak_evidence_are_in_the_first_line():
    weak = _row("answers/preferred", [1.0] * 80 + [0.0] * 20, weak=True, note="a probe of the data's own labels")
    found = _decide(_gate(ONE_RULE), weak, told=["length alone\ntells 98 % of labels"])
    assert found.verdict == "pass"
    assert "weak evidence: a probe of the data's own labels" in found.reason
    assert found.reason.endswith("; length alone tells 98 % of labels")


def test_a_judge_that_is_not_heard_is_named_once_and_nobody_is_told_to_set_one():
    unheard = not_heard({"by": "server:big", "refusal": "max_calls 5 is reached"})
    assert unheard == "server:big is not heard: max_calls 5 is reached"
    assert not_heard({"by": "x", "refusal": None}) is not_heard(None) is None
    for gate in (GateConfig(), _gate(ONE_RULE)):
        found = decide({}, gate, ["a fact", unheard], unheard=unheard)
        assert unheard in found.reason
        assert found.reason.count("is not heard") == 1
        assert "set evaluation" not in found.reason.partition("; and ")[0]
        assert found.reason.endswith("a fact")
    # Where no rule asks for it, it is told beside.
    found = decide({"answers/rule": _wins(80, 20)}, _gate(), [unheard], unheard=unheard)
    assert found.reason.endswith(unheard)
    strict = _gate({"fair": {"measure": "answers/length_controlled", "kind": "at_least", "value": 0.5}})
    assert f"fair: nothing measured answers/length_controlled; {unheard}" in decide({}, strict, unheard=unheard).reason


def test_a_decision_does_not_depend_on_the_order_of_rows_or_items():
    rng = np.random.default_rng(4)
    one, two = (
        _row("answers/preferred", (rng.random(80) < 0.6).astype(float)),
        _row("margin", rng.normal(size=80), unit="nats"),
    )
    rules = ONE_RULE | {"moved": {"measure": "margin", "kind": "at_least", "value": -1.0}}
    order = rng.permutation(80)
    mixed = [
        Row(
            r.key,
            r.key,
            r.unit,
            r.better,
            [r.prompts[i] for i in order],
            [r.before[i] for i in order],
            [r.after[i] for i in order],
        )
        for r in (two, one)
    ]
    first, second = _decide(_gate(rules), one, two), _decide(_gate(rules), *mixed)
    assert first.verdict == second.verdict
    for check, other in zip(first.checks, second.checks, strict=True):
        assert check.low == pytest.approx(other.low, abs=1e-9)


def test_a_row_survives_the_disk_and_refuses_to_be_none():
    row = _row("margin", [1.0, math.nan, 2.0], [0.0, 0.5, math.inf], unit="nats", weak=True, note="n")
    again = Row.from_dict(json.loads(json.dumps(row.as_dict(), allow_nan=False)))
    assert again.num_not_finite == row.num_not_finite == 2
    assert again.as_dict() == row.as_dict()
    with pytest.raises(ValueError, match="at least one"):
        _row("margin", [], [])
    with pytest.raises(ValueError, match=r"accuracy: a share lies in 0\.\.1, found 2"):
        _row("accuracy", [2.0])
    with pytest.raises(ValueError, match="better is higher, lower or neither"):
        Row.from_dict(row.as_dict() | {"better": "more"})
