"""The settings of a base model in four bits, under an adapter that is trained (QLoRA).

Owns the names of its kinds. In what its products are computed is `model.dtype`, as everywhere.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tiebreak.config.section import Section


class QuantizationConfig(Section):
    """The base model's weights in four bits (QLoRA, Dettmers et al. 2023); adapter and head stay as they are."""

    kind: Literal["nf4", "fp4"] = Field(
        "nf4", description="What four bits stand for: nf4, quantiles of a normal distribution; fp4, small floats."
    )
    double: bool = Field(
        True, description="Also quantise the scales of the blocks: 0.4 bits a weight less (double quantisation)."
    )

    @property
    def told(self) -> str:
        """What it is in words."""
        return f"{self.kind}{', doubly' if self.double else ''}"


def quantization_from_short(value: Any) -> Any:
    """Return the section that one word stands for: its kind."""
    return {"kind": value} if isinstance(value, str) else value
