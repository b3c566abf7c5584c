"""Configurations of other trainers become ours: each line with its origin, nothing lost without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiebreak.config import QuantizationConfig, load_config
from tiebreak.config.foreign import NAMES
from tiebreak.config.foreign.trainers import TRAINERS
from tiebreak.config.foreign.translation import translated
from tiebreak.errors import ConfigError

LLAMA_FACTORY = """
model_name_or_path: org/model
trust_remote_code: true
stage: dpo
finetuning_type: lora
lora_rank: 8
lora_target: q_proj,v_proj
pref_beta: 0.2
pref_loss: sigmoid
dataset: mine,theirs
dataset_dir: sets
template: llama3
cutoff_len: 777
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
val_size: 0.2
report_to: none
resume_from_checkpoint: null
"""
AXOLOTL = """
base_model: org/model
rl: dpo
datasets:
  - path: pairs.jsonl
    type: chatml.intel
  - {path: org/pairs, split: train_prefs}
test_datasets:
  - {path: org/pairs, split: test_prefs}
val_set_size: 0.05
adapter: qlora
load_in_4bit: true
lora_r: 64
lora_alpha: 32
lora_target_linear: true
sequence_len: 4096
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 2
learning_rate: 2e-4
optimizer: adamw_8bit
warmup_steps: 10
gradient_checkpointing: true
hub_token: hf_abcdefghijklmnopqrst
surprise: 3
"""
TRL = """
import torch
LR, MODEL = 5e-6, "org/model"
RATE = 5e-6
model = AutoModelForCausalLM.from_pretrained("org/model", torch_dtype=torch.bfloat16)
peft = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], task_type="CAUSAL_LM")
args = DPOConfig(beta=0.3, learning_rate=RATE, per_device_train_batch_size=2, gradient_accumulation_steps=4,
                 max_prompt_length=512, max_completion_length=256, seed=read_seed(), output_dir="out")
data = load_dataset("json", data_files="pairs.jsonl", split="train")
trainer = DPOTrainer(model, args=args, train_dataset=data, peft_config=peft)
__import__("os").system("touch run")
"""
SWIFT = """#!/bin/sh
# swift sft --model other
CUDA_VISIBLE_DEVICES=0 swift rlhf --rlhf_type dpo \\
    --model org/model --train_type full --dataset org/pairs#500 \\
    --learning_rate=1e-6 --target_modules all-linear --warmup_ratio 0.05 --num_train_epochs 2 \\
    --per_device_train_batch_size 1 --gradient_accumulation_steps 16 --max_length 2048 --output_dir $OUT
"""


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Write a configuration where a file of pairs and a list of data sets are."""
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text("")
    Path("sets").mkdir()
    known = {"mine": {"file_name": "mine.json", "ranking": True}, "theirs": {"hf_hub_url": "org/pairs"}}
    Path("sets/dataset_info.json").write_text(json.dumps(known))

    def write(text: str, name: str = "their.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def loaded(found, tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(found.text)
    return load_config(path)


def test_a_configuration_of_llama_factory(theirs, tmp_path):
    found = translated(theirs(LLAMA_FACTORY))
    config = loaded(found, tmp_path)
    assert found.trainer == "LLaMA-Factory"
    assert (config.model.name, config.model.dtype) == ("org/model", "bfloat16")
    assert [source.path for source in config.data.sources] == ["sets/mine.json", "hf:org/pairs"]
    assert (config.data.max_length, config.data.heldout_share) == (777, 0.2)
    assert (config.adapter.rank, config.adapter.alpha) == (8, 16.0)
    assert config.adapter.target_modules == ("q_proj", "v_proj")
    assert config.loss.beta == 0.2
    training = config.training
    assert (training.pairs_per_step, training.epochs, training.schedule) == (16, 3, "cosine")
    assert (training.learning_rate, training.warmup_share) == (5e-6, 0.1)
    assert config.output.trackers == ()
    assert "  beta: 0.2  # from pref_beta\n" in found.text
    assert found.left_out.keys() == {"trust_remote_code", "template", "resume_from_checkpoint"}
    assert "#   trust_remote_code: true (code of a model is never run)\n" in found.text


def test_a_configuration_of_axolotl(theirs, tmp_path):
    found = translated(theirs(AXOLOTL))
    config = loaded(found, tmp_path)
    assert found.trainer == "Axolotl"
    assert [source.path for source in config.data.sources] == ["pairs.jsonl", "hf:org/pairs@train_prefs"]
    assert config.data.heldout == "hf:org/pairs@test_prefs"
    assert (config.adapter.kind, config.adapter.rank, config.adapter.target_modules) == ("lora", 64, "all-linear")
    assert (config.training.pairs_per_step, config.training.epochs, config.training.learning_rate) == (8, 2, 2e-4)
    assert found.unknown == ("surprise",)
    assert found.left_out["warmup_steps"] == "training.warmup_share: a number of steps; wanted their share of all steps"
    assert config.quantization == QuantizationConfig(kind="nf4", double=True)
    assert "hf_abc" not in found.text + json.dumps(found.as_dict())


def test_the_calls_of_a_python_file_which_is_never_run(theirs, tmp_path):
    found = translated(theirs(TRL, "train.py"))
    config = loaded(found, tmp_path)
    assert found.trainer == "TRL"
    assert (config.model.name, config.model.dtype, config.data.train) == ("org/model", "bfloat16", "pairs.jsonl")
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.target_modules) == (4, 8.0, ("q_proj",))
    assert (config.loss.beta, config.training.learning_rate, config.training.pairs_per_step) == (0.3, 5e-6, 8)
    assert config.data.max_length == 768
    assert found.left_out["seed"] == "training.seed: its value is computed by the code"
    assert not Path("run").exists()


