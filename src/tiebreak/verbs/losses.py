"""The verb losses: which objectives there are, what each computes, reads and needs, and when to take it."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

from tiebreak.config.losses import ALIASES, SECTIONS, meant_by
from tiebreak.config.losses.loss import MODIFIERS
from tiebreak.errors import ConfigError
from tiebreak.maths.objectives import OBJECTIVES, Objective


@dataclass(frozen=True)
class Parameter:
    """A setting of an objective."""

    name: str
    default: Any
    range: str
    """As a reader takes it: '> 0', 'mean or sum'; empty where there is none."""
    safe: str
    """Where it is known to work: '0.01 to 0.5'; empty where it is a word, or has its range from the data."""
    description: str


@dataclass(frozen=True)
class Described:
    """An objective, as people read of it."""

    name: str
    title: str
    formula: str
    tex: str
    """The same in LaTeX, every setting of the formula in it."""
    use: str
    watch: str
    """How it fails, and which of the recorded numbers show it."""
    source: str
    settings: tuple[Parameter, ...]
    """Those of the formula, then modifiers."""
    modifiers: tuple[str, ...]
    """Which of the settings change the objective, and are no parameters of its formula."""
    aliases: tuple[str, ...]
    """Names that others have for it, with the settings that they mean by it."""
    learns_from: str
    """pairs, completions (each on its own, good or bad), or good completions."""
    reference: bool
    """Whether it compares with a reference."""
    facts: tuple[str, ...]
    """What it reads of what annotators said, and what more where a setting asks for it."""
    whole_step: bool
    """Whether, by its defaults, the loss of a pair depends on the others of its step."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def losses(name: str | None = None) -> list[Described]:
    """Return every objective, or the one that a name means; raises ConfigError for a name that is none."""
    try:
        wanted = [meant_by(name)[0]] if name is not None else list(OBJECTIVES)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    return [_described(one) for one in wanted]


def _described(name: str) -> Described:
    row, section = OBJECTIVES[name], SECTIONS[name]
    fields = {key: field for key, field in section.model_fields.items() if key != "name"}
    modifiers = tuple(key for key in fields if key in MODIFIERS)
    fields = dict(sorted(fields.items(), key=lambda one: one[0] in modifiers))
    parameters = tuple(
        Parameter(key, field.default, _range(field), str(section.safe(key) or ""), field.description or "")
        for key, field in fields.items()
    )
    aliases = tuple(
        f"{alias} ({', '.join(f'{key}: {value}' for key, value in said.items())})" if said else alias
        for alias, (meant, said) in ALIASES.items()
        if meant == name
    )
    usual = section.model_validate({})
    switches = {key: True for key, field in fields.items() if field.annotation is bool}
    asked = [fact for fact in section.model_validate(switches).facts if fact not in usual.facts]
    return Described(
        name=name,
        title=inspect.cleandoc(section.__doc__ or "").rstrip("."),
        formula=" ".join(inspect.cleandoc(row.losses.__doc__ or "").split()).rstrip("."),
        tex=row.tex,
        use=row.use,
        watch=row.watch,
        source=row.source,
        settings=parameters,
        modifiers=modifiers,
        aliases=aliases,
        learns_from=section.learns_from,
        reference=row.asks_reference,
        facts=(*usual.facts, *(f"{fact} where {' and '.join(switches)} is set" for fact in asked)),
        whole_step=Objective.of(usual).is_coupled,
    )


def _range(field: Any) -> str:
    """Return what a setting may be: its bounds, or the words that it takes."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(rule, key):g}" for rule in field.metadata for key, sign in signs.items() if hasattr(rule, key)
    ]
    words = [
        str(word)
        for part in _parts(field.annotation)
        for word in getattr(part, "__args__", ())
        if isinstance(word, str)
    ]
    numbers = ["a number"] if words and float in _parts(field.annotation) else []
    return ", ".join(bounds) or " or ".join([*words, *numbers])


def _parts(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the one type."""
    arguments = getattr(annotation, "__args__", ())
    is_literal = all(isinstance(one, str) for one in arguments)
    return (annotation,) if is_literal else tuple(arguments)
