"""Stages of a configuration: what each of them is, and what cannot be one."""

from __future__ import annotations

import pytest
import yaml

from tiebreak.campaigns.stages import planned
from tiebreak.config import build_config, load_config, load_stages
from tiebreak.errors import ConfigError

TWO = {
    "model": {"name": "base", "device": "cpu"},
    "training": {"epochs": 2, "seed": 3},
    "evaluation": {"rule": {"name": "r", "pattern": "a"}},
    "loss": {"name": "dpo", "beta": 0.3},
    "stages": [
        {"name": "sft", "loss": "sft", "training": {"learning_rate": 1e-4}},
        {"name": "dpo", "training": {"epochs": 5}, "evaluation": {"rule": {"pattern": "b"}}},
    ],
}


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        path = tmp_path / "two.yaml"
        path.write_text(yaml.safe_dump(TWO | changes))
        return path

    return write


def test_a_stage_is_what_all_share_and_its_own_on_top(written):
    sft, dpo = load_stages(written())
    assert (sft.name, sft.start, dpo.name, dpo.start) == ("sft", None, "dpo", "sft")
    assert (sft.config.loss.name, dpo.config.loss.name, dpo.config.loss.beta) == ("sft", "dpo", 0.3)
    assert [one.config.training.epochs for one in (sft, dpo)] == [2, 5]
    assert [one.config.training.learning_rate for one in (sft, dpo)] == [1e-4, None]
    assert [one.config.training.seed for one in (sft, dpo)] == [3, 3]
    assert [one.config.evaluation.rule.pattern for one in (sft, dpo)] == ["a", "b"]  # and neither changed the other
    assert [one.config.output.dir for one in (sft, dpo)] == ["runs/two/1-sft", "runs/two/2-dpo"]


def test_the_model_of_a_stage_is_the_policy_of_the_one_it_starts_from(written):
    first, second = planned(load_stages(written()))
    assert (first.config.model.name, second.config.model.name) == ("base", "runs/two/1-sft/policy")
    assert second.config.model.device == "cpu"
    more = [*TWO["stages"], {"name": "other", "from": "sft"}, {"name": "again", "from": None}]
    models = [one.config.model.name for one in planned(load_stages(written(stages=more)))]
    assert models == ["base", "runs/two/1-sft/policy", "runs/two/1-sft/policy", "base"]


def test_a_setting_on_the_command_line_is_of_all_stages_or_of_the_one_it_names(written):
    changes = ["training.epochs=7", "dpo.loss.beta=0.5", "output.dir=elsewhere"]
    sft, dpo = load_stages(written(), changes)
    assert [one.config.training.epochs for one in (sft, dpo)] == [7, 7]
    assert (sft.config.loss.name, dpo.config.loss.beta) == ("sft", 0.5)
    assert dpo.config.output.dir == "elsewhere/2-dpo"


def test_a_file_without_stages_has_none(written, tmp_path):
    plain = tmp_path / "plain.yaml"
    plain.write_text("loss: dpo\n")
    assert load_stages(plain) == load_stages(None) == []
    with pytest.raises(ConfigError, match="has stages, which only train takes"):
        load_config(written())


WRONG = {
    "no list": ({"sft": {}}, "wanted a list of sections, each with a name"),
    "none": ([], "wanted a list of sections"),
    "no name": ([{"loss": "sft"}], "number 1 is called None"),
    "a name that is a path": ([{"name": "../sft"}], "wanted a name like sft"),
    "a name of a section": ([{"name": "model"}], "model is a section of settings"),
    "one name twice": ([{"name": "a"}, {"name": "a"}], "two are called a"),
    "itself": ([{"name": "a"}, {"name": "b", "from": "b"}], "b starts from itself"),
    "a later one": ([{"name": "a", "from": "b"}, {"name": "b"}], "a starts from 'b', which is no stage before it"),
    "one mistyped": ([{"name": "sft"}, {"name": "b", "from": "stf"}], "no stage before it. Did you mean 'sft'?"),
    "a model of its own": ([{"name": "a"}, {"name": "b", "model": {"name": "c"}}], "leave out its model.name"),
    "a folder of its own": ([{"name": "a", "output": {"dir": "c"}}], "has a folder below output.dir of all"),
    "an unknown setting": (
        [{"name": "a"}, {"name": "b", "training": {"epoch": 1}}],
        "stage b: unknown key 'training.epoch'",
    ),
    "a setting that its loss does not read": (
        [{"name": "a", "loss": {"name": "sft", "beta": 1}}],
        "sft does not read beta",
    ),
}


@pytest.mark.parametrize(("stages", "told"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_a_stage_is_one_line(stages, told, written):
    with pytest.raises(ConfigError) as caught:
        load_stages(written(stages=stages))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


IGNORED = {
    "dpo.model.name=x": "dpo starts from the result of another stage",
    "dpo.output.dir=x": "has a folder below output.dir of all",
    "dpo.from=sft": "is said in the file",
    "stages=3": "is said in the file",
    "dpo=3": "is said in the file",
}


@pytest.mark.parametrize(("key", "told"), IGNORED.items())
def test_a_setting_on_the_command_line_that_no_stage_would_read_is_refused(key, told, written):
    with pytest.raises(ConfigError, match=told):
        load_stages(written(), [key])
    load_stages(written(), ["sft.model.name=x"])  # the first one's is the model of all


def test_a_sum_that_would_learn_nothing_is_refused():
    with pytest.raises(ConfigError, match="every term has weight 0"):
        build_config({"loss": {"terms": [{"name": "dpo", "weight": 0}, {"name": "sft", "weight": 0}]}})
