"""An objective in a notebook: numbers in, what training would say of them out."""

from __future__ import annotations

import math

import pytest
import torch

import tiebreak
from preferences import ORACLES
from tiebreak.errors import ConfigError

PAIR = {
    "w": -6.0,
    "l": -9.0,
    "rw": -7.0,
    "rl": -8.0,
    "nw": 3,
    "nl": 2,
    "margin": 1.5,
    "soft": 0.8,
    "pw": 0.9,
    "pl": 0.2,
    "z": 0.7,
    "kw": 0.4,
    "kl": 1.1,
    "hw": 0.3,
    "hl": 0.05,
}
SAID = {
    "soft_labels": [0.8], "margins": [1.5], "chosen_win_rates": [0.9], "rejected_win_rates": [0.2],
}  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_it_is_the_formula_of_training(name):
    made = tiebreak.objective(name)
    said = {"baseline": 0.7} if made.objective.formula.asks_baseline else {}
    if made.objective.asks_distributions:
        said |= {"chosen_divergences": [0.4], "rejected_divergences": [1.1]}
    if made.objective.formula.asks_entropy:
        said |= {"chosen_entropies": [0.3], "rejected_entropies": [0.05]}
    said |= {key: value for key, value in SAID.items() if key.removesuffix("s") in made.objective.facts}
    found = made([-6.0], [-9.0], [-7.0], [-8.0], chosen_num_tokens=[3], rejected_num_tokens=[2], **said)
    assert found.mean.item() == pytest.approx(ORACLES[name]([PAIR], **made.objective.settings), rel=1e-12)
    assert found.mean.item() == pytest.approx(found.losses.mean().item())
    assert made.formula.endswith(".")


def test_tokens_count_themselves_and_add_up():
    by_token = tiebreak.objective("simpo")([[-1.0, -2.0, -3.0]], [[-4.0, -5.0]])
    summed = tiebreak.objective("simpo")([-6.0], [-9.0], chosen_num_tokens=[3], rejected_num_tokens=[2])
    assert by_token.losses.tolist() == summed.losses.tolist()
    assert by_token.chosen_rewards.tolist() == [2.0 * -2.0]


def test_tensors_keep_their_graph_and_weights_multiply():
    chosen = torch.tensor([-3.0, -5.0], requires_grad=True)
    found = tiebreak.objective("dpo", beta=1.0)(
        chosen, torch.tensor([-4.0, -4.0]), torch.tensor([-3.0, -5.0]), torch.tensor([-4.0, -4.0]), weights=[1.0, 3.0]
    )
    found.mean.backward()
    assert found.mean.item() == pytest.approx((1 + 3) * math.log(2) / 2)
    assert chosen.grad.tolist() == pytest.approx([-0.25, -0.75])


