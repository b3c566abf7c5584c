"""What the settings of every objective have: what it reads of the data, and parameters that many share."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from tiebreak.config.section import Section


class Loss(Section):
    """The settings of an objective."""

    name: str
    learns_apart: ClassVar[bool] = False
    """Whether it learns from each completion on its own, as good or bad, and not from pairs."""
    takes_weights: ClassVar[bool] = True
    """Whether a pair's own weight has a meaning: not where the pairs of a step are mixed."""

    @property
    def facts(self) -> tuple[str, ...]:
        """What it reads of what annotators said, by the names of `Preference`."""
        return ()

    @property
    def needs_margins_above_zero(self) -> bool:
        """Whether a stated margin that is not above zero has no meaning for it."""
        return False

    @property
    def wants_both_in_a_step(self) -> bool:
        """Whether a step needs completions that are good and some that are bad."""
        return False

    @property
    def wants_prompts_in_a_step(self) -> bool:
        """Whether a step needs completions of several prompts."""
        return False


class OfSums(Loss):
    """The settings of an objective of sums against a reference, whose tokens may be weighed before they are summed."""

    length_desensitised: float | None = Field(
        None, ge=0, le=1, description="Weight of tokens beyond the length of the pair's shorter completion (LD-DPO)."
    )


class ByMargin(OfSums):
    """The settings of an objective that reads how much better chosen is."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Stated margins, or differences of scores."""
        return ("margin",)


class Apart(Loss):
    """The settings of an objective of completions that were judged one at a time, good or bad."""

    learns_apart = True

    @property
    def facts(self) -> tuple[str, ...]:
        """Whether a completion is good."""
        return ("liked",)


def beta(usual: float) -> Any:
    """Return the field of a pull to the reference."""
    return Field(usual, gt=0, description="Strength of the pull to the reference; smaller moves further.")


def scale(usual: float) -> Any:
    """Return the field of the scale of a gap that no reference stands in."""
    return Field(usual, gt=0, description="Scale of the gap between chosen and rejected; larger is sharper.")


def smoothing(usual: float) -> Any:
    """Return the field of labels that are taken to be flipped."""
    return Field(usual, ge=0, lt=0.5, description="Assumed share of flipped labels.")


def length(usual: str) -> Any:
    """Return the field that says whether a completion counts by token or as a whole."""
    return Field(usual, description="mean: log-probabilities per token; sum: of the completion.")


def delta() -> Any:
    """Return the field of the reward that is neither good nor bad."""
    return Field("step", description="Reward at which good and bad meet: step, the mean over the step, or a number.")
