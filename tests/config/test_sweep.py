"""The key sweep: what trials are made of it, and what cannot be swept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tiebreak
from tiebreak.config import load_config, load_data, load_stages, load_sweep, warnings_of
from tiebreak.errors import ConfigError

RECIPE = Path(__file__).parents[2] / "recipes" / "sweep.yaml"
BASE = {"model": {"name": "some"}, "data": {"train": "bundled"}, "loss": {"name": "dpo", "beta": 0.1}}


@pytest.fixture
def written(tmp_path):
    def write(sweep=None, **changes):
        path = tmp_path / "my.yaml"
        path.write_text(yaml.safe_dump(BASE | changes | ({} if sweep is None else {"sweep": sweep})))
        return path

    return write


def test_a_grid_is_every_combination_of_its_values(written):
    sweep = load_sweep(written({"grid": {"loss.beta": [0.1, 0.3], "training.epochs": [1, 2]}}))
    told = [*sweep.combinations()]
    assert [tuple(one.values()) for one in told] == [(0.1, 1), (0.1, 2), (0.3, 1), (0.3, 2)]
    config = sweep.config(told[-1], "last")
    assert (config.loss.beta, config.training.epochs) == (0.3, 2)
    assert config.output.dir == "runs/my-sweep/trials/last"


def test_trials_differ_in_nothing_else_than_what_is_swept(written):
    sweep = load_sweep(written({"grid": {"loss.beta": [0.1, 0.3]}}))
    one, two = (sweep.config(told, "same") for told in sweep.combinations())
    assert two == one.model_copy(update={"loss": one.loss.model_copy(update={"beta": 0.3})})
    assert one.data.set_aside == sweep.settings.confirm_share > 0


def test_the_command_line_adds_a_grid_and_changes_all_trials(written):
    sweep = load_sweep(written(), ["training.epochs=3", "sweep.seed=7"], ["loss.beta=0.05,0.1", "adapter.rank=[4, 8]"])
    assert next(sweep.combinations()) == {"loss.beta": 0.05, "adapter.rank": 4}
    assert (len([*sweep.combinations()]), sweep.settings.seed, sweep.base.training.epochs) == (4, 7, 3)
    again = load_sweep(written({"grid": {"loss.beta": [1.0, 2.0]}}), (), {"loss.beta": [0.2, 0.4]})
    assert [one["loss.beta"] for one in again.combinations()] == [0.2, 0.4]


def test_a_setting_that_an_objective_does_not_read_makes_no_other_trial_of_it(written):
    grid = {"loss.name": ["dpo", "simpo"], "loss.beta": [0.1, 0.2], "loss.gamma": [0.3, 0.5]}
    told = [*load_sweep(written({"grid": grid})).combinations()]
    assert [one for one in told if one["loss.name"] == "dpo"] == [
        {"loss.name": "dpo", "loss.beta": 0.1},
        {"loss.name": "dpo", "loss.beta": 0.2},
    ]
    assert len(told) == 2 + 4


def test_what_the_file_says_of_the_loss_goes_where_another_one_does_not_read_it(written):
    path = written({"grid": {"loss.name": ["dpo", "ipo"]}}, loss={"name": "dpo", "label_smoothing": 0.1, "beta": 0.2})
    dpo, ipo = (load_sweep(path).config(told, "x") for told in load_sweep(path).combinations())
    assert (dpo.loss.label_smoothing, ipo.loss.name) == (0.1, "ipo")


def test_every_trial_shares_one_store_where_none_is_wanted(written):
    sweep = load_sweep(written({"grid": {"loss.beta": [0.1, 0.3]}}, reference={"store": "off"}))
    assert {sweep.config(told, str(told)).reference.store for told in sweep.combinations()} == {
        "runs/my-sweep/reference"
    }


BAD = {
    "nothing": (None, r"nothing to sweep; name settings as sweep\.grid or sweep\.search, or with --grid"),
    "no values": ({"grid": None}, r"sweep\.grid: wanted settings with what is tried of each.*found null"),
    "no section": (3, r"sweep: wanted a section with grid or search, found 3"),
    "one trial": ({"grid": {"loss.beta": [0.1]}}, r"the grid has one trial"),
    "twice the same": ({"grid": {"loss.beta": [0.1, 0.1]}}, r"loss\.beta: 0\.1 is there twice"),
    "no list": ({"grid": {"loss.beta": 0.1}}, r"sweep\.grid: loss\.beta: wanted a list of values"),
    "an unknown key": ({"grid": {"loss.betta": [1, 2]}}, r"no setting 'loss\.betta'\. Did you mean 'loss\.beta'"),
    "its last part alone": ({"grid": {"beta": [1, 2]}}, r"no setting 'beta'\. Did you mean 'loss\.beta'"),
    "a section": ({"grid": {"training": [1, 2]}}, r"no setting 'training'"),
    "out of range": ({"grid": {"loss.beta": [0.1, -1]}}, r"trial .*loss\.beta: found -1"),
    "no number": ({"grid": {"loss.beta": [0.1, "x"]}}, r"loss\.beta: found 'x'"),
    "a range out of range": ({"search": {"adapter.rank": {"low": 0, "high": 4}}}, r"adapter\.rank: found 0"),
    "a range from above": ({"search": {"loss.beta": {"low": 1, "high": 0.1}}}, r"wanted low below high"),
    "a log of zero": ({"search": {"loss.beta": {"low": 0, "high": 0.1, "log": True}}}, r"above 0 where log is true"),
    "no range": ({"search": {"loss.beta": 3}}, r"wanted a range \{low: 0\.01, high: 1\} or a list"),
    "both": ({"search": {"loss.beta": [1, 2]}, "grid": {"loss.beta": [1, 2]}}, r"a grid or a search; take one"),
    "an unknown word": ({"gird": {}}, r"unknown key 'sweep\.gird'\. Did you mean 'grid'"),
    "how it is measured": ({"grid": {"evaluation.num_samples": [1, 2]}}, r"cannot be swept: trials are compared by"),
    "its folder": ({"grid": {"output.dir": ["a", "b"]}}, r"output\.dir cannot be swept: each trial has a folder"),
    "the split": ({"grid": {"data.heldout_share": [0.1, 0.2]}}, r"cannot be swept: .* the same held-out prompts"),
    "another model": ({"grid": {"model.name": ["a", "b"]}}, r"each model is its own reference"),
    "another reference": ({"grid": {"reference.model": ["a", "b"]}}, r"cannot be swept: KL and win rates against two"),
    "too many": ({"grid": {"training.seed": [*range(1001)]}}, r"more than 1000 trials"),
    "no such loss": ({"grid": {"loss.name": ["dpo", "dpoo"]}}, r"no such objective"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_swept_is_one_line_that_names_the_key(case, written):
    sweep, words = BAD[case]
    with pytest.raises(ConfigError, match=words) as caught:
        load_sweep(written(sweep))
    assert "\n" not in str(caught.value)


def test_stages_and_a_sweep_are_refused_together(written):
    path = written({"grid": {"loss.beta": [0.1, 0.3]}}, stages=[{"name": "sft", "loss": "sft"}])
    with pytest.raises(ConfigError, match="has stages, and a sweep is of one run"):
        load_sweep(path)
    with pytest.raises(ConfigError, match="has stages, and a sweep is of one run"):
        load_sweep(path, ["stages=[]"])
    with pytest.raises(ConfigError, match="has stages and a sweep"):
        load_stages(path)
    with pytest.raises(ConfigError, match="has stages, and a sweep is of one run"):
        load_sweep(written({"grid": {"loss.beta": [0.1, 0.3]}}), ["stages=[]"])


def test_only_sweep_takes_a_file_with_a_sweep_but_its_data_are_anybody_s(written):
    path = written({"grid": {"loss.beta": [0.1, 0.3]}})
    with pytest.raises(ConfigError, match="has a sweep, which only sweep takes; 'tiebreak sweep "):
        load_config(path)
    assert load_data(path).train == "bundled"


@pytest.mark.parametrize("told", ["loss.beta", "=1,2", "loss.beta="])
def test_a_grid_on_the_command_line_is_a_key_and_values(told, written):
    with pytest.raises(ConfigError, match=r"--grid .*: wanted KEY=VALUE,VALUE"):
        load_sweep(written(), (), [told])


def test_the_recipe_is_the_quickstart_with_a_leaner_evaluation_and_every_trial_of_it_is_safe():
    sweep, quickstart = load_sweep(RECIPE), load_config(tiebreak.QUICKSTART)
    trials = [sweep.config(told, "x") for told in sweep.combinations()]
    assert len(trials) == 4
    assert [warnings_of(one) for one in trials] == [[]] * 4
    assert sweep.config({"loss.beta": quickstart.loss.beta}) == sweep.base  # the default is among the trials
    for section in ("model", "adapter", "training", "loss", "gate"):
        assert getattr(sweep.base, section) == getattr(quickstart, section)
    assert sweep.base.evaluation.rule == quickstart.evaluation.rule