WRONG = {
    "lengths that it divides by": (("simpo", [-1.0], [-2.0]), "reads how many tokens a completion has"),
    "a reference": (("dpo", [-1.0], [-2.0]), "compares with a reference, and none was given"),
    "one side of a reference": (("dpo", [-1.0], [-2.0], [-1.0]), "the reference says: given of chosen alone"),
    "one side of what is not read": (("simpo", [[-1.0]], [[-2.0]], None, [[-1.0]]), "given of rejected alone"),
    "margins": (("odpo", [-1.0], [-2.0], [-1.0], [-2.0]), "reads margins, and none were given"),
    "a partner": (("slic", [-1.0, -2.0], [-2.0]), "2 chosen and 1 rejected completions are no pairs"),
    "anything": (("slic", [], []), "0 chosen and 0 rejected completions are no pairs"),
    "lengths whose difference it reads": (("r_dpo", [-1.0], [-2.0], [-1.0], [-2.0]), "reads how many tokens"),
    "lengths that its rewards divide by": (("sft", [-1.0], [-2.0]), "reads how many tokens"),
    "the same of every completion": (("slic", [[-1.0], -2.0], [[-1.0], -2.0]), "give either of all"),
    "how far distributions are": (("tdpo1", [-1.0], [-2.0], [-1.0], [-2.0]), "no divergence of them was given"),
    "how open it was": (("mallows", [-1.0], [-2.0], [-1.0], [-2.0]), "reads the reference's entropy, and none was"),
    "a baseline": (("kto", [-1.0], [-2.0], [-1.0], [-2.0]), "kto reads a baseline: give one"),
    "any completion": (("kto", [], [], [], []), "no completion is given"),
    "a log-probability and not a probability": (("slic", [0.4], [-2.0]), "of the policy is above 0 or no number"),
    "a number": (("dpo", [-1.0], [-2.0], [math.nan], [-2.0]), "of the reference is above 0 or no number"),
    "as many of the reference": (("dpo", [-1.0], [-2.0], [-1.0] * 2, [-2.0] * 2), "of the same completions"),
    "tokens of both sides": (("slic", [[-1.0, -2.0]], [-1.0]), "give either of all"),
    "a token": (("slic", [[]], [[-1.0]]), "at least one token"),
    "tokens of one number each": (("slic", torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)), "each token one number"),
    "a log-probability of every token": (("slic", [[-3.0, 2.0]], [[-1.0]]), "of the policy is above 0 or no number"),
    "the same tokens of the reference": (
        ("dpo", [[-1.0]], [[-2.0, -1.0]], [[-1.0, -1.0]], [[-2.0, -1.0]]),
        "the policy has 1 tokens and the reference 2",
    ),
}


@pytest.mark.parametrize(("given", "told"), WRONG.values(), ids=WRONG)
def test_what_is_missing_is_named(given, told):
    name, *numbers = given
    with pytest.raises(ValueError, match=told):
        tiebreak.objective(name)(*numbers)


def test_a_table_of_tokens_is_its_rows_and_numbers_of_tensors_are_numbers():
    chosen, rejected = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]]), torch.tensor([[-2.0, -2.0], [-1.0, -1.0]])
    found = tiebreak.objective("simpo")(chosen, rejected)
    listed = tiebreak.objective("simpo")(chosen.tolist(), rejected.tolist()).losses  # in float64
    assert found.losses.tolist() == pytest.approx(listed.tolist(), rel=1e-6)
    loose = tiebreak.objective("slic")(
        [torch.tensor(-3.0), torch.tensor(-4.0)], [torch.tensor(-4.0), torch.tensor(-2.0)]
    )
    listed = tiebreak.objective("slic")([-3.0, -4.0], [-4.0, -2.0]).losses
    assert loose.losses.tolist() == pytest.approx(listed.tolist(), rel=1e-6)


@pytest.mark.parametrize("said", [{"margins": [3.0]}, {"weights": [1.0, 2.0, 3.0]}])
def test_numbers_of_other_pairs_are_refused(said):
    with pytest.raises(ValueError, match="numbers are given for 2 examples"):
        tiebreak.objective("rpo_square")(
            [-1.0, -2.0], [-2.0, -2.0], [-1.0, -1.0], [-1.0, -1.0], **{"margins": [1.0, 1.0]} | said
        )


def test_names_and_settings_are_those_of_a_configuration():
    assert tiebreak.objective("sigmoid").objective.name == "dpo"
    assert tiebreak.objective("bco_pair").objective.settings == {"beta": 0.1, "delta": 0.0}
    for settings, told in (
        ({"name": "rpo"}, "four papers are called so"),
        ({"name": "sft", "beta": 0.1}, "sft does not read beta, which is of dpo, "),
        ({"name": "robust", "label_smoothing": 0.5}, "less than 0.5"),
        ({"name": "exo", "label_smoothing": 0.0}, "greater than 0"),
        ({"name": "alphapo", "alpha": 0.0}, "at 0 it is simpo"),
    ):
        with pytest.raises(ConfigError, match=told):
            tiebreak.objective(**settings)


# --------------------------------------------------------------------------------------------------- tokens of a length


