from __future__ import annotations

import copy

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Qwen3Config,
)

import oracles
from families import Bare
from preferences import confidence
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.maths.distributions import log_collision
from tiebreak.maths.layout import lay_out
from tiebreak.maths.logps import TokenLogps
from tiny import EOS, PAD, load, scores, settings, token_pairs

SMALL = {"vocab_size": 250, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD, "initializer_range": 0.2}
DECODER = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
ARCHITECTURES = {
    "llama": LlamaConfig(**DECODER),
    "gpt2": GPT2Config(**SMALL, n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "qwen3": Qwen3Config(**DECODER, head_dim=8, tie_word_embeddings=True),
    # Both kinds of softcapping bite: scores of some ± 10 against caps of 2 and 5. Sliding window shorter than a row.
    "gemma2": Gemma2Config(
        **DECODER,
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=2.0,
        final_logit_softcapping=5.0,
        sliding_window=6,
    ),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("architectures") / request.param
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(ARCHITECTURES[request.param]).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _policy(folder, layout):
    return load(settings(folder, "none", model__layout={"packed": "auto"}.get(layout, layout))).policy


@pytest.fixture(scope="module", params=["plain", "packed"])
def policy(request, folder):
    policy = _policy(folder, request.param)
    assert policy.scorer.layout == request.param
    return policy


@pytest.fixture(scope="module")
def plain(folder):
    return _policy(folder, "plain")


@pytest.fixture(scope="module")
def exact(folder):
    """The same weights in float64, through the attention that is written out in the model's own file."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def _expected(exact, pair, completion):
    ids = [*pair.prompt_ids, *completion]
    with torch.no_grad():
        logits = exact(input_ids=torch.tensor([ids])).logits[0].tolist()
    return oracles.sequence_logp(logits, ids, len(pair.prompt_ids))


def _assert_gradients_of(exact, policy):
    expected = {name: p.grad for name, p in exact.named_parameters()}
    for name, parameter in policy.network.named_parameters():
        scale = expected[name].abs().max().item()
        assert (parameter.grad - expected[name]).abs().max().item() <= 1e-5 * scale + 1e-6, name
    policy.network.zero_grad()


def test_scores_equal_the_float64_oracle(policy, exact):
    pairs = token_pairs(5)
    policy.network.eval()
    with torch.no_grad():
        found = scores(policy, pairs)
    for index, pair in enumerate(pairs):
        chosen, rejected = _expected(exact, pair, pair.chosen_ids), _expected(exact, pair, pair.rejected_ids)
        assert found.chosen[index].item() == pytest.approx(chosen[0], rel=2e-6)
        assert found.rejected[index].item() == pytest.approx(rejected[0], rel=2e-6)
        assert (found.chosen_num_tokens[index], found.rejected_num_tokens[index]) == (chosen[1], rejected[1])


def test_how_confident_a_model_is_of_a_completion_equals_the_float64_oracle_in_every_layout(policy, exact):
    pairs = token_pairs(5)
    policy.network.eval()
    tokens = policy.score(pairs, log_collision)
    found = iter(tokens.confident(tokens.summed()).confidence.tolist())
    assert tokens.values.requires_grad and not tokens.beside.requires_grad
    assert torch.equal(tokens.values, policy.score(pairs).values)
    for pair in pairs:
        for completion in pair.completions:
            with torch.no_grad():
                logits = exact(input_ids=torch.tensor([[*pair.prompt_ids, *completion]])).logits[0]
            said = logits[len(pair.prompt_ids) - 1 : -1].log_softmax(-1)
            logps = [row[token].item() for row, token in zip(said, completion, strict=True)]
            assert next(found) == pytest.approx(confidence(logps, said.exp().tolist()), rel=1e-5, abs=1e-6)


def test_gradients_equal_the_float64_oracle_in_training_mode_too(policy, exact):
    pairs = token_pairs(3, seed=4)
    policy.network.train().zero_grad()
    scores(policy, pairs).gap.sum().backward()
    exact.zero_grad()
    for pair in pairs:
        chosen, rejected = (
            oracles.differentiable_logp(exact, pair.prompt_ids, c) for c in (pair.chosen_ids, pair.rejected_ids)
        )
        (chosen - rejected).backward()
    _assert_gradients_of(exact, policy)


def _one_and_four():
    """Examples of one, four and two completions; one completion is in three of them."""
    one, two, three, four = (pair.chosen_ids for pair in token_pairs(4, seed=8))
    prompt, other = (5, 6, 7), (8, 9)
    return [
        Bare("one", prompt, (one,)),
        Bare("four", prompt, (two, one, three, four)),
        Bare("other prompt", other, (one, two, three, four)),
        *token_pairs(1, seed=5),
        Bare("one again", prompt, (one,)),
    ]


def test_examples_of_one_and_of_four_completions_have_the_values_of_the_float64_oracle(policy, exact):
    examples = _one_and_four()
    policy.network.eval()
    with torch.no_grad():
        found = policy.score(examples).summed()
    expected = [_expected(exact, example, completion) for example in examples for completion in example.completions]
    assert found.sums.tolist() == pytest.approx([total for total, _ in expected], rel=2e-6)
    assert found.num_tokens.tolist() == [count for _, count in expected]


def test_examples_of_one_and_of_four_completions_have_the_gradients_of_the_float64_oracle(policy, exact):
    examples = _one_and_four()
    policy.network.train().zero_grad()
    sums = policy.score(examples).summed().sums
    # A weight for each completion, so that no two mistakes cancel.
    weights = torch.linspace(-1, 1, len(sums))
    (weights * sums).sum().backward()
    exact.zero_grad()
    completions = [(example.prompt_ids, completion) for example in examples for completion in example.completions]
    for weight, (prompt, completion) in zip(weights.tolist(), completions, strict=True):
        (weight * oracles.differentiable_logp(exact, prompt, completion)).backward()
    _assert_gradients_of(exact, policy)


def test_a_completion_that_several_examples_hold_is_computed_once_where_they_are_packed(policy):
    examples = [Bare("one", (5, 6), ((7, 8, EOS),)), Bare("four", (5, 6), ((9,), (7, 8, EOS), (7,), (8, EOS)))]
    cost, alone = policy.scorer.num_tokens(examples), policy.scorer.num_tokens(examples[1:])
    assert (cost == alone) is (policy.scorer.layout == "packed")
    shared = policy.score(examples).rows()
    assert torch.equal(shared[0], shared[2]) or policy.scorer.layout == "plain"
    assert torch.allclose(shared[0], shared[2], rtol=1e-5)


def test_the_layout_and_the_other_pairs_of_a_batch_do_not_change_a_pair_s_scores(policy):
    pairs = token_pairs(6, seed=2)
    policy.network.eval()
    with torch.no_grad():
        together = scores(policy, pairs)
        for index, pair in enumerate(pairs):
            alone = scores(policy, [pair])
            assert together.chosen[index].item() == pytest.approx(alone.chosen.item(), rel=1e-6)
            assert together.rejected[index].item() == pytest.approx(alone.rejected.item(), rel=1e-6)


def test_what_the_padding_holds_does_not_matter(plain):
    pairs = token_pairs(4)
    other = PlainScorer(plain.network.eval(), pad_id=77, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        one, two = plain.score(pairs), other.tokens(pairs)
    assert one.num_tokens == two.num_tokens
    assert torch.equal(one.values, two.values)


def test_only_positions_that_may_predict_a_scored_token_get_vocabulary_scores(plain):
    pairs = [pair for pair in token_pairs(20) if len(pair.prompt_ids) > 3][:3]
    seen = []
    head = plain.network.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    plain.network.eval()
    with torch.no_grad():
        plain.score(pairs)
    hook.remove()
    batch = lay_out(pairs, PAD)
    assert seen[0][1] == batch.input_ids.shape[1] - 1 - batch.first_scored


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_bf16_arithmetic_over_fp32_weights_gives_fp32_sums_near_the_truth(layout, plain, exact):
    pairs, cpu = token_pairs(3), torch.device("cpu")
    narrow = {
        "plain": PlainScorer(plain.network, pad_id=PAD, device=cpu, dtype=torch.bfloat16),
        "packed": PackedScorer(plain.network, device=cpu, dtype=torch.bfloat16),
    }[layout]
    plain.network.eval()
    with torch.no_grad():
        found = narrow.tokens(pairs).summed().paired()
    assert found.chosen.dtype == torch.float32
    for index, pair in enumerate(pairs):
        total, count = _expected(exact, pair, pair.chosen_ids)
        assert found.chosen[index].item() == pytest.approx(total, abs=0.2 * count)
        assert found.chosen[index].item() != pytest.approx(total, rel=1e-7)


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_gradient_checkpointing_changes_no_number(folder, layout):
    pairs, results = token_pairs(3), []
    for checkpointing in (False, True):
        policy = _policy(folder, layout)
        if checkpointing:
            policy.checkpoint_activations()
        policy.network.train()
        gap = scores(policy, pairs).gap
        gap.sum().backward()
        results.append((gap.detach(), [p.grad for _, p in policy.trainable]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(one, two) for one, two in zip(results[0][1], results[1][1], strict=True))


def test_tokens_are_those_of_each_pair_in_order_and_sum_to_its_scores(policy):
    pairs = token_pairs(6, num_prompts=2)
    policy.network.eval()
    with torch.no_grad():
        tokens, sums = policy.score(pairs), scores(policy, pairs)
    sides = zip(tokens.rows()[0::2], tokens.rows()[1::2], strict=True)
    for index, (pair, (chosen, rejected)) in enumerate(zip(pairs, sides, strict=True)):
        assert (len(chosen), len(rejected)) == (len(pair.chosen_ids), len(pair.rejected_ids))
        assert torch.equal(chosen.sum(), sums.chosen[index])
        assert torch.equal(rejected.sum(), sums.rejected[index])


def test_scored_tokens_that_are_not_those_of_the_completions_are_refused():
    with pytest.raises(ValueError, match="5 scored tokens, but the completions have 6"):
        TokenLogps(torch.zeros(5), (2, 4))


def test_a_step_s_pairs_are_grouped_within_the_budget_and_none_is_lost(policy):
    pairs = token_pairs(9, num_prompts=4)
    groups = policy.scorer.micro_batches(pairs, 60)
    assert sorted(pair.example_id for group in groups for pair in group) == sorted(pair.example_id for pair in pairs)
    assert len(groups) > 1


def test_scoring_leaves_weights_as_they_are(policy):
    before = copy.deepcopy(policy.network.state_dict())
    policy.network.eval()
    with torch.no_grad():
        policy.score(token_pairs(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.network.state_dict().items())


def test_a_scorer_of_another_network_says_what_that_network_says(policy, plain):
    pairs, other = token_pairs(3), copy.deepcopy(plain.network)
    with torch.no_grad():
        other.get_output_embeddings().weight.mul_(1.5)
        ours, theirs = policy.score(pairs).values, policy.with_network(other).score(pairs).values
        assert torch.allclose(theirs, plain.with_network(other).score(pairs).values, rtol=1e-5)
        assert not torch.allclose(ours, theirs, rtol=1e-2)
        assert torch.equal(policy.score(pairs).values, ours)
