"""The settings of judges: for each kind a section, told apart by `kind`.

Owns which settings each of them reads, and the short forms of the command line (`--judge KIND:NAME`, or
FILE.py:FUNCTION for a rule).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from tiebreak.config.section import Place, Section
from tiebreak.errors import nearest

_CRITERIA = "which answer is more helpful, correct and clear"


class RuleJudge(Section):
    """A function that rates an answer."""

    kind: Literal["rule"] = Field("rule", description="A function that rates an answer; larger is better.")
    reward: Place = Field(description="A built-in rule, FILE.py:FUNCTION or MODULE:FUNCTION, as TRL's rewards.")
    arguments: dict[str, Any] = Field({}, description="What the function is told besides prompts and completions.")
    completions: Literal["auto", "text", "messages"] = Field(
        "auto",
        description="How it is given completions: text or messages, as TRL gives them for prompts that are text or "
        "chats; auto: for text a function of yours is tried both ways first.",
    )

    def with_whole_paths(self) -> RuleJudge:
        """Return the same with its file by its whole path."""
        place, _, name = self.reward.rpartition(":")
        return self.model_copy(update={"reward": f"{Path(place).absolute()}:{name}"}) if place.endswith(".py") else self

    @property
    def reaches(self) -> str | None:
        """Code outside of tiebreak that is run, in the form that asks for it."""
        return f"rule:{self.with_whole_paths().reward}" if ":" in self.reward else None


class RewardModelJudge(Section):
    """A sequence classifier with one label."""

    kind: Literal["reward_model"] = Field("reward_model", description="A sequence classifier with one label.")
    model: Place = Field(description="Hub id or local folder of the classifier; safetensors only.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")

    def with_whole_paths(self) -> RewardModelJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> None:
        """Nothing outside of this process but weights."""


class ModelJudge(Section):
    """A language model in this process, asked for A or B."""

    kind: Literal["model"] = Field("model", description="A language model in this process, asked for A or B.")
    model: Place = Field(description="Hub id, local folder, or bundled name of the model.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    criteria: str = Field(_CRITERIA, min_length=1, description="What the judge is asked to look at.")

    def with_whole_paths(self) -> ModelJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> None:
        """Nothing outside of this process but weights."""


class ServerJudge(Section):
    """A model behind any OpenAI-compatible endpoint."""

    kind: Literal["server"] = Field("server", description="A model behind any OpenAI-compatible endpoint.")
    model: Place = Field(description="Name of the model as the server knows it.")
    base_url: str | None = Field(None, description="Address, as http://127.0.0.1:8000/v1; null: OpenAI's.")
    key_variable: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key, never kept.")
    criteria: str = Field(_CRITERIA, min_length=1, description="What the judge is asked to look at.")
    max_tokens: int = Field(512, ge=1, le=2**20, description="Most tokens of one verdict.")
    temperature: float | None = Field(0.0, ge=0, description="Temperature that is sent; null: none is.")
    num_at_once: int = Field(4, ge=1, le=256, description="Requests under way at the same time.")
    num_retries: int = Field(
        5, ge=0, le=100, description="How often a request is tried again after a fault that may pass."
    )
    timeout_seconds: float = Field(60.0, gt=0, le=86_400, description="How long one request may take.")
    price_in: float | None = Field(None, ge=0, description="Price of a million tokens that are sent, in any currency.")
    price_out: float | None = Field(None, ge=0, description="Price of a million tokens that are answered.")
    max_cost: float | None = Field(
        None, ge=0, description="No request is sent that could take the cost above this; in rounds, of each round's."
    )
    max_calls: int | None = Field(
        None, ge=0, le=10**9, description="No more requests than this are sent; in rounds, for each round's answers."
    )

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise ValueError("is no address that can be asked, wanted one as http://127.0.0.1:8000/v1")
        return value

    @model_validator(mode="after")
    def _can_be_reckoned(self) -> ServerJudge:
        if self.max_cost is not None and None in (self.price_in, self.price_out):
            raise ValueError("max_cost needs price_in and price_out: what a request costs is not known without them")
        return self

    def with_whole_paths(self) -> ServerJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> str:
        """The server, and the variable whose content it is sent, in the form that asks for them."""
        where = f"base_url: {self.base_url or 'null'}, key_variable: {self.key_variable}"
        return f"{{kind: server, model: {self.model}, {where}}}"


class DataJudge(Section):
    """A probe on the reference's hidden states, fitted on the training pairs; weak evidence."""

    kind: Literal["data"] = Field("data", description="A linear probe fitted on the training pairs; weak evidence.")

    def with_whole_paths(self) -> DataJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> None:
        """Nothing outside of this process but weights."""


