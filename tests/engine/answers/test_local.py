from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, GenerationConfig

from families import DECODER, EXPERTS, HEADS_OF_8, SMALL, build
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.answers.local import generate
from tiebreak.engine.answers.seating import MAX_BATCH
from tiebreak.records import Message
from tiny import EOS, PAD, load, settings

GREEDY = Sampling(max_new_tokens=7)


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def prompts():
    draw = random.Random(0)
    return [tuple(draw.randrange(3, 250) for _ in range(draw.randint(1, 13))) for _ in range(MAX_BATCH + 5)]


def _generated(model, prompts, sampling=GREEDY, eos_ids=(EOS,), pad_id=PAD):
    return generate(model, prompts, sampling, eos_ids, pad_id)


def _chats(texts):
    return [Chat((Message("user", text),)) for text in texts]


def _by_hand(model, prompt, num, eos_ids=(EOS,)):
    """Greedy without cache, padding or transformers' generate."""
    ids = list(prompt)
    for _ in range(num):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in eos_ids:
            return tuple(ids[len(prompt) : -1]), True
    return tuple(ids[len(prompt) :]), False


def test_a_batch_gives_each_prompt_the_greedy_answer_that_it_gets_alone(model, prompts):
    together = _generated(model, prompts)
    assert together == [_by_hand(model, prompt, 7) for prompt in prompts]
    assert len(set(together)) > 20


def test_left_padding_does_not_change_greedy_answers(model, prompts):
    short = min(prompts, key=len)
    [alone] = _generated(model, [short])
    for pad_id in (PAD, 77):
        assert _generated(model, [short, max(prompts, key=len)], pad_id=pad_id)[0] == alone


@pytest.mark.parametrize("length", [3, 60, 63, 64, 90])
def test_an_answer_ends_with_the_positions_of_the_model_alone_and_beside_others(tiny_gpt, length):
    policy = load(settings(tiny_gpt, adapter="none")).policy
    policy = replace(policy, eos_ids=(399,))  # never drawn greedily here, so that only the positions end an answer
    text = "a" * (length - len(policy.renderer(settings(tiny_gpt).data).prompt(_chats([""])[0].messages)))
    chats = [*_chats([text]), *_chats(["the cat", "yes"])]
    answers = policy.answer(chats, Sampling(max_new_tokens=20))
    assert [len(answer.ids) for answer in answers] == [{60: 4, 63: 1}.get(length, 20), 20, 20]
    assert answers[:1] == policy.answer(chats[:1], Sampling(max_new_tokens=20))


def test_an_answer_ends_before_its_first_eos_and_says_so(model, prompts):
    (first, _), *_ = _generated(model, prompts[:6])
    eos_ids = (EOS, first[3])
    ended = _generated(model, prompts[:6], eos_ids=eos_ids)
    assert ended[0] == (first[: first.index(eos_ids[1])], True)
    assert ended == [_by_hand(model, prompt, 7, eos_ids) for prompt in prompts[:6]]
    for ids, finished in ended:
        assert finished or len(ids) == 7


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
    assert _generated(advised, prompts[:9]) == _generated(model, prompts[:9])
    # Drawn answers would all be the greedy one under the folder's top_k.
    drawn = Sampling(7, temperature=2.0)
    assert _generated(advised, prompts[:9], drawn) == _generated(model, prompts[:9], drawn)
    assert _generated(advised, prompts[:9], drawn) != _generated(model, prompts[:9])


def test_what_the_folder_suggests_does_not_change_answers_of_transformers_generate_either(prompts):
    network = build("rwkv", **BY_COMPANY["rwkv"])
    wanted = [_generated(network, prompts[:3], sampling) for sampling in (GREEDY, DRAWN)]
    suggested = GenerationConfig(
        do_sample=True, top_k=1, repetition_penalty=4.0, no_repeat_ngram_size=1, min_new_tokens=7, num_beams=2,
        suppress_tokens=[5, 6], forced_eos_token_id=7, bad_words_ids=[[9]], sequence_bias=[[[8], 50.0]],
    )  # fmt: skip
    network.generation_config = suggested
    assert [_generated(network, prompts[:3], sampling) for sampling in (GREEDY, DRAWN)] == wanted
    assert network.generation_config is suggested


