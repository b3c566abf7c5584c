"""What the settings of every objective have: what it reads of the data, and parameters that many share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tiebreak.config.section import Section

PAIRINGS: Mapping[str, Literal["none", "good"]] = {"completions": "none", "good completions": "good"}
"""`data.pairing` of losses that learn from completions on their own."""


@dataclass(frozen=True)
class Safe:
    """Where a setting is known to work, both ends included; beyond it is allowed, and told."""

    low: float
    high: float
    times: str = ""
    """The setting whose multiples both ends are."""

    def __str__(self) -> str:
        """As a reader takes it: '0.1 to 1.6 times beta'."""
        return f"{self.low:g} to {self.high:g}" + (f" times {self.times}" if self.times else "")

    def holds(self, value: float, unit: float) -> bool:
        """Whether a value lies within, which a rounded bit does not decide."""
        return self.low * unit * (1 - 1e-9) <= value <= self.high * unit * (1 + 1e-9)


Beta = Annotated[float, Safe(0.01, 0.5)]
"""A pull to the reference on sums of log-ratios: between some nats and some hundred of them."""
Smoothing = Annotated[float, Safe(0, 0.4)]
"""A share of flipped labels that leaves something to learn."""
Margin = Annotated[float, Safe(0.1, 1.6, "beta")]
"""A margin between means of log-probabilities: beyond it, answers loop."""


class Loss(Section):
    """The settings of an objective."""

    name: str
    learns_from: ClassVar[Literal["pairs", "completions", "good completions"]] = "pairs"
    """Pairs, or each completion on its own: as good or bad, or the good ones alone."""
    takes_weights: ClassVar[bool] = True
    """Whether a pair's own weight has a meaning: not where the pairs of a step are mixed."""

    remembers: ClassVar[bool] = False
    """Whether it remembers the gaps of steps before."""
    reads_entropy: ClassVar[bool] = False
    """Whether it reads the reference's entropy, which is then stored beside its log-probabilities."""
    compares_distributions: ClassVar[bool] = False
    """Whether it compares whole distributions of policy and reference: the reference is then asked in every step."""

    pulls_by_beta: ClassVar[bool] = False
    """Whether its rewards are beta times the log-ratio of a whole completion (nats) to a reference."""

    learns_bad: ClassVar[bool] = True
    """Whether it learns from bad completions, too: not where good ones are imitated."""

    @property
    def learns_apart(self) -> bool:
        """Whether it learns from each completion on its own, and not from pairs."""
        return self.learns_from != "pairs"

    @property
    def keeps_scale(self) -> bool:
        """Whether losses of two steps are of one scale: not where beta moves, or what is remembered of steps before."""
        return not self.remembers and getattr(self, "beta_schedule", None) is None

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

    def unsafe(self, place: str = "loss") -> list[str]:
        """Return one sentence for each setting outside of its safe range."""
        said = {key: (self.safe(key), getattr(self, key)) for key in type(self).model_fields}
        if schedule := getattr(self, "beta_schedule", None):
            said["beta_schedule.to"] = (self.safe("beta"), schedule.to)
        return [
            f"{place}.{key} {value:g} is outside {safe}, where {self.name} is known to work; 'tiebreak losses "
            f"{self.name}' says what to watch"
            for key, (safe, value) in said.items()
            if safe is not None
            and value is not None
            and not safe.holds(value, getattr(self, safe.times) if safe.times else 1.0)
        ]

    @classmethod
    def safe(cls, key: str) -> Safe | None:
        """Return the safe range of a setting; None where it is a word, or has its range from the data."""
        return next((told for told in cls.model_fields[key].metadata if isinstance(told, Safe)), None)


class BetaSchedule(Section):
    """How beta moves from its first value to its last, step by step."""

    to: float = Field(gt=0, description="Beta of the last step.")
    shape: Literal["linear", "cosine"] = Field("linear", description="In equal parts, or slow at both ends.")


class OfPairs(Loss):
    """The settings of an objective that gives each pair a loss of its own, which may be weighed."""

    confidence_weights: Literal["clamped", "raw"] | None = Field(
        None, description="Pairs weigh as the policy would write them (WPO), clamped at 1 as its authors do, or raw."
    )


class WithBeta(Loss):
    """The settings of an objective that has a beta, which may move over a run."""

    beta_schedule: BetaSchedule | None = Field(
        None, description="Beta moves to another value over the run: {to: 0.02, shape: linear}; null: it stays."
    )


class OfSums(WithBeta, OfPairs):
    """The settings of an objective of one gap between sums against a reference.

    Its tokens may be weighed before they are summed, and another divergence may stand between policy and reference:
    only where both sides of the gap have the same factor does β log Z(x) cancel.
    """

    pulls_by_beta = True

    length_desensitised: Annotated[float | None, Safe(0.2, 1)] = Field(
        None, ge=0, le=1, description="Weight of tokens beyond the length of the pair's shorter completion (LD-DPO)."
    )
    token_decay: Annotated[float | None, Safe(0.95, 1)] = Field(
        None, gt=0, le=1, description="Weight of a token against the one before it: 0.95 to 1; earlier ones count more."
    )
    humanline: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        None, description="Bounds of a token's log-ratio, nats, such as [-1, 1.5]; beyond them it has no gradient."
    )
    divergence: Literal["js", "forward_kl", "alpha", "chi_po"] | None = Field(
        None, description="What keeps the policy near its reference; null: the reverse KL divergence, as in DPO."
    )
    divergence_alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Of the divergence alpha, which needs it: near 0 the reverse KL, near 1 the forward.",
    )
    max_reward: float | None = Field(
        None, gt=0, description="Of the divergence chi_po, which needs it: the gap is clipped to twice this reward."
    )

    @field_validator("humanline", mode="before")
    @classmethod
    def _are_two_bounds(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, list | tuple) and len(value) == 2):
            raise ValueError(_BOUNDS)
        return value

    @model_validator(mode="after")
    def _sees_tokens_in_one_way(self) -> OfSums:
        seen = [key for key in VIEWS if getattr(self, key) is not None]
        if len(seen) > 1:
            raise ValueError(f"{' and '.join(seen)} are views of the same tokens: take one of them")
        if self.humanline is not None and not self.humanline[0] < 0 < self.humanline[1]:
            raise ValueError(_BOUNDS)
        return self

    @model_validator(mode="after")
    def _knows_its_divergence(self) -> OfSums:
        for key, reader in (("divergence_alpha", "alpha"), ("max_reward", "chi_po")):
            is_given, is_read = getattr(self, key) is not None, self.divergence == reader
            if is_given and not is_read:
                raise ValueError(f"{key} is read with divergence: {reader} alone")
            if is_read and not is_given:
                raise ValueError(f"divergence: {reader} needs {key}")
        return self


class ByMargin(OfSums):
    """The settings of an objective that reads how much better chosen is."""

    @property
    def facts(self) -> tuple[str, ...]:
        """Stated margins, or differences of scores."""
        return ("margin",)


class Apart(WithBeta):
    """The settings of an objective of completions that were judged one at a time, good or bad."""

    learns_from = "completions"
    pulls_by_beta = True

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


_BOUNDS = "humanline wants two bounds around 0, the lower one first, such as [-1, 1.5]"
VIEWS = ("length_desensitised", "token_decay", "humanline")
"""Settings that say how tokens count: one at a time."""
MODIFIERS = tuple(name for name in OfSums.model_fields if name not in Loss.model_fields)
"""Settings that change an objective and are no parameters of its formula."""
