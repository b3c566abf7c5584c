"""The settings of objectives.

Owns which objectives can be named, and what each of them reads.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tiebreak.config.section import Section


class LossConfig(Section):
    """The objective."""

    name: Literal["dpo"] = Field("dpo", description="dpo (Rafailov et al. 2023, Eq. 7).")
    beta: float = Field(0.1, gt=0, description="Strength of the pull to the reference; smaller moves further.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of flipped labels (conservative DPO).")
