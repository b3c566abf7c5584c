"""How a run begins with its reference: what is dear to ask is asked at once, in the company that it always had."""

from __future__ import annotations

import contextlib

import pytest
import torch

from tiebreak.engine.reference.store import LogpStore
from tiebreak.engine.reference.stored import Stored
from tiebreak.maths.logps import TokenLogps
from tiebreak.maths.packing import packed_micro_batches
from tiebreak.progress import Silent
from tiny import token_pairs

PAIRS = token_pairs(13)


class Recalled:
    """A dear reference without weights: it says what the ids are, and keeps which pairs it was asked for together."""

    identity = "ids"
    dear = model_is_dear = True

    def __init__(self):
        self.asked, self.begun = [], 0

    def logps(self, examples, beside=None):
        self.asked.append(list(examples))
        completions = [completion for example in examples for completion in example.completions]
        values = torch.tensor([-float(token) for completion in completions for token in completion])
        return TokenLogps(values, tuple(map(len, completions)))

    def begin(self, examples, cut, progress):
        self.begun += 1

    def moved(self, step):
        pass

    def model(self):
        return contextlib.nullcontext()


def _begun(known=()):
    asked = Recalled()
    stored = Stored(asked, lambda: LogpStore(None, {}), device=torch.device("cpu"), dtype=torch.float32, spot_checks=0)
    if known:
        stored.logps(known)
        asked.asked.clear()
    stored.begin(PAIRS, lambda pairs: packed_micro_batches(pairs, token_budget=60), Silent())
    assert asked.begun == 1  # its weights are let go
    return asked.asked


def test_a_reference_pass_that_was_killed_goes_on_in_the_groups_that_it_had():
    whole = _begun()
    assert len(whole) > 3
    assert {len(group) for group in whole} != {1}
    for done in range(len(whole)):
        assert _begun([pair for group in whole[:done] for pair in group]) == whole[done:]


def test_what_earlier_runs_stored_is_not_asked_again():
    assert _begun(PAIRS) == []
    known = PAIRS[::2]
    asked = [pair for group in _begun(known) for pair in group]
    assert set(asked) == set(PAIRS) - set(known)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("dear", [True, False])
def test_only_a_dear_reference_is_asked_before_training(dear):
    asked = Recalled()
    asked.dear = dear
    stored = Stored(asked, lambda: LogpStore(None, {}), device=torch.device("cpu"), dtype=torch.float32, spot_checks=0)
    stored.begin(PAIRS, lambda pairs: [pairs], Silent())
    assert bool(asked.asked) is dear
