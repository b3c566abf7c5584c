"""What a client may say: the bodies of requests, field by field, as OpenAI's specification has them.

Owns names, ranges and forms. Unknown fields are refused: a setting that is not read would be lost without a word. What
becomes of a request is known to `translate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from reprlib import Repr
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tiebreak.errors import one_line
from tiebreak.service.refusals import Refusal

MOST_METADATA = 16
MOST_FIELDS = 100


def require_few(value: Any, most: int = MOST_FIELDS) -> Any:
    """Raise ValueError for an object of more fields, before any is looked at: each would be a fault of its own."""
    if isinstance(value, Mapping) and len(value) > most:
        raise ValueError(f"wanted at most {most} of them")
    return value


Few = BeforeValidator(lambda value: require_few(value, MOST_METADATA))
"""Of metadata."""


class Body(BaseModel):
    """A body or a part of one: frozen, strict, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        return require_few(value)


Auto = Literal["auto"]
Epochs = Auto | Annotated[int, Field(ge=1, le=50)] | None
BatchSize = Auto | Annotated[int, Field(ge=1, le=256)] | None
Multiplier = Auto | Annotated[float, Field(gt=0, le=1000)] | None
Beta = Auto | Annotated[float, Field(gt=0, le=2)] | None


class Hyperparameters(Body):
    """Settings of training; `auto` and what is left out are the operator's."""

    n_epochs: Epochs = None
    batch_size: BatchSize = None
    learning_rate_multiplier: Multiplier = None

    @property
    def given(self) -> dict[str, int | float]:
        """What is said, without what is left to the operator."""
        return {name: value for name, value in self if value not in (None, "auto")}


class DpoHyperparameters(Hyperparameters):
    """Settings of training on pairs."""

    beta: Beta = None


class Supervised(Body):
    """Training on demonstrations."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Dpo(Body):
    """Training on pairs."""

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Method(Body):
    """How is trained; blocks of other methods than `type` may stand there and say nothing."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised | None = None
    dpo: Dpo | None = None
    reinforcement: dict[str, Any] | None = None

    @property
    def told(self) -> Hyperparameters:
        """The settings of the method that is meant."""
        block = self.dpo if self.type == "dpo" else self.supervised
        return block.hyperparameters if block else Hyperparameters()

    @property
    def unread(self) -> list[str]:
        """Blocks of other methods."""
        return [name for name in ("supervised", "dpo", "reinforcement") if name != self.type and getattr(self, name)]


Id = Annotated[str, Field(min_length=1, max_length=200)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=MOST_METADATA),
    Few,
]


class JobRequest(Body):
    """What a fine-tuning job is made of."""

    model: Id = Field(description="A model that is offered, or one that a job made: it is trained further.")
    training_file: Id
    validation_file: Id | None = None
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(None, description="Of before `method`; may say the same as it.")
    seed: int | None = Field(None, ge=0, le=2**31 - 1)
    suffix: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    metadata: Metadata | None = None
    integrations: Annotated[list[dict[str, Any]], Field(max_length=100, fail_fast=True)] | None = None

    @field_validator("integrations")
    @classmethod
    def _are_none(cls, value: list[dict[str, Any]] | None) -> None:
        if value:
            raise ValueError(
                "this service reports to nobody else; its operator may (output.trackers), and the numbers are in the "
                "events and result files of the job"
            )

    @model_validator(mode="after")
    def _can_be_trained(self) -> JobRequest:
        if self.method is None:
            return self
        if self.method.type == "reinforcement":
            raise Refusal(
                400, "method.type: 'reinforcement' is not offered; wanted dpo or supervised", param="method.type"
            )
        told = self.method.told.given
        for name, value in (self.hyperparameters or Hyperparameters()).given.items():
            if told.get(name) != value:
                raise Refusal(
                    400,
                    f"hyperparameters.{name}: says {value}, and method says {told.get(name, 'auto')}; say it in method",
                    param=f"hyperparameters.{name}",
                )
        return self

    @property
    def kind(self) -> Literal["dpo", "supervised"]:
        """The method; demonstrations where nothing is said of one, as OpenAI takes it."""
        return "dpo" if self.method and self.method.type == "dpo" else "supervised"

    @property
    def told(self) -> Hyperparameters:
        """The settings of training that the client says something of."""
        return self.method.told if self.method else self.hyperparameters or Hyperparameters()

    def place_of(self, name: str) -> str:
        """Return where one of those settings stands in the body."""
        return f"{f'method.{self.kind}.' if self.method else ''}hyperparameters.{name}"


