"""What other trainers do without being told, which changes what is learned, is said in the configuration of ours."""

from __future__ import annotations

import pytest
import yaml

from tiebreak.config.foreign.translation import translated

OF = {
    "trl": "dataset_name: org/pairs\n",
    "llama-factory": "stage: dpo\nmodel_name_or_path: org/base\n",
    "axolotl": "rl: dpo\nbase_model: org/base\nadapter: lora\n",
    "ms-swift": "rlhf_type: dpo\nmodel: org/base\n",
}


@pytest.fixture
def of(tmp_path, monkeypatch):
    """Return what becomes of a configuration of a trainer that says this."""
    monkeypatch.chdir(tmp_path)

    def translate(trainer: str, said: str):
        path = tmp_path / "their.yaml"
        path.write_text(OF[trainer] + said)
        return translated(path, trainer)

    return translate


def taken(found, key):
    return {line.key: line.value for line in found.lines}.get(key)


def origin(found, key):
    return {line.key: line.origin for line in found.lines}[key]


@pytest.mark.parametrize(
    ("trainer", "said", "reference"),
    [
        ("llama-factory", "adapter_name_or_path: sft", "org/base"),
        ("llama-factory", "adapter_name_or_path: [sft]\ncreate_new_adapter: false", "org/base"),
        ("llama-factory", "adapter_name_or_path: sft\ncreate_new_adapter: true", None),
        ("llama-factory", "adapter_name_or_path: sft\nref_model: org/first", "org/first"),
        ("llama-factory", "lora_rank: 4", None),
        ("ms-swift", "adapters: [sft]", "org/base"),
        ("ms-swift", "adapters: sft\nref_adapters: sft", "sft"),
        ("ms-swift", "adapters: sft\ntrain_type: full", None),
        ("trl", "adapter_name_or_path: sft", None),
    ],
)
def test_an_adapter_that_is_trained_on_is_compared_with_what_it_is_compared_with_there(of, trainer, said, reference):
    found = of(trainer, said)
    assert taken(found, "reference.model") == reference
    if "adapter" in said and reference == "org/base":
        assert taken(found, "model.name") == "sft"
        assert not {"model", "model_name_or_path"} & found.left_out.keys()


def test_an_adapter_whose_base_model_is_not_named_is_told_beside_it(tmp_path):
    path = tmp_path / "their.yaml"
    path.write_text("rlhf_type: dpo\nadapters: sft\n")
    found = translated(path, "ms-swift")
    assert taken(found, "reference.model") is None
    assert origin(found, "model.name").endswith("set reference.model to its base model")


@pytest.mark.parametrize(
    ("trainer", "said", "pairs"),
    [
        ("ms-swift", "", 16),
        ("ms-swift", "per_device_train_batch_size: 2", 16),
        ("ms-swift", "per_device_train_batch_size: 3", 18),
        ("ms-swift", "per_device_train_batch_size: 32", 32),
        ("ms-swift", "per_device_train_batch_size: 2\ngradient_accumulation_steps: 1", 2),
        ("axolotl", "micro_batch_size: 2\nbatch_size: 16", 16),
        ("axolotl", "batch_size: 16\nmicro_batch_size: 2", 16),
        ("axolotl", "batch_size: 16\nmicro_batch_size: 3", 15),
        ("axolotl", "batch_size: 2\nmicro_batch_size: 4", 4),
        ("axolotl", "batch_size: null\nmicro_batch_size: 4\ngradient_accumulation_steps: 2", 8),
        ("llama-factory", "batch_size: 16\nper_device_train_batch_size: 2", 2),
        ("trl", "per_device_train_batch_size: 2\ngradient_accumulation_steps: 4", 8),
    ],
)
def test_a_step_has_the_pairs_that_it_has_there(of, trainer, said, pairs):
    found = of(trainer, said)
    assert taken(found, "training.pairs_per_step") == pairs
    multiplied = "multiply by the number of processes" in origin(found, "training.pairs_per_step")
    assert multiplied == (trainer != "ms-swift" or pairs in (2, 32))
    assert "micro_batch_size" not in found.left_out


def test_what_ms_swift_takes_unsaid_is_taken_or_told(of):
    found = of("ms-swift", "")
    assert (taken(found, "training.weight_decay"), taken(found, "training.warmup_share")) == (0.1, 0.0)
    assert "0.95" in found.left_out["adam_beta2"]
    assert "before ms-swift 3.8" in found.left_out["rpo_alpha"]
    found = of("ms-swift", "adam_beta2: 0.99\nrpo_alpha: 0.5\nweight_decay: 0.0\n")
    assert taken(found, "training.weight_decay") == 0
    assert "0.95" not in found.left_out["adam_beta2"]
    assert "rpo_alpha" not in found.left_out


def test_axolotl_falls_by_a_cosine_and_warms_up_for_three_steps_of_a_hundred(of):
    found = of("axolotl", "")
    assert (taken(found, "training.schedule"), taken(found, "training.warmup_share")) == ("cosine", 0.03)
    assert "at most 100 steps" in origin(found, "training.warmup_share")
    found = of("axolotl", "warmup_steps: 10")
    assert origin(found, "training.warmup_share").startswith("warmup_steps: 10 there (a number of steps;")
    assert taken(of("axolotl", "warmup_ratio: 0.1"), "training.warmup_share") == 0.1


@pytest.mark.parametrize(
    ("said", "layers"),
    [
        ("lora_target_linear: true\nlora_target_modules: [q_proj]", "all-linear"),
        ("lora_target_modules: [q_proj]\nlora_target_linear: true", "all-linear"),
        ("lora_target_linear: false\nlora_target_modules: [q_proj]", ["q_proj"]),
    ],
)
def test_all_linear_layers_and_a_list_are_all_of_them(of, said, layers):
    assert taken(of("axolotl", said), "adapter.target_modules") == layers


def test_layers_that_are_said_nowhere_are_told_to_be_others_there(of):
    assert "PEFT's list" in origin(of("trl", "use_peft: true"), "adapter.target_modules")
    assert origin(of("trl", "use_peft: true\nlora_target_modules: q_proj"), "adapter.target_modules").startswith(
        "from "
    )
    assert taken(of("trl", "use_peft: false"), "adapter.target_modules") is None


@pytest.mark.parametrize(
    ("trainer", "sources", "pairs"), [("llama-factory", "a", 9), ("llama-factory", "a,b", None), ("trl", "[a, b]", 9)]
)
def test_rows_of_each_data_set_are_not_rows_of_all(of, trainer, sources, pairs):
    found = of(trainer, f"dataset: {sources}\nmax_samples: 9")
    assert taken(found, "data.max_pairs") == pairs
    assert ("of each data set there" in found.left_out.get("max_samples", "")) == (pairs is None)


@pytest.mark.parametrize("warmup", ["warmup_ratio: 0.2", "warmup_steps: 100", ""])
@pytest.mark.parametrize("trainer", ["trl", "llama-factory", "axolotl", "ms-swift"])
def test_a_constant_rate_has_no_warm_up_unless_it_says_so(of, trainer, warmup):
    found = of(trainer, f"lr_scheduler_type: constant\n{warmup}\n")
    assert (taken(found, "training.schedule"), taken(found, "training.warmup_share")) == ("constant", 0.0)
    assert all("constant has no warm-up there" in found.left_out[key] for key in yaml.safe_load(warmup) or ())
    found = of(trainer, "lr_scheduler_type: constant_with_warmup\nwarmup_ratio: 0.2\n")
    assert (taken(found, "training.schedule"), taken(found, "training.warmup_share")) == ("constant", 0.2)
