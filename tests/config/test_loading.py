"""Settings: what is refused and in which words, what is read back, what is described."""

from __future__ import annotations

import os
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tiebreak.config import (
    AdapterConfig,
    Config,
    DataConfig,
    DataJudge,
    EvaluationConfig,
    ModelConfig,
    ModelJudge,
    OutputConfig,
    PeopleJudge,
    RewardModelJudge,
    RuleConfig,
    RuleJudge,
    SelfJudge,
    ServerJudge,
    TrainingConfig,
    build_config,
    describe_config,
    dump_config,
    leaves,
    load_config,
    load_judge,
    warnings_of,
)
from tiebreak.config.losses import SECTIONS, Terms
from tiebreak.config.losses.gaps import Dpo
from tiebreak.errors import ConfigError


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "my.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# ------------------------------------------------------------------------------------------------------ what is refused

UNKNOWN = {
    "loss: {bta: 0.2}": ("loss.bta", "loss.beta"),
    "modle: {}": ("modle", "model"),
    "beta: 0.2": ("beta", "loss.beta"),
    "learning_rate: 1e-5": ("learning_rate", "training.learning_rate"),
    "training: {learning-rate: 1e-5}": ("training.learning-rate", "training.learning_rate"),
    "training: {beta: 0.2}": ("training.beta", "loss.beta"),
    "evaluation: {rule: {pattern: a, nam: b}}": ("evaluation.rule.nam", "evaluation.rule.name"),
}


