"""Noise that a base model brings: switched off where it is noise, left where it is part of what the model computes.

Owns which numbers of a model are dropout or jitter. A number counts as noise if it changes nothing in evaluation mode:
PhiMoE's `router_jitter_noise` is a threshold of its router there, and without it the model is another one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NAMES = ("drop", "jitter")
Numbers = dict[str, list[tuple[nn.Module, float]]]
"""By the name of an attribute: the modules that have it, and what it was."""
TRIED = 0.9
"""Far from any number that a model is published with, so that what depends on one shows within a few tokens."""


def without_noise(network: Any, say: Callable[[str], None] = lambda _: None) -> Any:
    """Switch off dropout and router noise that a base model brings: they would depend on the micro-batches.

    Some models keep them in modules (GPT-2), others as a number that a layer reads (OPT, Mixtral's router). In
    evaluation mode every logit stays as it is, to the bit. What reads a number that shapes them is told, keeps it, and
    stays in evaluation mode while the rest trains.
    """
    numbers: Numbers = {}
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
            continue
        for key, value in vars(module).items():
            if _is_noisy(key, value):
                numbers.setdefault(key, []).append((module, value))
    _set(numbers, numbers, 0.0)
    for key in _shaping(network, numbers):
        for module, value in numbers[key]:
            setattr(module, key, value)
            module.register_forward_pre_hook(_in_evaluation_mode)
        kinds = sorted({type(module).__name__ for module, _ in numbers[key]})
        say(
            f"{key} {numbers[key][0][1]:g} of the model shapes what it computes and stays; its {', '.join(kinds)} "
            "choose as they do in evaluation, also while training"
        )
    _quieten(network, say)
    return network


@contextlib.contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch dropout off for a while."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def _quieten(network: Any, say: Callable[[str], None]) -> None:
    """Keep what reads its dropout from the configuration (Falcon, Persimmon, BLT) as in evaluation, where it is noise.

    The configuration itself says what model it is, and stays. Layers come first: whole models within the network, whose
    passes may be of another form in training, only where it is random still. What nobody finds is told.
    """
    readers = [
        module
        for module in network.modules()
        if module is not network and any(_is_noisy(key, value) for key, value in _configured(module).items())
    ]
    layers = [module for module in readers if not isinstance(module, PreTrainedModel)]
    models = [module for module in readers if isinstance(module, PreTrainedModel)]
    for some in (layers, models):
        if readers and not _is_random(network):
            return
        for module in some:
            module.register_forward_pre_hook(_rests)
            module.register_forward_hook(_trains_again, always_call=True)
    if readers and _is_random(network):
        say("the model drops out at random in training, where its code keeps it: results depend on the micro-batches")


def _configured(module: nn.Module) -> dict[str, Any]:
    config = vars(module).get("config")
    return {} if config is None else vars(config)


def _is_noisy(key: str, value: Any) -> bool:
    return isinstance(value, float) and bool(value) and any(name in key for name in NAMES)


def _is_random(network: Any) -> bool:
    """Whether a network in training says something else than in evaluation."""
    with evaluation_mode(network):
        still = _logits(network)
        network.train()
        return not torch.equal(still, _logits(network))


def _rests(module: nn.Module, _: Any) -> None:
    # This module alone: those in it, such as an adapter's dropout, train as they are told.
    vars(module)["was_training"], module.training = module.training, False


def _trains_again(module: nn.Module, *_: Any) -> None:
    module.training = vars(module).pop("was_training", module.training)


def _shaping(network: Any, numbers: Numbers) -> list[str]:
    """Return the keys of numbers, all 0 now, that change logits in evaluation mode."""
    if not numbers:
        return []
    was_training = network.training
    network.eval()
    try:
        still = _logits(network)

        def moves(keys: Collection[str]) -> bool:
            _set(numbers, keys, TRIED)
            found = _logits(network)
            _set(numbers, keys, 0.0)
            return not torch.equal(still, found)

        # All at once first: most models have nothing to find.
        return [key for key in numbers if moves([key])] if moves(numbers) else []
    finally:
        network.train(was_training)


def _set(numbers: Numbers, keys: Collection[str], value: float) -> None:
    for key in keys:
        for module, _ in numbers[key]:
            setattr(module, key, value)


def _logits(network: Any) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        logits: Tensor = network(input_ids=network.dummy_inputs["input_ids"], use_cache=False).logits
        return logits


def _in_evaluation_mode(module: nn.Module, _: Any) -> None:
    module.eval()
