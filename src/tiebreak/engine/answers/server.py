"""Answers of a server that speaks OpenAI's `/v1/completions` in token ids: vLLM, SGLang, llama-server.

Owns what is sent and what counts as an answer. Prompts go out as the ids that training renders, and nothing is left for
the server to fill in: vLLM and SGLang take sampling settings that a request lacks from the model's
generation_config.json, llama-server from its own defaults. Answers come back as ids; text is never tokenized again,
which could give other ids than were drawn. Each answer is a request of its own, with a seed of its own: some servers
refuse several to one request, all of them keep the prompt's keys and values, and what is asked again after a fault is
one answer. The `openai` client is loaded with the first answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tiebreak.engine.answers.answerer import Answer, Chat, Done, Sampling, nothing
from tiebreak.engine.answers.at_once import AtOnce
from tiebreak.engine.answers.wire import Unusable, Wire
from tiebreak.errors import ModelError
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.records import Message
from tiebreak.secrecy import masked

DISABLED: Mapping[str, Any] = {
    "top_k": -1,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "repeat_penalty": 1.0,
    "min_tokens": 0,
    "ignore_eos": False,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
}
"""What would change the distribution, under the names of each server; one ignores those of another."""
ASKED_FOR_IDS: Mapping[str, Any] = {
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "return_tokens": True,
    "skip_special_tokens": False,
}
_AS_ID = "token_id:"
_MOST_ID = 2**31


class Rendering(Protocol):
    """What turns chats into ids and ids into text: `data.render.Renderer`."""

    def prompt(self, prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Return the ids that the next answer follows."""

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of an answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and how patient to be with it."""

    model: str
    """Name of the model as the server knows it."""
    base_url: str | None = None
    """Address, as http://127.0.0.1:8000/v1; None: OpenAI's."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; a server that wants none is sent a word in its place."""
    num_at_once: int = 8
    """Requests under way at the same time."""
    num_retries: int = 5
    """How often a request is tried again after a fault that may pass: no connection, too slow, too many, a 5xx."""
    timeout_seconds: float = 600.0
    """How long one request may take."""
    adapter: str | None = None
    """Name of a loaded adapter, where the server wants it beside the model's (SGLang)."""

    @property
    def where(self) -> str:
        """Which model is meant where, for messages."""
        of = f"{self.adapter} on " if self.adapter else ""
        return masked(f"model {of}{self.model} at {self.base_url or 'api.openai.com'}")


@dataclass(frozen=True)
class Said:
    """An answer, and how likely each of its ids was, as the server says."""

    answer: Answer
    logps: tuple[float, ...] | None
    """Of each of its ids (nats), before anything changes the distribution; None where the server does not say."""