@pytest.mark.parametrize(("text", "keys"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_name(written, text, keys):
    path = written(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(path)
    assert str(refusal.value) == f"{path}: unknown key '{keys[0]}'. Did you mean '{keys[1]}'?"


def test_an_unknown_key_that_is_like_no_other_points_to_the_list():
    with pytest.raises(ConfigError, match=r"unknown key 'zzzzqqqq'\. Run 'tiebreak config' for the list\."):
        build_config({"zzzzqqqq": 1})


WRONG = {
    "training: {epochs: '3'}": "training.epochs: found '3'",
    "training: {epochs: 1.5}": "training.epochs: found 1.5",
    "training: {epochs: yes}": "training.epochs: found 'yes'",
    "training: {epochs: }": "training.epochs: found None",
    "training: {epochs: 0}": "training.epochs: found 0; input should be greater than or equal to 1",
    "training: {shuffle: 1}": "training.shuffle: found 1",
    "training: {learning_rate: 0}": "training.learning_rate: found 0; input should be greater than 0",
    "training: {learning_rate: 1}": "training.learning_rate: found 1; input should be less than 1",
    "training: {learning_rate: .nan}": "training.learning_rate: found nan",
    "training: {schedule: step}": "training.schedule: found 'step'; input should be 'linear', 'cosine' or 'constant'",
    "training: {seed: -1}": "training.seed: found -1",
    "loss: {beta: 0}": "loss.beta: found 0",
    "loss: {beta: .inf}": "loss.beta: found inf; input should be a finite number",
    "loss: {beta: [0.1]}": r"loss.beta: found \[0.1\]",
    "loss: {label_smoothing: 0.5}": "loss.label_smoothing: found 0.5; input should be less than 0.5",
    "data: {heldout_share: 1}": "data.heldout_share: found 1",
    "data: {train: 3}": "data.train: found 3; input should be a valid string",
    "data: {max_length: 1e3}": "data.max_length: found 1000.0",
    "model: {name: }": "model.name: found None",
    "model: smollm": "model: found 'smollm'",
    "adapter: full": "adapter.kind: found 'full'; input should be 'lora' or 'none'",
    "adapter: 5": "adapter: found 5",
    "adapter: {target_modules: q_proj}": "adapter.target_modules: found 'q_proj'",
    "adapter: {target_modules: [1]}": "adapter.target_modules: found 1",
    "evaluation: {rule: a}": "evaluation.rule: found 'a'",
    "evaluation: {rule: {name: a}}": "'evaluation.rule.pattern' is missing",
    "evaluation: {rule: {pattern: a(}}": r"evaluation.rule.pattern: found 'a\('; not a regular expression \(missing \)",
    "evaluation: {rule: {pattern: 'a{99999999999999999999}'}}": "evaluation.rule.pattern: found 'a{9+}'; not a regular",
    "output: {trackers: wandb}": "output.trackers: found 'wandb'",
    "1: 2": "wanted sections like 'model:' and 'data:'",
    "- model": "wanted sections like 'model:' and 'data:', found list",
    "training: {1: 2}": "training: found 1; keys should be strings",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_key(written, text, words):
    path = written(text)
    with pytest.raises(ConfigError, match=words) as refusal:
        load_config(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < len(str(path)) + 300


NOT_YAML = {
    "a key given twice": "loss: {beta: 0.1}\nloss: {beta: 0.2}",
    "a key given twice inside": "loss: {beta: 0.1, beta: 0.2}",
    "an open bracket": "loss: [",
    "a tab": "loss:\n\tbeta: 1",
    "an object of Python": "model: !!python/object/apply:os.system ['true']",
    "a number of 5000 digits": f"training: {{seed: {'9' * 5000}}}",
    "nested 3000 deep": "{" * 3000,
    "a list as a key": "[a]: 1",
    "a control character": "model: \x07",
    "two documents": "loss: {beta: 1}\n---\nloss: {beta: 1}",
}


@pytest.mark.parametrize("text", NOT_YAML.values(), ids=NOT_YAML)
def test_what_is_not_yaml_is_refused_in_one_line(written, text):
    path = written(text)
    with pytest.raises(ConfigError, match="not valid YAML") as refusal:
        load_config(path)
    assert "\n" not in str(refusal.value)


def test_files_that_cannot_be_read_are_refused(written, tmp_path):
    with pytest.raises(ConfigError, match=r"no such file; 'tiebreak config > my\.yaml' writes one"):
        load_config(tmp_path / "other.yaml")
    with pytest.raises(ConfigError, match=r"is no file; 'tiebreak config > my\.yaml' writes one"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load_config(written(b"model: {name: \xff}"))


@settings(max_examples=150, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([*Config.model_fields, "name", "beta", "rule", "pattern"]) | st.text(max_size=3), inner,
        max_size=3,
    ),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict)))  # fmt: skip
def test_any_tree_is_a_config_or_a_config_error(tree):
    try:
        made = build_config(tree)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(made, Config)


# --------------------------------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("number", ["5e-7", "5E-7", "5.e-7", "0.5e-6", ".5e-6", "0.0000005"])
def test_a_number_with_an_exponent_is_a_number(written, number):
    assert load_config(written(f"training: {{learning_rate: {number}}}")).training.learning_rate == 5e-7
    assert load_config(None, [f"training.learning_rate={number}"]).training.learning_rate == 5e-7


def test_a_whole_number_will_do_for_a_float_and_a_quoted_number_stays_text(written):
    assert load_config(written("loss: {beta: 1}\nmodel: {name: '1e5'}")) == load_config(
        None, {"loss.beta": 1.0, "model.name": "1e5", "output.dir": "runs/my"}
    )


def test_an_empty_file_means_the_defaults(written):
    assert load_config(written("# nothing\n"), ["output.dir=x"]) == load_config(None, ["output.dir=x"])
    assert load_config(written("\ufeffloss: {beta: 0.3}")).loss.beta == 0.3


def test_a_file_that_holds_nothing_is_refused_unless_that_is_said_on_purpose(written):
    for text in ("", "\n \n", "# nothing\n", "{}"):
        with pytest.raises(
            ConfigError, match=r"holds no setting; 'tiebreak config > my\.yaml' writes one to start from"
        ):
            load_config(written(text))
    assert load_config(os.devnull) == load_config(None, {"output.dir": "runs/null"})


def test_a_section_without_lines_means_its_defaults(written):
    assert load_config(written("loss:\n#  beta: 0.2\nadapter:\n")).loss == Dpo()
    with pytest.raises(ConfigError, match="unknown key 'los'"):
        load_config(written("los:\n"))


def test_the_run_folder_is_named_after_the_file(written):
    assert load_config(written("loss: ipo")).output.dir == "runs/my"
    assert load_config().output.dir == "runs/default"
    assert load_config(written("output: {dir: here}")).output.dir == "here"


def test_the_adapter_may_be_given_by_its_kind_alone(written):
    assert load_config(written("adapter: none")).adapter == AdapterConfig(kind="none")
    made = load_config(written("adapter: lora"), ["adapter.rank=4", "adapter.target_modules=[q_proj, v_proj]"])
    assert made.adapter == AdapterConfig(kind="lora", rank=4, target_modules=("q_proj", "v_proj"))
    assert load_config(None, ["adapter=none"]).adapter.kind == "none"


def test_overrides_stand_above_the_file_and_the_last_one_counts(written):
    path = written("training: {epochs: 2}\nloss:\n")
    made = load_config(path, ["training.epochs=3", "training.epochs=4", "loss.beta = 0.5", "data.heldout=a=b.jsonl"])
    assert (made.training.epochs, made.loss.beta, made.data.heldout) == (4, 0.5, "a=b.jsonl")
    assert load_config(path, {"training.epochs": 5}).training.epochs == 5
    assert load_config(path, ["data.max_pairs="]).data.max_pairs is None
    assert load_config(path, ["evaluation.rule={name: a list, pattern: '^-'}"]).evaluation.rule == RuleConfig(
        name="a list", pattern="^-"
    )


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs", "--set training.epochs: wanted KEY=VALUE"),
        ("=3", "--set =3: wanted KEY=VALUE"),
        ("training.epoch=3", "unknown key 'training.epoch'. Did you mean 'training.epochs'?"),
        ("training.epochs=[", "--set training.epochs: not valid YAML"),
        ("training.epochs=3 # x: [", None),
        ("training.epochs.more=3", "training.epochs: found {'more': 3}"),
        ("training=3", "training: found 3"),
        ("model.name.x=3", "model.name: found {'x': 3}"),
        ("=", "wanted KEY=VALUE"),
        ("..=3", "unknown key"),
    ],
)
def test_an_override_is_checked_like_the_file(override, words):
    if words is None:
        assert load_config(None, [override]).training.epochs == 3
        return
    with pytest.raises(ConfigError) as refusal:
        load_config(None, [override])
    assert words in str(refusal.value)


def test_an_override_below_a_value_is_refused(written):
    with pytest.raises(ConfigError, match=r"training\.epochs\.x: 'epochs' is a value, not a section"):
        load_config(written("training: {epochs: 3}"), ["training.epochs.x=1"])


def test_a_reference_that_moves_is_not_named():
    with pytest.raises(ConfigError, match="starts where the policy does") as caught:
        load_config(None, {"reference.model": "a", "reference.moves": {"every": 3}})
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"reference: found 'a'; wanted a section .* reference\.model is the one"):
        load_config(None, {"reference": "a"})


