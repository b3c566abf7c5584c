"""Toy objectives that tests share: what the table does not hold yet, and the seams have to carry."""

from __future__ import annotations

from torch.nn.functional import softplus

from tiebreak.maths.logps import Logps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import pair_metrics
from tiebreak.maths.objectives import Formula, Objective
from tiebreak.records import TokenizedPair


def centred(policy, reference, *, beta):
    """A toy whose examples depend on each other: each margin is compared with the mean margin of the step."""
    chosen, rejected = beta * (policy.chosen - reference.chosen), beta * (policy.rejected - reference.rejected)
    margins = chosen - rejected
    return Losses.of_pairs(softplus(margins.mean() - margins) + 0.1 * margins**2, chosen, rejected)


CENTRED = Objective(
    "centred",
    Formula(
        centred,
        learns_from=TokenizedPair,
        view=Logps.paired,
        metrics=pair_metrics,
        asks_reference=True,
        coupled=True,
        source="this test",
    ),
    {"beta": 0.3},
)