def test_the_options_of_a_shell_script(theirs, tmp_path):
    found = translated(theirs(SWIFT, "run.sh"))
    config = loaded(found, tmp_path)
    assert found.trainer == "ms-swift"
    assert (config.model.name, config.data.train, config.adapter.kind) == ("org/model", "hf:org/pairs", "none")
    assert (config.training.learning_rate, config.training.schedule, config.training.pairs_per_step) == (
        1e-6,
        "cosine",
        16,
    )
    assert "from dataset: all of it, not 500 rows" in found.text
    assert found.left_out["target_modules"] == "all weights are trained"
    assert found.left_out["output_dir"] == "output.dir: its value is computed by the code"


def test_what_is_left_unsaid_is_what_their_trainer_takes(theirs, tmp_path):
    config = loaded(translated(theirs("dataset_name: org/pairs\nbeta: 0.1\n")), tmp_path)
    assert (config.adapter.kind, config.training.epochs, config.training.learning_rate) == ("none", 3, 1e-6)
    assert config.training.pairs_per_step == 8
    config = loaded(translated(theirs("stage: dpo\ncutoff_len: 99\n")), tmp_path)
    assert (config.adapter.kind, config.adapter.rank, config.adapter.alpha) == ("lora", 8, 16.0)


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("f_divergence_type: js_divergence\nf_alpha_divergence_coef: 0.5", ("js", None)),
        ("f_divergence_type: alpha_divergence\nf_alpha_divergence_coef: 0.3", ("alpha", 0.7)),
        ("f_divergence_type: alpha_divergence", ("alpha", 0.5)),
        ("f_divergence_type: reverse_kl\nf_alpha_divergence_coef: 0.5", (None, None)),
    ],
)
def test_trl_s_coefficient_of_a_divergence_is_one_less_the_paper_s(theirs, tmp_path, said, taken):
    found = translated(theirs(f"model_name_or_path: m\nloss_type: sigmoid\nbeta: 0.1\nmax_length: 8\n{said}\n"), "trl")
    (tmp_path / "my.yaml").write_text(found.text)
    loss = load_config(tmp_path / "my.yaml").loss
    assert (loss.divergence, loss.divergence_alpha) == (taken[0], taken[1] and pytest.approx(taken[1]))


def test_of_two_names_for_one_setting_one_is_taken_and_the_other_is_told(theirs):
    found = translated(theirs("stage: dpo\ncutoff_len: 99\nmax_length: 88\npref_beta: 0.1\nbeta: 0.1\n"))
    assert "  max_length: 99  # from cutoff_len\n" in found.text
    assert found.left_out["max_length"] == "data.max_length is taken from cutoff_len"
    assert "beta" not in found.left_out