@pytest.mark.parametrize("key", ["revision", "base"])
def test_a_reference_that_nobody_names_has_no_revision_and_no_base_of_its_own(key):
    with pytest.raises(ConfigError, match=rf"reference\.{key} is of the model that reference\.model names") as caught:
        load_config(None, {f"reference.{key}": "x"})
    assert "\n" not in str(caught.value)
    found = load_config(None, {"reference.model": "a", f"reference.{key}": "x"})
    assert getattr(found.reference, key) == "x"
    assert getattr(found.of_model("b").reference, key) is None


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().loss.beta = 3.0


# ------------------------------------------------------------------------------------------------ written and described

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAME = TEXT.filter(str.strip)
PATTERN = TEXT.map(lambda text: re.escape(text.replace("\b", "")))
CONFIGS = st.builds(
    Config,
    model=st.builds(ModelConfig, name=NAME | st.sampled_from(["5e-7", "1e5", "null", "~", "yes", "2001-01-01", "0x1"])),
    data=st.builds(DataConfig, train=NAME, heldout=st.none() | NAME, heldout_share=st.floats(0.01, 0.99)),
    adapter=st.builds(
        AdapterConfig,
        kind=st.sampled_from(["lora", "none"]),
        target_modules=st.just("all-linear") | st.tuples(TEXT, TEXT),
    ),
    loss=st.builds(Dpo, beta=st.floats(0, exclude_min=True, allow_infinity=False)),
    training=st.builds(TrainingConfig, learning_rate=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True)),
    evaluation=st.builds(
        EvaluationConfig,
        rule=st.none() | st.builds(RuleConfig, name=TEXT, pattern=PATTERN),
    ),
    output=st.builds(OutputConfig, dir=NAME, trackers=st.lists(TEXT, max_size=2).map(tuple)),
)