def refusal_of(faults: Sequence[Mapping[str, Any]]) -> Refusal:
    """Return the answer to a request that is not of its form: 400 with the first fault, its field named."""
    fault = _meant(faults)
    where, *place = fault["loc"]
    names = [str(part) for part in place if isinstance(part, int) or part.isidentifier()]
    names = [name for name in names if name not in ("Literal", "int", "float", "str", "constrained")]
    param = ".".join(names) or None
    if fault["type"] == "json_invalid":
        return Refusal(400, "The body of the request is no JSON.", code="invalid_json")
    said = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        said = f"Unknown {'parameter' if where == 'body' else where}: '{param}'."
        return Refusal(400, said, param=param, code="unknown_parameter")
    if fault["type"] == "missing":
        said = "is missing" if param else "a body of JSON is wanted"
        return Refusal(400, f"{param or 'body'}: {said}", param=param, code="missing_required_parameter")
    if fault["type"] in ("model_attributes_type", "dict_type") and isinstance(fault["input"], bytes):
        return Refusal(400, "The body came as bytes; send the header 'Content-Type: application/json'.")
    said = _words(fault)
    found = "" if fault["type"] == "value_error" else f"; found {_found(fault['input'])}"
    said = f"{said[:1].lower()}{said[1:]}{found}"
    return Refusal(400, f"{param or 'The body'}: {said}", param=param, code="invalid_value")


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 200


def _found(value: Any) -> str:
    """Return the beginning of a value, of any size, in one line."""
    if isinstance(value, str | bytes | list | tuple):
        value = value[:100]
    elif isinstance(value, dict):
        value = dict(islice(value.items(), 10))
    return one_line(_REPR.repr(value), 60)


_WORDS = {
    "string_pattern_mismatch": "wanted letters, digits, '.', '_' and '-', 1 to 64 of them",
    "int_type": "wanted a whole number",
    "int_parsing": "wanted a whole number",
    "float_type": "wanted a number",
    "string_type": "wanted a text",
    "bool_type": "wanted true or false",
    "greater_than": "wanted more than {gt}",
    "greater_than_equal": "wanted {ge} or more",
    "less_than_equal": "wanted {le} or less",
    "string_too_long": "wanted at most {max_length} characters",
    "string_too_short": "wanted at least {min_length} characters",
    "model_attributes_type": "wanted an object",
    "dict_type": "wanted an object",
}


def _words(fault: Mapping[str, Any]) -> str:
    """Return what was wanted, in a client's words."""
    context = fault.get("ctx", {})
    if fault["type"] in ("too_long", "too_short"):
        end = "at most" if fault["type"] == "too_long" else "at least"
        return f"wanted {end} {context.get('max_length', context.get('min_length'))} of them"
    if (words := _WORDS.get(fault["type"])) is not None:
        return words.format_map(
            {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}
        )
    return str(fault["msg"]).removeprefix("Value error, ")


def _meant(faults: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the fault to tell: of a value that may be 'auto' or a number, that of the number."""
    first = faults[0]
    *place, branch = first["loc"]
    if not str(branch).startswith("literal["):  # what pydantic calls a branch of such a value
        return first
    return next((one for one in faults if [*one["loc"][:-1]] == place and one["type"] != "literal_error"), first)