def test_data_that_is_not_there_is_named_and_told(theirs):
    found = translated(theirs("stage: dpo\ncutoff_len: 99\ndataset: gone\n"))
    assert not found.has_data
    assert "  train: gone  # from dataset: not found from here: name a file" in found.text
    found = translated(theirs("stage: dpo\ncutoff_len: 99\n"), None, ["a.jsonl", "b.jsonl"])
    assert "  train: [a.jsonl, b.jsonl]  # as named on the command line\n" in found.text


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("stage: sft\ncutoff_len: 9", "a.yaml", r"is a configuration of LLaMA-Factory for another task \(stage: sft\)"),
        ("base_model: x\nmicro_batch_size: 1", "a.yaml", r"\(without rl, which means supervised fine-tuning\)"),
        ("rlhf_type: kto\ntrain_type: lora", "a.yaml", r"of ms-swift for another task \(rlhf_type: kto\)"),
        ("stage: dpo\npref_loss: orpo", "a.yaml", "pref_loss: orpo: is not taken over; taken over are sigmoid, "),
        (
            "dataset_name: x\nloss_type: [sigmoid, orpo]",
            "a.yaml",
            "loss_type: .*: is not taken over; terms are made of ",
        ),
        ("dataset_name: x\nloss_type: [aot, sft]\nloss_weights: [1]", "a.yaml", "wanted a number for each of 2 obj"),
        ("learning_rate: 1", "a.yaml", "whose configuration it is cannot be told; name it: --trainer "),
        ("- 1", "a.yaml", "wanted settings with their values, found list"),
        ("{", "a.json", "not valid JSON"),
        ("x = SFTConfig(beta=1)", "a.py", "is a configuration of SFTConfig; tiebreak learns from preference pairs"),
        ("def f(", "a.py", "not valid Python"),
        ("x = 1", "a.py", "holds no settings"),
        ("--a 'b", "a.sh", "not a shell script"),
        ("stage: dpo\npref_beta: .inf", "a.yaml", "loss.beta: found inf"),
        ("dataset_name: x\nlearning_rate: 7", "a.yaml", "training.learning_rate: found 7.0"),
        ("a: &a {b: 1}\n" + "".join(f"k{n}: *a\n" for n in range(2_001)), "a.yaml", "holds more settings than"),
    ],
)
def test_what_cannot_be_translated_is_refused_in_one_line(theirs, text, name, told):
    with pytest.raises(ConfigError, match=rf"{name}.*: .*{told}") as refused:
        translated(theirs(text, name))
    assert "\n" not in str(refused.value)


def test_a_trainer_can_be_named(theirs):
    assert translated(theirs("learning_rate: 1e-6\n"), "trl").trainer == "TRL"
    with pytest.raises(ConfigError, match="--trainer x: wanted one of trl, llama-factory, axolotl, ms-swift"):
        translated(theirs("learning_rate: 1e-6\n"), "x")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from([one.rstrip("*") for name in NAMES for one in name.theirs])


@pytest.mark.parametrize("trainer", ["trl", "llama-factory", "axolotl", "ms-swift"])
def test_whatever_their_values_are_each_setting_is_accounted_for_or_the_file_refused(theirs, trainer):
    task = {"stage": "dpo", "rl": "dpo", "rlhf_type": "dpo"}

    @given(settings=st.dictionaries(keys, values, min_size=1, max_size=6))
    def check(settings):
        path = theirs(json.dumps({**settings, **task}), "their.json")
        try:
            found = translated(path, trainer)
        except ConfigError as error:
            assert "\n" not in str(error)
            return
        behind = {*found.unknown, *found.left_out}
        assert {key.partition(".")[0] for key in behind} <= {*settings, *task, *TRAINERS[trainer].apart}
        opened = {key.partition(".")[0] for key in behind if isinstance(settings.get(key.partition(".")[0]), dict)}
        told = {*behind, *opened}  # of a section, what stands in it is told
        untold = [key for key in settings if key not in {*told, *task} and f"from {key}" not in found.text]
        assert untold == []

    check()


def of_axolotl(*entries, **more):
    return json.dumps({"base_model": "org/m", "rl": "dpo", "micro_batch_size": 1, "datasets": list(entries), **more})


