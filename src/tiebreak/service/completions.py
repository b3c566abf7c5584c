"""Chat completions as OpenAI's client asks for them.

Owns the body of `POST /v1/chat/completions`. What would change an answer and is not done here is refused by its name,
never passed over; what changes nothing about an answer (who asks, caching, tiers of service) is taken and not used.
Knows nothing of models and processes.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tiebreak.service.contract import Few, require_few

LOWEST_TEMPERATURE = 1e-6
"""But for 0, which is greedy: below it logits divided by it overflow."""
MOST_TOKENS = 2**20
DEFAULT_TOKENS = 1024
"""Most tokens of an answer where a request states no limit."""
MOST_CHOICES = 16
MOST_PARTS = 256
"""Of one message."""


class _Body(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, value: Any) -> Any:
        return require_few(value)

    @field_validator("*")
    @classmethod
    def _is_of_whole_characters(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                try:
                    text.encode()
                except UnicodeEncodeError as error:
                    raise ValueError(f"is no text at its character {error.start + 1}; wanted UTF-8") from None
        return value


def _text_of(content: Any) -> Any:
    """Return a content as one text; parts of text are joined, as those of training data are."""
    if isinstance(content, list | tuple):
        if len(content) > MOST_PARTS:
            raise ValueError(f"has {len(content)} parts; wanted at most {MOST_PARTS}")
        for place, part in enumerate(content):
            if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
                kind = part.get("type") if isinstance(part, Mapping) else None
                told = f"is of type {str(kind)[:40]!r}" if kind else "is no part"
                raise ValueError(f"part {place} {told}; wanted parts of text alone, {{type: text, text: …}}")
            if unknown := sorted(map(str, part.keys() - {"type", "text", "prompt_cache_breakpoint"})):
                raise ValueError(f"part {place} has an unknown field {unknown[0][:40]!r}")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError("wanted a text, or a list of parts of text")
    return content


_TOOLS = "tools are"
_ZERO = (0, 0.0)
_NOT_DONE: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "frequency_penalty": ("penalties are", _ZERO),
    "presence_penalty": ("penalties are", _ZERO),
    "logit_bias": ("a bias of logits is", ({},)),
    "tools": (_TOOLS, ([],)),
    "functions": (_TOOLS, ([],)),
    "tool_calls": (_TOOLS, ([],)),
    "tool_choice": (_TOOLS, ("none", "auto")),
    "function_call": (_TOOLS, ("none", "auto")),
    "modalities": ("other modalities than text are", (["text"],)),
    "audio": ("audio is", ()),
    "refusal": ("refusals are", ()),
    "annotations": ("annotations are", ([],)),
    "store": ("keeping completions is", (False,)),
    "moderation": ("moderation is", ()),
    "reasoning_effort": ("an effort of reasoning is", ()),
    "verbosity": ("verbosity is", ("medium",)),
    "web_search_options": ("a search of the web is", ()),
}
"""Fields that would change an answer, in words, and what may stand there beside null, since it holds anyway."""


def _holds_anyway(value: Any, info: ValidationInfo) -> Any:
    what, also = _NOT_DONE[str(info.field_name)]
    if value is not None and not any(type(value) is type(one) and value == one for one in also):
        allowed = " or ".join(["null", *(repr(one) for one in also)])
        raise ValueError(f"{what} not done here, so that only {allowed} may stand here")
    return value


Undone = Annotated[Any, AfterValidator(_holds_anyway)]
"""Of a field that may only say what holds anyway."""


class SaidMessage(_Body):
    """One message of a conversation, in text."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who says it.")
    content: Annotated[str, BeforeValidator(_text_of)] = Field(description="A text, or a list of parts of text.")
    name: str | None = Field(None, max_length=64, description="Name of who says it, where the chat template writes it.")
    # What an answer of this API has besides its text; a client sends it back with the conversation.
    refusal: Undone = None
    annotations: Undone = None
    audio: Undone = None
    tool_calls: Undone = None
    function_call: Undone = None


