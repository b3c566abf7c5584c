from __future__ import annotations

import math
from itertools import count

import pytest

import oracles
from tiebreak.config import EvaluationConfig, StoppingConfig
from tiebreak.evaluation.heldout import Evidence, Probe
from tiebreak.evaluation.stopping import Stopping
from tiebreak.maths.objectives import Objective
from tiebreak.maths.paired import standard_error
from tiny import settings

OBJECTIVE = Objective.of(settings("none").loss)


class _HeldOut:
    """Held-out pairs whose losses at each probe are written here; two pairs are of one prompt."""

    def __init__(self, *losses):
        self._losses = iter(losses)

    def by(self, objective):
        return self

    def evidence(self, num=None, progress=None, kept=None):
        at_start = {"loss_at_start": 0.7, "margin_at_start": 0.0}
        sums = {f"{who}_{side}_logps": -9.0 for who in ("policy", "reference") for side in ("chosen", "rejected")}
        counts = {"chosen_num_tokens": 10, "rejected_num_tokens": 10}
        return [
            Evidence(
                pair_id=f"pair{place}",
                prompt_id=f"prompt{place // 2}",
                loss=loss,
                margin=-loss,
                win=float(loss < 0.7),
                **at_start,
                **sums,
                **counts,
            )
            for place, loss in enumerate(next(self._losses))
        ]


def _stopping(*losses, total=None, probes=None, **changes):
    """A run of as many steps as there are probes after the start, watched."""
    total = total or len(losses)
    held = _HeldOut([0.7] * len(losses[0]) if losses else [], *losses)
    probe = Probe(held, EvaluationConfig(probes=total if probes is None else probes), total)
    return Stopping(probe, StoppingConfig.model_validate(changes), total)


def _run(stopping, rows=None):
    """Take steps until one stops; return the step, why, and the steps that were the best."""
    stopping.look(0, OBJECTIVE)
    best = []
    for step in count(1):
        stopping.hear({"step": step, **(rows or {}).get(step, {})})
        try:
            seen = stopping.look(step, OBJECTIVE)
        except StopIteration:
            return step - 1, None, best
        stopping.hear({"step": step, **seen.row})
        best += [step] * seen.best
        if seen.stop:
            return step, seen.stop, best
        if step == stopping._total:
            return step, None, best
    return None


def _all(loss, num=6):
    return [loss] * num


def test_patience_stops_at_the_probe_that_uses_it_up():
    losses = [0.6, 0.5, 0.55, 0.4, 0.45, 0.41, 0.3, 0.2]
    step, why, best = _run(_stopping(*map(_all, losses), patience=2))
    assert (step, best) == (6, [1, 2, 4])
    assert why == "2 held-out probes without a better loss than 0.4 at step 4 (stopping.patience)"
    step, why, best = _run(_stopping(*map(_all, losses), patience=3))
    assert (step, why, best) == (8, None, [1, 2, 4, 7, 8])


def test_without_patience_only_the_last_step_ends_training():
    assert _run(_stopping(*map(_all, [0.5, 0.6, 0.7, 0.8])))[:2] == (4, None)


def test_patience_that_ends_with_the_last_step_stopped_nothing():
    assert _run(_stopping(*map(_all, [0.5, 0.6, 0.7]), patience=2))[:2] == (3, None)


@pytest.mark.parametrize(("score", "best"), [("loss", [1, 3]), ("margin", [1, 3]), ("accuracy", [1])])
def test_each_score_says_which_step_is_the_best(score, best):
    losses = [[0.6, 0.6, 0.6], [0.1, 1.5, 1.5], [0.1, 0.1, 0.8]]
    assert _run(_stopping(*losses, score=score))[2] == best


def test_a_bound_ends_training_at_the_step_whose_number_is_beyond_it():
    rows = {1: {"sampled/kl": 39.0}, 3: {"sampled/kl": 41.0, "grad_norm": 1.0}}
    rule = {"signal": "sampled/kl", "at_most": 40}
    step, why, _ = _run(_stopping(*map(_all, [0.5] * 5), rules=[rule]), rows)
    assert (step, why) == (3, "sampled/kl is 41, above the 40 of stopping.rules")
    rows[2] = {"sampled/kl": math.nan}
    assert _run(_stopping(*map(_all, [0.5] * 5), rules=[rule]), rows)[0] == 2
    lower = {"signal": "heldout/rewards/accuracies", "at_least": 0.9}
    step, why, _ = _run(_stopping(*map(_all, [0.5, 0.8, 0.5]), rules=[lower]))
    assert (step, why) == (2, "heldout/rewards/accuracies is 0, below the 0.9 of stopping.rules")


def test_held_out_pairs_are_scored_where_training_ends_between_two_probes():
    rule = {"signal": "loss", "at_most": 2}
    stopping = _stopping(_all(0.5), _all(0.9), total=10, probes=2, rules=[rule])
    stopping.look(0, OBJECTIVE)
    found = {}
    for step in range(1, 8):
        stopping.hear({"step": step, "loss": 3.0 if step == 7 else 1.0})
        found[step] = stopping.look(step, OBJECTIVE)
    assert [step for step, seen in found.items() if seen.row] == [5, 7]
    assert found[7].stop
    choice = stopping.choice()
    assert (choice.best.step, choice.last.step, choice.step) == (5, 7, 5)