def test_the_fields_that_axolotl_names_are_the_columns_here(theirs, tmp_path):
    fields = {"field_prompt": "ask", "field_chosen": "rejected", "field_rejected": "chosen"}
    found = translated(theirs(of_axolotl({"path": "pairs.jsonl", "type": fields})))
    data = loaded(found, tmp_path).data
    assert (data.train, data.columns) == ("pairs.jsonl", {"prompt": "ask", "chosen": "rejected", "rejected": "chosen"})
    assert not [key for key in found.left_out if "field" in key]
    entry = {"path": "pairs.jsonl", "type": "chat_template.default", "field_chosen": "better"}
    data = loaded(translated(theirs(of_axolotl(entry))), tmp_path).data
    assert data.columns == {"prompt": "messages", "chosen": "better", "rejected": "rejected"}


def test_what_an_entry_says_and_no_source_can_is_left_out_by_name(theirs):
    entry = {"path": "org/pairs", "split": "train[:50%]", "shards": 4, "roles": {"user": ["me"]}, "surprise": 3}
    found = translated(theirs(of_axolotl(entry | {"type": {"field_system": "sys", "prompt_format": "{prompt}"}})))
    assert {key: why for key, why in found.left_out.items() if "." in key} == {
        "datasets.0.type.prompt_format": "the chat template lays out the prompt",
        "datasets.0.field_system": "data.columns takes a prompt, a chosen and a rejected completion",
        "datasets.0.split": "all of it is read; data.max_pairs takes fewer pairs",
        "datasets.0.shards": "all of it is read; data.max_pairs takes fewer pairs",
        "datasets.0.roles": "who speaks is told by the usual names (docs/data.md)",
    }
    assert "datasets.0.surprise" in found.unknown
    assert "#   datasets.0.split: train[:50%] (all of it is read" in found.text
    assert "#   datasets.0.surprise: 3\n" in found.text


def test_sources_whose_columns_differ_have_each_its_own(theirs, tmp_path):
    fields = {"field_prompt": "q", "field_chosen": "good", "field_rejected": "bad"}
    mapping = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    text = of_axolotl({"path": "pairs.jsonl", "type": fields}, {"path": "org/pairs"})
    first, second = loaded(translated(theirs(text)), tmp_path).data.sources
    assert (first.columns, second.columns) == (mapping, None)
    data = loaded(translated(theirs(of_axolotl({"path": "pairs.jsonl", **fields}, test_datasets=[{"path": "org/t"}]))),
                  tmp_path).data  # fmt: skip
    assert (data.sources[0].columns, data.heldout_sources[0].columns) == (mapping, None)
    held = {"path": "org/t", "field_chosen": "better"}
    found = translated(theirs(of_axolotl({"path": "pairs.jsonl"}, test_datasets=[held])))
    assert found.left_out["test_datasets.columns"] == "data.columns would be those of data.train, too"


LISTED = {
    "alpaca": {"file_name": "mine.json", "ranking": True, "num_samples": 9, "columns": {
        "prompt": "question", "query": "more", "chosen": "best", "rejected": "worst", "response": "out"}},
    "sharegpt": {"hf_hub_url": "org/pairs", "split": "tuned", "subset": "en", "formatting": "sharegpt", "ranking": True,
                 "columns": {"messages": "talk", "chosen": "best", "rejected": "worst", "images": "pictures"},
                 "tags": {"role_tag": "who", "content_tag": "says"}},
    "thumbs": {"file_name": "mine.json", "columns": {"prompt": "q", "response": "a", "kto_tag": "good"}},
    "script": {"script_url": "org/code"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "train", "columns", "left_out"),
    [
        (
            "alpaca",
            "sets/mine.json",
            {"prompt": "question", "input": "more", "chosen": "best", "rejected": "worst"},
            {"alpaca.num_samples", "alpaca.columns.response"},
        ),
        (
            "sharegpt",
            "hf:org/pairs:en@tuned",
            {"prompt": "talk", "chosen": "best", "rejected": "worst"},
            {"sharegpt.columns.images", "sharegpt.tags.role_tag", "sharegpt.tags.content_tag"},
        ),
        ("thumbs", "sets/mine.json", None, {f"thumbs.columns.{key}" for key in ("prompt", "response", "kto_tag")}),
        ("script", "script", None, {"script.script_url"}),
    ],
)
def test_the_columns_of_llama_factorys_list_are_the_columns_here(theirs, tmp_path, name, train, columns, left_out):
    Path("sets/dataset_info.json").write_text(json.dumps(LISTED))
    found = translated(theirs(f"stage: dpo\ncutoff_len: 99\ndataset_dir: sets\ndataset: {name}\n"))
    data = loaded(found, tmp_path).data
    assert (data.train, data.columns) == (train, columns)
    assert {key for key in found.left_out if "." in key} == left_out
    assert found.has_data == (name != "script")


