"""The table of causes on signals that are written by hand: what names each, and what just does not."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from tiebreak.diagnosis.cause import Cause, Finding, diagnosed
from tiebreak.diagnosis.causes import CAUSES, diagnoses
from tiebreak.diagnosis.harms import NEVER_TUNED
from tiebreak.diagnosis.reading import with_rows
from tiebreak.diagnosis.signals import Found, Mean, Measure, Pull, Settings, Signals
from tiebreak.diagnosis.unsettled import unsettled
from tiebreak.errors import TrainingError
from tiebreak.evaluation.heldout import require_finite
from tiebreak.maths.intervals import Share

NUM = 60
PROMPTS = [f"prompt{index}" for index in range(NUM)]
SETTINGS = Settings("dpo", 1e-5, 1e-5, 2, Pull(0.1, 0.01, 0.5), 64, ("polite", "please"))


def measure(before, after):
    wide = lambda value: value if isinstance(value, list) else [value] * NUM  # noqa: E731
    return Measure(PROMPTS, wide(before), wide(after))


def step(number, *, epoch=1, loss=0.6, won=0.8, **more):
    return {"step": number, "epoch": epoch, "loss": loss, "rewards/accuracies": won, "grad_norm": 1.0} | more


def probe(number, loss, margin=0.0):
    return {"step": number, "heldout/loss": loss, "heldout/rewards/margins": margin}


LENGTHS = [8 + (7 * index) % 23 for index in range(NUM)]
HEALTHY = Signals(
    status="done",
    num_steps=4,
    settings=SETTINGS,
    steps=[step(1, loss=0.693, won=0.5), step(2), step(3, epoch=2), step(4, epoch=2)],
    probes=[probe(0, 0.693), probe(2, 0.62, 0.3), probe(4, 0.6, 0.4)],
    measures={
        "accuracy": measure(0.5, [1.0] * 45 + [0.0] * 15),
        "margin": measure(0.0, [0.3] * NUM),
        "logratio_gap": measure(0.0, [4.0] * 45 + [-2.0] * 15),
        "loss": measure(0.693, [0.4, 0.8] * (NUM // 2)),
        "chosen_logps": measure([-1.0, -1.2] * 30, [-1.1, -1.3] * 30),
        "rejected_logps": measure([-1.0, -1.2] * 30, [-1.4, -1.6] * 30),
        "displaced": measure(0.0, [1.0] * 40 + [0.0] * 20),
        "kl_token": measure(0.0, [0.1, 0.12] * 30),
        "answers/repetition": measure(0.05, [0.05, 0.06] * 30),
        "answers/unfinished": measure(0.1, [0.1, 0.12] * 30),
        "answers/entropy": measure([1.2, 1.3] * 30, [1.1, 1.2] * 30),
        "answers/unchanged": measure(1.0, 0.2),
    },
    evidence=[
        {"prompt_id": prompt, "chosen_num_tokens": float(one), "rejected_num_tokens": float(31 - one), "margin": 0.3}
        for prompt, one in zip(PROMPTS, LENGTHS, strict=True)
    ],
    texts=[(prompt, "yes please", "no") for prompt in PROMPTS],
    by_surface=Share(0.55, 0.47, 0.63, 100, 60),
)


def with_measures(signals=HEALTHY, **measures):
    told = {key.replace("__", "/"): value for key, value in measures.items()}
    return replace(signals, measures={**signals.measures, **told})


def named(signals):
    return [one.cause for one in diagnoses(signals)]


def test_a_sound_run_has_no_cause():
    assert named(HEALTHY) == []


def test_nothing_is_named_of_a_run_of_which_nothing_is_known():
    assert named(Signals()) == []


BROKEN = {"answers__repetition": measure(0.05, [0.5, 0.6] * 30), "kl_token": measure(0.0, [2.0, 2.5] * 30)}
PLANTED = {
    "learning_rate_too_high": with_measures(**BROKEN),
    "learning_rate_too_low": with_measures(logratio_gap=measure(0.0, [0.01, -0.005] * 30)),
    "beta_too_low": replace(with_measures(**BROKEN), settings=replace(SETTINGS, beta=Pull(1e-4, 0.01, 0.5))),
    "beta_too_high": replace(
        with_measures(logratio_gap=measure(0.0, [0.8, -0.4] * 30)),
        settings=replace(SETTINGS, beta=Pull(50.0, 0.01, 0.5)),
    ),
    "swapped_labels": replace(HEALTHY, texts=[(prompt, "no", "yes please") for prompt in PROMPTS]),
    "shuffled_labels": with_measures(
        accuracy=measure(0.5, [1.0, 0.0] * 30), logratio_gap=measure(0.0, [4.0, -4.0] * 30)
    ),
    "contradictory_labels": replace(HEALTHY, found={"contradiction": Found(30, 0.3)}),
    "wrong_reference": replace(HEALTHY, probes=[probe(0, 0.9, -0.3), probe(4, 0.6, 0.4)]),
    "length_only": replace(
        HEALTHY, found={"shortcut_length": Found(60, 1.0)}, by_length=Share(0.95, 0.9, 0.98, 100, 60),
        evidence=[{**row, "chosen_num_tokens": 20.0, "rejected_num_tokens": 5.0} for row in HEALTHY.evidence],
    ),
    "duplicated_data": replace(HEALTHY, found={"duplicate": Found(50, 0.4)}),
    "memorising": replace(
        HEALTHY,
        steps=[step(1, loss=0.693, won=0.5), step(2), step(3, epoch=2, won=1.0), step(4, epoch=2, won=1.0)],
        probes=[probe(0, 0.693), probe(2, 0.6), probe(4, 0.9)],
    ),
    "collapse": with_measures(answers__entropy=measure([1.2, 1.3] * 30, [0.1, 0.2] * 30)),
    "displacement": with_measures(
        chosen_logps=measure([-1.0, -1.2] * 30, [-2.1, -2.3] * 30), displaced=measure(0.0, 1.0)
    ),
    "eos_or_masks": with_measures(answers__unfinished=measure(0.0, [1.0, 1.0, 0.0] * 20)),
    "never_tuned": replace(
        with_measures(answers__unfinished=measure(1.0, 1.0)), warnings=[f"EOS has 1e-9: {NEVER_TUNED}; train it first"]
    ),
    "cut_short": replace(HEALTHY, status="interrupted", error="stopped by SIGTERM"),
}  # fmt: skip


@pytest.mark.parametrize("cause", [one.name for one in CAUSES])
def test_each_cause_is_named_by_its_own_signs_and_no_other_is(cause):
    assert named(PLANTED[cause]) == [cause]


@pytest.mark.parametrize("cause", [one.name for one in CAUSES])
def test_what_is_said_has_numbers_and_something_to_do(cause):
    [found] = diagnoses(PLANTED[cause])
    assert any(char.isdigit() for char in f"{found.says} {found.evidence}")
    assert found.do
    assert "nan" not in "\n".join(found.lines())
    assert set(found.as_dict()) == {"cause", "title", "says", "evidence", "do", "step", "level"}


def test_a_loss_that_is_no_number_is_the_learning_rate_s():
    ended = replace(HEALTHY, status="failed", error="step 12: loss is not finite (pair a, b)", measures={})
    [found] = diagnoses(ended)
    assert found.cause == "learning_rate_too_high"
    assert "learning_rate: 1e-06" in found.do
    assert any("did not come to its end" in told for told in found.evidence)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("step 4: the loss is not finite for 2 pairs (a, b); the optimizer did not take", "learning_rate_too_high"),
        ("held-out log-probabilities are not finite for 2 pairs (a, b): the weights", "learning_rate_too_high"),
        ("before the first step the model's log-probabilities are not finite for 8 of 8", "cut_short"),
        ("before the first step the loss is 1 instead of 0: policy and reference differ (reference", "wrong_reference"),
        ("before the first step the policy is not what it is said to be, model.name a", "wrong_reference"),
    ],
)
def test_errors_of_runs_that_are_there_are_read(error, cause):
    """These words stand in run.json of runs: whoever rewords an error reads both."""
    assert named(Signals(status="failed", error=error, settings=SETTINGS))[0] == cause


def test_warnings_of_runs_that_are_there_are_read():
    told = "EOS has 1e-9, drawn blindly: it looks like a base model that was never tuned to answer; train it first"
    assert "never_tuned" in named(replace(with_measures(answers__unfinished=measure(1.0, 1.0)), warnings=[told]))


@pytest.mark.parametrize("row", [[math.nan], [math.inf]])
def test_what_evaluation_says_of_numbers_that_are_none_is_read(row):
    with pytest.raises(TrainingError) as refusal:
        require_finite(torch.tensor([row]), [SimpleNamespace(example_id="a", completions=((1,), (2,)))])
    assert named(Signals(status="failed", error=str(refusal.value), settings=SETTINGS))[0] == "learning_rate_too_high"


def test_a_model_that_was_broken_before_the_first_step_is_not():
    error = "before the first step the model's log-probabilities are not finite for 8 of 8 pairs"
    assert named(replace(HEALTHY, status="failed", error=error, measures={})) == ["cut_short"]


def test_a_start_check_that_failed_is_the_reference_s():
    error = "before the first step the loss is 0.9 instead of 0.69: policy and reference differ (reference: a)"
    ended = Signals(status="failed", error=error, settings=SETTINGS)
    assert named(ended)[0] == "wrong_reference"


def test_a_policy_or_a_reference_that_is_another_model_than_named_is_the_reference_s():
    error = "before the first step the policy is not what it is said to be, model.name a: log-probabilities differ by 1"
    ended = Signals(status="failed", error=error, settings=SETTINGS)
    assert named(ended)[0] == "wrong_reference"


def test_a_gain_before_the_first_step_is_no_fault_where_another_model_is_the_reference():
    apart = replace(
        HEALTHY, steps=[step(1, **{"rewards/chosen": 2.0})], probes=[probe(0, 0.9, -0.3), probe(4, 0.6, 0.4)]
    )
    assert named(apart) == ["wrong_reference"]
    assert named(replace(apart, settings=replace(SETTINGS, starts_at_reference=False))) == []


def test_what_dropout_does_to_the_first_step_is_no_fault():
    noisy = replace(HEALTHY, steps=[step(1, **{"rewards/chosen": 2.0})], probes=[probe(0, 0.693, 0.0)])
    assert named(noisy) == ["wrong_reference"]
    assert named(replace(noisy, settings=replace(SETTINGS, drops_out=True))) == []


def test_a_dead_run_is_told_from_one_at_work():
    at_work = replace(HEALTHY, status="running", at_work=True, measures={}, evidence=[])
    assert named(at_work) == []
    assert named(replace(at_work, at_work=False)) == ["cut_short"]


def test_while_a_run_is_at_work_looks_and_probes_speak():
    look = lambda number, kl, repeats: {"step": number, "sampled/kl_token": kl, "sampled/repetition": repeats}  # noqa: E731
    at_work = replace(
        HEALTHY, status="running", at_work=True, measures={}, evidence=[],
        looks=[look(1, 0.1, 0.05) | {"sampled/before/repetition": 0.04}, look(2, 0.9, 0.5), look(4, 1.5, 0.7)],
    )  # fmt: skip
    [found] = diagnoses(at_work)
    assert (found.cause, found.step) == ("learning_rate_too_high", 2)


def test_steps_after_the_checkpoint_that_became_the_policy_are_judged_by_looks():
    look = lambda number, kl, repeats: {"step": number, "sampled/kl_token": kl, "sampled/repetition": repeats}  # noqa: E731
    looks = [look(2, 0.1, 0.05), look(4, 1.5, 0.7)]
    assert named(replace(HEALTHY, looks=looks)) == []
    assert named(replace(HEALTHY, looks=looks, artefact_step=2)) == ["learning_rate_too_high"]


def test_where_every_gradient_is_0_no_higher_rate_is_advised():
    still = PLANTED["learning_rate_too_low"]
    steps = [row | {"grad_norm": 0.0} for row in still.steps]
    [found] = diagnoses(replace(still, steps=steps))
    assert "exactly 0 in all of 4 steps" in found.says
    assert "weights of 0" in found.do
    assert "1e-0" not in found.do
    [found] = diagnoses(replace(still, steps=[*steps[:-1], still.steps[-1]]))
    assert "learning_rate: 0.0001" in found.do


def test_a_tiny_change_within_its_interval_is_no_harm():
    few = Measure(PROMPTS[:3], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    assert named(with_measures(answers__unfinished=few)) == []


def test_what_looks_untuned_but_ends_its_answers_is_not():
    assert named(replace(PLANTED["never_tuned"], measures=HEALTHY.measures)) == []


def test_a_few_pairs_that_were_won_by_luck_do_not_say_that_more_than_length_is_known():
    lucky = PLANTED["length_only"]
    rows = [
        {**row, "rejected_num_tokens": 25.0} if at in range(40, 48) else row for at, row in enumerate(lucky.evidence)
    ]
    won = measure(0.5, [1.0] * 46 + [0.0] * 14)  # six of the eight where length misleads
    assert named(replace(lucky, evidence=rows, measures={**lucky.measures, "accuracy": won})) == ["length_only"]


def test_answers_that_came_to_be_one_are_a_collapse_whatever_their_entropy():
    one = {"answers__self_bleu": measure([0.1, 0.2] * 30, [0.8, 0.9] * 30)}
    assert named(with_measures(**one)) == ["collapse"]


def test_sides_that_are_nearly_the_same_are_displaced_and_not_broken_by_the_rate():
    broken = {"answers__repetition": measure(0.05, [0.2, 0.3] * 30)}
    displaced = with_measures(PLANTED["displacement"], **broken)
    assert named(displaced) == ["learning_rate_too_high"]
    alike = [(prompt, "they were all happy please", "they were all sad please") for prompt in PROMPTS]
    assert named(replace(displaced, texts=alike)) == ["displacement"]
    unspaced = [(prompt, "他们今天都很高兴 please", "他们今天都很伤心 please") for prompt in PROMPTS]
    assert named(replace(displaced, texts=unspaced)) == ["displacement"]


def test_what_had_been_learned_and_was_lost_is_not_shuffled():
    won = [probe(0, 0.693), probe(2, 0.6) | {"heldout/rewards/accuracies": 0.7}, probe(4, 0.9)]
    assert named(replace(PLANTED["shuffled_labels"], probes=won)) == []


def test_answers_that_have_no_room_to_end_say_nothing_of_ends():
    assert named(replace(PLANTED["eos_or_masks"], settings=replace(SETTINGS, max_new_tokens=12))) == []


def test_harm_that_came_with_the_passes_is_not_the_rate_s():
    late = replace(PLANTED["memorising"], measures=with_measures(**BROKEN).measures)
    assert named(late) == ["memorising"]


@pytest.mark.parametrize("num", [2, 3])
def test_two_or_three_held_out_pairs_that_are_all_lost_are_not_the_other_way_round(num):
    few = [f"prompt{index}" for index in range(num)]
    lost = Measure(few, [0.5] * num, [0.0] * num)
    ends = Measure(few, [0.0] * num, [1.0] * num)
    found = replace(HEALTHY, measures=HEALTHY.measures | {"accuracy": lost, "answers/unfinished": ends})
    assert set(named(found)) <= {"shuffled_labels"}  # which shows its interval, and says: no more than by chance
    texts = [(prompt, "no", "yes please") for prompt in few]
    assert named(replace(HEALTHY, texts=texts)) == []


def test_held_out_labels_that_are_turned_alone_are_swapped():
    worse = replace(with_measures(accuracy=measure(0.5, [0.0] * 50 + [1.0] * 10)), texts=())
    assert named(worse) == ["swapped_labels"]


def sides_of(*texts):
    sides = [texts[at % len(texts)].format(at) for at in range(2 * NUM)]
    return [(prompt, *sides[2 * at : 2 * at + 2]) for at, prompt in enumerate(PROMPTS)]


CUT = {
    "at so many characters": [(p, f"He saw {p} a b c d e"[:18], f"She {p} and they fell"[:18]) for p in PROMPTS],
    "in the next sentence": sides_of("Please sit down {}. Then we we", "He saw it and ran! Please wait {} so"),
    "where no spaces are": [(p, f"我{p}看见他坐在那里不走"[:12], f"她{p}说天气很好但是"[:12]) for p in PROMPTS],
    "at so many words": sides_of("please take number {} of the", "she was seeing {} other big"),
}
OPEN = {
    "titles": sides_of("Please Read Number {}", "The Long Way Home to Town {}", "Why {} Cats Sleep"),
    "labels": sides_of("please yes", "please no "),
    "titles without spaces": sides_of("第{}章回家的路", "猫为什么总是睡觉{}", "好书{}"),
    "labels without spaces": sides_of("好", "差"),
    "code": sides_of("return please{}", "x = please{} + 1", "for a in please: print(a) if a else {}"),
    "lists": sides_of("1. please {}\n2. it", "1. no\n2. perhaps\n3. never {}", "1. a {}"),
    "sentences": sides_of("Please sit down {}. Then wait.", "No {}."),
}


@pytest.mark.parametrize("how", CUT)
def test_completions_that_were_all_cut_off_are_asked_about(how):
    [found] = diagnoses(replace(HEALTHY, settings=replace(SETTINGS, rule=None), texts=CUT[how]))
    assert (found.cause, found.level) == ("eos_or_masks", "warning")
    assert "120 of 120 held-out completions stop without" in found.says


@pytest.mark.parametrize("how", OPEN)
def test_texts_that_have_no_full_stop_for_another_reason_are_not(how):
    assert named(replace(HEALTHY, settings=replace(SETTINGS, rule=None), texts=OPEN[how])) == []


def test_a_beta_ten_times_above_its_range_is_named_where_all_is_settled():
    settled = with_measures(logratio_gap=measure(0.0, [25.0, 28.0] * 30))
    [found] = diagnoses(replace(settled, settings=replace(SETTINGS, beta=Pull(5.0, 0.01, 0.5))))
    assert (found.cause, found.level) == ("beta_too_high", "warning")
    assert "held-out loss: 0.6930 before the first step, 0.6000 at the end" in found.evidence
    for beta in (0.1, 0.5, 4.0):
        assert named(replace(settled, settings=replace(SETTINGS, beta=Pull(beta, 0.01, 0.5)))) == []


def test_a_beta_ten_times_below_its_range_is_named_where_the_loss_does_not_feel_the_gap():
    apart = with_measures(logratio_gap=measure(0.0, [60.0, 70.0] * 30), margin=measure(0.0, [0.06, 0.07] * 30))
    [found] = diagnoses(replace(apart, settings=replace(SETTINGS, beta=Pull(0.001, 0.01, 0.5))))
    assert (found.cause, found.level) == ("beta_too_low", "warning")
    assert "65 nats apart, and the loss sees a margin of 0.065" in found.says
    assert named(replace(apart, settings=replace(SETTINGS, beta=Pull(0.005, 0.01, 0.5)))) == []
    assert named(replace(HEALTHY, settings=replace(SETTINGS, beta=Pull(0.001, 0.01, 0.5)))) == []


def test_a_warning_explains_no_fault():
    asks = Cause("asks", "Asks", "", "", "", lambda _: Finding("it may be", (), "do", level="warning"), ("effect",))
    effect = Cause("effect", "Effect", "", "", "", lambda _: Finding("it is so", (), "do"))
    assert [one.cause for one in diagnosed([asks, effect], Signals())] == ["asks", "effect"]


def test_displaced_pairs_are_said_to_win_only_where_they_do():
    [wins] = diagnoses(PLANTED["displacement"])
    assert wins.says.endswith("while they still win")
    assert any("held-out pairs are won in 75%" in told for told in wins.evidence)
    lost = with_measures(PLANTED["displacement"], accuracy=measure(0.5, [1.0] * 33 + [0.0] * 27))
    assert all("still win" not in one.says for one in diagnoses(lost))


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ([12.0, 13.0], "its answers went the same way, from 8 to 12.5 tokens"),
        ([5.0, 5.5], "it shows on pairs and not in its answers: these went the other way, from 8 to 5.25 tokens"),
        ([2.0, 14.5], "it shows on pairs and not in its answers: these went from 8 to 8.25 tokens, which may be luck"),
    ],
)
def test_a_preference_for_length_says_which_way_answers_went(after, says):
    [found] = diagnoses(with_measures(PLANTED["length_only"], answers__length=measure(8.0, after * 30)))
    assert says in found.evidence


def test_what_few_pairs_cannot_tell_is_said():
    assert unsettled(HEALTHY) is None
    assert unsettled(Signals()) is None
    few = [Measure(PROMPTS[:12], [0.0] * 12, after) for after in ([1.0, 0.0] * 6, [3.0, -3.0] * 6)]
    open_still = with_measures(accuracy=few[0], logratio_gap=few[1])
    assert named(open_still) == []
    told = unsettled(open_still)
    assert told is not None
    assert "12 held-out pairs cannot tell shuffled labels from learned ones: won in 50%" in told
    learned = [probe(0, 0.693), probe(4, 0.5) | {"heldout/rewards/accuracies": 0.9}]
    assert unsettled(replace(open_still, probes=learned)) is None
    both = with_measures(
        accuracy=Measure(PROMPTS[:2], [0.0] * 2, [1.0] * 2), logratio_gap=Measure(PROMPTS[:2], [0.0] * 2, [9.0] * 2)
    )
    assert "2 held-out pairs cannot tell" in str(unsettled(replace(both, probes=learned)))
    assert "4 answers cannot tell whether the policy went too far" in str(
        unsettled(with_measures(kl_token=Measure(PROMPTS[:4], [0.0] * 4, [0.1, 0.9, 0.2, 1.0])))
    )


def test_causes_that_another_explains_are_its_evidence():
    cause, effect = (
        Cause(name, name, "", "", "", lambda _: Finding("it is so", (), "do"), explains)
        for name, explains in (("cause", ("effect",)), ("effect", ()))
    )
    [found] = diagnosed([cause, effect], Signals())
    assert found.cause == "cause"
    assert found.evidence == ("effect: it is so",)


def _chain(explains):
    return [
        Cause(name, name, "", "", "", lambda _: Finding("it is so", (), "do"), effects)
        for name, effects in explains.items()
    ]


def test_what_effects_lead_to_is_evidence_of_the_cause_too():
    [found] = diagnosed(_chain({"last": (), "cause": ("effect",), "effect": ("last",)}), Signals())
    assert found.cause == "cause"
    assert found.evidence == ("last: it is so", "effect: it is so")


def test_something_is_named_wherever_anything_was_found():
    [found] = diagnosed(_chain({"one": ("two",), "two": ("three",), "three": ("one",)}), Signals())
    assert found.cause == "one"
    assert found.evidence == ("two: it is so", "three: it is so")


def test_no_cause_explains_itself_over_however_many_others():
    explains = {one.name: set(one.explains) for one in CAUSES}
    assert set().union(*explains.values()) <= set(explains)
    for name, effects in explains.items():
        reached = set(effects)
        while further := set().union(*(explains[effect] for effect in reached)) - reached:
            reached |= further
        assert name not in reached, name


def test_means_know_how_sure_they_are_by_prompt():
    mean = Mean.of([1.0, 1.0, 0.0, 0.0], ["a", "a", "b", "b"])
    alone = Mean.of([1.0, 1.0, 0.0, 0.0], ["a", "b", "c", "d"])
    assert mean is not None
    assert alone is not None
    assert mean.value == alone.value == 0.5
    assert mean.error == pytest.approx(0.5)
    assert alone.error == pytest.approx(math.sqrt(1 / 12))
    assert Mean.of([1.0, 2.0], ["a", "a"]) is None
    assert Mean.of([math.nan], ["a"]) is None


def test_losses_of_a_moving_scale_are_no_sign_of_memorising_and_lost_pairs_are():
    moving = replace(PLANTED["memorising"], settings=replace(SETTINGS, objective="beta_dpo", keeps_scale=False))
    rows = [{**row, "heldout/rewards/accuracies": 0.75} for row in moving.probes]
    assert "memorising" in named(PLANTED["memorising"])
    assert "memorising" not in named(with_rows(moving, [*moving.steps, *rows]))
    rows[-1]["heldout/rewards/accuracies"] = 0.1
    assert "memorising" in named(with_rows(moving, [*moving.steps, *rows]))
