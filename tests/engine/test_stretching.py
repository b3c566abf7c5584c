"""Where positions stretch with the longest row, a pair's value is still what the model gives it alone."""

from __future__ import annotations

import copy

import pytest
import torch

from families import DECODER, HEADS_OF_8, build, chosen_scorer, plain, raw
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.local import generate
from tiebreak.engine.head import plain_token_logps
from tiebreak.engine.stretching import forget_lengths, stretching_of
from tiebreak.maths.distributions import log_collision
from tiebreak.maths.logps import TokenLogps
from tiebreak.records import TokenizedPair
from tiny import EOS, PAD, token_pairs

MOST = 12
"""Tokens up to which nothing stretches: about half of the rows are longer."""


def _rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 1e4} | more


LONG = {"short_factor": [1.0] * 4, "long_factor": [9.0, 7.0, 5.0, 3.0], "original_max_position_embeddings": MOST}
DYNAMIC = _rope("dynamic", factor=8.0)
MODELS = {
    "dynamic": ("llama", DECODER | {"max_position_embeddings": MOST, "rope_parameters": DYNAMIC}),
    "longrope": (
        "phi3",
        DECODER | {"original_max_position_embeddings": MOST, "rope_parameters": _rope("longrope", **LONG)},
    ),
    "longrope with a scale of each side": (
        "phimoe",
        DECODER
        | {"num_local_experts": 2}
        | {"rope_parameters": _rope("longrope", **LONG, short_mscale=1.0, long_mscale=1.5)},
    ),
    "one kind of layer alone": (
        "gemma3_text",
        HEADS_OF_8
        | {
            "max_position_embeddings": MOST,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {"sliding_attention": _rope("default"), "full_attention": DYNAMIC},
        },
    ),
}


def _pairs():
    drawn = token_pairs(12)
    exact = TokenizedPair("exact", "e", (5,) * (MOST - 3), (6, 7, EOS), (*range(8, 20), EOS))
    lengths = [len(pair.prompt_ids) + len(ids) for pair in (*drawn, exact) for ids in pair.completions]
    assert min(lengths) < MOST < max(lengths)
    assert MOST in lengths
    return [*drawn, exact]


PAIRS = _pairs()


@pytest.fixture(params=MODELS)
def network(request):
    kind, settings = MODELS[request.param]
    return build(kind, **settings)


def _alone(network, pair):
    """What a model says that has just been loaded and never sees anything else, completion by completion."""
    with torch.no_grad():
        rows = []
        for ids in pair.completions:
            logits = copy.deepcopy(network)(input_ids=torch.tensor([[*pair.prompt_ids, *ids]])).logits[0].float()
            logps = logits.log_softmax(-1)[len(pair.prompt_ids) - 1 : -1]
            rows.append(logps[range(len(ids)), ids])
        return torch.cat(rows)


def _together(network, pairs):
    with torch.no_grad():
        rows = plain(network).tokens(pairs).rows()
    return {pair.example_id: torch.cat(rows[2 * i : 2 * i + 2]) for i, pair in enumerate(pairs)}


def test_a_pair_has_one_value_alone_and_in_any_company_and_order(network):
    wanted = {pair.example_id: _alone(network, pair) for pair in PAIRS}
    for company in (PAIRS, PAIRS[::-1], PAIRS[3:7], *([pair] for pair in PAIRS)):
        for name, found in _together(network, company).items():
            assert torch.allclose(found, wanted[name], atol=1e-4), name


def test_so_has_a_number_of_its_distributions(network):
    with torch.no_grad():
        alone = [plain(network).tokens([pair], log_collision).beside for pair in PAIRS]
        together = plain(network).tokens(PAIRS, log_collision)
    assert torch.allclose(together.beside, torch.cat(alone), atol=1e-4)
    assert torch.equal(together.values, plain(network).tokens(PAIRS).values)


def test_rows_that_share_a_forward_pass_would_change_each_other(network, monkeypatch):
    """What makes the test above worth its name."""
    wanted = {pair.example_id: _alone(network, pair) for pair in PAIRS}
    scorer = plain(network)
    with torch.no_grad():
        batch, said = scorer._together(PAIRS, with_states=False)
    scored = batch.predictors, batch.first_scored
    rows = TokenLogps(plain_token_logps(said.logits, batch.input_ids, *scored), batch.num_tokens).rows()
    apart = [
        float((torch.cat(rows[2 * i : 2 * i + 2]) - wanted[pair.example_id]).abs().max())
        for i, pair in enumerate(PAIRS)
    ]
    assert max(apart) > 0.01


def test_gradients_are_those_of_each_pair_alone(network):
    for pair in PAIRS[-4:]:
        plain(network).tokens([pair]).summed().paired().gap.sum().backward()
    alone = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    plain(network).tokens(PAIRS[-4:]).summed().paired().gap.sum().backward()
    together = [p.grad for p in network.parameters() if p.grad is not None]
    for one, two in zip(alone, together, strict=True):
        assert (one - two).norm() <= 1e-4 * one.norm()


def test_a_prompt_has_one_greedy_answer_alone_and_in_any_company_and_order(network):
    prompts = [pair.prompt_ids for pair in PAIRS] + [tuple(range(9, 9 + MOST + 2)), (5,)]
    sampling = Sampling(max_new_tokens=6)

    def answers(some):
        return dict(zip(some, generate(network, some, sampling, (EOS,), PAD), strict=True))

    wanted = {p: generate(copy.deepcopy(network), [p], sampling, (EOS,), PAD)[0] for p in prompts}
    assert answers(prompts) == wanted
    assert answers(prompts[::-1]) == wanted
    assert answers(prompts[:5]) == {p: wanted[p] for p in prompts[:5]}


def test_such_a_model_is_scored_in_padded_rows(network):
    choice = chosen_scorer(network)
    assert choice.scorer.layout == "plain"
    assert "depends on the longest row" in choice.refusal


def test_other_models_are_scored_in_one_forward_pass_whatever_their_lengths():
    stretching = stretching_of(raw("llama", **DECODER))
    assert stretching.parties([3, 300, 30_000]) == [[0, 1, 2]]
    assert stretching.is_settled(10**6)


def test_forgetting_gives_the_frequencies_back_that_a_model_was_loaded_with():
    kind, settings = MODELS["dynamic"]
    network = build(kind, **settings)
    before = network.model.rotary_emb.inv_freq.clone()
    _together(network, PAIRS)
    network(input_ids=torch.ones(1, 3 * MOST, dtype=torch.long))
    assert not torch.equal(network.model.rotary_emb.inv_freq, before)
    forget_lengths(network)
    assert torch.equal(network.model.rotary_emb.inv_freq, before)