class Server:
    """An answerer behind an address."""

    def __init__(self, endpoint: Endpoint, rendering: Rendering, eos_ids: Sequence[int], known: str = "") -> None:
        """`rendering` and `eos_ids` are those of the tokenizer that the served model has.

        `known` is what else answers depend on, as far as it is known from outside: a template, a digest of weights.
        """
        self._endpoint = endpoint
        self._rendering = rendering
        self._eos_ids = tuple(eos_ids)
        self.identity = fingerprint([endpoint.model, endpoint.base_url, known, list(eos_ids)])
        """Of address, name and what is known: which weights a server holds is its own affair."""
        self.where = endpoint.where
        """Which model is asked where, for messages."""

    def answer(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Answer]:
        """Return `sampling.num` answers for each chat, chat after chat; `done` is told a chat when it has all of them.

        Raises ModelError where the server cannot be asked, and where its answer has no token ids.
        """
        return [one.answer for one in self.said(chats, sampling, done)]

    def said(self, chats: Sequence[Chat], sampling: Sampling, done: Done = nothing) -> list[Said]:
        """Return what `answer` returns, and what the server says how likely it was."""
        greedy = sampling.temperature <= 0
        num, times = (1, sampling.num) if greedy else (sampling.num, 1)
        prompts = [self._rendering.prompt(chat.messages, chat.tools) for chat in chats]
        wire = self._wire(sampling)
        found: dict[int, list[Said | None]] = {index: [None] * num for index in range(len(chats))}

        def take(index: int, number: int, said: Said) -> None:
            found[index][number] = said
            if None not in found[index]:
                group = [one.answer for one in found[index] if one is not None for _ in range(times)]
                done([(index * sampling.num + place, one) for place, one in enumerate(group)])

        tasks = [(index, number) for index in range(len(prompts)) for number in range(num)]
        asked = AtOnce(
            lambda task: self._ask(wire, sampling, prompts[task[0]], task[1]), tasks, self._endpoint.num_at_once
        )
        try:
            for task, said in asked:
                take(*task, said)
        except ModelError:
            # What is under way still ends, and is told; nothing more is asked.
            for task, said in asked.rest():
                take(*task, said)
            raise
        finally:
            asked.stop()
            wire.close()
        return [one for group in found.values() for one in group if one is not None for _ in range(times)]

    def _wire(self, sampling: Sampling) -> Wire:
        endpoint = self._endpoint
        return Wire(
            endpoint.base_url,
            endpoint.key_variable,
            endpoint.timeout_seconds,
            sampling.max_new_tokens,
            endpoint.num_retries,
        )

    def _ask(self, wire: Wire, sampling: Sampling, prompt: Sequence[int], number: int) -> Said:
        """Ask for one answer to a prompt by its number."""
        also = {} if self._endpoint.adapter is None else {"lora_path": self._endpoint.adapter}
        body = {
            "model": self._endpoint.model,
            "prompt": list(prompt),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "n": 1,
            # 31 bits are what every server takes.
            "seed": derive_seed(sampling.seed, "answer", fingerprint(list(prompt)), number) % 2**31,
            "logprobs": 1,
            "stream": False,
            "extra_body": {**DISABLED, **ASKED_FOR_IDS, "stop_token_ids": list(self._eos_ids), **also},
        }
        try:
            told = wire.ask(lambda client: client.completions.with_raw_response.create(**body).content)
        except (wire.openai.OpenAIError, Unusable, TimeoutError) as error:
            said = f"{type(error).__name__}: {wire.told(error)}"
            tried = f"(after {self._endpoint.num_retries} retries where one could help)"
            raise ModelError(f"{self.where}: {said} {tried}") from error
        return self._read(told, wire)

    def _read(self, body: bytes, wire: Wire) -> Said:
        try:
            choices = json.loads(body)["choices"]
            ids = _ids_of(choices[0]) if len(choices) == 1 else ()
            stopped = [choice.get("finish_reason") for choice in choices] == ["stop"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{self.where}: answers in no form of a completion: {wire.told(body)}") from None
        if len(choices) != 1:
            raise ModelError(f"{self.where}: wanted one answer to one request, found {len(choices)}")
        if ids is None:
            raise ModelError(
                f"{self.where}: it answers without token ids; wanted choices[0].token_ids (vLLM, SGLang), "
                "or ids within logprobs (llama-server, older vLLM); text alone is not tokenized again"
            )
        # Some servers keep the token that ended the answer, others do not.
        end = next((place for place, token in enumerate(ids) if token in self._eos_ids), None)
        finished = end is not None or stopped
        return Said(Answer(self._rendering.text(ids[:end]), ids[:end], finished), _logps_of(choices[0], len(ids[:end])))


def _ids_of(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the ids of an answer, wherever a server puts them; None where it does not give them.

    Raises ValueError, TypeError or AttributeError where what stands there is none.
    """
    logprobs = choice.get("logprobs") or {}
    content, named = logprobs.get("content"), logprobs.get("tokens")
    told = [choice.get("token_ids"), choice.get("tokens")]
    told += [[one.get("id") for one in content]] if isinstance(content, list) else []  # llama-server
    if isinstance(named, list) and all(str(token).startswith(_AS_ID) for token in named):
        told += [[int(token.removeprefix(_AS_ID)) for token in named]]
    for ids in told:
        if isinstance(ids, list) and all(type(one) is int and 0 <= one < _MOST_ID for one in ids):
            return tuple(ids)
    return None


def _logps_of(choice: Mapping[str, Any], num: int) -> tuple[float, ...] | None:
    """Return the log-probabilities of the first ids of an answer; None where they are not all told as numbers."""
    told = choice.get("logprobs") or {}
    content, values = told.get("content"), told.get("token_logprobs")
    if isinstance(content, list):  # llama-server
        values = [one.get("logprob") for one in content]
    if not isinstance(values, list) or len(values) < num:
        return None
    are_numbers = all(type(one) in (int, float) and math.isfinite(one) for one in values[:num])
    return tuple(map(float, values[:num])) if are_numbers else None
