"""When a run ends before its last step, and which of its checkpoints becomes the policy.

Owns these settings. What is recorded to hold them against is known to `config.signals`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from tiebreak.config.section import Section
from tiebreak.config.signals import SIGNALS
from tiebreak.errors import nearest


class StopRule(Section):
    """A bound that ends training where a recorded number is beyond it."""

    signal: str = Field(description="Key of a recorded number, such as sampled/kl: docs/recorder.md lists them.")
    at_most: float | None = Field(None, description="Training ends where it is above this.")
    at_least: float | None = Field(None, description="Training ends where it is below this.")

    @field_validator("signal")
    @classmethod
    def _is_recorded(cls, value: str) -> str:
        if value not in SIGNALS:
            raise ValueError(f"nothing is recorded under this name.{nearest(value, SIGNALS)}")
        return value

    @model_validator(mode="after")
    def _has_a_bound(self) -> StopRule:
        if self.at_most is None and self.at_least is None:
            raise ValueError("a rule takes at_most, at_least, or both")
        if self.at_most is not None and self.at_least is not None and self.at_most < self.at_least:
            raise ValueError("no number is both at_least and at_most: at_most is the larger one")
        return self

    @model_serializer(mode="wrap")
    def _briefly(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value is not None}

    @property
    def told(self) -> str:
        """What breaks it, in words."""
        bounds = {"above": self.at_most, "below": self.at_least}
        return f"{self.signal} is " + " or ".join(f"{at} {one:g}" for at, one in bounds.items() if one is not None)

    def broken_by(self, value: float) -> str | None:
        """Return what is wrong with a value, to be read behind it; None where it is within the bounds."""
        if self.at_most is not None and not value <= self.at_most:
            return f"above the {self.at_most:g} of stopping.rules"
        if self.at_least is not None and not value >= self.at_least:
            return f"below the {self.at_least:g} of stopping.rules"
        return None


class StoppingConfig(Section):
    """When training ends early, and which checkpoint becomes the policy."""

    patience: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Training ends after so many held-out probes without a better score; null: no.",
    )
    score: Literal["loss", "accuracy", "margin"] = Field(
        "loss", description="The held-out score that checkpoints are compared by: loss, accuracy or margin."
    )
    rules: Annotated[tuple[StopRule, ...], Field(strict=False)] = Field(
        (), description="Bounds that end training: [{signal: sampled/kl, at_most: 40}, …]."
    )
    artefact: Literal["best", "last"] = Field(
        "best",
        description="best: an earlier checkpoint where it scores better by more than one standard error; last: never.",
    )