@settings(max_examples=150, deadline=None)
@given(made=CONFIGS)
def test_what_is_written_is_read_back_the_same(tmp_path_factory, made):
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    path.write_text(dump_config(made), encoding="utf-8")
    assert load_config(path) == made


JUDGES = {
    "rule:length_band": RuleJudge(reward="length_band"),
    "rule:my_rewards.py:polite": RuleJudge(reward="my_rewards.py:polite"),
    "reward_model:org/name": RewardModelJudge(model="org/name"),
    "model:org/name": ModelJudge(model="org/name"),
    "server:big:70b": ServerJudge(model="big:70b"),
    "data": DataJudge(),
    "self": SelfJudge(),
    "people": PeopleJudge(),
    "my_rewards.py:polite": RuleJudge(reward="my_rewards.py:polite"),
    "folder/my.rewards.py:polite": RuleJudge(reward="folder/my.rewards.py:polite"),
}


@pytest.mark.parametrize(("short", "judge"), JUDGES.items(), ids=JUDGES)
def test_a_judge_is_written_in_short_or_as_a_section_and_read_back(written, short, judge):
    config = load_config(None, [f"evaluation.judge={short}"])
    assert config.evaluation.judge == judge
    assert load_config(written(f"evaluation: {{judge: '{short}'}}")).evaluation.judge == judge
    assert load_config(written(dump_config(config))).evaluation.judge == judge
    assert load_judge(short) == load_judge(judge.model_dump(mode="json")) == judge


def test_a_dotted_key_goes_into_a_judge_in_short():
    sets = ["evaluation.judge=rule:length_band", "evaluation.judge.arguments.least=3"]
    assert load_config(None, sets).evaluation.judge == RuleJudge(reward="length_band", arguments={"least": 3})
    assert load_judge("server:m", ["judge.max_calls=7"]) == ServerJudge(model="m", max_calls=7)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["judge=rul:x"], "evaluation.judge: found 'rul:x'; kind is one of rule, .*Did you mean 'rule'?"),
        (["judge=rul:x", "judge.arguments.least=3"], "judge: found 'rul:x'; kind is one of rule, .*mean 'rule'?"),
        (["judge=rule"], "'evaluation.judge.reward' is missing"),
        (["judge=mine.py"], "a rule is a function in a file; name it, as mine.py:score"),
        (["judge=package.mine:score"], "evaluation.judge: found 'package.mine:score'; kind is one of rule"),
        (["judge=self:x"], "a judge of kind self has no name; write 'self' alone"),
        (["judge=mine.py:f", "judge.completions=chat"], "evaluation.judge.completions: found 'chat'"),
        (["judge={reward: a}"], "evaluation.judge: found {'reward': 'a'}; kind is one of rule"),
        (["judge=3"], "evaluation.judge: found 3; kind is one of rule"),
        (["judge=data:x"], "a judge of kind data has no name; write 'data' alone"),
        (["judge=server:m", "judge.modle=b"], "unknown key 'evaluation.judge.modle'. Did you mean"),
        (["judge=server:m", "judge.num_at_once=0"], "evaluation.judge.num_at_once: found 0; input should be greater"),
        (["judge=server:m", "judge.max_cost=1"], "max_cost needs price_in and price_out"),
    ],
)
def test_what_makes_no_judge_is_refused_in_one_line(sets, words):
    with pytest.raises(ConfigError, match=words.replace("{", r"\{").replace("?", r"\?")) as refusal:
        load_config(None, [f"evaluation.{one}" for one in sets])
    assert "\n" not in str(refusal.value)