def test_a_rule_about_what_never_came_is_known():
    stopping = _stopping(_all(0.5), rules=[{"signal": "kl", "at_most": 1}, {"signal": "loss", "at_most": 9}])
    _run(stopping, {1: {"loss": 1.0}})
    assert stopping.unheard == ["kl"]


def test_the_best_is_taken_only_where_it_is_better_by_more_than_one_standard_error():
    # By prompt the differences are 0.3, 0.1 and −0.2 a pair: 0.067 on average, with an error of 0.145.
    earlier, last = [0.5] * 6, [0.8, 0.8, 0.6, 0.6, 0.3, 0.3]
    stopping = _stopping(earlier, last)
    _run(stopping)
    choice = stopping.choice()
    assert choice.gain == pytest.approx(0.4 / 6)
    assert choice.error == pytest.approx(oracles.clustered_error([0.3, 0.3, 0.1, 0.1, -0.2, -0.2], "aabbcc"))
    assert choice.gain < choice.error
    assert (choice.best.step, choice.step) == (1, 2)
    sure = _stopping(earlier, [0.8, 0.8, 0.6, 0.6, 0.5, 0.5])
    _run(sure)
    assert sure.choice().gain > sure.choice().error
    assert sure.choice().step == 1
    assert sure.choice().as_dict() == pytest.approx(
        {"step": 1, "score": 0.5, "of": 6, "by": "loss", "last": 3.8 / 6, "gain": 0.8 / 6,
         "standard_error": sure.choice().error, "start": 0.7}
    )  # fmt: skip


def test_pairs_of_one_prompt_alone_are_never_sure():
    stopping = _stopping([0.1, 0.1], [0.9, 0.9])
    _run(stopping)
    assert math.isinf(stopping.choice().error)
    assert stopping.choice().step == 2
    assert stopping.choice().as_dict()["standard_error"] is None


def test_the_last_step_is_taken_where_it_is_the_best_and_where_nothing_was_scored():
    stopping = _stopping(_all(0.5), _all(0.4))
    _run(stopping)
    assert stopping.choice().step == 2
    assert _stopping(probes=0, total=3).choice() is None


def test_what_a_checkpoint_holds_is_all_that_it_needs_to_go_on():
    losses = [0.6, 0.4, 0.5, 0.45, 0.44, 0.3]
    whole, again = (_stopping(*map(_all, losses), patience=3) for _ in range(2))
    for step in range(4):
        whole.look(step, OBJECTIVE)
        again._probe.evidence(OBJECTIVE)
    again.restore(whole.tensors())
    for step in (4, 5, 6):
        one, two = whole.look(step, OBJECTIVE), again.look(step, OBJECTIVE)
        assert (one, whole.choice().as_dict()) == (two, again.choice().as_dict())
        assert (bool(one.stop), one.best) == (step == 5, step == 6)
    fresh = _stopping(_all(0.5))
    fresh.restore({})
    assert fresh.choice() is None


def test_the_error_of_a_mean_knows_that_pairs_of_a_prompt_hang_together():
    values, prompts = [1.0, 1.0, 0.0, 0.5, -0.3], [0, 0, 1, 1, 2]
    assert standard_error(values, prompts) == pytest.approx(oracles.clustered_error(values, prompts))
    alone = standard_error(values, list(range(5)))
    mean = sum(values) / 5
    assert alone == pytest.approx(math.sqrt(sum((one - mean) ** 2 for one in values) / 4 / 5))
    assert standard_error([1.0, 1.0], [0, 1]) == 0


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"at_most": 0.1}, "loss is above 0.1"),
        ({"at_least": 0.01}, "loss is below 0.01"),
        ({"at_most": 40, "at_least": 1}, "loss is above 40 or below 1"),
    ],
)
def test_a_rule_says_what_breaks_it_whichever_bounds_it_has(bounds, told):
    [rule] = StoppingConfig(rules=[{"signal": "loss", **bounds}]).rules
    assert rule.told == told


@pytest.mark.parametrize(
    ("loss", "keeps"),
    [
        ("dpo", True),
        ("aot", True),
        ({"name": "dpo", "beta_schedule": {"to": 0.01}}, False),
        ("beta_dpo", False),
        ("alpha_dpo", False),
        ({"terms": [{"name": "dpo", "beta_schedule": {"to": 0.01}}, "sft"]}, False),
        ({"terms": ["dpo", "sft"]}, True),
    ],
)
def test_losses_of_two_steps_are_compared_only_where_they_are_of_one_scale(loss, keeps):
    assert settings("none", loss=loss).loss.keeps_scale is keeps


def test_the_best_step_knows_what_the_start_scored_and_so_does_a_run_that_goes_on():
    stopping = _stopping(_all(0.9), _all(0.8))
    _run(stopping)
    told = stopping.choice().as_dict()
    assert (told["start"], told["score"]) == (pytest.approx(0.7), pytest.approx(0.8))
    again = _stopping(_all(0.9), _all(0.8))
    again.restore(stopping.tensors())
    assert again.choice().as_dict() == told
