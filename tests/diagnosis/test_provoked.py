"""A failure that is planted in a real run is the first that is named of it, and a sound run is not accused.

A few of them here, which take a minute; all of them with TIEBREAK_LONG=1. The table of docs/diagnoses.md is that of
several seeds: python tests/provoked.py.
"""

from __future__ import annotations

import pytest

import provoked
from bounds import LONG

SEED = 5
"""None of those of the table."""
FEW = ("swapped_labels", "learning_rate_too_high", "dpo, LoRA")


@pytest.fixture(scope="module")
def world(stories, tmp_path_factory) -> provoked.World:
    return provoked.World(tmp_path_factory.mktemp("provoked"), stories)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*provoked.PLANTED, *provoked.HEALTHY] if LONG else FEW)
def test_what_was_planted_is_named_first(world, name):
    found = provoked.named(provoked.provoke(world, name, SEED))
    assert found[:1] == ([name] if name in provoked.PLANTED else []), found
