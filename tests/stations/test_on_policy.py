"""A server that serves the policy passes; one that serves other weights, or says nothing of them, is refused."""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest

from policy_servers import running
from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.answers.server import Endpoint, Server
from tiebreak.errors import ModelError
from tiebreak.records import Message
from tiebreak.stations.on_policy import NUM, check_on_policy
from tiny import disturb, load, settings

pytest.importorskip("openai", reason="pip install 'tiebreak[server]' brings the client")

CHATS = [Chat((Message("user", f"the cat sat on {place}"),)) for place in range(20)]


@pytest.fixture(scope="module")
def base(tiny_model):
    return load(settings(tiny_model, "none")).policy


def _server(address, model):
    return Server(Endpoint("tiny", address, num_retries=0), model.renderer(DataConfig()), model.eos_ids)


def _checked(address, policy, **others):
    server = _server(address, policy)
    return check_on_policy(
        server,
        lambda: nullcontext(policy),
        CHATS,
        whose="round 2's policy",
        seed=3,
        max_new_tokens=12,
        others=others or None,
    )


def test_the_right_weights_pass_to_rounding_whatever_else_could_be_served(tiny_model, base):
    moved = disturb(load(settings(tiny_model)), 0.3)
    with running(tiny_model) as fake:
        found = _checked(fake.address, base, **{"round 1's policy": lambda: nullcontext(moved.policy)})
        assert len(fake.asked) == NUM
        assert {(body["temperature"], body["max_tokens"]) for body in fake.asked} == {(1.0, 12)}
    assert found.per_token < 1e-5
    assert found.off < 1e-5
    assert found.num_tokens > NUM
    assert found.as_dict() == {"per_token": found.per_token, "off": found.off, "num_tokens": found.num_tokens}


def test_what_a_server_says_is_what_the_scorer_says_token_by_token(tiny_model, base):
    from tiebreak.engine.answers.answerer import Sampling
    from tiebreak.engine.features import Completions

    sampling = Sampling(12, 1.0, 2, 4)
    with running(tiny_model) as fake:
        said = _server(fake.address, base).said(CHATS[:5], sampling)
    for place, one in enumerate(said):
        prompt = base.prompt_ids(CHATS[place // 2], sampling)
        if one.answer.ids:
            wanted = base.score([Completions(prompt, (one.answer.ids,))]).values.tolist()
            np.testing.assert_allclose(one.logps, wanted, atol=2e-5)
    assert sum(one.answer.finished for one in said) < len(said)


def test_other_weights_are_caught_and_named(tiny_model):
    """The server answers with the first model, as one does that was never told of an adapter."""
    loaded = disturb(load(settings(tiny_model)), 0.3)
    with running(tiny_model) as fake, pytest.raises(ModelError) as caught:
        _checked(fake.address, loaded.policy, **{"the first model": loaded.reference.model})
    said = str(caught.value)
    assert "the server does not serve round 2's policy: over" in said
    assert "nats a token from what we compute (at most 0.05)" in said
    assert "nearer to the first model (" in said
    assert "\n" not in said
    with running(tiny_model) as fake, pytest.raises(ModelError, match=r"does not serve round 2.*at most 1%\)$"):
        _checked(fake.address, loaded.policy)


def test_a_policy_that_moved_a_little_is_told_from_the_one_before(tiny_model):
    """Its own numbers would pass as another way through the same weights; those of the other fit better by far."""
    loaded = disturb(load(settings(tiny_model)), 0.004)
    with running(tiny_model) as fake:
        near = _checked(fake.address, loaded.policy)
        assert 1e-3 < near.per_token < 0.05
        with pytest.raises(ModelError, match="nearer to the first model"):
            _checked(fake.address, loaded.policy, **{"the first model": loaded.reference.model})


def test_one_model_at_a_time_is_in_memory_and_another_only_where_it_could_matter(tiny_model, base):
    loaded, there, seen = disturb(load(settings(tiny_model)), 0.004), set(), []

    def opened(name, model):
        @contextmanager
        def give():
            assert not there
            there.add(name)
            seen.append(name)
            with model() as one:
                yield one
            there.remove(name)

        return give

    first = opened("first", loaded.reference.model)
    with running(tiny_model) as fake:
        server = _server(fake.address, base)
        told = {"whose": "round 2's policy", "seed": 3, "max_new_tokens": 12, "others": {"the first model": first}}
        check_on_policy(server, opened("policy", lambda: nullcontext(base)), CHATS, **told)
        assert seen == ["policy"]
        with pytest.raises(ModelError, match="nearer to the first model"):
            check_on_policy(server, opened("moved", lambda: nullcontext(loaded.policy)), CHATS, **told)
    assert seen == ["policy", "moved", "first"]


def test_a_server_without_log_probabilities_is_refused_unless_that_is_said(tiny_model, base):
    words = "gives no log-probabilities, so nothing shows that it serves round 2's policy; rounds.on_policy"
    with running(tiny_model, "silent") as fake, pytest.raises(ModelError, match=re.escape(words)):
        _checked(fake.address, base)


@pytest.mark.parametrize(
    ("logprobs", "wanted"),
    [
        ({"token_logprobs": [-1.0, -2, -0.5]}, (-1.0, -2.0)),
        ({"content": [{"id": 7, "logprob": -1.0}, {"id": 8, "logprob": -2.5}]}, (-1.0, -2.5)),
        ({"token_logprobs": [-1.0]}, None),
        ({"token_logprobs": [None, -1.0]}, None),
        ({"token_logprobs": [-1.0, float("nan")]}, None),
        ({"token_logprobs": [True, -1.0]}, None),
        ({"token_logprobs": "x"}, None),
        ({}, None),
    ],
)
def test_log_probabilities_are_read_wherever_a_server_puts_them(logprobs, wanted):
    from tiebreak.engine.answers.server import _logps_of

    assert _logps_of({"logprobs": logprobs}, 2) == wanted
