"""The settings of objectives: for each objective of the table a section, told apart by `name`.

gaps    of a difference        sides   of each side, and of whole steps     sums    several of them
thumbs  of completions on their own            next_token  of whole next-token distributions
loss    what all of them have

Owns which settings each of them reads, and what another name or an unread setting is answered. Tests hold the sections
equal to the parameters of the formulas, and to the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from tiebreak.config.losses.gaps import (
    AlphaDpo,
    Alphapo,
    Discopop,
    Dpo,
    DpoNorm,
    Dpop,
    DpoShift,
    Exo,
    Hinge,
    Ipo,
    Odpo,
    RDpo,
    Repo,
    Robust,
    RpoBackward,
    RpoForward,
    RpoSquare,
    Simpo,
    Slic,
)
from tiebreak.config.losses.loss import VIEWS, Loss
from tiebreak.config.losses.next_token import Mallows, Tdpo1, Tdpo2
from tiebreak.config.losses.sides import (
    Aot,
    AotUnpaired,
    ApoDown,
    ApoZero,
    Bco,
    BetaDpo,
    CalDpo,
    DrDpo,
    Nca,
    Sft,
    Simper,
    SppoHard,
    SppoSoft,
)
from tiebreak.config.losses.sums import Cpo, CpoSimpo, IterativeRpo, Mpo, Orpo, RegularisedPo
from tiebreak.config.losses.thumbs import ApoZeroUnpaired, BcoUnpaired, Kto, SftUnpaired
from tiebreak.config.section import Section
from tiebreak.errors import nearest

_Objective: TypeAlias = (
    Dpo | DpoNorm | Robust | Ipo | Hinge | Slic | Exo | Discopop | Odpo | RpoBackward | RpoForward | RpoSquare | RDpo
    | Dpop | DpoShift | Simpo | AlphaDpo | Alphapo | Repo | Tdpo1 | Tdpo2 | Mallows
    | Nca | Bco | ApoZero | ApoDown | SppoHard | SppoSoft
    | CalDpo | Simper | Sft | Aot | AotUnpaired | BetaDpo | DrDpo | Kto | BcoUnpaired | ApoZeroUnpaired
    | SftUnpaired
    | Orpo | Cpo | CpoSimpo | IterativeRpo | RegularisedPo | Mpo
)  # fmt: skip
SECTIONS: Mapping[str, type[Loss]] = {section.model_fields["name"].default: section for section in get_args(_Objective)}
"""The settings of each objective, by its name."""
ALIASES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "sigmoid": ("dpo", {}),
    "cdpo": ("dpo", {"label_smoothing": 0.1}),
    "sigmoid_norm": ("dpo_norm", {}),
    "rso": ("hinge", {}),
    "exo_pair": ("exo", {}),
    "nca_pair": ("nca", {}),
    "bco_pair": ("bco", {"delta": 0.0}),
    "aot_pair": ("aot", {}),
    "sppo": ("sppo_hard", {}),
}
"""Names that others have for an objective, and the settings that they mean by it: TRL 1.16, and papers."""
_RPO = (
    "four papers are called so: iterative_rpo (Pang et al. 2024, DPO and likelihood), regularised_po (Liu et al. "
    "2024), rpo_backward, rpo_forward and rpo_square (reward-aware, by scores); relative preference optimization (Yin "
    "et al. 2024) is not offered"
)


def loss_from_short(value: Any) -> Any:
    """Return what a name alone stands for, what other names mean, and dpo where none is named.

    Raises ValueError for a name that is none, and for a setting that this objective does not read but others do.
    """
    told = {"name": value} if isinstance(value, str) else value
    if not isinstance(told, Mapping):
        return value
    if "terms" in told and told.get("name", "terms") == "terms":
        if more := [key for key in told if key not in ("name", "terms")]:
            raise ValueError(f"beside terms nothing is read; {more[0]} belongs into the term that reads it")
        return {**told, "name": "terms"}
    meant, settings = meant_by(told.get("name", "dpo"))
    unread = [key for key in told if key != "name" and key not in SECTIONS[meant].model_fields]
    if unread and (readers := [other for other, one in SECTIONS.items() if unread[0] in one.model_fields]):
        own = ", ".join(key for key in SECTIONS[meant].model_fields if key != "name") or "no setting"
        raise ValueError(f"{meant} does not read {unread[0]}, which is of {_some(readers)}; it reads {own}")
    return {**settings, **told, "name": meant}


def _some(names: Sequence[str]) -> str:
    """Return the first few of many objectives, and where the others stand."""
    few, more = names[:4], len(names) - 4
    return ", ".join(names) if more < 3 else f"{', '.join(few)} and {more} more ('tiebreak losses' lists all)"


def meant_by(name: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the objective that a name means, and the settings that come with the name; ValueError where it is none."""
    if name == "rpo":
        raise ValueError(_RPO)
    if not isinstance(name, str) or not (name in SECTIONS or name in ALIASES):
        known = sorted([*SECTIONS, *ALIASES])
        raise ValueError(f"no such objective; 'tiebreak losses' lists them.{nearest(str(name).lower(), known)}")
    return ALIASES.get(name, (name, {}))