def test_a_temperature_draws_first_tokens_from_the_softmax_at_that_temperature(model, prompts):
    num, temperature = 4000, 1.7
    with torch.no_grad():
        expected = (model(input_ids=torch.tensor([prompts[0]])).logits[0, -1].double() / temperature).softmax(-1)
    answers = _generated(model, prompts[:1], Sampling(1, temperature, num), eos_ids=(399,))
    counts = np.bincount([ids[0] if ids else 399 for ids, _ in answers], minlength=len(expected))
    often = (expected * num >= 5).numpy()
    wanted = expected.numpy()[often] * num
    found = counts[often]
    assert chisquare([*found, num - found.sum()], [*wanted, num - wanted.sum()]).pvalue > 1e-3


DRAWN = Sampling(max_new_tokens=12, temperature=1.1, num=2, seed=3)


@pytest.fixture(scope="module")
def drawn(model, prompts):
    """What each of some prompts is answered alone."""
    return {prompt: _generated(model, [prompt], DRAWN) for prompt in prompts[:20]}


@pytest.mark.parametrize("size", [3, 20])
def test_drawn_answers_are_the_same_in_every_batch_and_order(model, drawn, size):
    order = list(drawn)
    random.Random(size).shuffle(order)
    for start in range(0, len(order), size):
        some = order[start : start + size]
        assert _generated(model, some, DRAWN) == [answer for prompt in some for answer in drawn[prompt]]


def test_answers_to_one_prompt_differ_and_the_first_ones_hang_on_no_number(model, drawn):
    prompt = next(iter(drawn))
    many = _generated(model, [prompt], replace(DRAWN, num=9))
    assert len(set(many)) == 9
    assert many[:2] == drawn[prompt]
    assert _generated(model, [prompt], replace(DRAWN, seed=4)) != drawn[prompt]


def test_greedy_answers_draw_nothing_from_the_random_stream(model, prompts):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    _generated(model, prompts[:2])
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_counts_every_prompt_and_the_mode_is_given_back(tiny_model):
    policy, told = load(settings(tiny_model)).policy, []
    texts = [f"the cat sat {'on ' * (index % 7)}{index}" for index in range(MAX_BATCH + 5)]
    policy.network.train()
    answers = policy.answer(_chats(texts), Sampling(1), told.append)
    assert [len(made) for made in told] == [MAX_BATCH, 5]
    assert sorted((place for made in told for place, _ in made)) == list(range(len(texts)))
    assert all(answers[place] == answer for made in told for place, answer in made)
    assert policy.network.training


def test_each_batch_is_told_with_the_places_of_its_prompts(model, prompts):
    told = []
    answers = generate(model, prompts, GREEDY, (EOS,), PAD, told.append)
    assert sum(map(len, told)) == len(prompts)
    assert {place: (ids, finished) for made in told for place, ids, finished in made} == dict(enumerate(answers))


def test_no_prompts_no_answers(model, tiny_model):
    assert _generated(model, []) == []
    assert load(settings(tiny_model)).policy.answer([], GREEDY) == []


def test_an_answer_is_what_follows_the_rendered_chat_as_text_and_as_ids(tiny_model, model, tokenizer):
    policy = load(settings(tiny_model, "none")).policy
    chats = [*_chats(["the cat", "yes"]), Chat((Message("system", "no"), Message("user", "the dog ran")))]
    rows = [[message.as_dict() for message in chat.messages] for chat in chats]
    texts = [tokenizer.apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in rows]
    prompts = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    found = policy.answer(chats, GREEDY)
    assert [(answer.ids, answer.finished) for answer in found] == [_by_hand(model, prompt, 7) for prompt in prompts]
    assert [answer.text for answer in found] == [
        tokenizer.decode(answer.ids, skip_special_tokens=True) for answer in found
    ]


