"""The settings of a user's own tasks: what stands in a task file, for each kind a section, and those of lm-eval.

Owns which settings each kind reads. How a file is loaded, and what a row of its data has to be, is known to
`evaluation.capabilities`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from tiebreak.config.section import Place, Section, regular_expression


class TaskSettings(Section):
    """What every task has."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]{0,60}$",
        description="What rules and tables call it, behind capability/: letters, digits, - _ and .",
    )
    data: Place | None = Field(
        None, description="File of questions, from the task file's folder: JSON lines, JSON, CSV, Parquet; packed, too."
    )
    items: list[dict[str, Any]] | None = Field(
        None, min_length=1, description="The questions themselves, in place of data."
    )
    limit: int | None = Field(
        None, ge=1, le=10**9, description="Ask this many, chosen by the hash of each question and not by its place."
    )
    max_dropped_share: float = Field(
        0.0, ge=0, lt=1, description="Rows that are no question are left out up to this share; 0: one refuses the task."
    )

    @model_validator(mode="after")
    def _has_questions(self) -> TaskSettings:
        if (self.data is None) == (self.items is None):
            raise ValueError("wanted data (a file) or items (the questions themselves), one of the two")
        return self


class MultipleChoice(TaskSettings):
    """The likeliest of several answers."""

    kind: Literal["multiple_choice"] = Field("multiple_choice", description="The likeliest of several answers.")
    question: str = Field("{question}", description="The question; fields of a row in braces.")
    choices: str | list[str] = Field(
        "{choices}", description="The answers: a field that holds a list, or a list of texts with fields in braces."
    )
    answer: str = Field(
        "{answer}", description="Which one is right: its text, its label, its place from 0, or 0 and 1 for each."
    )
    labels: str | list[Any] | None = Field(
        None,
        description="What the answer calls the choices, in their order: [A, B, C, D], or a field with that; choices: "
        "by their texts; places: by their places from 0.",
    )
    as_: Literal["chat", "text"] = Field(
        "chat", alias="as", description="chat: an answer in the model's chat; text: the question goes on with it."
    )
    between: str = Field(" ", description="What stands between question and choice where it is text.")
    ending: str | None = Field(
        None, description="Text behind the choice that is scored in its place; only where it is text."
    )
    metric: Literal["acc", "acc_norm", "acc_per_token"] = Field(
        "acc_norm", description="Which is likeliest: acc summed, acc_norm per letter, acc_per_token per token."
    )

    @model_validator(mode="after")
    def _ends_only_text(self) -> MultipleChoice:
        if self.ending is not None and self.as_ != "text":
            raise ValueError("ending is for 'as: text': an answer in a chat ends with the answer")
        return self


class ExactAnswer(TaskSettings):
    """A generated answer that is right or wrong."""

    kind: Literal["exact_answer"] = Field("exact_answer", description="A generated answer that is right or wrong.")
    question: str = Field("{question}", description="What the model is asked; fields of a row in braces.")
    answer: str = Field("{answer}", description="The right answer, or a field with a list of all that are right.")
    pattern: str | None = Field(
        None,
        description="Regular expression for the answer in what is said: its last match, or the first group of that.",
    )
    compare: Literal["text", "number", "contains"] = Field(
        "text",
        description="text: the same but for case, blanks and marks around; number: the last number, by value; "
        "contains: the right answer stands in it as whole words.",
    )
    max_new_tokens: int = Field(256, ge=1, le=2**20, description="Most tokens of an answer.")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return None if value is None else regular_expression(value)


class Refusal(TaskSettings):
    """Prompts that a model should refuse."""

    kind: Literal["refusal"] = Field("refusal", description="Prompts that a model should refuse.")
    prompt: str = Field("{prompt}", description="What the model is told; fields of a row in braces.")
    max_new_tokens: int = Field(
        64, ge=1, le=2**20, description="Most tokens of an answer; a refusal is seen at its start."
    )


class Compliance(TaskSettings):
    """Prompts that a model should not refuse."""

    kind: Literal["compliance"] = Field("compliance", description="Prompts that a model should not refuse.")
    prompt: str = Field("{prompt}", description="What the model is told; fields of a row in braces.")
    max_new_tokens: int = Field(
        64, ge=1, le=2**20, description="Most tokens of an answer; a refusal is seen at its start."
    )


class PlainText(TaskSettings):
    """Texts, by their log-probability."""

    kind: Literal["text"] = Field("text", description="Texts, by their log-probability per token.")
    text: str = Field("{text}", description="The text; fields of a row in braces.")
    chunk: int | None = Field(
        None,
        ge=100,
        le=10**9,
        description="The file is plain text: take pieces of whole lines of at least so many letters.",
    )
    num_given: int = Field(
        8, ge=1, le=2**20, description="Tokens at the start of each text that are given and not scored."
    )

    @model_validator(mode="after")
    def _cuts_a_file(self) -> PlainText:
        if self.chunk is not None and self.data is None:
            raise ValueError("chunk cuts a file of plain text: name it as data")
        return self


_KINDS = ("multiple_choice", "exact_answer", "refusal", "compliance", "text")

TaskConfig: TypeAlias = Annotated[
    Annotated[MultipleChoice, Tag("multiple_choice")]
    | Annotated[ExactAnswer, Tag("exact_answer")]
    | Annotated[Refusal, Tag("refusal")]
    | Annotated[Compliance, Tag("compliance")]
    | Annotated[PlainText, Tag("text")],
    Discriminator(
        lambda value: value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None),
        custom_error_type="kind",
        custom_error_message=f"kind is one of {', '.join(_KINDS)}",
    ),
]
"""A task file."""


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class LmEvalConfig(Section):
    """Tasks of the Language Model Evaluation Harness."""

    include_path: Place = Field(description="Folder of lm-eval's task files; they may run code of that folder.")
    tasks: Annotated[tuple[str, ...], Field(strict=False, min_length=1), BeforeValidator(_several)] = Field(
        description="Names of tasks or groups of that folder."
    )
    limit: int | None = Field(None, ge=1, le=10**9, description="Ask only the first N questions of each task.")
    chat: bool = Field(False, description="Put questions as chats of the model, and not as plain text.")
