"""Bytes and seconds on many GPUs, against arithmetic by hand for Llama 3.1 8B on H200s, and rules that hold for any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tiebreak.maths.gpus import GPUS
from tiebreak.maths.scale import Anatomy, Part, computing_seconds, held, operations, sent

H200 = GPUS["h200"]
# By hand: a layer is 4096² × 2 (q, o) + 4096 × 1024 × 2 (k, v) + 3 × 4096 × 14336 + 2 × 4096 = 218,112,000;
# outside of the 32 of them 2 × 128,256 × 4096 + 4096 = 1,050,677,248; together 8,030,261,248.
LAYER, REST = 218_112_000, 1_050_677_248
TOTAL = 32 * LAYER + REST
FULL = Anatomy(
    Part(0, TOTAL), Part(0, LAYER), Part(0, REST), 32, stored=4, computed=2,
    multiplied=32 * LAYER, head=128_256 * 4096, attended=32 * 4096,
)  # fmt: skip
# An adapter of rank 16: 16 × (in + out) for q, o (4096, 4096), k, v (4096, 1024), gate, up, down (4096, 14336).
RANK = 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14_336))
LORA = Anatomy(
    Part(TOTAL, 32 * RANK), Part(LAYER, RANK), Part(REST, 0), 32, stored=2, computed=2,
    multiplied=32 * LAYER, head=128_256 * 4096, attended=32 * 4096,
)  # fmt: skip


def test_the_adapter_of_the_example_is_that_of_hand_arithmetic():
    assert (TOTAL, 32 * RANK) == (8_030_261_248, 41_943_040)


def test_a_process_that_holds_all_weights_holds_sixteen_bytes_each_and_two_while_it_computes():
    found = held(FULL, None)
    assert (found.weights, found.gradients, found.moments) == (4 * TOTAL, 4 * TOTAL, 8 * TOTAL)
    assert (found.gathered, found.cast) == (0, 2 * TOTAL)
    assert found.device == 18 * TOTAL


def test_below_an_adapter_a_weight_is_two_bytes_and_nothing_is_cast():
    found = held(LORA, None)
    assert found.weights == 2 * TOTAL + 4 * 32 * RANK
    assert (found.gradients, found.moments, found.cast) == (4 * 32 * RANK, 8 * 32 * RANK, 0)


def test_a_share_is_a_part_of_all_beside_two_layers_and_what_lies_outside_of_them():
    found = held(FULL, 64)
    assert found.weights == TOTAL * 4 // 64
    # Layers come in two bytes; embeddings and head as they are kept, with a gradient kept and one that is sent.
    assert found.gathered == 2 * 2 * LAYER + 4 * REST + 8 * REST
    assert held(LORA, 64).gathered == 2 * (2 * LAYER + 4 * RANK) + 2 * REST + 8 * RANK


def test_weights_that_are_kept_after_the_forward_pass_are_all_there():
    kept = held(FULL, 64, reshard=False)
    assert kept.gathered - held(FULL, 64).gathered == 30 * 2 * LAYER
    assert kept.weights == held(FULL, 64).weights


def test_offloading_leaves_on_the_gpu_what_is_gathered():
    on, off = held(FULL, 64), held(FULL, 64, offload=True)
    assert off.device == on.gathered
    assert off.host == on.weights + on.gradients + on.moments


def test_shares_send_weights_twice_and_gradients_once_in_each_micro_batch():
    gather, scatter = sent(FULL, H200, 64, 8, 64, 3)
    weights = 2 * 32 * LAYER + 4 * REST
    assert gather.num_bytes == pytest.approx(3 * 2 * weights * 63 / 64, rel=1e-9)
    assert scatter.num_bytes == pytest.approx(3 * 4 * TOTAL * 63 / 64, rel=1e-9)
    assert (gather.num_calls, scatter.num_calls) == (3 * 2 * 33, 3 * 33)
    # Eight adapters of 50 GB/s carry the rings of a machine: 400 GB/s, less than NVLink's 450; of it 0.8 is reached.
    ring = 8.4e-6 + 56 * 3.4e-6 + 7 * 9.6e-6
    assert gather.seconds == pytest.approx(gather.num_bytes / 320e9 + 198 * ring)


def test_weights_that_are_kept_are_sent_once():
    once, twice = (sent(FULL, H200, 64, 8, 64, 1, reshard=reshard)[0] for reshard in (False, True))
    assert (2 * once.num_bytes, 2 * once.num_calls) == (twice.num_bytes, twice.num_calls)


def test_replicas_send_gradients_once_a_step_whatever_the_micro_batches():
    [one], [many] = (sent(LORA, H200, 8, 8, None, passes) for passes in (1, 5))
    assert one == many
    assert one.num_bytes == pytest.approx(2 * 4 * 32 * RANK * 7 / 8, rel=1e-9)
    assert one.seconds == pytest.approx(one.num_bytes / 360e9 + 8.4e-6 + 2 * 7 * 3.4e-6)


def test_shares_within_machines_gather_over_nvlink_and_sum_over_the_network():
    gather, _, between = sent(FULL, H200, 64, 8, 8, 1)
    assert gather.seconds == pytest.approx(gather.num_bytes / 360e9 + 66 * (8.4e-6 + 7 * 3.4e-6))
    assert between.num_bytes == pytest.approx(2 * 4 * TOTAL / 8 * 7 / 8, rel=1e-9)
    assert between.seconds == pytest.approx(between.num_bytes / 40e9 + 33 * (8.4e-6 + 2 * 7 * 9.6e-6))


def test_one_process_sends_nothing():
    assert sent(FULL, H200, 1, 1, None, 3) == sent(FULL, H200, 1, 1, 1, 3) == []


def test_training_all_weights_costs_six_operations_a_weight_and_token_and_eight_where_activations_are_computed_twice():
    head = 128_256 * 4096
    assert operations(FULL, 1000, 0.0, checkpointed=False) == 1000 * 6 * (32 * LAYER + head)
    assert operations(FULL, 1000, 0.0, checkpointed=True) == 1000 * (8 * 32 * LAYER + 6 * head)


def test_below_an_adapter_weights_need_no_gradient_of_their_own():
    head = 128_256 * 4096
    assert operations(LORA, 1000, 0.0, checkpointed=False) == 1000 * (4 * (32 * LAYER + head) + 6 * 32 * RANK)


def test_attention_costs_by_what_a_token_sees():
    seen = operations(FULL, 1000, 100.0, checkpointed=False) - operations(FULL, 1000, 0.0, checkpointed=False)
    assert seen == 1000 * 100 * 32 * 4096 * 12


def test_seconds_are_operations_over_what_is_reached_of_the_peak():
    assert computing_seconds(989e12, H200) == pytest.approx(2.5)


def test_every_kind_of_gpu_says_where_its_numbers_are_from():
    assert all(gpu.name == name and gpu.source for name, gpu in GPUS.items())
    assert all(gpu.link >= gpu.network and gpu.memory_bytes > 10**10 for gpu in GPUS.values())


@given(some.sampled_from([FULL, LORA]), some.integers(1, 2048), some.booleans())
def test_all_shares_together_are_the_whole_and_less_than_a_byte_each_more(of, shares, reshard):
    one, whole = held(of, shares, reshard=reshard), held(of, None)
    for part, all_of_it in (("weights", whole.weights), ("gradients", whole.gradients), ("moments", whole.moments)):
        assert all_of_it <= getattr(one, part) * shares < all_of_it + shares
