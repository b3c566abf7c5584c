"""The verb and the command gate, on runs whose measures are written here."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import tiebreak
from decisions import NUM, measured, rows_of
from tiebreak.cli.app import app
from tiebreak.config import dump_config
from tiebreak.errors import ConfigError, RunError
from tiebreak.files import write_json, write_jsonl
from tiebreak.runs import Run
from written_runs import row_of, written_run


def _run(tmp_path, won, **changed):
    """A run that says no more than what the gate reads."""
    run = Run(tmp_path / "run")
    run.policy_folder.mkdir(parents=True)
    run.config_file.write_text("training: {seed: 3}\n")
    write_json(run.manifest_file, {"status": "done"})
    write_json(run.evaluation_file, {"verdict": "inconclusive", "told": ["a fact from training"]})
    rows = rows_of(won) | changed
    write_jsonl(run.measures_file, (row.as_dict() for row in rows.values() if row))
    return run


def _command(*words):
    return CliRunner().invoke(app, ["gate", *map(str, words)], env={"COLUMNS": "300"})


@pytest.mark.parametrize(("won", "verdict", "code"), [(80, "pass", 0), (20, "fail", 3), (55, "inconclusive", 4)])
def test_the_exit_code_is_the_verdict_s(tmp_path, won, verdict, code):
    run = _run(tmp_path, won)
    done = _command(run.path)
    assert (done.exit_code, tiebreak.gate(run).verdict) == (code, verdict)
    assert verdict.upper() in done.output
    assert "a fact from training" in done.output
    found = json.loads(_command(run.path, "--json").output)
    assert found["verdict"] == verdict
    assert {check["name"] for check in found["checks"]} >= {"accuracy", "moved", "preferred", "repetition"}
    optional = ["at_equal_length", "distinct", "kl", "neutral", "capability", "tasks", "human_win_rate"]
    assert found["unmeasured"] == optional
    assert run.evaluation["verdict"] == "inconclusive"  # nothing was written


def test_other_rules_give_another_verdict_and_settings_of_other_sections_are_refused(tmp_path):
    run = _run(tmp_path, 80)
    assert _command(run.path, "--set", "gate.rules.accuracy.value=1.0").exit_code == 3
    assert tiebreak.gate(run, {"gate.min_prompts": 101}).verdict == "inconclusive"
    for key in ("training.seed", "rules.accuracy.value"):
        with pytest.raises(ConfigError, match="only settings of the gate"):
            tiebreak.gate(run, [f"{key}=1"])
    with pytest.raises(ConfigError, match="Did you mean 'accuracy'"):
        tiebreak.gate(run, ["gate.rules.mine={measure: acuracy, kind: at_least, value: 0.5}"])


def test_what_no_run_measured_is_no_verdict(tmp_path):
    run = _run(tmp_path, 80, **{"answers/preferred": None})
    found = tiebreak.gate(run)
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("no rule or judge says whether answers got better")
    run.measures_file.unlink()
    with pytest.raises(RunError, match=r"holds no measures.jsonl; 'tiebreak evaluate .*' makes it"):
        tiebreak.gate(run)


def test_a_judge_that_was_not_heard_is_the_reason_also_when_it_is_decided_again(tmp_path):
    run = _run(tmp_path, 80, **{"answers/preferred": None})
    fact = "server:big is not heard: max_calls 5 is reached"
    told = {"verdict": "inconclusive", "told": [fact]}
    write_json(run.evaluation_file, told | {"judge": {"by": "server:big", "refusal": "max_calls 5 is reached"}})
    found = tiebreak.gate(run)
    assert found.reason.startswith(fact)
    assert found.reason.count("not heard") == 1


def test_a_note_of_before_is_called_weak_evidence_once(tmp_path):
    weak = replace(rows_of(80)["answers/preferred"], weak=True, note="weak evidence: the data's own judge")
    assert tiebreak.gate(_run(tmp_path, 80, **{"answers/preferred": weak})).reason.count("weak evidence") == 1


@pytest.mark.parametrize("command", ["gate", "report", "promote", "chat", "export", "evaluate"])
def test_the_folder_of_an_evaluation_says_what_it_is(tmp_path, command):
    run = _run(tmp_path, 80)
    beside = Run(run.evaluations_folder / "other-12345678")
    beside.path.mkdir(parents=True)
    write_json(beside.manifest_file, {})
    write_json(beside.evaluation_file, {"verdict": "pass"})
    words = {"export": ["--out", str(tmp_path / "out")], "chat": ["--prompt", "a"]}.get(command, [])
    done = CliRunner().invoke(app, [command, str(beside.path), *words])
    assert isinstance(done.exception, RunError)
    assert f"is no run, but what one evaluation of {run.path} measured" in str(done.exception)
    assert "samples.jsonl --judge KIND:NAME' reads its answers" in str(done.exception)


def test_measures_that_are_not_as_a_run_writes_them_are_one_line(tmp_path):
    run = _run(tmp_path, 80)
    good = measured("accuracy", 1.0).as_dict()
    for bad in (
        {},
        good | {"after": []},
        good | {"after": ["x"] * NUM},
        good | {"better": "?"},
        good | {"after": [7] * NUM},
    ):
        write_jsonl(run.measures_file, [bad])
        with pytest.raises(RunError, match="not as a run writes them"):
            tiebreak.gate(run)


def test_a_value_that_is_no_number_fails_the_run_from_the_disk_too(tmp_path):
    run = _run(tmp_path, 80, chosen_logps=measured("chosen_logps", [float("nan")] + [-2.0] * (NUM - 1), -2.0))
    found = tiebreak.gate(run)
    assert found.verdict == "fail"
    assert "Log-probability of chosen, per token: 1 of 100 values are not finite" in found.reason


def test_the_plan_says_how_many_pairs_a_gain_needs():
    found = json.loads(_command("--plan", "--json").output)["pairs_needed"]
    by_gain = {(row["gain"], row["power"]): (row["num_pairs"], row["num_pairs_judge"]) for row in found}
    assert len(by_gain) == 8
    assert (by_gain[0.02, 0.8], by_gain[0.05, 0.8]) == ((4984, 5189), (820, 851))
    shown = _command("--plan")
    assert shown.exit_code == 0
    assert "4,984" in shown.output
    assert "27,344" in shown.output


@pytest.mark.parametrize("words", [["--set", "gate.min_prompts=5"], ["--record"], ["--accept", "config"]], ids=str)
def test_a_plan_refuses_what_it_would_not_read(words):
    error = _command("--plan", *words).exception
    assert str(error) == f"gate: --plan reads no run and no setting; leave out {words[0]}"


def test_the_gate_wants_a_run_or_its_plan(tmp_path):
    for words in ([], [tmp_path, "--plan"]):
        assert isinstance(_command(*words).exception, ConfigError)


# ------------------------------------------------------------------------------------------------- recorded overrides


REASON = "poems repeat"


def _looping(tmp_path, **settings):
    run = written_run(
        tmp_path,
        *(
            row
            for key, row in rows_of(NUM).items()
            if key not in ("answers/repetition", "accuracy", "margin", "logratio_gap")
        ),
        row_of("answers/repetition", 0.1, 0.9),
        **settings,
    )
    run.policy_folder.mkdir()
    return run


def test_a_recorded_override_counts_in_every_verdict_after_it(tmp_path):
    run = _looping(tmp_path)
    assert tiebreak.gate(run).verdict == "fail"
    assert _command(run.path, "--set", f"gate.overrides.repetition={REASON}", "--record").exit_code == 0
    plain = _command(run.path)
    assert plain.exit_code == 0
    assert f"repetition is overridden ({REASON})" in plain.output
    for record in (False, True):
        again = tiebreak.gate(run, record=record)
        assert (again.verdict, again.overridden) == ("pass", {"repetition": REASON})
        assert (run.verdict, run.evaluation["overridden"]) == ("pass", {"repetition": REASON})
    # Another one comes beside it, and a new reason takes the place of the old one.
    assert tiebreak.gate(run, ["gate.overrides.preferred=x", "gate.overrides.repetition=new"], record=True).overridden
    assert tiebreak.gate(run).overridden == {"repetition": "new"}


def test_recorded_overrides_are_dropped_by_name_and_that_is_said(tmp_path):
    run = _looping(tmp_path)
    tiebreak.gate(run, [f"gate.overrides.repetition={REASON}"], record=True)
    looked = _command(run.path, "--set", "gate.overrides={}")
    assert looked.exit_code == 3
    assert f"no longer overridden: repetition ({REASON})" in looked.output
    assert tiebreak.gate(run).verdict == run.verdict == "pass"  # nothing was written
    assert _command(run.path, "--set", "gate.overrides={}", "--record").exit_code == 3
    assert tiebreak.gate(run).verdict == run.verdict == "fail"
    assert "overridden" not in tiebreak.gate(run).reason


def test_overrides_of_the_configuration_are_dropped_there(tmp_path):
    run = _looping(tmp_path, **{"gate.overrides": {"repetition": REASON}})
    assert tiebreak.gate(run, {"gate.overrides": {}}).verdict == "fail"
    with pytest.raises(ConfigError, match=r"repetition stands in .*config\.yaml; take it out there"):
        tiebreak.gate(run, {"gate.overrides": {}}, record=True)
    tiebreak.gate(run, record=True)
    assert run.evaluation["recorded_overrides"] == {}
    write_config = run.config.model_copy(update={"gate": run.config.gate.model_copy(update={"overrides": {}})})
    run.config_file.write_text(dump_config(write_config))
    assert tiebreak.gate(run).verdict == "fail"  # it was never recorded beside the configuration


def test_a_run_of_before_says_its_overrides_in_its_verdict_alone(tmp_path):
    run = _looping(tmp_path)
    told = {key: value for key, value in run.evaluation.items() if key != "recorded_overrides"}
    write_json(run.evaluation_file, told | {"verdict": "pass", "overridden": {"repetition": REASON, "gone": "x"}})
    assert tiebreak.gate(run).overridden == {"repetition": REASON}