def _name_of(value: Any) -> Any:
    return value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)


def _one_of(sections: Mapping[str, type[Loss]]) -> Any:
    told = Discriminator(_name_of, custom_error_type="loss", custom_error_message="wanted a name or settings")
    tagged = tuple(Annotated[section, Tag(name)] for name, section in sections.items())
    return Annotated[Union[tagged], told, BeforeValidator(loss_from_short)]  # noqa: UP007 - made of a table


class Term(Section):
    """One objective of a sum."""

    weight: float = Field(1.0, ge=0, description="Factor on its loss.")
    if TYPE_CHECKING:
        loss: _Objective
    else:
        loss: _one_of(SECTIONS)

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        """Take an objective's name alone, or its settings with the weight among them."""
        if isinstance(value, str):
            return {"loss": value}
        if isinstance(value, Term) or (isinstance(value, Mapping) and "loss" in value):
            return value
        if not isinstance(value, Mapping):
            raise ValueError("wanted an objective's name, or its settings with a weight")
        return {key: one for key, one in value.items() if key == "weight"} | {
            "loss": {key: one for key, one in value.items() if key != "weight"}
        }

    @model_validator(mode="after")
    def _sees_what_others_see(self) -> Term:
        """However it was written: a setting that the sum does not read is refused."""
        if self.loss.remembers:
            raise ValueError(f"{self.loss.name} remembers steps before, and is of a loss alone, not a term")
        if self.loss.compares_distributions:
            raise ValueError(f"{self.loss.name} compares whole distributions, and is of a loss alone, not a term")
        if self.loss.reads_entropy:
            raise ValueError(f"{self.loss.name} reads the reference's entropy, and is of a loss alone, not a term")
        for key in VIEWS:
            if getattr(self.loss, key, None) is not None:
                raise ValueError(f"{key} is of a loss alone: terms of a sum see the same tokens")
        if self.loss.learns_apart:
            raise ValueError(f"{self.loss.name} learns from completions on their own, terms of a sum from pairs")
        return self


class Terms(Loss):
    """A weighted sum of objectives; what is recorded as rewards is the first one's."""

    name: Literal["terms"] = "terms"
    terms: Annotated[tuple[Term, ...], Field(strict=False)] = Field(
        description="Objectives, each with its settings and a weight: the loss is their weighted sum."
    )

    @field_validator("terms", mode="before")
    @classmethod
    def _are_several(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("wanted a list of objectives, such as [{name: dpo, weight: 0.8}, {name: sft}]")
        return value

    @model_validator(mode="after")
    def _learns_something(self) -> Terms:
        if not any(term.weight for term in self.terms):
            raise ValueError("every term has weight 0, and nothing would be learned")
        return self

    @property
    def takes_weights(self) -> bool:  # type: ignore[override]
        """Whether every term does."""
        return all(term.loss.takes_weights for term in self.terms)

    @property
    def keeps_scale(self) -> bool:
        """Whether every term does."""
        return all(term.loss.keeps_scale for term in self.terms)

    @property
    def facts(self) -> tuple[str, ...]:
        """What any term reads."""
        return tuple(dict.fromkeys(fact for term in self.terms for fact in term.loss.facts))

    @property
    def needs_margins_above_zero(self) -> bool:
        """Whether any term does."""
        return any(term.loss.needs_margins_above_zero for term in self.terms)

    def unsafe(self, place: str = "loss") -> list[str]:
        """Say it of every term."""
        return [told for at, term in enumerate(self.terms) for told in term.loss.unsafe(f"{place}.terms.{at}")]


if TYPE_CHECKING:
    LossConfig: TypeAlias = _Objective | Terms
else:
    LossConfig = _one_of({**SECTIONS, "terms": Terms})
"""The objective that is trained, with its settings: one of the table, or a sum of them."""
