"""What policy and reference say about examples, as far as an objective asks.

Owns how both are asked: each for itself, or, where whole distributions are compared, the policy against what the
reference says now of all that could stand in the place of each token.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Asked, asked_now
from tiebreak.maths.logps import TokenLogps
from tiebreak.maths.objectives import Objective
from tiebreak.records import Example


def compared(
    policy: Model, reference: Asked, objective: Objective, examples: Sequence[Example], *, afresh: bool = False
) -> tuple[TokenLogps, TokenLogps | None]:
    """Return what the policy says, and what the reference says without a gradient; None where it is not asked.

    `afresh`, nothing is taken from what a reference has stored. Of whole distributions a chunk of logits of both is
    held at a time, and of the reference its states.
    """
    if objective.asks_distributions:
        with reference.model() as frozen:
            theirs = frozen.whole(examples)
        # Only now: both may be one network, whose adapter is off while the reference is asked.
        return policy.score(examples, objective.beside, theirs), theirs.tokens
    told = None
    if objective.asks_reference:
        ask = functools.partial(asked_now, reference) if afresh else reference.logps
        told = ask(examples, objective.beside_reference)
    return policy.score(examples, objective.beside), told