def test_every_leaf_is_described_in_one_sentence():
    found = dict(leaves())
    assert len(found) > 35
    for key, field in found.items():
        assert field.description, key
        assert field.description.endswith((".", "…")), key
        assert "\n" not in field.description, key


def test_the_described_defaults_are_the_defaults(written):
    text = describe_config()
    assert load_config(written(text)).model_dump(exclude={"output": {"dir"}}) == Config().model_dump(
        exclude={"output": {"dir"}}
    )
    tree = yaml.safe_load(text)
    optional = {
        "evaluation.rule",
        "evaluation.judge",
        "evaluation.lm_eval",
        "loss.beta_schedule",
        "reference.moves",
        "quantization",
    }  # sections that are null unless somebody wants them
    of_others = {f"loss.{name}" for one in (*SECTIONS.values(), Terms) for name in one.model_fields} - {
        f"loss.{name}" for name in Dpo.model_fields
    }
    keys = {key for key, _ in leaves() if key.rpartition(".")[0] not in optional} - of_others | optional
    shown = {f"{section}.{name}" for section, values in tree.items() for name in values or ()}
    assert keys == shown | {section for section, values in tree.items() if values is None}
    for key, field in leaves():
        assert key in of_others or key.rpartition(".")[0] in optional or field.description in text


# ------------------------------------------------------------------------------------------------------- learning rates


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([], None),
        (["adapter=none"], None),
        (["training.learning_rate=1e-4"], None),
        (["training.learning_rate=1.1e-4"], "0.00011 is outside 1e-06..0.0001.*LoRA: gibberish"),
        (["training.learning_rate=9e-7"], "LoRA: hardly anything is learned"),
        (["adapter=none", "training.learning_rate=5e-6"], None),
        (["adapter=none", "training.learning_rate=1e-5"], "1e-07..5e-06.*full fine-tuning: gibberish"),
        (["adapter=none", "training.learning_rate=9e-8"], "full fine-tuning: hardly anything is learned"),
    ],
)
def test_a_learning_rate_that_is_rarely_meant_is_warned_of(overrides, words):
    found = warnings_of(load_config(None, overrides))
    assert len(found) == (words is not None)
    if words:
        with pytest.raises(ConfigError, match=words):
            raise ConfigError(found[0])


def test_the_default_learning_rate_follows_the_method():
    assert load_config(None, ["adapter=lora"]).learning_rate == 1e-5
    assert load_config(None, ["adapter=none"]).learning_rate == 1e-6
    assert load_config(None, ["adapter=none", "training.learning_rate=3e-6"]).learning_rate == 3e-6


@pytest.mark.parametrize(
    "key",
    ["output.dir", "data.train", "data.heldout", "data.store", "model.name", "model.base", "model.chat_template",
     "reference.store", "reference.model", "training.moments_from"],
)  # fmt: skip
def test_a_path_that_starts_with_a_tilde_is_at_home_and_no_folder_of_that_name_here(written, monkeypatch, key):
    monkeypatch.setenv("HOME", "/at/ease")
    section, name = key.split(".")
    path = written(f"{section}:\n  {name}: ~/mine/x\n")
    for config in (load_config(path), load_config(None, [f"{key}=~/mine/x"])):
        assert getattr(getattr(config, section), name) == "/at/ease/mine/x"


def test_a_tilde_is_the_home_in_lists_of_paths_and_judges_too_and_elsewhere_a_character(written, monkeypatch):
    monkeypatch.setenv("HOME", "/at/ease")
    tasks = load_config(None, ["evaluation.tasks=[~/a.yaml, b.yaml]"]).evaluation.tasks
    assert tasks == ("/at/ease/a.yaml", "b.yaml")
    assert load_config(None, ["evaluation.judge=~/mine.py:score"]).evaluation.judge.reward == "/at/ease/mine.py:score"
    mixed = load_config(written("data:\n  train:\n    - {path: ~/a.jsonl, weight: 1}\n    - {path: a~b, weight: 1}\n"))
    assert [source.path for source in mixed.data.train] == ["/at/ease/a.jsonl", "a~b"]
    assert load_config(None, ["data.train=~nobody-of-this-name/x"]).data.train == "~nobody-of-this-name/x"