def test_tokens_beyond_the_shorter_completion_count_less_on_both_sides():
    """Liu et al. 2024: log π of the first n tokens, and α times the rest; policy and reference alike."""
    said = {"chosen": [[-1.0, -2.0, -4.0]], "rejected": [[-3.0, -1.0]]}
    reference = [[[-1.5, -1.0, -2.0]], [[-2.0, -2.0]]]
    found = tiebreak.objective("dpo", beta=0.5, length_desensitised=0.25)(*said.values(), *reference)
    gap = ((-1 - 2 - 0.25 * 4) - (-1.5 - 1 - 0.25 * 2)) - ((-3 - 1) - (-2 - 2))
    assert found.losses.tolist() == pytest.approx([math.log1p(math.exp(-0.5 * gap))])
    whole = tiebreak.objective("dpo", beta=0.5)(*said.values(), *reference)
    assert (
        tiebreak.objective("dpo", beta=0.5, length_desensitised=1.0)(*said.values(), *reference).losses == whole.losses
    )
    same = tiebreak.objective("dpo", length_desensitised=0.25)(*said.values(), *said.values())
    assert same.losses.tolist() == pytest.approx([math.log(2)])  # only so, with the reference seen alike


def test_sums_know_no_tokens_and_losses_of_means_take_no_weights_of_them():
    with pytest.raises(ValueError, match="give log-probabilities of every token"):
        tiebreak.objective("dpo", length_desensitised=0.5)([-1.0], [-2.0], [-1.0], [-2.0])
    for name in ("dpo_norm", "simpo", "ipo", "aot", "sft"):
        with pytest.raises(ConfigError, match=f"{name} does not read length_desensitised, which is of dpo, robust"):
            tiebreak.objective(name, length_desensitised=0.5)


def test_completions_on_their_own_need_not_be_as_many_of_each_verdict():
    found = tiebreak.objective("kto", beta=1.0, undesirable_weight=2.0)(
        [-1.0, -2.0, -3.0], [-5.0], [-1.0, -3.0, -3.0], [-4.0], baseline=0.5
    )
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    expected = [1 - sigmoid(0 - 0.5), 1 - sigmoid(1 - 0.5), 1 - sigmoid(0 - 0.5), 2 * (1 - sigmoid(0.5 + 1))]
    assert found.losses.tolist() == pytest.approx(expected)
    assert (found.chosen_rewards.tolist(), found.rejected_rewards.tolist()) == ([0.0, 1.0, 0.0], [-1.0])
    # δ is half-way between the mean of good ones and that of bad ones, and not the mean of all.
    found = tiebreak.objective("bco_unpaired", beta=1.0)([-1.0, -2.0, -3.0], [-5.0], [-1.0, -3.0, -3.0], [-4.0])
    delta = (1 / 3 - 1) / 2
    assert found.losses[0].item() == pytest.approx(-math.log(sigmoid(-delta)))
    assert found.losses[3].item() == pytest.approx(-math.log(sigmoid(delta + 1)))


def test_a_baseline_that_nobody_reads_is_refused():
    with pytest.raises(ValueError, match="dpo reads no baseline"):
        tiebreak.objective("dpo")([-1.0], [-2.0], [-1.0], [-2.0], baseline=0.1)


def test_bad_completions_of_the_reference_are_no_good_ones():
    with pytest.raises(ValueError, match="of the same completions"):
        tiebreak.objective("kto")([-1.0, -2.0], [-3.0], [-1.0], [-2.0, -3.0], baseline=0.0)


