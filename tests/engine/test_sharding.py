"""Weights in shares are in all that is measured the weights of one process. Two processes start once, four once.

To start one takes seconds, so all checks of `sharing` are made by the same ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sharing
from families import HEADS_OF_8, raw

EXACT = 1e-5
"""Of numbers that differ by the order in which fp32 numbers are added."""
NARROW = 0.15
"""Of numbers that bf16 rounds, which three steps of AdamW widen."""


def _folder(tmp_path_factory, tiny_model, tiny_gpt, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("sharing")
    for name, made in (("llama", tiny_model), ("gpt", tiny_gpt)):
        shutil.copytree(made, folder / name)
    ids = {key: getattr(tokenizer, key) for key in ("eos_token_id", "bos_token_id", "pad_token_id")}
    tied = raw("qwen3", **HEADS_OF_8 | ids | {"vocab_size": len(tokenizer), "tie_word_embeddings": True})
    tied.save_pretrained(folder / "qwen")
    tokenizer.save_pretrained(folder / "qwen")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, tiny_model, tiny_gpt, tokenizer):
    folder = _folder(tmp_path_factory, tiny_model, tiny_gpt, tokenizer)
    return sharing.together(2, sharing.PAIRWISE | sharing.NARROW | sharing.OTHERS, folder)


@pytest.fixture(scope="module")
def four(tmp_path_factory, tiny_model, tiny_gpt, tokenizer):
    return sharing.together(4, sharing.COPIES, _folder(tmp_path_factory, tiny_model, tiny_gpt, tokenizer))


def _is_close(found, most):
    return {key: far for key, far in found.items() if key != "layout" and far > most} == {}


@pytest.mark.parametrize("case", sharing.PAIRWISE)
def test_steps_of_two_processes_with_unequal_work_are_those_of_one(two, case):
    assert _is_close(two[case], EXACT), two[case]
    assert two[case]["layout"] == ("plain" if "plain" in case else "packed")


@pytest.mark.parametrize("case", sharing.NARROW)
def test_steps_in_bf16_are_those_of_one_process_to_its_rounding(two, case):
    assert _is_close(two[case], NARROW), two[case]


@pytest.mark.parametrize("case", sharing.COPIES)
def test_steps_of_two_copies_in_two_shares_each_are_those_of_one_process(four, case):
    assert _is_close(four[case], EXACT), four[case]


def test_weights_in_shares_have_the_digest_that_they_have_whole(two):
    for whole, shared in two["digests"]["digests"]:
        assert whole == shared


def test_processes_ask_differently_often_and_get_what_one_gets(two):
    assert two["asked"]["answers"] == [True] * 3
    assert two["asked"]["scores"] <= EXACT


def test_gradients_come_after_answers_as_before_them(two):
    assert two["asked"]["gradient"] <= EXACT


def test_a_second_adapter_and_a_reference_in_shares_leave_the_policys_gradient_as_it_is(two):
    assert _is_close(two["others"], EXACT), two["others"]


def test_what_is_saved_loads_for_a_stranger_and_scores_alike(two):
    assert all(two["kept"][name] <= EXACT for name in ("llama", "qwen", "gpt")), two["kept"]


def test_a_file_of_weights_and_moments_in_shares_is_the_file_of_whole_ones_and_puts_them_back(two):
    assert all(two["kept"][f"{name} put back"] for name in ("llama", "qwen", "gpt"))
    assert all(two["kept"][f"{name} at work"] for name in ("llama", "qwen", "gpt"))


def test_weights_that_lie_whole_are_refused_and_shares_are_about_a_half(two):
    whole, copies = two["refused"]["told"]
    assert "parameters are not in shares" in whole
    assert "2 processes cannot hold 2 copies" in copies
    assert two["refused"]["share"] == pytest.approx(0.5, abs=0.02)


def test_a_model_that_is_whole_everywhere_is_read_once(two):
    assert all(two["replicated"].values()), two["replicated"]
