"""Names of other trainers: each has one answer, which is a setting of ours or a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from tiebreak.config import leaves, load_config
from tiebreak.config.foreign import NAMES, name_of
from tiebreak.errors import ConfigError


def refusal(*sets: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(None, sets)
    return str(refused.value)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("training.per_device_train_batch_size=2", "Here it is 'training.pairs_per_step': all pairs of "),
        ("training.gradient_accumulation_steps=4", "Here it is 'training.pairs_per_step'"),
        ("training.num_train_epochs=2", "Here it is 'training.epochs'"),
        ("adapter.r=8", "Here it is 'adapter.rank'"),
        ("lora_alpha=8", "Here it is 'adapter.alpha'"),
        ("data.max_prompt_length=512", "Here it is 'data.max_length': prompt and completion have one limit together"),
        ("model.trust_remote_code=true", "There is no such setting: code of a model is never run"),
        ("training.max_steps=9", "Here it is 'training.epochs': passes over the pairs; data.max_pairs takes fewer"),
        ("training.deepspeed=ds.json", "Here it is 'distributed.strategy': ddp (ZeRO stage 0, NO_SHARD), fsdp "),
        ("training.fsdp_offload_params=true", "Here it is 'distributed.cpu_offload': weights, gradients and moments "),
        ("training.num_processes=8", "There is no such setting: the launcher says how many processes there are"),
        ("loss.pref_beta=0.1", "Here it is 'loss.beta'"),
        ("training.cutoff-len=99", "Here it is 'data.max_length'"),
        ("training.loraRank=8", "Here it is 'adapter.rank'"),
        ("training.bnb_4bit_compute_dtype=bf16", "There is no such setting: weights lie in four bits of bitsandbytes"),
    ],
)  # fmt: skip
def test_a_name_of_another_trainer_is_answered_with_ours_or_with_the_reason(written, told):
    assert f"unknown key '{written.split('=')[0]}'. {told}" in refusal(written)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("training.lerning_rate", "training.learning_rate"), ("trainig", "training"), ("data.beta", "loss.beta"),
     ("learning_rate", "training.learning_rate"), ("training.max_length", "data.max_length")],
)  # fmt: skip
def test_a_mistyped_or_misplaced_key_is_answered_with_the_one_meant(written, meant):
    assert refusal(f"{written}=1").endswith(f"unknown key '{written}'. Did you mean '{meant}'?")


@pytest.mark.parametrize("written", ["data.name", "training.zebra", "model.preset", "loss.zebra", "evaluation.steps"])
def test_a_key_that_is_like_none_gets_no_suggestion(written):
    assert refusal(f"{written}=1").endswith(f"unknown key '{written}'. Run 'tiebreak config' for the list.")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("adapter.target_modules=q_proj,v_proj", "wanted a list, like [q_proj, v_proj], or 'all-linear'"),
        ("data.allow=contradiction", "wanted a list, like [contradiction]"),
        ("output.trackers='wandb, mlflow'", "wanted a list, like [wandb, mlflow]"),
        ("model=org/name", "wanted a section of settings; model.name is the one of these that you may mean"),
        ("data=a.jsonl", "wanted a section of settings; data.train is the one of these that you may mean"),
    ],
)
def test_a_value_of_the_wrong_kind_is_answered_in_words_of_yaml(written, told):
    assert refusal(written).endswith(told)


def test_every_name_stands_in_the_table_once_and_every_answer_is_a_setting():
    assert [name for name, count in Counter(name for row in NAMES for name in row.theirs).items() if count > 1] == []
    assert {row.ours for row in NAMES if row.ours} <= {key for key, _ in leaves()}
    assert all(row.ours or row.why for row in NAMES)
    assert all(name_of(one.rstrip("*") + "x" * one.count("*")) for row in NAMES for one in row.theirs)


def test_a_name_that_both_have_means_the_same():
    # A judge is another model, with a name and a server of its own; so is a reference, which is called the reference's.
    another = ("evaluation.judge.", "reference.model", "reference.revision", "reference.base")
    both = [(key, name_of(key)) for key, _ in leaves() if not key.startswith(another)]
    assert {key: found.ours for key, found in both if found and found.ours not in (key, None)} == {}
