from __future__ import annotations

import random
import warnings

import peft
import pytest
import torch

from families import CPU, DECODER, EXPERTS, HEADS_OF_8, PACKABLE, SLIDING, Bare, build, chosen_scorer, packed, plain
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.model import Model
from tiebreak.engine.sources import Source
from tiebreak.records import Message, TokenizedPair
from tiny import EOS, PAD, same, token_pairs, weights

PAIRS = token_pairs(5, num_prompts=3)
LLAMA = PACKABLE["llama"]


def _values_and_gradients(model, layout, examples=PAIRS):
    """Every token with a weight of its own, so that no two mistakes cancel."""
    model.zero_grad()
    values = layout(model).tokens(examples).values
    (values * torch.linspace(-1, 1, len(values))).sum().backward()
    return values.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _assert_same(found, wanted, share=1e-5):
    values, gradients = found
    assert torch.allclose(values, wanted[0], rtol=share, atol=share)
    assert gradients.keys() == wanted[1].keys()
    largest = max(gradient.abs().max().item() for gradient in wanted[1].values())
    for name, gradient in wanted[1].items():
        # The floor is for gradients that are zero but for rounding, as those of a key's bias.
        room = share * gradient.abs().max().item() + 1e-7 * largest
        assert (gradients[name] - gradient).abs().max().item() <= room, name


def _with_lora(model, targets="all-linear"):
    config = peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, config)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return adapted


def _scores(scorer, pairs=PAIRS):
    return scorer.tokens(pairs).summed().paired()


def _checkpoint(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a name that older versions of transformers lack
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


# ---------------------------------------------------------------------------------------------------------- one family


@pytest.mark.parametrize("kind", PACKABLE)
def test_packed_equals_plain_in_values_and_gradients(kind):
    model = build(kind, **PACKABLE[kind])
    assert chosen_scorer(model).refusal is None
    wanted = _values_and_gradients(model, plain)
    _assert_same(_values_and_gradients(model, packed), wanted)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt_oss", "gpt2"])
def test_packed_equals_plain_for_examples_of_one_and_of_four_completions(kind):
    model = build(kind, **PACKABLE[kind])
    one, two, three, four = (pair.chosen_ids for pair in token_pairs(4, seed=8))
    examples = [
        Bare("one", (5, 6, 7), (one,)),
        Bare("four", (5, 6, 7), (two, one, three, four)),  # `one` is in both
        Bare("other prompt", (8, 9), (four, three, two, one)),
        *PAIRS[:1],
    ]
    wanted = _values_and_gradients(model, plain, examples)
    _assert_same(_values_and_gradients(model, packed, examples), wanted)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_training_mode_changes_no_number(kind):
    model = build(kind, **PACKABLE[kind])
    values, gradients = _values_and_gradients(model, packed)
    again = _values_and_gradients(model.train(), packed)
    assert torch.equal(again[0], values)
    assert same(again[1], gradients)


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("llama", "all-linear"), ("gemma2", "all-linear"), ("phi3", "all-linear"), ("qwen3_moe", ATTENTION)],
)
def test_packed_equals_plain_with_an_adapter(kind, targets):
    model = _with_lora(build(kind, **PACKABLE[kind]), targets)
    assert chosen_scorer(model).refusal is None
    wanted = _values_and_gradients(model, plain)
    assert {name.split(".")[-3] for name in wanted[1]} == {"lora_A", "lora_B"}
    _assert_same(_values_and_gradients(model, packed), wanted)


def test_packed_equals_plain_with_the_adapter_switched_off():
    model = _with_lora(build("llama", **LLAMA))
    with torch.no_grad():
        adapted = _scores(packed(model)).chosen
        with model.disable_adapter():
            found, wanted = _scores(packed(model)).chosen, _scores(plain(model)).chosen
    assert torch.allclose(found, wanted, rtol=1e-6)
    assert not torch.allclose(found, adapted, rtol=1e-2)


def _long_pairs(window):
    draw = random.Random(0)
    ids = lambda num: tuple(draw.randrange(3, 250) for _ in range(num))  # noqa: E731
    pairs = [(ids(window + 20), ids(9), ids(5)), (ids(20), ids(window + 40), ids(8))]
    return [TokenizedPair(f"pair{index}", f"prompt{index}", *pair) for index, pair in enumerate(pairs)]


LONG_WINDOW = {"sliding_window": 129, "max_position_embeddings": 512}
LAYERS_SLIDE = {"layer_types": ["sliding_attention"] * 2, "use_sliding_window": True}


@pytest.mark.parametrize("kind", ["mistral", "phi3", "gemma3_text", "cohere2", "gpt_oss", "qwen2_moe", "phimoe"])
def test_a_window_longer_than_the_self_check_s_pairs_is_heeded_or_refused(kind):
    model = build(kind, **(PACKABLE.get(kind) or DECODER | EXPERTS | LAYERS_SLIDE) | LONG_WINDOW)
    scorer, pairs = chosen_scorer(model).scorer, _long_pairs(129)
    with torch.no_grad():
        found, wanted = scorer.tokens(pairs).summed().sums, plain(model).tokens(pairs).summed().sums
    assert torch.allclose(found, wanted, rtol=1e-6)


