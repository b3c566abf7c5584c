from __future__ import annotations

import pytest
import torch

import oracles
from tiebreak.maths.logps import Logps
from tiebreak.maths.metrics import Metrics, pair_metrics, wins
from tiny import dpo, logps

POLICY = ([-10.0, -7.0, -3.0, -20.0, -1.0], [-11.0, -7.0, -1.0, -18.0, -6.0])
REFERENCE = ([-12.0, -7.0, -2.0, -19.0, -4.0], [-10.0, -7.0, -2.0, -17.0, -2.0])
BETA = 0.25


def _metrics():
    sums = torch.tensor([number for pair in zip(*POLICY, strict=True) for number in pair], dtype=torch.float64)
    policy = Logps(sums.requires_grad_(), torch.ones(len(sums), dtype=torch.long))
    return pair_metrics(dpo(policy.paired(), logps(*REFERENCE), beta=BETA, label_smoothing=0.0), policy)


def test_each_column_is_what_its_name_says():
    rows = zip(*POLICY, *REFERENCE, strict=True)
    for found, (chosen, rejected, ref_chosen, ref_rejected) in zip(_metrics().values.tolist(), rows, strict=True):
        rewards = [oracles.implicit_reward(*both, BETA) for both in ((chosen, ref_chosen), (rejected, ref_rejected))]
        margin = rewards[0] - rewards[1]
        expected = {
            "loss": oracles.dpo_loss(chosen, rejected, ref_chosen, ref_rejected, BETA),
            "rewards/chosen": rewards[0],
            "rewards/rejected": rewards[1],
            "rewards/margins": margin,
            "rewards/accuracies": oracles.accuracy([margin]),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        assert dict(zip(_metrics().names, found, strict=True)) == pytest.approx(expected, rel=1e-6)


def test_means_count_a_tie_as_one_half():
    margins = [BETA * (pc - rc - pr + rr) for pc, pr, rc, rr in zip(*POLICY, *REFERENCE, strict=True)]
    assert 0.0 in margins
    means = _metrics().means()
    assert means["rewards/accuracies"] == pytest.approx(oracles.accuracy(margins))
    assert means["rewards/margins"] == pytest.approx(sum(margins) / len(margins))


def test_wins_know_three_outcomes():
    assert wins(torch.tensor([2.0, -1e-30, 0.0, -0.0, 1e-30])).tolist() == [1.0, 0.0, 0.5, 0.5, 1.0]


def test_micro_batches_of_unequal_size_weigh_by_their_pairs():
    whole = _metrics()
    parts = [Metrics(whole.names, whole.values[:1]), Metrics(whole.names, whole.values[1:])]
    assert Metrics.concatenated(parts).means() == whole.means()


def test_metrics_hold_no_graph():
    assert not _metrics().values.requires_grad


def test_a_metric_is_had_by_its_name():
    found = _metrics()
    assert torch.equal(found["rewards/margins"], found["rewards/chosen"] - found["rewards/rejected"])
