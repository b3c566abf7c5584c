"""What training promises of every objective, over the table: a new row is tested before it has a test of its own."""

from __future__ import annotations

import pytest

from tiebreak.config.losses import SECTIONS
from tiny import cut_off, run, same, settings, stated, token_pairs, token_thumbs, weights

PAIRS = stated(token_pairs(10, num_prompts=6, seed=3))
THUMBS = token_thumbs(12, num_prompts=5, seed=9)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_run_that_was_killed_ends_with_the_same_bits(name, tiny_model, tmp_path):
    examples = THUMBS if SECTIONS[name]().learns_apart else PAIRS
    own = {"training__pairs_per_step": 4, "training__checkpoint_steps": 1, "training__shuffle": False}
    config = settings(tiny_model, loss={"name": name}, **own)
    whole = run(config, examples, tmp_path / "whole")
    cut_off(config, examples, tmp_path / "cut", 2)
    resumed = run(config, examples, tmp_path / "cut")
    assert same(weights(resumed.loaded.policy.network), weights(whole.loaded.policy.network))
    taken, again = ([(row["loss"], row["grad_norm"]) for row in one.rows()] for one in (whole, resumed))
    assert taken == again
    assert len(taken) == 3 and all(norm > 0 for _, norm in taken)