def test_tokens_of_good_completions_alone_are_theirs():
    good, none = [[-1.0, -2.0], [-4.0]], []
    found = tiebreak.objective("kto")(good, none, [[-1.5, -2.0], [-3.0]], none, baseline=0.0)
    summed = tiebreak.objective("kto")([-3.0, -4.0], none, [-3.5, -3.0], none, baseline=0.0)
    assert found.losses.tolist() == summed.losses.tolist()


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (([2], [2]), "says 2 where log-probabilities of 3 tokens are given: leave padding out"),
        (([3, 3], [3, 3]), "2 numbers are given for 1 completions"),
        ((torch.tensor([2.5]), [3]), "a whole number of them"),
        ((torch.tensor([math.inf]), [3]), "a whole number of them"),
        (([3], None), "numbers of tokens: given of chosen alone"),
    ],
)
def test_numbers_of_tokens_are_those_of_the_rows(counts, told):
    padded = torch.tensor([[-3.0, -2.0, 0.0]])
    asked = tiebreak.objective("simpo")
    with pytest.raises(ValueError, match=told):
        asked(padded, padded, chosen_num_tokens=counts[0], rejected_num_tokens=counts[1])
    assert asked(padded, padded, chosen_num_tokens=[3], rejected_num_tokens=[3]).losses == asked(padded, padded).losses


OUTSIDE = {
    "a margin that has no logarithm": (("odpo", {}), {"margins": [0.0]}, "each is above 0"),
    "a margin that is no number": (("rpo_square", {}), {"margins": [math.nan]}, "a margin is a finite number"),
    "an endless weight": (("dpo", {}), {"weights": [math.inf]}, "a weight is at least 0, and finite"),
    "entropies without a reference": (
        ("dpo", {}), {"chosen_entropies": [0.1], "rejected_entropies": [0.1]}, "dpo does not read entropies"),
    "entropies of one side": (("mallows", {}), {"chosen_entropies": [0.1]}, "entropies: given of chosen alone"),
    "a confidence that is no number": (
        ("dpo", {"confidence_weights": "raw"}),
        {"chosen_confidences": [math.nan], "rejected_confidences": [0.0]}, "confidences are finite"),
    "a soft label above 1": (
        ("dpo", {"soft_labels": True}),
        {"soft_labels": [2.0]},
        "a soft label lies between 0 and 1",
    ),
    "a soft label that nobody reads": (("dpo", {}), {"soft_labels": [0.5]}, "dpo does not read soft_labels"),
    "margins that nobody reads": (("dpo", {}), {"margins": [0.5]}, "dpo does not read margins"),
    "a weight below 0": (("dpo", {}), {"weights": [-1.0]}, "a weight is at least 0"),
    "a baseline below 0": (("kto", {}), {"baseline": -1.0}, "a baseline is at least 0"),
    "weights where pairs are of one loss": (("aot", {}), {"weights": [1.0]}, "aot does not read weights"),
    "confidences that nobody reads": (
        ("dpo", {}), {"chosen_confidences": [1.0], "rejected_confidences": [1.0]}, "dpo does not read confidences"),
    "divergences that nobody reads": (
        ("dpo", {}), {"chosen_divergences": [1.0], "rejected_divergences": [1.0]}, "dpo does not read divergences"),
    "a divergence below 0": (
        ("tdpo1", {}), {"chosen_divergences": [-1.0], "rejected_divergences": [1.0]}, "divergences are at least 0"),
    "an entropy above 1": (
        ("mallows", {}), {"chosen_entropies": [2.0], "rejected_entropies": [0.1]}, "at least 0 and at most 1"),
    "no tokens": (("dpo_norm", {}), {"chosen_num_tokens": [0], "rejected_num_tokens": [1]}, "at least one token"),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "given", "told"), OUTSIDE.values(), ids=OUTSIDE)
def test_what_cannot_be_or_is_not_read_is_refused(asked, given, told):
    name, settings = asked
    with pytest.raises(ValueError, match=told):
        tiebreak.objective(name, **settings)([-1.0], [-2.0], [-1.0], [-2.0], **given)


def test_demonstrations_have_no_bad_side():
    found = tiebreak.objective("sft_unpaired")([-3.0, -8.0], [], chosen_num_tokens=[3, 4], rejected_num_tokens=[])
    assert found.losses.tolist() == [1.0, 2.0]
    assert len(found.rejected_rewards) == 0
