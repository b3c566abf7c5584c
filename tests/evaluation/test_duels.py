"""Held-out completions on their own, good against bad: who meets whom, and what is measured on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.config.losses import SECTIONS
from tiebreak.errors import DataError
from tiebreak.evaluation.duels import duels, mismatches
from tiebreak.evaluation.kept import KeptRows
from tiebreak.evaluation.thumbs import held_out
from tiebreak.maths.objectives import Objective
from tiebreak.maths.stats import clustered_share
from tiebreak.records import TokenizedThumb
from tiny import disturb, load, settings, token_thumbs


def thumb(prompt: int, number: int, liked: bool) -> TokenizedThumb:
    return TokenizedThumb(f"{number:064x}", f"prompt{prompt}", (1,), (2, number), liked)


drawn = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20).map(
    lambda told: [thumb(prompt, number, liked) for number, (prompt, liked) in enumerate(told)]
)


@given(drawn)
def test_every_completion_takes_part_good_against_bad_and_clusters_share_no_prompt(thumbs):
    found = duels(thumbs)
    if len({one.liked for one in thumbs}) < 2:
        assert not found
        return
    assert all(duel.good.liked and not duel.bad.liked for duel in found)
    assert {one.example_id for duel in found for one in (duel.good, duel.bad)} == {one.example_id for one in thumbs}
    cluster = {}
    for duel in found:
        for one in (duel.good, duel.bad):
            assert cluster.setdefault(one.prompt_id, duel.cluster) == duel.cluster
    assert len(found) <= 2 * len(thumbs)


@given(drawn, st.randoms())
def test_their_order_in_the_file_is_no_matter(thumbs, draw):
    shuffled = draw.sample(thumbs, len(thumbs))
    assert duels(shuffled) == duels(thumbs)


def test_completions_of_one_prompt_meet_each_other_first():
    thumbs = [thumb(0, 1, True), thumb(0, 2, False), thumb(1, 3, True), thumb(2, 4, False)]
    assert {(duel.good.prompt_id, duel.bad.prompt_id) for duel in duels(thumbs)} == {
        ("prompt0", "prompt0"),
        ("prompt1", "prompt2"),
    }


def test_an_interval_over_duels_covers_the_truth_as_often_as_it_says():
    """400 held-out sets with 45 good and 15 bad completions, whose rewards are drawn with a known share in order."""
    draw, covered = np.random.default_rng(0), 0
    thumbs = [thumb(number, number, number < 45) for number in range(60)]
    made = duels(thumbs)
    truth = 0.7602  # Φ(1/√2): rewards are normal, those of good ones one deviation higher
    for seed in range(400):
        reward = draw.normal(size=60) + np.array([one.liked for one in thumbs])
        of = {one.example_id: value for one, value in zip(thumbs, reward, strict=True)}
        wins = [float(of[duel.good.example_id] > of[duel.bad.example_id]) for duel in made]
        found = clustered_share(wins, [duel.cluster for duel in made], seed)
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 400 <= 0.98  # 15 clusters: a percentile interval is a little narrow


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return disturb(load(settings(tiny_model)))


THUMBS = token_thumbs(30, num_prompts=18, seed=3)


@pytest.mark.parametrize("name", ["kto", "bco_unpaired", "apo_zero_unpaired"])
def test_evidence_is_what_policy_and_reference_say_of_both(name, loaded, tmp_path):
    objective = Objective.of(SECTIONS[name](beta=0.3))
    one = held_out(loaded.policy, loaded.reference, objective, THUMBS, loaded.budget.cut)
    rows = one.evidence()
    made = duels(THUMBS)
    assert [row.prompt_id for row in rows] == [duel.cluster for duel in made]
    for row, duel in zip(rows, made, strict=True):
        with torch.no_grad():
            said = [float(loaded.policy.score([side]).values.sum()) for side in (duel.good, duel.bad)]
            frozen = [float(loaded.reference.logps([side]).values.sum()) for side in (duel.good, duel.bad)]
        assert [row.policy_chosen_logps, row.policy_rejected_logps] == pytest.approx(said, abs=1e-4)
        assert [row.reference_chosen_logps, row.reference_rejected_logps] == pytest.approx(frozen, abs=1e-4)
        assert row.margin == pytest.approx(0.3 * ((said[0] - frozen[0]) - (said[1] - frozen[1])), abs=1e-4)
        assert row.win == float(row.margin > 0)
        assert row.margin_at_start == 0
    # Killed on the way, it goes on with what was kept, to the same numbers.
    kept = KeptRows(tmp_path / "kept.jsonl")
    assert one.evidence(kept=kept) == rows == one.evidence(kept=KeptRows(tmp_path / "kept.jsonl"))
    some = one.evidence(5)
    assert [row.pair_id for row in some] == [row.pair_id for row in rows[:5]]
    assert [row.margin for row in some] == pytest.approx([row.margin for row in rows[:5]], abs=1e-4)


def test_a_policy_that_is_its_reference_has_the_loss_of_the_start(tiny_model):
    one = load(settings(tiny_model))
    objective = Objective.of(SECTIONS["kto"]())
    rows = held_out(one.policy, one.reference, objective, THUMBS, one.budget.cut).evidence()
    assert [row.loss for row in rows] == pytest.approx([0.5] * len(rows), abs=1e-6)
    assert [row.loss_at_start for row in rows] == [0.5] * len(rows)
    assert Counter(row.win for row in rows) == {0.5: len(rows)}


def test_pairs_are_measured_as_pairs(loaded):
    from tiebreak.evaluation.heldout import HeldoutPairs

    objective = Objective.of(SECTIONS["dpo"]())
    assert isinstance(held_out(loaded.policy, loaded.reference, objective, [], loaded.budget.cut), HeldoutPairs)


def test_a_demonstration_is_held_against_a_completion_of_another_prompt(loaded):
    shown = [replace(one, liked=True) for one in THUMBS]
    made = mismatches(shown)
    assert [duel.good.example_id for duel in made] == [
        one.example_id for one in sorted(shown, key=lambda one: (one.prompt_id, one.example_id))
    ]
    for duel in made:
        assert duel.bad.prompt_ids == duel.good.prompt_ids
        assert duel.bad.completion_ids != duel.good.completion_ids
    assert mismatches([thumb(0, 1, True), thumb(0, 2, True)]) == []
    objective = Objective.of(SECTIONS["sft_unpaired"]())
    rows = held_out(loaded.policy, loaded.reference, objective, shown, loaded.budget.cut).evidence()
    for row, duel in zip(rows, made, strict=True):
        with torch.no_grad():
            said = float(loaded.policy.score([duel.good]).values.sum())
        assert row.loss == pytest.approx(-said / len(duel.good.completion_ids), abs=1e-5)
        gained = (
            row.policy_chosen_logps - row.reference_chosen_logps,
            row.policy_rejected_logps - row.reference_rejected_logps,
        )
        assert row.margin == pytest.approx(gained[0] - gained[1], abs=1e-3)


ALONE = {
    "good ones alone for kto": ("kto", [replace(one, liked=True) for one in THUMBS]),
    "one prompt": ("kto", [replace(one, prompt_id="p", prompt_ids=(5,)) for one in THUMBS]),
    "one demonstration": ("sft_unpaired", [replace(THUMBS[0], liked=True)]),
    "nothing": ("apo_zero_unpaired", []),
}


@pytest.mark.parametrize(("name", "thumbs"), ALONE.values(), ids=ALONE)
def test_what_cannot_be_held_against_anything_is_one_line(name, thumbs, loaded):
    with pytest.raises(DataError, match="the held-out completions have no such"):
        held_out(loaded.policy, loaded.reference, Objective.of(SECTIONS[name]()), thumbs, loaded.budget.cut)


def test_a_few_duels_of_one_prompt_are_measured_with_the_baseline_of_all(loaded):
    thumbs = [replace(one, prompt_id="a" if at < 6 else f"b{at}") for at, one in enumerate(THUMBS)]
    kto = Objective.of(SECTIONS["kto"]())
    assert len(held_out(loaded.policy, loaded.reference, kto, thumbs, loaded.budget.cut).evidence(1)) == 1