class StreamOptions(_Body):
    """What a stream has besides the answer."""

    include_usage: bool | None = Field(None, description="A last chunk with the counts of tokens.")
    include_obfuscation: bool | None = Field(None, description="Taken, and without effect: nothing is added.")


class ResponseFormat(_Body):
    """The form that an answer has: text."""

    type: Literal["text"] = Field(description="text, which is all that is done here.")


class ChatRequest(_Body):
    """The body of `POST /v1/chat/completions`."""

    model: str = Field(min_length=1, max_length=512, description="Name of a model of this server.")
    messages: tuple[SaidMessage, ...] = Field(
        min_length=1,
        max_length=4096,
        strict=False,
        fail_fast=True,
        description="The conversation that the answer follows.",
    )
    temperature: float | None = Field(None, ge=0, le=2, description="Of drawing; 0: the likeliest token; null: 1.")
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the probability that tokens are drawn from, likeliest first; null: 1.",
    )
    max_tokens: int | None = Field(
        None, ge=1, le=MOST_TOKENS, description=f"Most tokens of an answer; null: {DEFAULT_TOKENS}."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=MOST_TOKENS, description="The newer name of max_tokens; where both stand they are equal."
    )
    n: int | None = Field(None, ge=1, le=MOST_CHOICES, description="Answers to give; null: 1.")
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="The same seed draws the same answers; null: a fresh one."
    )
    stop: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...],
        BeforeValidator(lambda value: () if value is None else [value] if isinstance(value, str) else value),
    ] = Field(
        (), max_length=4, strict=False, fail_fast=True, description="Up to four texts, before which an answer ends."
    )
    logprobs: bool | None = Field(None, description="Whether to say how likely each token of an answer was.")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="And how likely so many others were in its place.")
    stream: bool | None = Field(None, description="Whether an answer is sent while it comes, as server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="Only with stream: true.")
    response_format: ResponseFormat | None = Field(None, description="{type: text} alone.")
    # Taken, and without effect on an answer.
    user: str | None = None
    safety_identifier: str | None = None
    metadata: Annotated[dict[str, str] | None, Few] = Field(None, max_length=16)
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    # These would change an answer.
    frequency_penalty: Undone = None
    presence_penalty: Undone = None
    logit_bias: Undone = None
    tools: Undone = None
    functions: Undone = None
    tool_choice: Undone = None
    function_call: Undone = None
    modalities: Undone = None
    audio: Undone = None
    store: Undone = None
    moderation: Undone = None
    reasoning_effort: Undone = None
    verbosity: Undone = None
    web_search_options: Undone = None

    @field_validator("temperature")
    @classmethod
    def _can_be_divided_by(cls, value: float | None) -> float | None:
        if value and value < LOWEST_TEMPERATURE:
            raise ValueError(f"wanted 0, which is greedy, or a number from {LOWEST_TEMPERATURE:g} to 2")
        return value

    @field_validator("max_completion_tokens")
    @classmethod
    def _is_the_same_limit(cls, value: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_tokens")
        if value is not None and other is not None and value != other:
            raise ValueError(f"is {value} and max_tokens {other}, which mean the same: state one of them")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _is_asked_with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise ValueError("wants logprobs: true beside it")
        return value

    @field_validator("stream_options")
    @classmethod
    def _is_of_a_stream(cls, value: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if value is not None and not info.data.get("stream"):
            raise ValueError("wants stream: true beside it")
        return value

    @property
    def asked(self) -> dict[str, Any]:
        """The request as JSON for whoever answers, every default in its place; without a seed it has a fresh one."""
        return {
            "messages": [
                {"role": one.role, "content": one.content} | ({"name": one.name} if one.name else {})
                for one in self.messages
            ],
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "max_tokens": self.max_tokens or self.max_completion_tokens or DEFAULT_TOKENS,
            "n": self.n or 1,
            "seed": secrets.randbits(63) if self.seed is None else self.seed,
            "stop": list(self.stop),
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
            "stream": bool(self.stream),
        }

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)