def test_bf16_arithmetic_over_fp32_weights_gives_fp32_sums_near_the_truth():
    model = build("llama", **LLAMA)
    with torch.no_grad():
        found, exact = (_scores(packed(model, dtype)) for dtype in (torch.bfloat16, torch.float32))
    assert found.chosen.dtype == torch.float32
    assert torch.all((found.chosen - exact.chosen).abs() <= 0.2 * exact.chosen_num_tokens)
    assert not torch.equal(found.chosen, exact.chosen)


# ------------------------------------------------------------------------------------------------------- one pair's own


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt_oss", "gpt2"])
def test_changing_a_token_of_one_completion_changes_no_bit_of_any_other(kind):
    model = build(kind, **PACKABLE[kind])
    first, *others = token_pairs(4, seed=6)
    changed = TokenizedPair(
        "changed",
        first.prompt_id,
        first.prompt_ids,
        (first.chosen_ids[0] ^ 1, *first.chosen_ids[1:]),
        first.rejected_ids,
    )
    with torch.no_grad():
        before, after = (packed(model).tokens([pair, *others]).rows() for pair in (first, changed))
    assert len(before) == len(after) == 8
    assert all(torch.equal(one, two) for one, two in zip(before[1:], after[1:], strict=True))
    assert not torch.isclose(before[0], after[0]).any()


def test_a_pair_s_gradient_does_not_reach_the_tokens_of_other_pairs():
    model = build("llama", **LLAMA)
    first, second = token_pairs(2, seed=6)
    _scores(packed(model), [first, second]).gap[0].backward()
    ours = {*first.prompt_ids, *first.chosen_ids, *first.rejected_ids}
    theirs = sorted({*second.prompt_ids, *second.chosen_ids, *second.rejected_ids} - ours)
    gradient = model.get_input_embeddings().weight.grad
    assert theirs
    assert not gradient[theirs].any()
    assert gradient[list(first.prompt_ids)].any()


def test_completions_of_one_token_are_scored():
    pairs = [TokenizedPair("a", "p", (7, 8), (9,), (5, EOS)), TokenizedPair("b", "q", (6,), (9,), (EOS,))]
    model = build("llama", **LLAMA)
    _assert_same(_values_and_gradients(model, packed, pairs), _values_and_gradients(model, plain, pairs))


# --------------------------------------------------------------------------------------- packed and plain, turn by turn


@pytest.mark.parametrize("adapted", [False, True])
def test_gradient_checkpointing_changes_no_gradient(adapted):
    results = []
    for checkpointing in (False, True):
        model = build("mistral", **PACKABLE["mistral"])
        model = _with_lora(model) if adapted else model
        if checkpointing:
            _checkpoint(model)
        results.append(_values_and_gradients(model.train(), packed))
    assert torch.equal(results[0][0], results[1][0])
    assert same(results[0][1], results[1][1])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_plain_pass_and_generation_in_between_leave_packed_scores_as_they_were(checkpointing, tokenizer):
    config = PACKABLE["mistral"] | {"vocab_size": len(tokenizer)}
    model = build("mistral", **config)
    if checkpointing:
        _checkpoint(model)
    model.train()
    by_plain, by_packed = _values_and_gradients(model, plain), _values_and_gradients(model, packed)
    answers = _answers(model, tokenizer)
    again = _values_and_gradients(model, plain)
    assert torch.equal(again[0], by_plain[0])
    assert same(again[1], by_plain[1])
    again = _values_and_gradients(model, packed)
    assert torch.equal(again[0], by_packed[0])
    assert same(again[1], by_packed[1])
    assert answers == _answers(build("mistral", **config), tokenizer)


def _answers(network, tokenizer):
    model = Model(
        network=network,
        adapter=None,
        tokenizer=tokenizer,
        scorer=packed(network),
        plain_because=None,
        device=CPU,
        eos_ids=(EOS,),
        pad_id=PAD,
        source=Source("made here", None, None, "made here", "made here"),
        dtype=torch.float32,
    )
    return model.answer([Chat((Message("user", "the cat"),))], Sampling(5))


def test_a_packed_model_that_is_called_without_a_layout_fails_loudly():
    model = build("llama", **LLAMA)
    packed(model).tokens(PAIRS)
    with pytest.raises(TypeError, match="packed_layout"):
        model(input_ids=torch.tensor([[5, 6, 7]]))


def test_scoring_leaves_weights_and_the_saved_configuration_as_they_are(tmp_path):
    model = build("qwen3", **HEADS_OF_8 | SLIDING)
    before = weights(model)
    packed(model).tokens(PAIRS)
    assert same(weights(model), before)
    model.save_pretrained(tmp_path)
    assert "tiebreak" not in (tmp_path / "config.json").read_text()
