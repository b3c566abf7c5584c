"""What a pass takes: the rules of the gate, as data.

Owns the names of measures that a rule may be about, the default rules and their margins. How evidence is held against
them is known to `evaluation.gate`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tiebreak.config.section import Section
from tiebreak.errors import nearest


@dataclass(frozen=True)
class Measured:
    """What people call a measure, what its numbers are, and how to get it where a rule asks and nothing measured it."""

    name: str
    unit: str
    """share: values lie in 0..1; tokens: a change is the log of the ratio; rate: a share of all, of single items values
    without known ends; any other: numbers without known ends."""
    better: Literal["higher", "lower", "neither"]
    remedy: str = "the command evaluate measures it"

    @property
    def is_judged(self) -> bool:
        """Whether it is what a rule or a judge says of answers."""
        return self.remedy == _UNJUDGED


_UNJUDGED = "no rule or judge says whether answers got better; set evaluation.rule or evaluation.judge"
_DRAWS = "set evaluation.num_draws and evaluation.drawn_prompts, and evaluation.draw_temperature to 1"
_REVIEW = "the command review asks people"
_ANSWERS = "set evaluation.num_samples to 64 or more"
MEASURES: Mapping[str, Measured] = MappingProxyType(
    {
        "accuracy": Measured("Held-out preference accuracy", "share", "higher"),
        "margin": Measured("Reward margin (chosen − rejected)", "nats", "higher"),
        "logratio_gap": Measured("Log-ratio gap (chosen − rejected)", "nats", "higher"),
        "loss": Measured("Loss on held-out pairs", "nats", "lower"),
        "chosen_likelier": Measured("Chosen likelier than rejected, per token", "share", "higher"),
        "chosen_logps": Measured("Log-probability of chosen, per token", "nats", "higher"),
        "displaced": Measured("Pairs whose chosen became less likely", "share", "lower"),
        "calibration": Measured("Squared error of the preference (Brier)", "", "lower"),
        "rejected_logps": Measured("Log-probability of rejected, per token", "nats", "neither"),
        "answers/preferred": Measured("Answers better than before", "share", "higher", _UNJUDGED),
        "answers/length_controlled": Measured(
            "Answers better than before, at equal length", "rate", "higher", _UNJUDGED
        ),
        "human_win_rate": Measured("Answers better than before, as people say", "share", "higher", _REVIEW),
        "answers/rule": Measured("Answers that match the rule", "share", "higher", "set evaluation.rule"),
        "answers/repetition": Measured("Share of an answer that repeats itself", "share", "lower", _ANSWERS),
        "answers/looping": Measured("Answers that go round in circles", "share", "lower", _ANSWERS),
        "answers/unfinished": Measured("Answers cut off at max_new_tokens", "share", "lower", _ANSWERS),
        "answers/length": Measured("Tokens in an answer", "tokens", "neither", _ANSWERS),
        "answers/distinct": Measured("Different words in an answer", "share", "higher", _ANSWERS),
        "answers/unchanged": Measured("Answers that did not change", "share", "lower", _ANSWERS),
        "answers/entropy": Measured("Entropy of the next token", "nats", "neither", _DRAWS),
        "answers/self_bleu": Measured("Likeness of drawn answers to each other", "share", "lower", _DRAWS),
        "kl": Measured("KL to the reference, per drawn answer", "nats", "lower", _DRAWS),
        "kl_token": Measured("KL to the reference, per token", "nats", "lower", _DRAWS),
        "neutral_logps": Measured("Log-probability of neutral text, per token", "nats", "higher"),
        "capability": Measured("Log-probability of right answers", "nats", "higher"),
    }
)
"""Every measure by its key. What a user's own tasks measure is `capability/NAME`."""
TASKS = "capability/"
ALL_TASKS = "capability/*"
ON_PAIRS = ("accuracy", "margin", "logratio_gap", "loss", "chosen_likelier", "chosen_logps", "rejected_logps",
            "displaced", "calibration")  # fmt: skip
"""Measures of held-out pairs: what they say alone passes nothing."""
NO_CLAIM = (*ON_PAIRS, "answers/length", "answers/unchanged", "answers/entropy", "neutral_logps")
"""Measures that may change much without one answer being better."""

Kind = Literal["superior", "at_least", "at_most", "not_below_base", "not_above_base"]
_NUMBERS = {"superior": ("value", "margin"), "at_least": ("value",), "at_most": ("value",)}
"""The number that each kind is about; of two, one is given. The others are about a margin."""


