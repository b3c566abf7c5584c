"""What OpenAI's client sends is read, what is not done is refused by name, and answers are of the client's types."""

from __future__ import annotations

import json
import typing

import httpx2
import openai
import pytest
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionAssistantMessageParam,
    ChatCompletionChunk,
    ChatCompletionUserMessageParam,
    completion_create_params,
)

from tiebreak.service.bodies import parsed
from tiebreak.service.choices import (
    Choice,
    Head,
    completion,
    first_chunk,
    last_chunk,
    text_chunk,
    token_logprob,
    usage_chunk,
)
from tiebreak.service.completions import DEFAULT_TOKENS, ChatRequest, SaidMessage
from tiebreak.service.refusals import Refusal


def chat_request(body):
    """What the route makes of a body."""
    return parsed(ChatRequest, json.dumps(body).encode())


USER = {"role": "user", "content": "the cat"}
LEAST = {"model": "m", "messages": [USER]}
TOKENS = [token_logprob(b" the", -0.5, [(b" the", -0.5), (b"\xe2\x9c", float("-inf"))])]
CHOICES = [Choice("one", "stop", 3, TOKENS), Choice("", "length", 7)]
HEAD = Head.of(chat_request(LEAST))


def _asked(**more):
    return chat_request(LEAST | more).asked


def _refused(**more):
    with pytest.raises(Refusal) as caught:
        chat_request(LEAST | more)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    return caught.value.param, str(caught.value)


def _sent(**more):
    """The body that the client itself sends."""
    bodies = []

    def take(request):
        bodies.append(json.loads(request.content))
        return httpx2.Response(200, json=completion(HEAD, CHOICES, 5))

    client = openai.OpenAI(
        api_key="none", base_url="http://here/v1", http_client=httpx2.Client(transport=httpx2.MockTransport(take))
    )
    answer = client.chat.completions.create(**(LEAST | more))
    return bodies[0], answer


def test_a_request_that_says_least_is_asked_with_every_default_in_its_place():
    asked = _asked()
    assert asked.pop("seed") != _asked()["seed"]
    assert asked == {
        "messages": [USER], "temperature": 1.0, "top_p": 1.0, "max_tokens": DEFAULT_TOKENS, "n": 1, "stop": [],
        "logprobs": None, "stream": False,
    }  # fmt: skip


def test_a_request_that_says_all_is_asked_as_it_says():
    asked = _asked(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}]},
            {"role": "assistant", "content": "sat", "name": "Tom"},
            USER,
        ],
        temperature=0, top_p=0.5, max_completion_tokens=7, max_tokens=7, n=3, seed=-4, stop="\n", logprobs=True,
        top_logprobs=2, stream=True, stream_options={"include_usage": True}, response_format={"type": "text"},
    )  # fmt: skip
    assert asked == {
        "messages": [
            {"role": "developer", "content": "be brief"}, USER,
            {"role": "assistant", "content": "sat", "name": "Tom"}, USER,
        ],
        "temperature": 0, "top_p": 0.5, "max_tokens": 7, "n": 3, "seed": -4, "stop": ["\n"], "logprobs": 2,
        "stream": True,
    }  # fmt: skip
    assert _asked(stop=["a", "b"], logprobs=True) | {"seed": 0} == _asked(stop=("a", "b"), logprobs=True) | {"seed": 0}
    assert _asked(logprobs=True)["logprobs"] == 0
    assert _asked(logprobs=False)["logprobs"] is None


def test_null_says_what_a_field_left_out_says():
    nulls = dict.fromkeys(set(ChatRequest.model_fields) - {"model", "messages"})
    assert _asked(**nulls) | {"seed": 0} == _asked() | {"seed": 0}


def test_what_changes_nothing_about_an_answer_is_taken():
    harmless = {
        "user": "u", "safety_identifier": "s", "metadata": {"a": "b"}, "store": False, "service_tier": "auto",
        "prompt_cache_key": "k", "parallel_tool_calls": True, "tools": [], "tool_choice": "auto", "logit_bias": {},
        "frequency_penalty": 0, "presence_penalty": 0.0, "modalities": ["text"], "verbosity": "medium",
    }  # fmt: skip
    assert _asked(**harmless) | {"seed": 0} == _asked() | {"seed": 0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "required"),
        ("function_call", {"name": "f"}),
        ("logit_bias", {"50256": -100}),
        ("frequency_penalty", 0.1),
        ("presence_penalty", -2),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("modalities", ["text", "audio"]),
        ("store", True),
        ("moderation", {"model": "m"}),
        ("reasoning_effort", "low"),
        ("verbosity", "high"),
        ("web_search_options", {}),
        ("service_tier", "flex"),
        ("temperature", 2.1),
        ("temperature", -0.1),
        ("temperature", 1e-9),
        ("temperature", "1"),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.01),
        ("n", 0),
        ("n", 17),
        ("n", True),
        ("n", 1.0),
        ("max_tokens", 0),
        ("max_completion_tokens", -1),
        ("seed", 2**63),
        ("seed", 0.5),
        ("stop", ["a"] * 5),
        ("stop", [1]),
        ("stop", "\udc00"),
        ("model", "\udc00"),
        ("stop", {"a": 1}),
        ("logprobs", 1),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("model", ""),
        ("model", None),
        ("messages", []),
        ("messages", "hello"),
        ("messages", None),
        ("metadata", {str(place): "" for place in range(17)}),
        ("made_up", 1),
    ],
)
def test_what_is_not_done_or_out_of_range_is_refused_by_its_name(field, value):
    param, told = _refused(**{field: value})
    assert (param or "").startswith(field)
    assert told.startswith((field, f"Unknown parameter: '{field}'"))


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages.1.role"),
        ({"role": "function", "name": "f", "content": "x"}, "messages.1.role"),
        ({"role": "user"}, "messages.1.content"),
        ({"role": "user", "content": None}, "messages.1.content"),
        ({"role": "user", "content": 5}, "messages.1.content"),
        ({"role": "user", "content": "half a character \ud83d"}, "messages.1.content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages.1.content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.1.content"),
        ({"role": "user", "content": ["text"]}, "messages.1.content"),
        ({"role": "user", "content": [{"type": "text", "text": "a", "more": 1}]}, "messages.1.content"),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}, "messages.1.content"),
        ({"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}, "messages.1.tool_calls"),
        ({"role": "assistant", "content": "", "refusal": "no"}, "messages.1.refusal"),
        ({"role": "user", "content": "a", "colour": "red"}, "messages.1.colour"),
        ("hello", "messages.1"),
    ],
)
def test_a_message_that_is_no_text_is_refused_with_its_place(message, param):
    found, told = _refused(messages=[USER, message])
    assert found == param
    assert param in told