def test_the_columns_of_ms_swift_are_turned_round(theirs, tmp_path):
    options = "swift rlhf --rlhf_type dpo --model m --dataset pairs.jsonl --columns '{}'\n"
    named = '{"q": "query", "good": "response", "bad": "rejected_response"}'
    data = loaded(translated(theirs(options.format(named), "a.sh")), tmp_path).data
    assert data.columns == {"prompt": "q", "chosen": "good", "rejected": "bad"}
    found = translated(theirs(options.format('{"bad": "rejected_response"}'), "a.sh"))
    assert found.left_out["columns.bad"] == "data.columns takes a prompt, a chosen and a rejected completion"


def test_what_the_alignment_handbook_mixes_is_a_configuration_of_trl(theirs, tmp_path):
    text = "dataset_mixer: {org/a: 1.0, org/b: 0.5}\ndataset_splits: [train_prefs]\npreprocessing_num_workers: 2\n"
    found = translated(theirs(text))
    assert found.trainer == "TRL"
    sources = loaded(found, tmp_path).data.sources
    assert [(one.path, one.weight) for one in sources] == [("hf:org/a@train_prefs", 1), ("hf:org/b@train_prefs", 0.5)]
    text = "dataset_mixer: {org/a: 1.0}\ndataset_splits: [train_prefs, test_prefs]\n"
    data = loaded(translated(theirs(text)), tmp_path).data
    assert (data.train, data.heldout) == ("hf:org/a@train_prefs", "hf:org/a@test_prefs")
    found = translated(theirs("dataset_mixer: {org/a: 1.0, org/b: 1.0}\ndataset_splits: [train, test]\n"))
    assert found.left_out["dataset_mixer"] == "data.heldout is one file or data set, here are 2"


def test_data_that_is_named_on_the_command_line_has_no_columns_of_theirs(theirs, tmp_path):
    entry = {"path": "pairs.jsonl", "field_chosen": "better"}
    found = translated(theirs(of_axolotl(entry)), None, "other.jsonl")
    data = loaded(found, tmp_path).data
    assert (data.train, data.columns) == ("other.jsonl", None)
    assert found.left_out["datasets"] == "other pairs are named on the command line"


def test_nothing_that_an_entry_says_vanishes(theirs):
    names = (
        "path",
        "split",
        "type",
        "field_prompt",
        "field_chosen",
        "field_tools",
        "name",
        "weight",
        "data_files",
        "odd",
    )

    @given(entry=st.dictionaries(st.sampled_from(names), values, min_size=1))
    def check(entry):
        try:
            found = translated(theirs(of_axolotl(entry), "their.json"))
        except ConfigError as error:
            assert "\n" not in str(error)
            return
        behind = {*found.left_out, *found.unknown}
        columns = {line.key: line.value for line in found.lines}.get("data.columns", {})
        places = str([line.value for line in found.lines if line.key == "data.train"])
        for key, value in entry.items():
            told = any(one.startswith((f"datasets.0.{key}", "datasets.0.columns")) for one in behind)
            names_it = key in ("path", "data_files", "name") and "pairs.jsonl" not in places
            in_place = names_it or (key == "split" and isinstance(value, str))
            is_taken = in_place or value in columns.values() or (key == "weight" and f"'weight': {value}" in places)
            assert told or is_taken or "datasets" in behind

    check()


@pytest.mark.parametrize(
    ("told", "moves"),
    [
        ("sync_ref_model: true", (512, 0.6)),
        ("sync_ref_model: true\nref_model_sync_steps: 64\nref_model_mixup_alpha: 1", (64, 1.0)),
        ("sync_ref_model: false\nref_model_sync_steps: 64", None),
        ("ref_model_mixup_alpha: 0.4", None),
    ],
)
def test_a_reference_that_moves_there_moves_here(told, moves, theirs, tmp_path):
    found = translated(theirs(f"learning_rate: 1e-6\n{told}\n"), "trl")
    taken = loaded(found, tmp_path).reference.moves
    assert (taken and (taken.every, taken.share)) == moves
    if moves is None:
        assert "does not move there" in found.left_out[told.splitlines()[-1].partition(":")[0]]
    else:
        assert found.left_out == {}


