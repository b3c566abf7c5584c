"""What a model makes of completions is the same in both layouts, and whatever stands beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tiebreak.engine.features import Completions, readings
from tiebreak.engine.scorer import PlainScorer
from tiebreak.training.trained import load
from tiny import settings

EXAMPLES = [
    Completions((5, 6, 7), ((8, 9, 10, 2), (11, 2), (8, 9, 10, 2))),
    Completions((5, 6, 7), ((12, 13, 14, 15, 16, 2),)),
    Completions((20,), ((2,), (21, 22, 2))),
]


@pytest.fixture(scope="module")
def model(tiny_model):
    return load(settings(tiny_model)).policy


def read(model, examples):
    found = dict(readings(model, examples))
    return [found[place] for place in range(len(examples))]


def by_hand(model, prompt, completion):
    network = model.network.get_base_model().eval()
    with torch.no_grad():
        said = network(input_ids=torch.tensor([[*prompt, *completion]]), output_hidden_states=True)
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    state = torch.stack([said.hidden_states[-1][0, place] for place in places]).double().mean(0)
    logps = said.logits[0].double().log_softmax(-1)
    return state, [float(logps[place, token]) for place, token in zip(places, completion, strict=True)]


@pytest.mark.parametrize("layout", ["packed", "plain"])
def test_a_state_is_the_mean_of_what_the_head_is_given_where_the_tokens_are_predicted(model, layout):
    from dataclasses import replace

    plain = PlainScorer(model.network, pad_id=0, device=model.device, dtype=model.dtype)
    assert model.scorer.layout == "packed"
    found = read(model if layout == "packed" else replace(model, scorer=plain), EXAMPLES)
    from tiebreak.engine.attention import use_plain_attention

    use_plain_attention(model.network)
    for example, made in zip(EXAMPLES, found, strict=True):
        assert len(made) == len(example.completions)
        for completion, reading in zip(example.completions, made, strict=True):
            state, logps = by_hand(model, example.prompt_ids, completion)
            assert np.allclose(reading.state, state, atol=1e-4)
            assert reading.logps.tolist() == pytest.approx(logps, abs=1e-4)


def test_a_reading_does_not_hang_on_its_neighbours(model):
    together = read(model, EXAMPLES)
    for place, example in enumerate(EXAMPLES):
        [alone] = read(model, [example])
        for one, two in zip(alone, together[place], strict=True):
            assert np.allclose(one.state, two.state, atol=1e-5)


def test_numbers_that_are_none_are_an_error(tiny_model):
    from tiebreak.errors import ModelError

    broken = load(settings(tiny_model, adapter="none")).policy
    with torch.no_grad():
        broken.network.model.embed_tokens.weight[8].fill_(torch.nan)
    with pytest.raises(ModelError, match="its numbers are not finite; the weights are broken"):
        read(broken, EXAMPLES)
