"""What other trainers do without being told, which changes what is learned, is said in the configuration of ours."""

from __future__ import annotations

import pytest
import yaml

from tiebreak.config.foreign.translation import translated
from tiebreak.errors import ConfigError

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


@pytest.mark.parametrize("loss", ["", "loss_type: sigmoid\n", "loss_type: [sigmoid, bco_pair]\n"])
def test_smoothing_that_trl_does_not_read_is_not_read_here(of, loss):
    found = of("trl", f"{loss}label_smoothing: 0.2\n")
    assert taken(found, "loss.label_smoothing") is None
    assert "label_smoothing" not in str(taken(found, "loss.terms"))
    assert "TRL 1 does not read it with sigmoid" in found.left_out["label_smoothing"]
    assert taken(of("trl", "loss_type: exo_pair\nlabel_smoothing: 0.2\n"), "loss.label_smoothing") == 0.2


def test_a_number_of_steps_is_told_beside_what_it_takes_the_place_of(of):
    found = of("trl", "num_train_epochs: 3\nmax_steps: 50\nwarmup_ratio: 0.1\nwarmup_steps: 100\n")
    assert origin(found, "training.epochs") == "from num_train_epochs; there max_steps 50 replaces it"
    assert origin(found, "training.warmup_share") == "from warmup_ratio; there warmup_steps 100 replaces it"


def test_the_section_of_dpo_is_read_and_those_of_other_stages_are_told(of):
    found = of("trl", "sft: {learning_rate: 1e-3, num_train_epochs: 9}\ndpo: {learning_rate: 5e-7, beta: 0.3}\n")
    assert (taken(found, "training.learning_rate"), taken(found, "loss.beta")) == (5e-7, 0.3)
    assert found.left_out == {"sft": "a section of another stage than dpo"}


def test_two_values_of_one_setting_from_two_sections_are_refused(of):
    with pytest.raises(ConfigError, match=r"first.learning_rate: 0\.001, and second.lr: 5e-07; which one is meant"):
        of("trl", "first: {learning_rate: 1.0e-3}\nsecond: {lr: 5.0e-7}\n")


def test_files_by_split_are_read_by_their_split(of):
    found = of("trl", "data_files: {train: [a.jsonl, b.jsonl], test: c.jsonl}\n")
    assert taken(found, "data.train") == ["hf:org/pairs", "a.jsonl", "b.jsonl"]
    assert found.left_out["data_files.test"] == "the files to train on alone are taken"


CALLED = {
    "TrainingArguments": "DPOTrainer('m', args=TrainingArguments('o'), beta=0.1)",
    "PeftModel": "DPOTrainer(AutoPeftModelForCausalLM.from_pretrained('org/ad'), args=DPOConfig())",
    "Unsloth": "m, t = FastLanguageModel.from_pretrained('m', max_seq_length=4096)\n"
    "m = FastLanguageModel.get_peft_model(m)\nDPOTrainer(m, args=DPOConfig(max_length=512))",
    "Unsloth in 8 bits": "m, t = FastLanguageModel.from_pretrained('m', load_in_8bit=True)\n"
    "m = FastLanguageModel.get_peft_model(m, r=4)\nDPOTrainer(m, args=DPOConfig())",
}


@pytest.mark.parametrize(
    ("called", "values"),
    [
        ("TrainingArguments", {"training.learning_rate": 5e-5, "adapter.kind": "none"}),
        ("PeftModel", {"model.name": "org/ad", "adapter.kind": "lora", "adapter.rank": None}),
        ("Unsloth", {"adapter.rank": 16, "adapter.alpha": 16.0, "quantization.kind": "nf4",
                     "quantization.double": True, "data.max_length": 512}),
        ("Unsloth in 8 bits", {"adapter.rank": 4, "quantization.kind": None}),
    ],
)  # fmt: skip
def test_what_a_library_takes_unsaid_is_taken_where_a_script_calls_it(tmp_path, called, values):
    path = tmp_path / "train.py"
    path.write_text(CALLED[called])
    found = translated(path)
    assert {key: taken(found, key) for key in values} == values


@pytest.mark.parametrize(
    ("script", "title"),
    [
        ("deepspeed --module openrlhf.cli.train_dpo --pretrain m --train_batch_size 8 --bf16 --beta 0.1", "OpenRLHF"),
        ("python -m verl.trainer.main_ppo --beta 0.1", "verl"),
        ("tune run recipe --config x --beta 1 torchtune", "torchtune"),
    ],
)
def test_trainers_that_are_not_taken_over_are_refused_by_name(tmp_path, script, title):
    path = tmp_path / "run.sh"
    path.write_text(script)
    with pytest.raises(ConfigError, match=f"is a configuration of {title}; taken over are those of TRL"):
        translated(path)


def test_what_is_learned_is_never_taken_for_the_sharing_of_work(tmp_path):
    path = tmp_path / "their.yaml"
    path.write_text("train_batch_size: 8\nbf16: true\nbeta: 0.1\nlearning_rate: 5e-7\n")
    with pytest.raises(ConfigError, match="whose configuration it is cannot be told"):
        translated(path)


def test_a_file_of_options_is_told_beside_each_default(tmp_path):
    path = tmp_path / "run.sh"
    path.write_text("trl dpo --config x.yaml --model_name_or_path m --dataset_name a/b\n")
    found = translated(path)
    assert "--config x.yaml" in found.left_out and found.unknown == ()
    assert origin(found, "training.learning_rate") == "not seen there (--config x.yaml may hold it): its default"