class GateRule(Section):
    """One thing that has to be true of a measure for a run to pass."""

    measure: str = Field(description="Key of a measure; capability/* is each of a user's own tasks.")
    kind: Kind = Field(
        description="superior: better than value, or than before by margin; at_least, at_most: a value; "
        "not_below_base, not_above_base: worse than before by margin at most."
    )
    value: float | None = Field(None, description="What the mean after training is held against.")
    margin: float | None = Field(
        None,
        ge=0,
        description="How far after may lie from before, in the measure's unit; of tokens the log of the ratio.",
    )
    required: bool = Field(True, description="Inconclusive where nothing measured it; false: then there is no check.")
    says: str = Field("", description="What it means in words where it does not hold.")

    @field_validator("measure")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in MEASURES and not (value.startswith(TASKS) and len(value) > len(TASKS)):
            raise ValueError(f"no measure has this key.{nearest(value, [*MEASURES, ALL_TASKS])}")
        return value

    @model_serializer(mode="wrap")
    def _briefly(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value != type(self).model_fields[name].default}

    @model_validator(mode="after")
    def _has_its_number(self) -> GateRule:
        wanted = _NUMBERS.get(self.kind, ("margin",))
        given = [name for name in ("value", "margin") if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in wanted:
            found = " and ".join(given) or "neither"
            raise ValueError(f"a rule of kind {self.kind} takes {' or '.join(wanted)}; found {found}")
        return self


DEFAULT_RULES: Mapping[str, GateRule] = MappingProxyType(
    {
        # Necessary, never sufficient: the sign of a margin, which knows no size and sees no harm.
        "accuracy": GateRule(measure="accuracy", kind="superior", value=0.5, says="the preference is not learned"),
        # In nats of log-ratio, which no objective's unit of reward scales. Rounding of bfloat16 leaves a mean of some
        # 0.03 over 64 pairs; at 0.1 the loss of dpo with beta 0.1 is 0.7 % below its start, and a pair is preferred in
        # 50.25 of 100 cases instead of 50.
        "moved": GateRule(
            measure="logratio_gap",
            kind="at_least",
            value=0.1,
            says="the preference has not moved by more than rounding",
        ),
        # What decides: the model's own answers, before against after.
        "preferred": GateRule(
            measure="answers/preferred", kind="superior", value=0.5, says="the answers are not better than before"
        ),
        # A win rate that longer answers alone explain is none. No row where length and merit cannot be told apart.
        "at_equal_length": GateRule(
            measure="answers/length_controlled",
            kind="at_least",
            value=0.5,
            required=False,
            says="at equal length the answers are not better than before",
        ),
        # Five more repeated parts in a hundred is what a reader begins to notice.
        "repetition": GateRule(
            measure="answers/repetition", kind="not_above_base", margin=0.05, says="the answers repeat themselves"
        ),
        # Wider than the others: whether an answer ends before the limit is 0 or 1, so 128 prompts see no less.
        "unfinished": GateRule(
            measure="answers/unfinished",
            kind="not_above_base",
            margin=0.15,
            says="more answers do not end by themselves",
        ),
        # ln 2: twice as long, half as long.
        "longer": GateRule(
            measure="answers/length", kind="not_above_base", margin=0.69, says="the answers are twice as long or longer"
        ),
        "shorter": GateRule(
            measure="answers/length", kind="not_below_base", margin=0.69, says="the answers are half as long or shorter"
        ),
        "distinct": GateRule(
            measure="answers/distinct",
            kind="not_below_base",
            margin=0.1,
            required=False,
            says="the answers lost variety",
        ),
        # Where nine of ten answers are the same letter for letter, there is nothing to judge.
        "unchanged": GateRule(
            measure="answers/unchanged", kind="at_most", value=0.9, says="the answers did not change"
        ),
        # DPO may lower chosen while rejected falls further; half a nat a token is 1.6 times the perplexity.
        "chosen": GateRule(
            measure="chosen_logps",
            kind="not_below_base",
            margin=0.5,
            says="the chosen completions became unlikely",
        ),
        # Half a nat a token: the policy's own answers are 1.6 times as surprising to the reference as to itself.
        "kl": GateRule(
            measure="kl_token",
            kind="at_most",
            value=0.5,
            required=False,
            says="the policy went too far from the reference",
        ),
        # A tenth of a nat is 10 % of perplexity.
        "neutral": GateRule(
            measure="neutral_logps",
            kind="not_below_base",
            margin=0.1,
            required=False,
            says="text that has nothing to do with the preference became unlikely",
        ),
        "capability": GateRule(
            measure="capability",
            kind="not_below_base",
            margin=0.1,
            required=False,
            says="right answers became unlikely",
        ),
        # Three points, so that a task that lost three is not passed; some 900 questions see it.
        "tasks": GateRule(
            measure=ALL_TASKS, kind="not_below_base", margin=0.03, required=False, says="an ability was lost"
        ),
        # What people say counts as much, where they were asked.
        "human_win_rate": GateRule(
            measure="human_win_rate",
            kind="superior",
            value=0.5,
            required=False,
            says="people do not find the answers better than before",
        ),
    }
)


def _on_top(value: Any) -> Any:
    """Return the default rules with a user's own on top: a part of one changes it, null takes it away."""
    if not isinstance(value, Mapping):
        return value
    rules: dict[Any, Any] = dict(DEFAULT_RULES)
    for name, given in value.items():
        if isinstance(given, Mapping) and name in DEFAULT_RULES:
            numbers = {"value", "margin"} if {"value", "margin"} & given.keys() else set()
            rules[name] = DEFAULT_RULES[name].model_dump(exclude=numbers) | dict(given)
        else:
            rules[name] = given
    return rules


class GateConfig(Section):
    """What a run has to show to pass."""

    rules: Annotated[dict[str, GateRule | None], BeforeValidator(_on_top)] = Field(
        dict(DEFAULT_RULES), description="By name; yours are added to these or change them, and null takes one away."
    )
    confidence: float = Field(0.95, ge=0.5, lt=1, description="Of the two-sided intervals, and of all superior rules.")
    min_prompts: int = Field(20, ge=2, le=1_000_000, description="Nothing passes on fewer prompts than this.")
    overrides: dict[str, str] = Field(
        {}, description="Rules that may fail, each with the reason, which the run, its report and its card then show."
    )

    @field_validator("rules")
    @classmethod
    def _names_are_plain(cls, value: dict[str, GateRule | None]) -> dict[str, GateRule | None]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z][\w-]{0,60}", name):
                raise ValueError(f"{name!r} is no name of a rule: letters, digits, - and _")
        return value

    @model_validator(mode="after")
    def _overrides_rules(self) -> GateConfig:
        there = [name for name, rule in self.rules.items() if rule is not None]
        for name, reason in self.overrides.items():
            if name not in there:
                raise ValueError(f"overrides: no rule is called {name!r}.{nearest(name, there)}")
            if not reason.strip():
                raise ValueError(f"overrides: {name} wants the reason why it may fail")
        return self

    @property
    def loosened(self) -> dict[str, str]:
        """What is asked less than by default, by the name of the rule or the dotted key of the setting: in words."""
        default = type(self)()
        found = {
            f"gate.{name}": f"{getattr(self, name):g} instead of {getattr(default, name):g}"
            for name in ("confidence", "min_prompts")
            if getattr(self, name) < getattr(default, name)
        }
        of_rules = {name: _looser(self.rules.get(name), rule) for name, rule in DEFAULT_RULES.items()}
        return found | {name: how for name, how in of_rules.items() if how}


def told_loosened(loosened: Mapping[str, str]) -> list[str]:
    """Return what `GateConfig.loosened` found as parts of a line."""
    gone = [name for name, how in loosened.items() if how == _GONE]
    parts = [f"{name} is looser than by default ({how})" for name, how in loosened.items() if how != _GONE]
    return [f"default rules taken away: {', '.join(gone)}"] * bool(gone) + parts


_GONE = "taken away"


def _looser(rule: GateRule | None, default: GateRule) -> str:
    """Return how a rule asks less than the default one of its name, or something else; "" where it does not."""
    if rule is None:
        return _GONE
    name = "value" if default.margin is None else "margin"
    given, usual = getattr(rule, name), getattr(default, name)
    if (rule.measure, rule.kind) != (default.measure, default.kind) or given is None:
        other = next(key for key in ("value", "margin") if getattr(rule, key) is not None)
        return f"asks {rule.measure} to be {rule.kind} by {other} {getattr(rule, other):g}"
    wants_more = rule.kind in ("at_least", "superior")
    parts = [f"{name} {given:g} instead of {usual:g}"] * (given < usual if wants_more else given > usual)
    return ", ".join(parts + ["not required"] * (default.required and not rule.required))
