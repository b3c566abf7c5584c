"""The main job's own decisions, without a model: what it asks the reference, in which company."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tiebreak.config import Config
from tiebreak.errors import ConfigError
from tiebreak.maths.packing import packed_micro_batches
from tiebreak.progress import Silent
from tiebreak.training.resumption import asked_for
from tiebreak.verbs import train
from tiny import token_pairs

PAIRS = token_pairs(13)


class Remembered:
    """A reference that keeps which pairs it was asked for together."""

    def __init__(self, known=()):
        self.known, self.asked = set(known), []

    def spot_check(self, *_):
        return None

    def missing(self, pairs):
        return [pair for pair in pairs if pair not in self.known]

    def logps(self, pairs):
        self.asked.append(list(pairs))
        self.known |= set(pairs)

    def pin(self, pairs):
        pass

    def flush(self):
        pass


def _asked(reference) -> list[list]:
    policy = SimpleNamespace(
        reference=reference, dtype=None, micro_batches=lambda pairs: packed_micro_batches(pairs, token_budget=60)
    )
    data = SimpleNamespace(all_pairs=PAIRS)
    train._ask_reference(policy, data, Config.model_validate({"adapter": {"kind": "none"}}), Silent(), afresh=True)
    return reference.asked


def test_a_reference_pass_that_was_killed_goes_on_in_the_groups_that_it_had():
    whole = _asked(Remembered())
    assert len(whole) > 3
    assert {len(group) for group in whole} != {1}
    for done in range(len(whole)):
        known = [pair for group in whole[:done] for pair in group]
        assert _asked(Remembered(known)) == whole[done:]


def test_what_earlier_runs_stored_is_not_asked_again():
    assert _asked(Remembered(PAIRS)) == []
    known = PAIRS[::2]
    asked = [pair for group in _asked(Remembered(known)) for pair in group]
    assert set(asked) == set(PAIRS) - set(known)
    assert len(asked) == len(set(asked))


def test_what_may_have_changed_is_named_by_one_word_or_several():
    assert asked_for("auto", "data") == ("data",)
    assert asked_for("never", ["data", "config"]) == ("data", "config")


@pytest.mark.parametrize(
    ("resume", "accept", "words"), [("nver", (), "--resume nver: wanted one of auto, never"), ("auto", "dta", "'data'")]
)
def test_a_word_that_is_mistyped_is_no_leave(resume, accept, words):
    with pytest.raises(ConfigError, match=words):
        asked_for(resume, accept)