@pytest.mark.parametrize(
    ("told", "name", "behind"),
    [
        ("ref_model: org/first", "org/first", {}),
        ("ref_model: null", None, {"ref_model": "not set there"}),
        (
            "ref_model: org/first\nref_adapters: [sft]",
            "sft",
            {"ref_model": "reference.model is taken from ref_adapters"},
        ),
        (
            "ref_model: org/first\nsync_ref_model: true",
            None,
            {"ref_model": "the reference moves there, and one that moves starts as the policy here"},
        ),
        ("force_use_ref_model: false", None, {"force_use_ref_model": "off there, and there is no such thing here"}),
    ],
)
def test_a_reference_that_is_named_there_is_named_here(told, name, behind, theirs, tmp_path):
    found = translated(theirs(f"learning_rate: 1e-6\n{told}\n"), "trl")
    assert loaded(found, tmp_path).reference.model == name
    assert found.left_out == behind


@pytest.mark.parametrize(
    ("told", "name", "unread"),
    [
        ("loss_type: hinge\nlabel_smoothing: 0.1", "hinge", {"label_smoothing": "loss.label_smoothing"}),
        ("loss_type: apo_zero\nld_alpha: 0.5", "apo_zero", {"ld_alpha": "loss.length_desensitised"}),
        ("loss_type: aot\nuse_weighting: true", "aot", {"use_weighting": "loss.confidence_weights"}),
        (
            "loss_type: nca_pair\nf_divergence_type: alpha_divergence\nf_alpha_divergence_coef: 0.3",
            "nca",
            {"f_divergence_type": "loss.divergence", "f_alpha_divergence_coef": "loss.divergence_alpha"},
        ),
    ],
)
def test_what_the_objective_does_not_read_is_left_out_by_name(told, name, unread, theirs, tmp_path):
    found = translated(theirs(f"learning_rate: 1e-6\n{told}\n"), "trl")
    assert loaded(found, tmp_path).loss.name == name
    assert found.left_out == {theirs_: f"{name} does not read {ours}" for theirs_, ours in unread.items()}
    assert all(f"{key}: left out, {name} does not read" in "\n".join(found.told()) for key in unread)


def test_tokens_beyond_the_shorter_completion_weigh_as_there(theirs, tmp_path):
    found = translated(theirs("learning_rate: 1e-6\nloss_type: sigmoid\nld_alpha: 0.5\n"), "trl")
    assert loaded(found, tmp_path).loss.length_desensitised == 0.5
    assert found.left_out == {}


def test_a_value_that_a_default_replaces_is_named_beside_it(theirs, tmp_path):
    found = translated(theirs("num_train_epochs: 2.5\nlearning_rate: 0\nmax_length: null\n"), "trl")
    config = loaded(found, tmp_path)
    assert (config.training.epochs, config.training.learning_rate, config.data.max_length) == (3, 1e-6, 1024)
    assert "  epochs: 3  # from num_train_epochs: 2.5 there; whole passes, rounded up\n" in found.text
    assert "# learning_rate: 0 there (off there, and always on here); its default\n" in found.text
    assert "  max_length: 1024  # from max_length: null, no limit there; here longer pairs are dropped" in found.text
    found = translated(theirs("stage: dpo\nlora_alpha: 0\nmax_steps: 30\n"), "llama-factory")
    assert "  alpha: 16.0  # lora_alpha: 0 there (off there, and always on here); twice the rank" in found.text
    assert "  epochs: 3  # max_steps: 30 there (passes over the pairs; " in found.text
    assert "  epochs: 3  # not set there: its default\n" in translated(theirs("max_steps: -1\n"), "trl").text