class SelfJudge(Section):
    """The policy itself, asked for A or B; in each round it is another one."""

    kind: Literal["self"] = Field("self", description="The policy itself, asked for A or B; rounds have one.")
    criteria: str = Field(_CRITERIA, min_length=1, description="What the judge is asked to look at.")

    def with_whole_paths(self) -> SelfJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> None:
        """Nothing outside of this process but weights."""


class PeopleJudge(Section):
    """People who vote: the loop writes a queue, and waits."""

    kind: Literal["people"] = Field("people", description="People, who find a queue and leave votes; rounds wait.")
    votes_needed: int = Field(1, ge=1, le=1000, description="Votes of different people on each couple of answers.")
    couples: Literal["all", "chain"] = Field(
        "all", description="Which answers to a prompt are compared: all couples, or each with the next one."
    )

    def with_whole_paths(self) -> PeopleJudge:
        """Return it as it is."""
        return self

    @property
    def reaches(self) -> None:
        """Nothing outside of this process but files of the loop."""


_NAMED = {
    "rule": "reward",
    "reward_model": "model",
    "model": "model",
    "server": "model",
    "data": None,
    "self": None,
    "people": None,
}
"""What NAME is of each kind."""
_KINDS = "kind is one of rule, reward_model, model, server, data, self and people"


def is_address(value: str) -> bool:
    """Return whether HTTP goes there, as far as the address alone can say."""
    if not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        host, _ = (parts.hostname or "").encode("idna"), parts.port  # what neither admits is a ValueError
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host)


def judge_from_short(value: Any) -> Any:
    """Return what KIND:NAME stands for, KIND alone where nothing is named, and FILE.py:FUNCTION for a rule.

    What is no text is returned as it is. Raises ValueError for a kind that is none, and for a name of what has none.
    """
    told = value.get("kind") if isinstance(value, Mapping) else value
    if not isinstance(told, str):
        return value
    kind, _, name = told.partition(":") if isinstance(value, str) else (told, "", "")
    if kind not in _NAMED and isinstance(value, str):
        if value.rpartition(":")[0].endswith(".py"):
            return {"kind": "rule", "reward": value}
        if value.endswith(".py"):
            raise ValueError(f"a rule is a function in a file; name it, as {value}:score")
    if kind not in _NAMED:
        raise ValueError(f"{_KINDS}.{nearest(kind, _NAMED)}")
    key = _NAMED[kind]
    if isinstance(value, Mapping) or not name:
        return value if isinstance(value, Mapping) else {"kind": kind}
    if key is None:
        raise ValueError(f"a judge of kind {kind} has no name; write '{kind}' alone")
    return {"kind": kind, key: name}


# By a function: pydantic takes no field for it that is looked at before it is read, as every one of a Section is.
JudgeConfig: TypeAlias = Annotated[
    Annotated[
        Annotated[RuleJudge, Tag("rule")]
        | Annotated[RewardModelJudge, Tag("reward_model")]
        | Annotated[ModelJudge, Tag("model")]
        | Annotated[ServerJudge, Tag("server")]
        | Annotated[DataJudge, Tag("data")]
        | Annotated[SelfJudge, Tag("self")]
        | Annotated[PeopleJudge, Tag("people")],
        Discriminator(
            lambda value: value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None),
            custom_error_type="judge",
            custom_error_message=_KINDS,
        ),
    ],
    BeforeValidator(judge_from_short),
]
"""Who says which of two answers is better."""
