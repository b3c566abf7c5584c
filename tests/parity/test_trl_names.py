"""Every setting that TRL and PEFT have today has an answer here, and what they take unsaid is what is taken over."""

from __future__ import annotations

import dataclasses

import pytest

from tiebreak.config.foreign import name_of
from tiebreak.config.foreign.trainers import TRAINERS

trl = pytest.importorskip("trl")
peft = pytest.importorskip("peft")


@pytest.mark.parametrize("settings", ["DPOConfig", "ModelConfig", "ScriptArguments", "LoraConfig"])
def test_every_setting_has_an_answer(settings):
    fields = dataclasses.fields(getattr(trl, settings, None) or getattr(peft, settings))
    assert [field.name for field in fields if name_of(field.name) is None] == []


def test_the_defaults_are_those_of_trl():
    training = {field.name: field.default for field in dataclasses.fields(trl.DPOConfig)}
    model = {field.name: field.default for field in dataclasses.fields(trl.ModelConfig)}
    ours = TRAINERS["trl"]
    assert ours.micro_batch == training["per_device_train_batch_size"]
    assert training["gradient_accumulation_steps"] == 1
    assert dict(ours.defaults) == {
        "adapter.kind": "lora" if model["use_peft"] else "none",
        "adapter.rank": model["lora_r"],
        "adapter.alpha": model["lora_alpha"],
        "adapter.dropout": model["lora_dropout"],
        "adapter.target_modules": model["lora_target_modules"] or "all-linear",
        "training.epochs": training["num_train_epochs"],
        "training.learning_rate": training["learning_rate"],
        "training.warmup_share": training["warmup_steps"],
    }
