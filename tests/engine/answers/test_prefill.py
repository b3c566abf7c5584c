"""A prompt computed once for all of its answers is computed as it would be for each; padding needs its positions."""

from __future__ import annotations

import random

import pytest
import torch

from families import DECODER, GPT, PACKABLE, build
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.drawing import Wanted, likeliest, noise_of
from tiebreak.engine.answers.local import generate
from tiebreak.engine.answers.padded import padded
from tiebreak.engine.answers.seating import _answering, _opened, _stepped, at_the_table
from tiebreak.engine.answers.table import Table
from tiebreak.engine.attention import causal_model
from tiny import EOS, PAD

NUM_NEW = 5


def _ids(*lengths, seed=1):
    draw = random.Random(seed)
    return [[draw.randrange(3, 250) for _ in range(length)] for length in lengths]


def _logits(network, of, prompts, answers):
    """What stands behind each token of answers, after prompts that went through the model once, each."""
    causal = causal_model(network)
    with torch.inference_mode(), _answering(network):
        opened, table = _opened(causal, prompts), Table(len(of))
        for slot, prompt in enumerate(of):
            table.seat(slot, opened[prompt][0])
        found = [torch.stack([opened[prompt][1] for prompt in of])]
        for place in range(NUM_NEW):
            found.append(_stepped(causal, table, [answer[place] for answer in answers]))
            table.lengths = [length + 1 for length in table.lengths]
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", PACKABLE)
def test_a_shared_prefill_gives_the_logits_of_separate_ones_and_of_the_model_alone(kind):
    network = build(kind, **PACKABLE[kind])
    prompts, answers = _ids(13, 4, 9), _ids(*[NUM_NEW] * 6, seed=2)
    of = (0, 0, 0, 1, 2, 2)
    shared = _logits(network, of, prompts, answers)
    separate = torch.cat(
        [_logits(network, (0,), [prompts[prompt]], [answer]) for prompt, answer in zip(of, answers, strict=True)]
    )
    with torch.inference_mode():
        alone = torch.stack(
            [
                network(torch.tensor([[*prompts[prompt], *answer]]), use_cache=False).logits[0, -NUM_NEW - 1 :].float()
                for prompt, answer in zip(of, answers, strict=True)
            ]
        )
    scale = max(1.0, float(alone.abs().max()))
    assert float((shared - separate).abs().max()) <= 2e-5 * scale
    assert float((shared - alone).abs().max()) <= 2e-5 * scale


@pytest.mark.parametrize("kind", PACKABLE)
def test_several_greedy_answers_to_a_prompt_are_the_one_that_it_gets_alone(kind):
    network, prompts = build(kind, **PACKABLE[kind]), [tuple(ids) for ids in _ids(13, 4, 9)]
    alone = [list(generate(network, [prompt], Sampling(NUM_NEW), (EOS,), PAD)[0][0]) for prompt in prompts]
    assert _answered(at_the_table, network, prompts, 3) == [one for one in alone for _ in range(3)]


def _answered(way, network, prompts, num=1, eos=EOS):
    """The greedy answers of a way, `num` rows for each prompt."""
    waiting = [
        Wanted(place, number, NUM_NEW, noise_of(0, prompt, number))
        for place, prompt in enumerate(prompts)
        for number in range(num)
    ]
    with torch.inference_mode():
        made = way(network, prompts, waiting, lambda logits, _: likeliest(logits), (eos,), PAD, None)
        ended = [one for batch in made for one in batch]
    return [one.ids for one in sorted(ended, key=lambda one: (one.prompt, one.number))]


@pytest.mark.parametrize(("kind", "config"), [("gpt2", GPT), ("llama", DECODER)])
def test_left_padding_needs_its_positions_in_the_prefill(kind, config):
    """The prefill is given them, and without them the answers of the shorter prompts are silently others."""
    network, prompts = build(kind, **config), _ids(13, 4, 2, 9)
    alone = [_answered(padded, network, [prompt], eos=399)[0] for prompt in prompts]
    seen = []

    def _is_prefill(kwargs):
        rows, width = kwargs["input_ids"].shape
        return rows == len(prompts) and width > 1

    def watch(_, args, kwargs):
        if _is_prefill(kwargs):
            seen.append(kwargs["position_ids"])

    hook = network.register_forward_pre_hook(watch, with_kwargs=True)
    assert _answered(padded, network, prompts, eos=399) == alone
    hook.remove()
    [positions] = seen
    for row, prompt in zip(positions.tolist(), prompts, strict=True):
        assert row[-len(prompt) :] == list(range(len(prompt)))

    def forget(_, args, kwargs):
        return args, kwargs | ({"position_ids": None} if _is_prefill(kwargs) else {})

    hook = network.register_forward_pre_hook(forget, with_kwargs=True)
    lost = _answered(padded, network, prompts, eos=399)
    hook.remove()
    assert lost[0] == alone[0]
    assert lost != alone
