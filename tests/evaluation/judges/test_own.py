"""The data's own judge finds what was chosen, says how surely, and is not fooled by what it was never taught."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from judge_models import make_pairs
from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import DataError
from tiebreak.evaluation.judges import own
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.own import fit
from tiebreak.records import Message, Pair
from tiebreak.training.trained import load
from tiny import settings

DATA = DataConfig(max_length=200)


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(settings(tiny_model))


@pytest.fixture(scope="module")
def sides(loaded):
    renderer = loaded.policy.renderer(DATA)
    return [[renderer.pair(pair) for pair in make_pairs(num, seed)] for num, seed in ((60, 0), (40, 1))]


@pytest.fixture(scope="module")
def judge(loaded, sides):
    return fit(loaded.reference, *sides, data=DATA)


def asked(pairs: list[Pair], first=lambda pair: pair.chosen.content, second=lambda pair: pair.rejected.content):
    return [Question(Chat(pair.prompt), first(pair), second(pair)) for pair in pairs]


def test_it_prefers_what_was_chosen_on_prompts_it_was_not_fitted_on(judge):
    assert judge.agreement.mean > 0.7
    assert judge.agreement.low > 0.5
    assert judge.agreement.num == 40
    found = [one.first for one in judge.prefer(asked(make_pairs(40, 2)))]
    assert sum(found) / len(found) > 0.7


def test_the_order_of_answers_makes_no_difference(judge):
    questions = asked(make_pairs(12, 3))
    straight, turned = judge.prefer(questions), judge.prefer([question.turned() for question in questions])
    assert [one.first for one in straight] == [1 - one.first for one in turned]


def test_it_is_asked_as_the_pairs_were_rendered(judge, sides, loaded):
    # What it says of held-out texts is what it was calibrated with on their tokens.
    pairs = make_pairs(40, 1)
    found = np.mean([one.first for one in judge.prefer(asked(pairs))])
    assert found == pytest.approx(judge.agreement.mean)


def test_labels_that_mean_nothing_make_a_judge_that_refuses_itself(loaded, sides):
    draw = random.Random(5)

    def turned(pair):
        if draw.random() < 0.5:
            return pair
        return replace(pair, chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids)

    blind = fit(loaded.reference, *([turned(pair) for pair in side] for side in sides), data=DATA)
    assert not blind.is_usable
    assert blind.note.startswith(
        "it agrees with held-out labels no better than chance may (fitted on 60 training pairs"
    )
    assert f"agrees with {blind.agreement.mean:.1%}" in blind.note


def test_what_is_unlike_the_data_loses_and_two_of_them_tie(judge):
    [pair] = make_pairs(1, 4)
    sound, dashes, loop = pair.chosen.content, "-" * 60, "the cat sat. " * 20
    for damaged in (dashes, loop, "\U0001f600" * 40, "", "   "):
        [one] = judge.prefer([Question(Chat(pair.prompt), damaged, sound)])
        assert one.first == 0.0, (damaged, one)
    [tie] = judge.prefer([Question(Chat(pair.prompt), dashes, loop)])
    assert tie.first == 0.5
    assert "the first" in tie.says and "the second goes round in circles" in tie.says


def test_its_note_says_who_it_is_and_leaves_to_others_what_they_say_of_every_judge(judge):
    assert judge.note.startswith("the data's own judge, fitted on 60 training pairs; of 128 answers damaged on purpose")
    assert "weak evidence" not in judge.note
    assert "agrees" not in judge.note


def test_a_judge_that_is_fooled_refuses_itself(judge):
    sure = replace(judge.calibration, agreement=replace(judge.agreement, mean=0.9, low=0.8, high=0.95))
    fooled = replace(sure, fooled={"one": 0.04, "two": 0.07})
    by_one = replace(sure, fooled={"one": 0.3} | {str(n): 0.0 for n in range(9)})
    clean = replace(sure, fooled={"one": 0.04, "two": 0.0})
    assert fooled.refusal == "it is fooled by damaged answers"
    assert "one kind of damaged answers (one: 30%)" in by_one.refusal
    assert clean.refusal is None


def test_the_same_pairs_and_weights_give_the_same_judge(judge, loaded, sides):
    again = fit(loaded.reference, *sides, data=DATA)
    questions = asked(make_pairs(10, 6))
    assert again.identity == judge.identity
    assert again.prefer(questions) == judge.prefer(questions)
    assert again.calibration == judge.calibration
    assert fit(loaded.reference, sides[0][:50], sides[1], data=DATA).identity != judge.identity


def test_it_looks_at_the_reference_whatever_the_policy_has_become(tiny_model, sides):
    import torch

    moved = load(settings(tiny_model))
    before = fit(moved.reference, *sides, data=DATA)
    questions = asked(make_pairs(10, 6))
    told = before.prefer(questions)
    with torch.no_grad():
        for name, weight in moved.policy.network.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    assert before.prefer(questions) == told


def test_what_does_not_fit_is_no_verdict(judge):
    [pair] = make_pairs(1, 4)
    [found] = judge.prefer([Question(Chat(pair.prompt), "the cat sat " * 200, "the dog ran")])
    assert found.first is None
    assert found.says.startswith("too_long: ") and "more than" in found.says


def test_it_is_told_as_it_goes(judge):
    told = {}
    found = judge.prefer(asked(make_pairs(40, 2)), told.update)
    assert [told[place] for place in range(40)] == found


def test_too_few_pairs_are_no_judge(loaded, sides):
    with pytest.raises(DataError, match="60 training pairs and 5 held-out pairs; wanted at least 20 of each"):
        fit(loaded.reference, sides[0], sides[1][:5], data=DATA)


def test_no_more_is_read_than_the_budget_allows(loaded, sides, monkeypatch):
    monkeypatch.setattr(own, "TRAIN_TOKENS", 1500)
    assert 20 <= fit(loaded.reference, *sides, data=DATA).calibration.num_train < 60


def test_a_model_with_few_positions_is_asked_for_none_beyond(tiny_gpt):
    few = load(settings(tiny_gpt))
    renderer = few.policy.renderer(DATA)
    short = [replace(pair, chosen=Message("assistant", pair.chosen.content[:20] + ".")) for pair in make_pairs(50, 7)]
    short = [replace(pair, rejected=Message("assistant", pair.rejected.content[:16] + "?")) for pair in short]
    rendered = [renderer.pair(pair) for pair in short]
    found = fit(few.reference, rendered[:25], rendered[25:], data=DATA)
    assert found.calibration.num_damaged > 0
