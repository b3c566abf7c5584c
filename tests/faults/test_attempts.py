"""What earlier attempts leave behind: weights, prompts and files of theirs are never taken for those of a later one."""

from __future__ import annotations

import json

import pytest
from harness import NUM_STEPS, Case, write_pairs

from tiebreak.errors import EXIT_USAGE
from tiebreak.runs import Run
from tiny import unsealed

ODD = {
    "identity": [[1], "x", 3],
    "plan": [None, [1], {"token_budget": "x"}],
    "num_attempts": [None, "x"],
    "accepted": [None, 3],
    "identities": [None, 3],
}


def _prompts(case: Case) -> set[str]:
    return set(json.loads((case.run / "train_prompts.json").read_text())["prompt_ids"])


def test_weights_of_an_earlier_configuration_never_pass_for_those_of_a_later_one(case):
    assert case.train(fault="kill@generate:7").code < 0
    assert (case.run / "policy").exists()
    case.configure(training__epochs=4)
    assert case.train("--accept", "config", fault="kill@step:begin:3").code < 0
    assert not (case.run / "policy").exists()
    refused = case.train(command=("evaluate", "run"))
    assert "holds no trained policy" in refused.error
    ended = case.train()
    assert ended.code == 0, ended.err
    assert case.manifest["num_steps_done"] == 2 * NUM_STEPS
    assert [step for step, _ in case.losses()] == list(range(1, 2 * NUM_STEPS + 1))


def test_what_one_attempt_trained_on_the_next_does_not_measure_on(halted):
    halted.configure(data__heldout_share=0.7)
    ended = halted.train("--accept", "config", "--accept", "data", "--accept", "tokenizer")
    assert ended.code == EXIT_USAGE, ended.err
    assert "held-out prompts were trained on by an earlier attempt" in ended.error
    assert "--resume never" in ended.error


def test_a_prompt_that_was_trained_on_stays_one_when_the_data_shrink(halted):
    before = _prompts(halted)
    write_pairs(halted.folder / "pairs.jsonl", num_prompts=24)
    ended = halted.train("--accept", "data")
    assert ended.code == 0, ended.err
    assert _prompts(halted) == before


def test_fewer_steps_than_were_taken_are_refused(halted):
    halted.configure(training__epochs=1, training__pairs_per_step=8)
    ended = halted.train("--accept", "config")
    assert ended.code == EXIT_USAGE, ended.err
    assert "is of step 6 and this configuration has 3 steps" in ended.error


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ODD.items() for value in values])
def test_a_manifest_of_another_shape_is_one_line(halted, key, value):
    manifest = unsealed(Run(halted.run)).manifest | {key: value}
    (halted.run / "run.json").write_text(json.dumps(manifest))
    ended = halted.train()
    assert ended.code in (0, 1, EXIT_USAGE), ended.err
    assert "Traceback" not in ended.err
    if ended.code:
        assert ended.error


def test_hidden_files_of_the_user_stay(case):
    (case.run / ".conf.d").mkdir(parents=True)
    (case.run / ".conf.d" / "a").write_text("mine")
    (case.run / ".gitlab-ci.yml").write_text("mine")
    assert case.train(fault="kill@step:begin:8").code < 0
    assert case.train().code == 0
    assert (case.run / ".conf.d" / "a").read_text() == "mine"
    assert (case.run / ".gitlab-ci.yml").read_text() == "mine"


def test_something_that_is_no_checkpoint_does_not_get_in_the_way(halted):
    (halted.run / "checkpoints" / "step-00000003").write_text("5")
    (halted.run / "checkpoints" / "step-by-step.txt").write_text("mine")
    assert halted.train().code == 0


def test_nothing_is_set_aside_before_the_new_attempt_has_proven_possible(halted):
    halted.configure(data__train="nowhere.jsonl")
    ended = halted.train("--resume", "never")
    assert ended.code == EXIT_USAGE
    assert "nowhere.jsonl" in ended.error
    assert halted.run.exists()
    assert list(halted.folder.glob("run.unfinished*")) == []


def test_a_linked_run_folder_stays_a_link(halted):
    halted.run.rename(halted.folder / "disk")
    halted.run.symlink_to("disk")
    assert halted.train("--resume", "never", fault="kill@step:begin:2").code < 0
    assert halted.run.is_symlink()
    assert (halted.folder / "disk.unfinished-1" / "run.json").exists()
    assert (halted.folder / "disk" / "run.json").exists()


def test_the_folder_of_the_command_is_not_set_aside_beneath_it(halted):
    job = {"reference__store": str(halted.folder / "store")}
    halted.configure(output__dir=".", data__train=str(halted.folder / "pairs.jsonl"), **job)
    halted.settings["model"] |= {
        "name": str(halted.folder / "model"),
        "chat_template": str(halted.folder / "template.jinja"),
    }
    halted.configure()
    (halted.run / "cfg.yaml").write_text((halted.folder / "cfg.yaml").read_text())
    inside = Case(halted.run, halted.start_warm, halted.settings)
    ended = inside.train("--resume", "never")
    assert ended.code == EXIT_USAGE, ended.err
    assert "call it from another folder" in ended.error


def test_settings_that_move_no_weight_do_not_make_a_finished_run_another(finished, tmp_path):
    case = finished.copied(tmp_path / "case")
    words = ("--set", f"output.dir={case.run}", "--set", "reference.store=off")
    ended = case.train(*words)
    assert ended.code == 0, ended.err
    assert "already done" in ended.err
