"""At the table everybody gets the answer of transformers' own `generate`, whoever sits beside."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from families import DECODER, EXPERTS, GPT, HEADS_OF_8, PACKABLE, SLIDING, SMALL, build
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.drawing import Wanted, drawn, noise_of
from tiebreak.engine.answers.local import generate
from tiebreak.engine.answers.padded import padded
from tiebreak.engine.answers.seating import MAX_BATCH, at_the_table, may_come_to_the_table
from tiny import EOS, PAD

GREEDY = Sampling(max_new_tokens=9)


def _prompts(num, seed=0):
    draw = random.Random(seed)
    return [tuple(draw.randrange(3, 250) for _ in range(draw.randint(1, 13))) for _ in range(num)]


def _by_transformers(network, prompt, sampling, eos_ids=(EOS,)):
    made = network.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, pad_token_id=PAD,
        max_new_tokens=sampling.max_new_tokens, eos_token_id=list(eos_ids),
    )  # fmt: skip
    ids = made[0, len(prompt) :].tolist()
    return (tuple(ids[:-1]), True) if ids[-1] in eos_ids else (tuple(ids), False)


class Fed:
    """How many tokens go through a network."""

    def __init__(self, network):
        self.num = 0
        network.get_input_embeddings().register_forward_pre_hook(self._count)

    def _count(self, _, inputs):
        self.num += inputs[0].numel()


@pytest.fixture(scope="module")
def llama(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.mark.parametrize("kind", PACKABLE)
def test_every_family_answers_as_transformers_does_in_batches_of_one_of_three_and_of_all(kind):
    network = build(kind, **PACKABLE[kind])
    assert may_come_to_the_table(network, None)
    prompts = _prompts(5)
    wanted = [_by_transformers(network, prompt, GREEDY) for prompt in prompts]
    assert len(set(wanted)) > 1
    for size in (1, 3, 5):
        parts = [prompts[start : start + size] for start in range(0, 5, size)]
        assert [one for part in parts for one in generate(network, part, GREEDY, (EOS,), PAD)] == wanted


# Each carries something along that is no attention over tokens, or biases it by distance; or says too little of itself.
STAYS_AWAY = {
    "bloom": SMALL | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
    "mamba": SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "recurrent_gemma": SMALL
    | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "lru_width": 32}
    | {"attention_window_size": 6},
    "lfm2": DECODER | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", STAYS_AWAY)
def test_a_model_that_cannot_come_to_the_table_answers_as_transformers_does_all_the_same(kind):
    network = build(kind, **STAYS_AWAY[kind])
    assert not may_come_to_the_table(network, None)
    prompts = _prompts(5)
    wanted = [_by_transformers(network, prompt, GREEDY) for prompt in prompts]
    assert generate(network, prompts, GREEDY, (EOS,), PAD) == wanted
    drawn_at = Sampling(9, temperature=1.0, num=2)
    together = generate(network, prompts, drawn_at, (EOS,), PAD)
    assert together == [one for prompt in prompts for one in generate(network, [prompt], drawn_at, (EOS,), PAD)]
    assert len(set(together)) > 5


def test_a_model_that_turns_out_to_compute_something_else_at_the_table_stays_away():
    """Nothing in its configuration says so: only the trial can find it."""

    network = build("llama", **DECODER)

    def shift(_, __, output):  # what a token says depends on the one before it in the row
        return output + 0.5 * output.roll(1, dims=1)

    network.get_input_embeddings().register_forward_hook(shift)
    assert not may_come_to_the_table(network, None)


@pytest.mark.parametrize("window", [6, 200])
def test_a_window_that_is_slid_by_a_mask_alone_keeps_a_model_away(window):
    slides = {"sliding_window": window, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    network = build("qwen2_moe", **DECODER | EXPERTS | slides)
    assert not may_come_to_the_table(network, None)
    prompts = _prompts(3)
    assert generate(network, prompts, GREEDY, (EOS,), PAD) == [_by_transformers(network, p, GREEDY) for p in prompts]


def test_window_and_prompt_of_any_length_give_transformers_answers():
    network = build("mistral", **DECODER | SLIDING)
    prompts = [tuple(range(3, 3 + length)) for length in (1, 5, 6, 7, 20)]
    sampling = Sampling(max_new_tokens=20)
    wanted = [_by_transformers(network, prompt, sampling) for prompt in prompts]
    assert generate(network, prompts, sampling, (EOS,), PAD) == wanted


def test_more_answers_than_places_take_turns_and_change_nothing(llama):
    prompts, eos_ids = _prompts(MAX_BATCH + 21), (EOS, *range(100, 140))  # a tenth of the vocabulary ends an answer
    sampling = Sampling(max_new_tokens=40)
    found = generate(llama, prompts, sampling, eos_ids, PAD)
    assert found == [_by_transformers(llama, prompt, sampling, eos_ids) for prompt in prompts]
    assert len({len(ids) for ids, _ in found}) > 8


@pytest.mark.parametrize("num", [1, 3, 100])
def test_a_prompt_goes_through_the_model_once_and_an_answer_that_has_ended_no_more(llama, num):
    prompts, sampling, eos_ids = _prompts(3), Sampling(12, 1.5, num), (EOS, *range(100, 140))
    assert may_come_to_the_table(llama, None)  # tried before anything is counted
    fed = Fed(llama)
    found = generate(llama, prompts, sampling, eos_ids, PAD)
    # The last token of an answer, EOS or not, is not read any more.
    read = sum(len(ids) if finished else len(ids) - 1 for ids, finished in found)
    wanted = sum(map(len, prompts)) + read
    linger = 0 if num < 100 else 0.1 * read  # places that are filled again by eights
    assert wanted <= fed.num <= wanted + linger


def test_answers_that_are_greedy_are_computed_once(llama):
    prompts = _prompts(4)
    assert may_come_to_the_table(llama, None)
    fed = Fed(llama)
    [*single] = generate(llama, prompts, GREEDY, (EOS,), PAD)
    once, told = fed.num, []
    found = generate(llama, prompts, Sampling(9, num=3), (EOS,), PAD, told.extend)
    assert fed.num == 2 * once
    assert found == [one for one in single for _ in range(3)]
    assert sorted(told) == [(place, *one) for place, one in enumerate(found)]


def _pick(logits, noise):
    return drawn(logits, 1.3, noise)


def test_both_ways_draw_the_same_answers(llama):
    prompts = _prompts(7)

    def answers(way):
        waiting = [Wanted(p, n, 9, noise_of(4, prompts[p], n)) for p in range(7) for n in range(3)]
        with torch.inference_mode():
            ended = [one for some in way(llama, prompts, waiting, _pick, (EOS,), PAD, None) for one in some]
        return sorted((one.prompt, one.number, tuple(one.ids), one.finished) for one in ended)

    assert answers(at_the_table) == answers(padded)


def test_learned_positions_end_an_answer_and_no_neighbour_s(tiny_gpt):
    network = build("gpt2", **GPT)
    prompts = [tuple(range(3, 3 + length)) for length in (4, 60, 63)]
    found = generate(network, prompts, Sampling(20), (399,), PAD, positions=64)
    assert [len(ids) for ids, _ in found] == [20, 4, 1]
    alone = [generate(network, [prompt], Sampling(20), (399,), PAD, positions=64)[0] for prompt in prompts]
    assert found == alone


def test_the_attention_is_the_model_s_own_again_even_after_a_fault(llama):
    before = llama.config._attn_implementation

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(llama, _prompts(4), GREEDY, (EOS,), PAD, stop)
    assert llama.config._attn_implementation == before
    assert llama(input_ids=torch.tensor([[5, 6]])).logits.shape[1] == 2


def test_bfloat16_comes_to_the_table_as_well():
    network = build("llama", **HEADS_OF_8).to(torch.bfloat16)
    assert may_come_to_the_table(network, None)
    prompts = _prompts(4)
    assert len(generate(network, prompts, Sampling(5, 1.0, 2), (EOS,), PAD)) == 8