def test_fields_that_contradict_each_other_are_refused():
    assert _refused(max_tokens=4, max_completion_tokens=5)[0] == "max_completion_tokens"
    assert _refused(top_logprobs=2)[0] == "top_logprobs"
    assert _refused(top_logprobs=2, logprobs=False)[0] == "top_logprobs"
    assert _refused(top_logprobs=21, logprobs=True)[0] == "top_logprobs"
    assert _refused(response_format={"type": "json_object"})[0] == "response_format.type"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": [{"role": "x", "content": 1}]}, "messages.0.role"),
        ({"messages": [{"role": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages.0.role"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "strict": True}}, "response_format.type"),
        ({"service_tier": "flex", "seed": 0.5}, "seed"),
    ],
)
def test_of_several_faults_the_first_is_told_and_no_neighbour_s(more, param):
    assert _refused(**more)[0] == param


def test_parts_of_a_message_are_few():
    parts = [{"type": "text", "text": "a"}]
    assert _asked(messages=[{"role": "user", "content": parts * 256}])["messages"][0]["content"] == "a" * 256
    assert _refused(messages=[{"role": "user", "content": parts * 257}])[0] == "messages.0.content"


@pytest.mark.parametrize("body", [None, [], "text", 5])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(Refusal) as caught:
        chat_request(body)
    assert caught.value.param is None


def test_every_field_that_the_client_has_is_known_here():
    base = completion_create_params.CompletionCreateParamsBase
    assert set(typing.get_type_hints(base)) | {"stream"} == set(ChatRequest.model_fields)
    ours = set(SaidMessage.model_fields)
    assert set(ChatCompletionAssistantMessageParam.__annotations__) <= ours
    assert set(ChatCompletionUserMessageParam.__annotations__) <= ours


def test_what_the_client_sends_is_read_and_its_own_answer_is_taken_back_into_the_conversation():
    sent, answer = _sent(temperature=0.5, stop=["x"], extra_body=None)
    assert chat_request(sent).asked["stop"] == ["x"]
    again, _ = _sent(messages=[USER, answer.choices[0].message, USER])
    assert chat_request(again).asked["messages"] == [USER, {"role": "assistant", "content": "one"}, USER]
    dumped = [USER, answer.choices[0].message.model_dump(), USER]
    assert chat_request(LEAST | {"messages": dumped}).asked["messages"][1]["content"] == "one"


def test_answers_are_of_the_client_s_types_and_nothing_is_left_over():
    told = json.loads(json.dumps(completion(HEAD, CHOICES, 5), allow_nan=False))
    found = ChatCompletion.model_validate(told, strict=True)
    assert found.to_dict(exclude_unset=True) == told
    assert not found.model_extra
    assert [choice.finish_reason for choice in found.choices] == ["stop", "length"]
    assert found.usage.total_tokens == 5 + 10
    assert found.id.startswith("chatcmpl-")
    assert found.choices[0].logprobs.content[0].top_logprobs[1].token == r"bytes:\xe2\x9c"
    assert found.choices[0].logprobs.content[0].top_logprobs[1].logprob == -9999.0
    assert found.choices[1].logprobs is None


@pytest.mark.parametrize("tells_usage", [False, True])
def test_chunks_are_of_the_client_s_types(tells_usage):
    head = Head.of(chat_request(LEAST | {"stream": True, "stream_options": {"include_usage": tells_usage}}))
    chunks = [first_chunk(head, 0), text_chunk(head, 0, "on"), last_chunk(head, 0, CHOICES[0])]
    chunks += [usage_chunk(head, 5, CHOICES)] if tells_usage else []
    for told in chunks:
        found = ChatCompletionChunk.model_validate(json.loads(json.dumps(told, allow_nan=False)), strict=True)
        assert found.to_dict(exclude_unset=True) == told
        assert not found.model_extra
        assert ("usage" in told) == tells_usage
    assert chunks[2]["choices"][0]["logprobs"]["content"] == TOKENS
