"""What changed between the start and the resumption: refused by name, unless accepted by name, and then recorded."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from harness import NUM_STEPS, Case, assert_nothing_hidden, assert_nothing_partial, assert_resumes, write_pairs
from safetensors.torch import load_file, save_file

from tiebreak.errors import EXIT_USAGE


def _other_rate(case: Case) -> None:
    case.configure(training__learning_rate=1e-3)


def _more_pairs(case: Case) -> None:
    write_pairs(case.folder / "pairs.jsonl", num_prompts=36)


def _another_word(case: Case) -> None:
    path = case.folder / "pairs.jsonl"
    path.write_text(path.read_text().replace("yes the", "yes my", 1))


def _other_template(case: Case) -> None:
    path = case.folder / "template.jinja"
    path.write_text("{{ '<|im_start|>system be kind<|im_end|>' }}" + path.read_text())


def _other_weights(case: Case) -> None:
    path = case.folder / "model" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


DRIFT: dict[str, tuple[str, Callable[[Case], None]]] = {
    "a setting": ("config", _other_rate),
    "more pairs": ("data", _more_pairs),
    "a word in a pair": ("data", _another_word),
    "the template": ("template", _other_template),
    "the weights of the model": ("model", _other_weights),
}


@pytest.mark.parametrize(("part", "change"), DRIFT.values(), ids=DRIFT)
def test_a_change_is_refused_by_name_and_nothing_is_touched(halted, part, change):
    change(halted)
    before = {path: path.read_bytes() for path in sorted(halted.run.rglob("*")) if path.is_file()}
    ended = halted.train()
    assert ended.code == EXIT_USAGE, ended.err
    assert f"--accept {part}" in ended.error
    assert "--resume never" in ended.error
    after = {path: path.read_bytes() for path in sorted(halted.run.rglob("*")) if path.is_file()}
    assert {path for path in before if before[path] != after.get(path) and path.name != ".lock"} == set()
    assert set(after) == set(before)


@pytest.mark.parametrize(("part", "change"), DRIFT.values(), ids=DRIFT)
def test_a_change_that_is_accepted_by_name_goes_on_and_is_recorded(halted, part, change):
    change(halted)
    ended = halted.train("--accept", part)
    assert ended.code == 0, ended.err
    assert "resuming after step 6" in ended.err
    assert part in json.dumps(halted.manifest["accepted"])
    assert halted.manifest["status"] == "done"
    assert_nothing_partial(halted)
    assert_nothing_hidden(halted)


def test_the_setting_that_changed_is_named(halted):
    _other_rate(halted)
    assert "training.learning_rate" in halted.train().error


def test_accepting_one_part_does_not_accept_another(halted):
    _other_rate(halted)
    _another_word(halted)
    ended = halted.train("--accept", "config")
    assert ended.code == EXIT_USAGE
    assert "--accept data" in ended.error
    assert "--accept config" not in ended.error


def test_all_that_changed_is_named_at_once(halted):
    _other_rate(halted)
    _another_word(halted)
    _other_template(halted)
    error = halted.train().error
    assert all(f"--accept {part}" in error for part in ("config", "data", "template"))


def test_what_is_accepted_is_of_no_effect_where_nothing_changed(halted, undisturbed):
    assert_resumes(halted, undisturbed, "--accept", "config", "--accept", "data")
    assert halted.manifest["accepted"] == []


def test_an_unknown_part_is_refused_with_the_nearest_name(halted):
    ended = halted.train("--accept", "modle")
    assert ended.code == EXIT_USAGE
    assert "Did you mean 'model'?" in ended.error


def test_settings_that_move_no_weight_may_change(halted, undisturbed):
    halted.configure(training__checkpoint_steps=5, training__keep_checkpoints=3)
    again = halted.train()
    assert again.code == 0, again.err
    assert halted.weights() == undisturbed["weights"]
    assert halted.rows() == undisturbed["rows"]


def test_a_change_is_accepted_once_and_for_the_rest_of_the_run(halted):
    _other_rate(halted)
    ended = halted.train("--accept", "config", fault="kill@step:end:3")
    assert ended.code == -9, ended.err
    ended = halted.train()
    assert ended.code == 0, ended.err
    assert [step for step, _ in halted.losses()] == list(range(1, NUM_STEPS + 1))
