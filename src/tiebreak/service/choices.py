"""The objects that answer a chat: `chat.completion`, and the chunks of a stream.

Owns their form, as the types of OpenAI's client read it. Knows nothing of models and processes.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tiebreak.service.completions import ChatRequest

UNLIKELY = -9999.0
"""What stands for a log-probability that JSON has no number for, as in OpenAI's answers."""


@dataclass(frozen=True)
class Choice:
    """One answer, whole."""

    text: str
    finish_reason: Literal["stop", "length"]
    num_tokens: int
    """That were generated, also those that a stop sequence cut off."""
    logprobs: Sequence[Mapping[str, Any]] | None = None
    """What `token_logprob` returns for each token of the text; None where nobody asked."""


@dataclass(frozen=True)
class Head:
    """What all objects of one answer begin with."""

    id: str
    created: int
    model: str
    tells_usage: bool = False
    """Whether chunks have a place for the counts of tokens, which the last one fills."""

    @staticmethod
    def of(request: ChatRequest) -> Head:
        """Return the head of an answer that begins now."""
        return Head(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), request.model, request.tells_usage)

    def object(self, kind: str) -> dict[str, Any]:
        """Return the fields, as those of an object of a kind."""
        told = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**told, "service_tier": "default", "system_fingerprint": None}


def token_logprob(token: bytes, logprob: float, top: Sequence[tuple[bytes, float]] = ()) -> dict[str, Any]:
    """Return how likely a token was, and others in its place, as a choice tells it.

    A token that is no whole characters is told as its bytes in words, as OpenAI does; `bytes` are exact in any case.
    """

    def told(raw: bytes, value: float) -> dict[str, Any]:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
        return {"token": text, "bytes": list(raw), "logprob": max(value, UNLIKELY)}

    return {**told(token, logprob), "top_logprobs": [told(*one) for one in top]}


def usage_of(num_prompt: int, choices: Sequence[Choice]) -> dict[str, int]:
    """Return the counts of tokens of an answer."""
    num = sum(choice.num_tokens for choice in choices)
    return {"prompt_tokens": num_prompt, "completion_tokens": num, "total_tokens": num_prompt + num}


def completion(head: Head, choices: Sequence[Choice], num_prompt: int) -> dict[str, Any]:
    """Return the object `chat.completion`."""
    told: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
            "logprobs": _logprobs(choice),
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    return {**head.object("chat.completion"), "choices": told, "usage": usage_of(num_prompt, choices)}


def first_chunk(head: Head, index: int) -> dict[str, Any]:
    """Return the chunk that begins an answer."""
    return _chunk(head, index, {"role": "assistant", "content": "", "refusal": None})


def text_chunk(head: Head, index: int, piece: str) -> dict[str, Any]:
    """Return a chunk with more of an answer's text."""
    return _chunk(head, index, {"content": piece})


def last_chunk(head: Head, index: int, choice: Choice) -> dict[str, Any]:
    """Return the chunk that ends an answer; how likely its tokens were is known only then, and stands here."""
    return _chunk(head, index, {}, logprobs=_logprobs(choice), finish_reason=choice.finish_reason)


def usage_chunk(head: Head, num_prompt: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """Return the chunk behind all others, with the counts of tokens."""
    return {**head.object("chat.completion.chunk"), "choices": [], "usage": usage_of(num_prompt, choices)}


def _logprobs(choice: Choice) -> dict[str, Any] | None:
    return None if choice.logprobs is None else {"content": list(choice.logprobs), "refusal": None}


def _chunk(
    head: Head, index: int, delta: Mapping[str, Any], *, logprobs: Any = None, finish_reason: str | None = None
) -> dict[str, Any]:
    told = {"index": index, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish_reason}
    usage = {"usage": None} if head.tells_usage else {}
    return {**head.object("chat.completion.chunk"), "choices": [told], **usage}
