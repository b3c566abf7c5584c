"""What is watched while a run trains: the signals by their keys, and how often the policy is let to speak.

Owns the names of signals, what each means, and what looks at the policy's own answers may cost. How they are measured
is known to `evaluation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from tiebreak.config.section import Section

HELDOUT, SAMPLED = "heldout/", "sampled/"
"""Begin the keys of what probes find on held-out pairs, and of what looks find on the policy's own answers."""

SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        # Of each step, over its own examples.
        "loss": "the objective's loss, mean of the examples of a step",
        "rewards/chosen": "implicit reward of chosen completions, as the objective scales it",
        "rewards/rejected": "implicit reward of rejected completions",
        "rewards/margins": "reward of chosen minus reward of rejected",
        "rewards/accuracies": "share of pairs whose margin is positive; a tie is one half",
        "logps/chosen": "log-probability of chosen completions under the policy, nats a completion",
        "logps/rejected": "log-probability of rejected completions under the policy, nats a completion",
        "logratio_gap": "by how much more chosen gained than rejected, nats, of objectives that remember it",
        "kl": "baseline of objectives of thumbs: gain of completions that answer other prompts, nats",
        "beta": "beta of the step, where it moves",
        "grad_norm": "norm of the gradient before it is scaled down",
        "learning_rate": "learning rate of the step",
        "epoch": "which pass over the training data it is",
        "token_budget": "tokens that are in memory at once",
        "memory_bytes": "memory in use",
        "pairs_per_second": "examples a second",
        "unique_tokens_per_second": "tokens a second, each prompt counted once",
        "step_seconds": "seconds that the step took",
        "reference_moves": "how often a reference that follows the policy has moved",
        # Of probes, over the first held-out pairs.
        "heldout/loss": "the objective's loss on held-out pairs",
        "heldout/rewards/margins": "margin on held-out pairs",
        "heldout/rewards/accuracies": "share of held-out pairs whose margin is positive",
        "heldout/logps/chosen": "log-probability of held-out chosen completions, nats a completion",
        "heldout/logps/rejected": "log-probability of held-out rejected completions, nats a completion",
        "heldout/displaced": "share of held-out pairs whose chosen completion became less likely than at the start",
        "heldout/chosen_moved": "change of chosen against the start, nats a token, mean of the pairs",
        "heldout/rejected_moved": "change of rejected against the start, nats a token, mean of the pairs",
        "heldout/reward_length_correlation": "correlation of what chosen gained over rejected with how much longer it "
        "is (Pearson): near 1, the policy learns length",
        # Of looks, over what the policy itself says to held-out prompts.
        "sampled/kl": "KL from policy to reference, nats an answer: mean of log π − log π_ref of its own answers (k1)",
        "sampled/kl_k3": "the same by π_ref/π − 1 − log π_ref/π of each token, summed (k3): never negative",
        "sampled/kl_token": "k1 by token, nats",
        "sampled/kl_k3_token": "k3 by token, nats",
        "sampled/num_tokens": "tokens of an answer",
        "sampled/repetition": "share of an answer that goes on with what it has said before",
        "sampled/looping": "share of answers that a reader would call a loop",
        "sampled/distinct_2": "different pairs of words / all of them, over the first words of all answers",
        "sampled/eos_rate": "share of answers that ended by themselves",
        "sampled/entropy": "entropy of the next token along its own answers, nats",
        "sampled/seconds": "seconds that the look took",
    }
)
"""Every key of metrics.jsonl that a rule may be about, and what it means."""


class SignalsConfig(Section):
    """The flight recorder: what the policy says to held-out prompts while it trains."""

    looks: int = Field(
        5,
        ge=0,
        le=10_000,
        description="How often the policy answers held-out prompts meanwhile, evenly spaced; 0: no.",
    )
    prompts: int = Field(8, ge=1, le=10_000, description="Held-out prompts that it answers at each look.")
    max_new_tokens: int = Field(64, ge=1, le=2**20, description="Most tokens of such an answer.")
    temperature: float = Field(1.0, gt=0, le=2, description="Temperature of these answers; KL is known at 1 alone.")
    most_share: float | None = Field(
        0.1,
        gt=0,
        le=1,
        description="Most time for looks, as a share of training's; one that would take more is left out; null: any.",
    )
    kl: Literal["auto", "on", "off"] = Field(
        "auto", description="KL to the reference; auto: where asking it takes no second copy of the weights."
    )

    @property
    def knows_kl(self) -> bool:
        """Whether answers are drawn as the policy's distribution is, so that its KL can be estimated from them."""
        return self.temperature == 1 and self.kl != "off"

    @property
    def looks_at_start(self) -> bool:
        """Whether the weights of the start are asked on the way, whatever that takes."""
        return self.kl == "on" and self.looks > 0
