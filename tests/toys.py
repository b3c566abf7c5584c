"""Toy objectives that tests share: what the table does not hold yet, and the seams have to carry."""

from __future__ import annotations

from torch.nn.functional import softplus

from tiebreak.maths.losses import Losses
from tiebreak.maths.objectives import Formula, Objective


def centred(pairs, *, beta):
    """A toy whose examples depend on each other: each margin is compared with the mean margin of the step."""
    chosen, rejected = beta * pairs.chosen.ratio, beta * pairs.rejected.ratio
    margins = chosen - rejected
    return Losses.of_pairs(softplus(margins.mean() - margins) + 0.1 * margins**2, chosen, rejected)


NEVER = Formula(centred, "this test", "never", "nothing", is_coupled=lambda _: True)
CENTRED = Objective("centred", NEVER, {"beta": 0.3})
