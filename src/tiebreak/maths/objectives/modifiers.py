"""What changes an objective and is no parameter of its formula: how tokens become sums, and what sums become.

Owns the order in which modifiers apply. Which objective reads which is known to its settings (`config.losses`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.objectives.divergences import Divergence


@dataclass(frozen=True)
class Modifiers:
    """Settings of modifiers, each None where it is not used."""

    length_desensitised: float | None = None
    """Weight of tokens beyond the length of a pair's shorter completion."""
    divergence: str | None = None
    divergence_alpha: float | None = None
    max_reward: float | None = None

    @property
    def weigh_tokens(self) -> bool:
        """Whether tokens have to be known, and not only their sums."""
        return self.length_desensitised is not None

    def summed(self, tokens: TokenLogps) -> Logps:
        """Return what is summed over the tokens of each completion, of policy and reference alike."""
        return tokens.summed() if self.length_desensitised is None else tokens.desensitised(self.length_desensitised)

    def seen(self, examples: Any) -> Any:
        """Return what a formula sees of examples, as it is with these modifiers."""
        if self.divergence is None:
            return examples
        return replace(examples, divergence=Divergence.of(self.divergence, self.divergence_alpha, self.max_reward))


UNMODIFIED = Modifiers()
