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
from tiebreak.engine.models import load_policy
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.maths.layout import lay_out
from tiny import EOS, PAD, settings, token_pairs

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
    return load_policy(settings(folder, "none", model__layout={"packed": "auto"}.get(layout, layout)))


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


def test_scores_equal_the_float64_oracle(policy, exact):
    pairs = token_pairs(5)
    with torch.no_grad():
        found = policy.scorer(policy.model.eval(), pairs)
    for index, pair in enumerate(pairs):
        chosen, rejected = _expected(exact, pair, pair.chosen_ids), _expected(exact, pair, pair.rejected_ids)
        assert found.chosen[index].item() == pytest.approx(chosen[0], rel=2e-6)
        assert found.rejected[index].item() == pytest.approx(rejected[0], rel=2e-6)
        assert (found.chosen_num_tokens[index], found.rejected_num_tokens[index]) == (chosen[1], rejected[1])


def test_gradients_equal_the_float64_oracle_in_training_mode_too(policy, exact):
    pairs = token_pairs(3, seed=4)
    policy.model.train().zero_grad()
    scores = policy.scorer(policy.model, pairs)
    scores.gap.sum().backward()
    exact.zero_grad()
    for pair in pairs:
        chosen, rejected = (
            oracles.differentiable_logp(exact, pair.prompt_ids, c) for c in (pair.chosen_ids, pair.rejected_ids)
        )
        (chosen - rejected).backward()
    expected = {name: p.grad for name, p in exact.named_parameters()}
    for name, parameter in policy.model.named_parameters():
        scale = expected[name].abs().max().item()
        assert (parameter.grad - expected[name]).abs().max().item() <= 1e-5 * scale + 1e-6, name
    policy.model.zero_grad()


def test_the_layout_and_the_other_pairs_of_a_batch_do_not_change_a_pair_s_scores(policy):
    pairs = token_pairs(6, seed=2)
    with torch.no_grad():
        together = policy.scorer(policy.model.eval(), pairs)
        for index, pair in enumerate(pairs):
            alone = policy.scorer(policy.model, [pair])
            assert together.chosen[index].item() == pytest.approx(alone.chosen.item(), rel=1e-6)
            assert together.rejected[index].item() == pytest.approx(alone.rejected.item(), rel=1e-6)


def test_what_the_padding_holds_does_not_matter(plain):
    pairs = token_pairs(4)
    other = PlainScorer(pad_id=77, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        one, two = plain.scorer(plain.model.eval(), pairs), other(plain.model, pairs)
    assert torch.equal(one.chosen, two.chosen)
    assert torch.equal(one.rejected, two.rejected)


def test_only_positions_that_may_predict_a_scored_token_get_vocabulary_scores(plain):
    pairs = [pair for pair in token_pairs(20) if len(pair.prompt_ids) > 3][:3]
    seen = []
    head = plain.model.get_output_embeddings().register_forward_hook(lambda _m, _i, output: seen.append(output.shape))
    with torch.no_grad():
        plain.scorer(plain.model.eval(), pairs)
    head.remove()
    batch = lay_out(pairs, PAD)
    assert seen[0][1] == batch.input_ids.shape[1] - 1 - batch.first_scored


@pytest.mark.parametrize("layout", ["plain", "packed"])
def test_bf16_arithmetic_over_fp32_weights_gives_fp32_sums_near_the_truth(layout, plain, exact):
    pairs, cpu = token_pairs(3), torch.device("cpu")
    narrow = {
        "plain": PlainScorer(pad_id=PAD, device=cpu, dtype=torch.bfloat16),
        "packed": PackedScorer(device=cpu, dtype=torch.bfloat16),
    }[layout]
    with torch.no_grad():
        found = narrow(plain.model.eval(), pairs)
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
        policy.model.train()
        scores = policy.scorer(policy.model, pairs)
        scores.gap.sum().backward()
        results.append((scores.gap.detach(), [p.grad for _, p in policy.trainable]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(one, two) for one, two in zip(results[0][1], results[1][1], strict=True))


def test_tokens_are_those_of_each_pair_in_order_and_sum_to_its_scores(policy):
    pairs = token_pairs(6, num_prompts=2)
    with torch.no_grad():
        tokens, scores = policy.scorer.tokens(policy.model.eval(), pairs), policy.scorer(policy.model, pairs)
    for index, (pair, (chosen, rejected)) in enumerate(zip(pairs, tokens.by_pair(), strict=True)):
        assert (len(chosen), len(rejected)) == (len(pair.chosen_ids), len(pair.rejected_ids))
        assert torch.equal(chosen.sum(), scores.chosen[index])
        assert torch.equal(rejected.sum(), scores.rejected[index])


def test_a_step_s_pairs_are_grouped_within_the_budget_and_none_is_lost(policy):
    pairs = token_pairs(9, num_prompts=4)
    groups = policy.scorer.micro_batches(pairs, 60)
    assert sorted(pair.pair_id for group in groups for pair in group) == sorted(pair.pair_id for pair in pairs)
    assert len(groups) > 1


def test_scoring_leaves_weights_as_they_are(policy):
    before = copy.deepcopy(policy.model.state_dict())
    with torch.no_grad():
        policy.scorer(policy.model.eval(), token_pairs(2))
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())
