from __future__ import annotations

import random

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from tiebreak.engine.answers.local import MAX_BATCH, Answer, Sampling, generate
from tiebreak.engine.models import load_policy
from tiny import EOS, PAD, settings

GREEDY = Sampling(max_new_tokens=7, eos_ids=(EOS,), pad_id=PAD)


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def prompts():
    draw = random.Random(0)
    return [tuple(draw.randrange(3, 250) for _ in range(draw.randint(1, 13))) for _ in range(MAX_BATCH + 5)]


def _by_hand(model, prompt, num, eos_ids=(EOS,)):
    """Greedy without cache, padding or transformers' generate."""
    ids = list(prompt)
    for _ in range(num):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in eos_ids:
            return Answer(tuple(ids[len(prompt) : -1]), True)
    return Answer(tuple(ids[len(prompt) :]), False)


def test_a_batch_gives_each_prompt_the_greedy_answer_that_it_gets_alone(model, prompts):
    together = generate(model, prompts, GREEDY)
    assert together == [_by_hand(model, prompt, 7) for prompt in prompts]
    assert len(set(together)) > 20


def test_left_padding_does_not_change_greedy_answers(model, prompts):
    short = min(prompts, key=len)
    [alone] = generate(model, [short], GREEDY)
    for pad_id in (PAD, 77):
        long = Sampling(7, (EOS,), pad_id)
        assert generate(model, [short, max(prompts, key=len)], long)[0] == alone


def test_an_answer_ends_before_its_first_eos_and_says_so(model, prompts):
    whole = generate(model, prompts[:6], GREEDY)
    eos_ids = (EOS, whole[0].ids[3])
    ended = generate(model, prompts[:6], Sampling(7, eos_ids, PAD))
    assert ended[0].finished
    assert ended[0].ids == whole[0].ids[: whole[0].ids.index(eos_ids[1])]
    assert ended == [_by_hand(model, prompt, 7, eos_ids) for prompt in prompts[:6]]
    for answer in ended:
        assert answer.finished or len(answer.ids) == 7


def test_what_the_model_s_folder_suggests_does_not_change_answers(tiny_model, model, prompts):
    advised = AutoModelForCausalLM.from_pretrained(tiny_model)
    advised.generation_config = GenerationConfig(
        do_sample=True,
        temperature=3.0,
        top_k=1,
        top_p=0.01,
        repetition_penalty=4.0,
        no_repeat_ngram_size=1,
        min_length=40,
    )
    assert generate(advised, prompts[:9], GREEDY) == generate(model, prompts[:9], GREEDY)
    # Drawn answers would all be the greedy one under the folder's top_k.
    drawn = Sampling(7, (EOS,), PAD, temperature=2.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert generate(advised, prompts[:9], drawn) != generate(model, prompts[:9], GREEDY)


def test_a_temperature_draws_from_the_softmax_at_that_temperature(model, prompts):
    num, temperature = 640, 1.7
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([prompts[0]])).logits[0, -1] / temperature).softmax(-1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        answers = generate(model, [prompts[0]] * num, Sampling(1, (EOS,), PAD, temperature))
    likely = int(expected.argmax())
    share = sum(answer.ids == (likely,) for answer in answers) / num
    error = (expected[likely] * (1 - expected[likely]) / num).sqrt()
    assert abs(share - expected[likely]) < 4 * error


def test_greedy_answers_draw_nothing_from_the_random_stream(model, prompts):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    generate(model, prompts[:2], GREEDY)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_every_prompt_and_the_mode_is_given_back(model, prompts):
    seen = []
    model.train()
    generate(model, prompts, Sampling(1, (EOS,), PAD), progress=seen.append)
    assert seen == [MAX_BATCH, 5]
    assert model.training
    model.eval()


def test_no_prompts_no_answers(model):
    assert generate(model, [], GREEDY) == []


def test_the_reference_answers_as_the_base_does_and_the_policy_can_train_afterwards(tiny_model, model, prompts):
    policy = load_policy(settings(tiny_model))
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(0.1)
    with policy.reference.model() as reference:
        assert generate(reference, prompts[:4], GREEDY) == generate(model, prompts[:4], GREEDY)
    assert generate(policy.model, prompts[:4], GREEDY) != generate(model, prompts[:4], GREEDY)
    policy.model(input_ids=torch.tensor([prompts[0]])).logits.sum().backward()
    assert all(p.grad is not None for _, p in policy.trainable)
