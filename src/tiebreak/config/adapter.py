"""The settings of what is trained: a low-rank adapter, or all weights.

Owns what an adapter may be. Which layers of a model can carry one is known to the engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tiebreak.config.section import Section


class AdapterConfig(Section):
    """What is trained: a low-rank adapter, or all weights."""

    kind: Literal["lora", "none"] = Field("lora", description="lora, or none for full fine-tuning.")
    rank: int = Field(16, ge=1, le=65_536, description="Rank of the update (LoRA, Hu et al. 2021).")
    alpha: float = Field(32.0, gt=0, description="Scale of the update is alpha / rank.")
    rslora: bool = Field(
        False, description="Scale the update by alpha / √rank, so that high ranks learn as much (rsLoRA, 2312.03732)."
    )
    dora: bool = Field(
        False,
        description="Learn the size of each output's weights apart from their direction (DoRA, 2402.09353): dearer.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the adapter's input, also of one trained on.")
    target_modules: Annotated[tuple[str, ...], Field(strict=False)] | Literal["all-linear"] = Field(
        "all-linear", description="Layers that get an adapter: names, or all-linear (all but the head)."
    )

    @property
    def trains_all(self) -> bool:
        """Whether all weights are trained, and no adapter is there."""
        return self.kind == "none"


def adapter_from_short(value: Any) -> Any:
    """Return the section that one word stands for: its kind."""
    return {"kind": value} if isinstance(value, str) else value
