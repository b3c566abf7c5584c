"""Several processes learn what one learns: losses, norms and weights, whatever the strategy, layout and objective."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from joined_runs import CASES, Case, launched

_CLOCKS = ("step_seconds", "pairs_per_second", "unique_tokens_per_second", "memory_bytes", "balance", "token_budget")
_TIES = ("rewards/accuracies",)  # where policy and reference are one, a tie hangs on the last bit


@pytest.fixture(scope="module")
def together(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    return folder, launched(2, list(CASES), tiny_model, folder)


@pytest.fixture(scope="module")
def alone(tiny_model, tmp_path_factory):
    folder, known = tmp_path_factory.mktemp("alone"), {}

    def trained(case: Case):
        of = repr((case.adapter, case.changes, case.thumbs))
        if of not in known:
            known[of] = folder / str(len(known)), case.trained(tiny_model, folder / str(len(known)))
        return known[of]

    return trained


@pytest.mark.parametrize("name", CASES)
def test_two_processes_take_the_steps_of_one_and_end_with_its_weights(name, together, alone):
    folder, found = together
    single, one = alone(CASES[name])
    two = found[name]
    assert two["in_shares"] == (CASES[name].strategy == "fsdp")
    assert len(two["rows"]) == len(one["rows"]) > 0
    for ours, theirs in zip(one["rows"], two["rows"], strict=True):
        numbers = {key: value for key, value in ours.items() if key not in (*_CLOCKS, *_TIES)}
        assert {key: theirs[key] for key in numbers} == pytest.approx(numbers, rel=1e-5, abs=1e-5)
    assert two["said"] == pytest.approx(one["said"], rel=1e-5, abs=1e-5)
    assert two["states"] == pytest.approx(one["states"], rel=1e-4, abs=1e-4)
    assert two["answers"] == one["answers"]
    weights, others = (load_file(where / "weights.safetensors") for where in (single, folder / name))
    assert weights.keys() == others.keys()
    for key, value in weights.items():
        assert (value - others[key]).abs().max() <= 1e-5, key
