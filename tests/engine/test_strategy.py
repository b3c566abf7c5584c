"""Which strategy is taken, why, and what is refused: tables by hand, and rules that hold for any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tiebreak.config.distributed import DistributedConfig
from tiebreak.engine.strategy import GIB, Needs, choose_strategy
from tiebreak.errors import ConfigError

# An adapter on 8 billion weights of two bytes: 15 GiB below it, next to nothing to train.
ADAPTER = Needs(15 * GIB, GIB // 8, GIB // 4, 6 * GIB, 3 * GIB)
# All 8 billion weights of four bytes, with gradients and moments: 120 GiB.
FULL = Needs(0, 30 * GIB, 90 * GIB, 6 * GIB, 8 * GIB)


def chosen(asked: str, processes: int, per_machine: int, needs: Needs = ADAPTER, usable: int = 64 * GIB, **more):
    return choose_strategy(DistributedConfig(strategy=asked, **more), processes, per_machine, needs, usable)


def test_a_model_that_fits_is_not_sharded():
    found = chosen("auto", 8, 8)
    assert (found.strategy, found.shares) == ("ddp", 1)
    assert (
        found.why == "all fits into each process (21.4 GiB of 64.0 GiB a process), and a model that fits is not sharded"
    )


def test_a_model_that_does_not_fit_is_sharded_and_the_reason_says_what_a_share_takes():
    found = chosen("auto", 8, 8, FULL)
    assert (found.strategy, found.shares) == ("fsdp", 8)
    assert found.why == (
        "not all fits into a process (126.0 GiB of 64.0 GiB a process); one of 8 shares takes 29.0 GiB a process"
    )


def test_shares_that_do_not_fit_either_are_told():
    assert chosen("auto", 2, 2, FULL).why.endswith(
        "one of 2 shares takes 74.0 GiB a process, which does not fit either"
    )


@pytest.mark.parametrize("asked", ["auto", "single", "ddp"])
def test_one_process_is_single_whatever_would_fit(asked):
    assert chosen(asked, 1, 1, FULL).strategy == "single"


@pytest.mark.parametrize(("asked", "shares"), [("ddp", 1), ("fsdp", 16), ("hsdp", 8)])
def test_a_strategy_that_is_named_is_kept_whatever_fits(asked, shares):
    for needs in (ADAPTER, FULL):
        found = chosen(asked, 16, 8, needs)
        assert (found.strategy, found.shares) == (asked, shares)
        assert found.why.startswith("distributed.strategy says so")


def test_fsdp_of_one_process_is_taken_and_says_that_nothing_is_divided():
    found = chosen("fsdp", 1, 1)
    assert (found.strategy, found.shares) == ("fsdp", 1)
    assert "nothing is divided" in found.why


def test_offloading_is_for_weights_in_shares():
    assert chosen("auto", 8, 8, cpu_offload=True).strategy == "fsdp"
    for asked in ("ddp", "single"):
        with pytest.raises(ConfigError, match=f"cpu_offload: {asked} keeps all weights where it computes"):
            chosen(asked, 1, 1, cpu_offload=True)


def test_single_refuses_several_processes():
    with pytest.raises(ConfigError, match="strategy single: 2 processes were started; start one, or take auto"):
        chosen("single", 2, 2)


@pytest.mark.parametrize(("processes", "per_machine"), [(8, 8), (12, 8), (1, 1)])
def test_shares_within_machines_want_several_equal_machines(processes, per_machine):
    with pytest.raises(
        ConfigError, match=f"hsdp: wanted several machines .* found {processes} processes, {per_machine}"
    ):
        chosen("hsdp", processes, per_machine)


def test_shares_within_a_machine_want_more_than_one_process_there():
    with pytest.raises(ConfigError, match="hsdp: each machine has one process"):
        chosen("hsdp", 4, 1)


sizes = some.integers(0, 10**13)


@given(sizes, sizes, sizes, sizes, sizes, some.integers(2, 512), sizes)
def test_auto_shards_exactly_what_does_not_fit(frozen, trained, moments, longest, gathered, processes, usable):
    needs = Needs(frozen, trained, moments, longest, gathered)
    found = chosen("auto", processes, processes, needs, usable)
    assert (found.strategy == "ddp") == (frozen + trained + moments + longest <= usable)
    assert found.shares == (1 if found.strategy == "ddp" else processes)


@given(sizes, sizes, some.integers(1, 512))
def test_shares_together_are_all_that_is_shared_and_no_more_than_a_byte_each_too_much(shared, longest, shares):
    share = Needs(shared, 0, 0, longest, 0).share_bytes(shares) - longest
    assert shared <= share * shares < shared + shares
