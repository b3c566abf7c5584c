"""The settings of objectives: for each objective of the table a section, told apart by `name`.

Owns which settings each of them reads; a test holds them equal to the parameters of its formula.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from tiebreak.config.section import Section


class Dpo(Section):
    """The objective."""

    name: Literal["dpo"] = Field("dpo", description="dpo (Rafailov et al. 2023, Eq. 7).")
    beta: float = Field(0.1, gt=0, description="Strength of the pull to the reference; smaller moves further.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of flipped labels (conservative DPO).")


# Another objective is another section here: Annotated[Dpo | Ipo, Field(discriminator="name")].
LossConfig: TypeAlias = Dpo
