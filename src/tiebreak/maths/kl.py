"""How far a policy is from its reference, estimated from what the policy itself says.

Owns the estimators. Pure: log-ratios of tokens that were drawn from the policy in, nats out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Kl:
    """KL(π ‖ π_ref) in nats, of a sequence and of a token, by two estimators that agree in the long run."""

    sequence: float
    """k1: the mean of log π − log π_ref over sequences. Without bias; of few sequences it may be negative."""
    sequence_k3: float
    """k3: π_ref/π − 1 − log(π_ref/π) of each token, summed. Without bias, too, never negative, and calmer near 0; far
    from the reference it is heavy-tailed."""
    token: float
    token_k3: float


def kl_of(logratios: Sequence[Floats]) -> Kl:
    """Return the KL by log π − log π_ref of each token of sequences that the policy drew at temperature 1.

    Schulman 2020, "Approximating KL divergence" (k1, k3). Given what stands before it, the mean of a token's k1, and
    of its k3, is the KL of its distribution, since E_π[π_ref/π] = 1; summed over a sequence, that of sequences. By
    token: all sums / all tokens. Raises ValueError where there is no token.
    """
    if not any(map(len, logratios)):
        raise ValueError("a KL is of at least one token")
    with np.errstate(over="ignore"):  # a token that the reference says far more often than it is drawn: infinite
        k1, k3 = ([float(np.sum(each(row))) for row in logratios] for each in (np.asarray, _k3))
    num = sum(map(len, logratios))
    return Kl(sum(k1) / len(k1), sum(k3) / len(k3), sum(k1) / num, sum(k3) / num)


def _k3(logratio: Floats) -> Floats:
    return np.expm1(-logratio) + logratio