def test_the_reference_answers_as_the_base_does_and_the_policy_can_train_afterwards(tiny_model, model):
    loaded = load(settings(tiny_model))
    policy, chats = loaded.policy, _chats(["the cat sat", "yes", "no and no", "the dog ran to the park"])
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(0.1)
    renderer = policy.renderer(settings(tiny_model).data)
    prompts = [renderer.prompt(chat.messages) for chat in chats]
    wanted = _generated(model, prompts)
    with loaded.reference.model() as reference:
        assert [(answer.ids, answer.finished) for answer in reference.answer(chats, GREEDY)] == wanted
    assert [(answer.ids, answer.finished) for answer in policy.answer(chats, GREEDY)] != wanted
    policy.network(input_ids=torch.tensor([prompts[0]])).logits.sum().backward()
    assert all(p.grad is not None for _, p in policy.trainable)


BY_COMPANY = {
    "rwkv": SMALL | {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    "minimax": HEADS_OF_8 | EXPERTS | {"layer_types": ["linear_attention", "full_attention"]},
}


@pytest.mark.parametrize("kind", BY_COMPANY)
def test_a_model_whose_answers_hang_on_their_company_answers_one_by_one(kind, prompts):
    network, batches = build(kind, **BY_COMPANY[kind]), []
    some = prompts[:6]
    together = generate(network, some, GREEDY, (EOS,), PAD, lambda made: batches.append(len(made)))
    assert together == [_generated(network, [prompt])[0] for prompt in some]
    assert batches == [1] * len(some)


def test_whether_a_model_may_come_to_the_table_is_tried_without_a_draw(prompts):
    network, before = build("llama", **DECODER), torch.get_rng_state()
    _generated(network, prompts[:4])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(12, temperature=1.1, seed=3)], ids=["greedy", "drawn"])
@pytest.mark.parametrize("kind", ["llama", "rwkv"])
def test_an_answer_that_is_listened_to_is_the_one_that_is_given_among_others(model, prompts, kind, sampling):
    """At the table, and by transformers' generate where a model cannot come to it."""
    network = model if kind == "llama" else build("rwkv", **BY_COMPANY["rwkv"])
    eos_ids = (EOS, _generated(network, prompts[:1], sampling)[0][0][-1])
    wanted = _generated(network, prompts[:3], sampling, eos_ids)
    for prompt, (ids, finished) in zip(prompts[:3], wanted, strict=True):
        heard = []
        found = generate(network, [prompt], sampling, eos_ids, PAD, heard=lambda _, token, to=heard: to.append(token))
        assert found == [(ids, finished)]
        assert tuple(heard[: len(ids)]) == ids
        assert len(heard) == len(ids) + finished
    assert any(finished for _, finished in wanted)


def test_answers_drawn_from_a_nucleus_do_not_hang_on_company_and_a_tiny_one_is_greedy(model, prompts):
    narrow = replace(DRAWN, top_p=0.6)
    together = _generated(model, prompts[:6], narrow)
    assert [one for prompt in prompts[:6] for one in _generated(model, [prompt], narrow)] == together
    assert together != _generated(model, prompts[:6], DRAWN)
    greedy = _generated(model, prompts[:6], replace(DRAWN, temperature=0.0))
    assert _generated(model, prompts[:6], replace(DRAWN, top_p=1e-9)) == greedy


@pytest.mark.parametrize("family", ["llama", "rwkv"])
@pytest.mark.parametrize("sampling", [DRAWN, Sampling(12)])
def test_whoever_listens_hears_each_answer_in_its_place_and_may_end_it_while_others_go_on(
    model, prompts, family, sampling
):
    network = model if family == "llama" else build(family, **BY_COMPANY[family])
    some, heard = prompts[:4], {}
    alone = _generated(network, some, sampling)

    def listen(place, token):
        heard.setdefault(place, []).append(token)
        return place == 2 and len(heard[place]) == 3

    network.eval()
    found = generate(network, some, sampling, (EOS,), PAD, heard=listen)
    times = sampling.num if sampling.temperature == 0 else 1
    for place, (ids, finished) in enumerate(alone):
        if place != 2:
            assert found[place] == (ids, finished)
        if place % times == 0:
            whole = [*ids, EOS] if finished else list(ids)
            assert heard[place] == (whole[:3] if place == 2 else whole)
    assert found[2] == (alone[2][0][:3], alone[2][1] and len(alone[2][0]) < 3)
