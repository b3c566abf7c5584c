"""How processes share the work elsewhere becomes `distributed:` here, from wherever it is said, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tiebreak.config import DistributedConfig, load_config
from tiebreak.config.foreign.translation import translated
from tiebreak.errors import ConfigError

# As DeepSpeed's documentation of its configuration writes it (zero_optimization, offload_optimizer, offload_param).
ZERO = {
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "none"},
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "bf16": {"enabled": True},
    "gradient_clipping": 0.5,
    "train_micro_batch_size_per_gpu": "auto",
}
# As `accelerate config` writes it.
ACCELERATE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_version: 2
mixed_precision: bf16
num_processes: 8
"""
LLAMA_FACTORY = {"model_name_or_path": "org/model", "stage": "dpo", "finetuning_type": "full", "pref_beta": 0.1}
AXOLOTL = {"base_model": "org/model", "rl": "dpo", "micro_batch_size": 2, "sequence_len": 512, "num_epochs": 1}
TRL = {"model_name_or_path": "org/model", "dataset_name": "org/pairs", "loss_type": "sigmoid"}


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Translate settings; what they name lies beside them."""
    monkeypatch.chdir(tmp_path)

    def translate(told, name="their.yaml", trainer=None, **beside):
        for file, content in beside.items():
            Path(f"{file}.json").write_text(json.dumps(content))
        text = told if isinstance(told, str) else json.dumps(told) if name.endswith(".json") else yaml.safe_dump(told)
        Path(name).write_text(text)
        return translated(name, trainer)

    return translate


def shared(translation) -> DistributedConfig:
    Path("ours.yaml").write_text(translation.text)
    return load_config("ours.yaml").distributed


def test_a_zero_file_by_itself_says_how_processes_share_and_nothing_of_what_is_learned(found):
    translation = found(ZERO, "ds.json")
    assert translation.trainer == "DeepSpeed"
    assert shared(translation) == DistributedConfig(strategy="fsdp", reshard_after_forward=True, cpu_offload=True)
    config = load_config("ours.yaml")
    assert (config.model.dtype, config.training.max_grad_norm) == ("bfloat16", 0.5)
    assert {line.key for line in translation.lines} == {
        "model.dtype", "training.max_grad_norm", "data.train", "distributed.strategy",
        "distributed.reshard_after_forward", "distributed.cpu_offload",
    }  # fmt: skip
    assert "no buckets to size" in translation.left_out["zero_optimization.reduce_bucket_size"]
    assert "artefacts are whole" in translation.left_out["zero_optimization.stage3_gather_16bit_weights_on_model_save"]
    assert translation.unknown == ()


def test_an_accelerate_file_by_itself(found):
    translation = found(ACCELERATE)
    assert translation.trainer == "accelerate"
    assert shared(translation) == DistributedConfig(strategy="fsdp", reshard_after_forward=True)
    assert translation.left_out["fsdp_config.fsdp_auto_wrap_policy"] == "each decoder layer is divided on its own"
    assert "  # from fsdp_config.fsdp_reshard_after_forward\n" in translation.text


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (LLAMA_FACTORY | {"deepspeed": "ds.json"}, "deepspeed (ds.json)"),
        (AXOLOTL | {"deepspeed": "ds.json"}, "deepspeed (ds.json)"),
        (TRL | {"deepspeed": ZERO}, "deepspeed"),
    ],
)
def test_a_zero_file_that_a_trainer_names_is_read_there(found, told, name):
    translation = found(told, ds=ZERO)
    assert shared(translation) == DistributedConfig(strategy="fsdp", reshard_after_forward=True, cpu_offload=True)
    assert f"from {name}.zero_optimization.stage: stage 3\n" in translation.text
    assert f"{name}.zero_optimization.overlap_comm: true (a layer is gathered at a time" in translation.text


@pytest.mark.parametrize(
    ("stage", "strategy", "reshards"), [(0, "ddp", True), (1, "auto", True), (2, "fsdp", False), (3, "fsdp", True)]
)
def test_every_stage_has_its_name_here_or_the_reason(found, stage, strategy, reshards):
    translation = found({"zero_optimization": {"stage": stage}, "train_micro_batch_size_per_gpu": 1}, "ds.json")
    assert shared(translation) == DistributedConfig(strategy=strategy, reshard_after_forward=reshards)
    told = translation.left_out.get("zero_optimization.stage", "")
    assert told.startswith("stage 1 divides the moments alone") == (stage == 1)


@pytest.mark.parametrize(
    ("written", "strategy", "reshards"),
    [
        ("FULL_SHARD", "fsdp", True), ("SHARD_GRAD_OP", "fsdp", False), ("NO_SHARD", "ddp", True),
        ("HYBRID_SHARD", "hsdp", True), ("HYBRID_SHARD_ZERO2", "hsdp", False), (1, "fsdp", True), (4, "hsdp", True),
    ],
)  # fmt: skip
def test_every_strategy_of_fsdp_by_name_or_number(found, written, strategy, reshards):
    told = {"distributed_type": "FSDP", "num_machines": 2, "fsdp_config": {"fsdp_sharding_strategy": written}}
    assert shared(found(told)) == DistributedConfig(strategy=strategy, reshard_after_forward=reshards)


@pytest.mark.parametrize(
    ("told", "strategy", "reshards", "offloads"),
    [
        ({"fsdp": "full_shard auto_wrap"}, "fsdp", True, False),
        ({"fsdp": "shard_grad_op offload"}, "fsdp", False, True),
        ({"fsdp": ["hybrid_shard", "auto_wrap"]}, "hsdp", True, False),
        ({"fsdp": True, "fsdp_config": {"version": 2, "reshard_after_forward": False}}, "fsdp", False, False),
        ({"fsdp": True, "fsdp_config": "own.json"}, "fsdp", True, True),
        ({"fsdp": ""}, "auto", True, False),
    ],
)
def test_the_arguments_of_a_trainer(found, told, strategy, reshards, offloads):
    translation = found(TRL | told, own={"fsdp_cpu_offload": True, "fsdp_transformer_layer_cls_to_wrap": "Layer"})
    wanted = DistributedConfig(strategy=strategy, reshard_after_forward=reshards, cpu_offload=offloads)
    assert shared(translation) == wanted


def test_accelerate_may_name_a_zero_file_or_say_its_stage(found):
    stage = {"zero_stage": 2, "offload_optimizer_device": "none", "zero3_init_flag": False}
    told = {"distributed_type": "DEEPSPEED", "num_machines": 1, "deepspeed_config": stage}
    assert shared(found(told)) == DistributedConfig(strategy="fsdp", reshard_after_forward=False)
    told["deepspeed_config"] = {"deepspeed_config_file": "ds.json", "zero3_init_flag": True}
    translation = found(told, ds=ZERO)
    assert shared(translation).cpu_offload
    assert "each process is sent its share" in translation.left_out["deepspeed_config.zero3_init_flag"]


def test_several_gpus_without_more_are_ddp(found):
    assert shared(found({"distributed_type": "MULTI_GPU", "num_machines": 1})).strategy == "ddp"
    assert shared(found({"distributed_type": "NO", "num_machines": 1})).strategy == "auto"


def test_what_goes_to_disks_or_stands_beside_ddp_is_left_out(found):
    disks = {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/x"}}
    translation = found({"zero_optimization": disks, "steps_per_print": 1}, "ds.json")
    assert not shared(translation).cpu_offload
    assert "nothing is kept on disks" in translation.left_out["zero_optimization.offload_param"]
    beside = {"stage": 0, "offload_optimizer": {"device": "cpu"}}
    assert shared(found({"zero_optimization": beside, "steps_per_print": 1}, "ds.json")) == DistributedConfig(
        strategy="ddp"
    )


def test_a_file_that_is_not_there_or_no_json_is_told_and_the_rest_is_taken_over(found):
    translation = found(LLAMA_FACTORY | {"deepspeed": "none.json"})
    assert translation.left_out["deepspeed"] == "no such file here: what it says is not known"
    assert shared(translation) == DistributedConfig()
    Path("bad.json").write_text("{")
    assert found(LLAMA_FACTORY | {"deepspeed": "bad.json"}).left_out["deepspeed"] == "not JSON"


def test_a_time_to_wait_is_taken_over_where_it_is_one(found):
    assert shared(found(TRL | {"ddp_timeout": 600})).timeout_seconds == 600
    never = found(TRL | {"ddp_timeout": 180_000_000})
    assert "more than a day" in never.left_out["ddp_timeout"]


def test_a_trainer_may_be_named(found):
    assert found({"zero_optimization": {"stage": 2}}, "ds.json", "deepspeed").trainer == "DeepSpeed"
    with pytest.raises(ConfigError, match="wanted one of trl, llama-factory, axolotl, ms-swift, deepspeed, accelerate"):
        found(ZERO, "ds.json", "horovod")
