"""What is compared with TRL 1.16, and what it means by the same name otherwise.

Imports nothing of TRL: the tests of this folder run these, and docs/objectives.md says what they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of ours beside those of one of TRL's trainers, from the same weights over the same examples."""

    loss: Mapping[str, Any]
    num: int = 3
    added: float = 0.0
    """What TRL adds to every loss (to that of every good completion), without a gradient."""
    note: str = ""


OF_DPO = {
    "dpo": Steps({"name": "dpo", "beta": 0.3}, 20),
    "dpo_norm": Steps({"name": "dpo_norm", "beta": 2.0}, 20),
    "ipo": Steps({"name": "ipo", "tau": 0.5}, 20, note="by mean, as TRL has it"),
    "hinge": Steps({"name": "hinge", "beta": 0.3}),
    "robust": Steps({"name": "robust", "beta": 0.3, "label_smoothing": 0.2}),
    "exo": Steps({"name": "exo", "beta": 0.3, "label_smoothing": 0.01}),
    "nca": Steps({"name": "nca", "beta": 0.3}),
    # Since 0.29 TRL's bco_pair has no δ, which belongs to the loss (Jung et al. 2024): 0 is its meaning.
    "bco": Steps({"name": "bco_pair", "beta": 0.3}, note="δ 0: TRL has no other since 0.29"),
    "sppo_hard": Steps({"name": "sppo_hard", "beta": 0.3}),
    "aot": Steps({"name": "aot", "beta": 0.3}),
    "aot, smoothed": Steps({"name": "aot", "beta": 0.3, "label_smoothing": 0.2}),
    "aot_unpaired": Steps({"name": "aot_unpaired", "beta": 0.3}),
    # Eqs. 7 and 8 have no constant.
    "apo_zero": Steps({"name": "apo_zero", "beta": 0.3}, added=1.0),
    "apo_down": Steps({"name": "apo_down", "beta": 0.3}, added=1.0),
    "discopop": Steps({"name": "discopop", "beta": 0.3}),
    "dpo, confident": Steps(
        {"name": "dpo", "beta": 0.3, "confidence_weights": "raw"}, note="weights not clamped since 0.29"
    ),
    "dpo under js": Steps({"name": "dpo", "beta": 0.3, "divergence": "js"}),
    "hinge under forward_kl": Steps({"name": "hinge", "beta": 0.3, "divergence": "forward_kl"}),
    "exo under alpha": Steps(
        {"name": "exo", "beta": 0.3, "divergence": "alpha", "divergence_alpha": 0.7},
        note="its coefficient is 1 − α since 0.29",
    ),
}
"""Of DPOTrainer. Its micro-batch is the whole step: what is sorted over a step, TRL sorts over a micro-batch."""
OF_KTO = {
    "kto": Steps({"name": "kto", "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}, 20),
    "apo_zero_unpaired": Steps({"name": "apo_zero_unpaired", "beta": 0.3}, 20, added=1.0),
}
"""Of KTOTrainer."""
OF_FUNCTIONS = {
    "simpo": ({"beta": 2.0, "gamma": 1.2}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.2}),
    "alphapo": (
        {"beta": 2.0, "gamma": 0.1, "alpha": 0.4},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.1, "alpha": 0.4},
    ),
}
"""Settings, and what CPOTrainer's function of means is told: it takes log-probabilities, and needs no model."""
_BY_TOKEN = "its likelihood is divided by the tokens of the micro-batch, ours by those of each completion"
OTHERWISE = {
    "sft": _BY_TOKEN,
    "cpo": "its function, without likelihood",
    "cpo_simpo": _BY_TOKEN,
    "iterative_rpo": _BY_TOKEN,
    "mpo": _BY_TOKEN,
    "orpo": "its odds",
}
"""What TRL has and is not compared step by step, and why."""
