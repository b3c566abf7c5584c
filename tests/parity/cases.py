"""What is compared with TRL 1.16, and what it means by the same name otherwise.

Imports nothing of TRL: the tests of this folder run these, and docs/objectives.md says what they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tiebreak.records import TokenizedPair
from tiny import token_pairs


@dataclass(frozen=True)
class Steps:
    """Optimizer steps of ours beside those of one of TRL's trainers, from the same weights over the same examples."""

    loss: Mapping[str, Any]
    num: int = 3
    added: float = 0.0
    """What TRL adds to every loss (to that of every good completion), without a gradient."""
    note: str = ""
    chosen: int | None = None
    """Tokens of every chosen completion, where TRL's likelihood is another one for unlike lengths."""
    prompt: int | None = None
    """Tokens of every prompt, where TRL's likelihood is also of the prompt."""

    def pairs(self, per_step: int) -> list[TokenizedPair]:
        """Pairs for so many steps, of drawn tokens."""
        pairs = token_pairs(self.num * per_step, seed=5)
        if self.chosen:
            pairs = [replace(pair, chosen_ids=_as_long(pair.chosen_ids, self.chosen)) for pair in pairs]
        return [replace(pair, prompt_ids=pair.prompt_ids[: self.prompt]) for pair in pairs]


def _as_long(ids: tuple[int, ...], num: int) -> tuple[int, ...]:
    """A completion of so many tokens with the same end, its others repeated or left out."""
    return (*itertools.islice(itertools.cycle(ids[:-1]), num - 1), ids[-1])


_ONE_LENGTH = "chosen of one length"
"""TRL divides its likelihood by the tokens of a micro-batch, ours is by completion (Pang et al. 2024, Eq. 1)."""
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
    "sft": Steps({"name": "sft"}, note=_ONE_LENGTH, chosen=6),
    "iterative_rpo": Steps({"name": "iterative_rpo", "beta": 0.3, "alpha": 0.7}, note=_ONE_LENGTH, chosen=6),
    "mpo": Steps({"name": "mpo", "beta": 0.3, "delta": 0.0}, note=f"δ 0, {_ONE_LENGTH}", chosen=6),
}
"""Of DPOTrainer. Its micro-batch is the whole step: what is sorted over a step, TRL sorts over a micro-batch."""
OF_KTO = {
    "kto": Steps({"name": "kto", "beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}, 20),
    "apo_zero_unpaired": Steps({"name": "apo_zero_unpaired", "beta": 0.3}, 20, added=1.0),
}
"""Of KTOTrainer."""
OF_CPO = {
    # Its default adds the likelihood with a weight of 1, which is cpo_simpo.
    "simpo": Steps({"name": "simpo", "beta": 2.0, "gamma": 1.2}, 20, note="cpo_alpha 0"),
    "alphapo": Steps({"name": "alphapo", "beta": 2.0, "gamma": 0.1, "alpha": 0.4}),
    "cpo": Steps({"name": "cpo", "beta": 0.3, "alpha": 0.5}, note=_ONE_LENGTH, chosen=6),
    "cpo_simpo": Steps({"name": "cpo_simpo", "gamma": 1.2, "alpha": 0.5}, note=_ONE_LENGTH, chosen=6),
}
"""Of the experimental CPOTrainer."""
OF_ORPO = {
    # TRL's likelihood is of the prompt, too; Eq. 6 conditions on it, so that ours is of the completion. Of a prompt of
    # one token nothing is predicted.
    "orpo": Steps(
        {"name": "orpo", "beta": 0.2}, 20, note=f"prompts of one token, {_ONE_LENGTH}",
        chosen=6, prompt=1,
    ),
}  # fmt: skip
"""Of the experimental ORPOTrainer."""
OF_PAIRS = OF_DPO | OF_CPO | OF_ORPO
LIKELIHOODS = {name: steps for name, steps in OF_PAIRS.items() if steps.chosen}
"""Those whose likelihood is another one where chosen completions are not of one length."""
OF_FUNCTIONS = {
    "simpo": ({"beta": 2.0, "gamma": 1.2}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.2}),
    "alphapo": (
        {"beta": 2.0, "gamma": 0.1, "alpha": 0.4},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.1, "alpha": 0.4},
    ),
}
"""Settings, and what CPOTrainer's function of means is told: in float64, which no trainer computes in."""