@pytest.mark.parametrize(
    ("told", "whose", "terms"),
    [
        (
            "loss_type: [sigmoid, bco_pair]\nloss_weights: [0.8, 0.2]\nbeta: 0.3",
            "trl",
            [("dpo", 0.8, {"beta": 0.3}), ("bco", 0.2, {"beta": 0.3, "delta": 0.0})],
        ),
        (
            "loss_type: [aot, ipo, sft]",
            "trl",
            [("aot", 1, {"beta": 0.1}), ("ipo", 1, {"tau": 0.1, "length": "mean"}), ("sft", 1, {"length": "mean"})],
        ),
        ("loss_type: hinge\nrpo_alpha: 0.5", "trl", [("hinge", 1, {"beta": 0.1}), ("sft", 0.5, {"length": "mean"})]),
        (
            "stage: dpo\npref_beta: 0.2\npref_ftx: 0.3",
            "llama-factory",
            [("dpo", 1, {"beta": 0.2}), ("sft", 0.3, {"length": "mean"})],
        ),
    ],
)
def test_several_objectives_are_terms_as_they_are_meant_there(told, whose, terms, theirs, tmp_path):
    found = translated(theirs(f"{told}\n"), whose)
    taken = loaded(found, tmp_path).loss.terms
    assert [(one.loss.name, one.weight) for one in taken] == [(name, weight) for name, weight, _ in terms]
    for one, (_, _, settings) in zip(taken, terms, strict=True):
        assert {key: getattr(one.loss, key) for key in settings} == settings
    assert found.left_out == {}
    by_batch = "there the mean over all tokens of a batch" in found.text
    assert by_batch == (whose == "trl" and "sft" in [name for name, _, _ in terms])


def test_what_no_term_reads_is_left_out_by_name(theirs, tmp_path):
    told = "loss_type: [robust, bco_pair]\nld_alpha: 0.5\nuse_weighting: true\nlabel_smoothing: 0.1\n"
    found = translated(theirs(told), "trl")
    first = loaded(found, tmp_path).loss.terms[0].loss
    assert (first.label_smoothing, first.confidence_weights) == (0.1, None)
    assert found.left_out == {
        "ld_alpha": "terms of a sum see the same tokens, and none has loss.length_desensitised",
        "use_weighting": "bco does not read loss.confidence_weights",
    }


def test_what_a_trainer_takes_unsaid_is_taken_where_the_objective_has_another_default(theirs, tmp_path):
    found = translated(theirs("loss_type: aot\n"), "trl")
    assert loaded(found, tmp_path).loss.beta == 0.1
    assert "  beta: 0.1  # not set there: its default\n" in found.text


FOUR_BITS = {
    "LLaMA-Factory": ("stage: dpo\nquantization_bit: 4\n", ("nf4", True)),
    "Axolotl": ("base_model: m\nrl: dpo\nadapter: qlora\nload_in_4bit: true\nmicro_batch_size: 1\n", ("nf4", True)),
    "ms-swift": ("rlhf_type: dpo\nquant_bits: 4\nbnb_4bit_quant_type: fp4\n", ("fp4", True)),
    "TRL": ("dataset_name: d\nuse_peft: true\nload_in_4bit: true\n", ("nf4", False)),
    "TRL, doubly": ("dataset_name: d\nuse_peft: true\nload_in_4bit: true\nuse_bnb_nested_quant: true\n", ("nf4", True)),
    "eight bits": ("stage: dpo\nquantization_bit: 8\n", None),
    "off": ("rlhf_type: dpo\nload_in_4bit: false\nbnb_4bit_quant_type: nf4\n", None),
    "all weights": ("dataset_name: d\nload_in_4bit: true\n", None),
}


@pytest.mark.parametrize("case", FOUR_BITS)
def test_four_bits_are_taken_over_where_they_are_switched_on_under_an_adapter(case, theirs, tmp_path):
    text, wanted = FOUR_BITS[case]
    found = translated(theirs(text), train="pairs.jsonl")
    quantization = loaded(found, tmp_path).quantization
    assert (quantization and (quantization.kind, quantization.double)) == wanted
    assert bool({"load_in_4bit", "quantization_bit"} & found.left_out.keys()) is (wanted is None)


def test_four_bits_of_plain_python_have_the_library_s_own_defaults(theirs, tmp_path):
    code = "q = BitsAndBytesConfig(load_in_4bit=True)\nc = LoraConfig(r=4, use_dora=True)\na = DPOConfig(beta=0.1)\n"
    config = loaded(translated(theirs(code, "train.py"), train="pairs.jsonl"), tmp_path)
    assert config.quantization == QuantizationConfig(kind="fp4", double=False)
    assert (config.adapter.dora, config.adapter.rslora) == (True, False)
