"""A finished run of which one file is no longer what was written: whoever reads it says so, and changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import tiebreak
from tiebreak import faults
from tiebreak.cli.app import app
from tiebreak.errors import EXIT_USAGE, ConfigError, ExportError, NotPassing, RunError
from tiebreak.files import as_json, as_jsonl
from tiebreak.fingerprint import file_digest
from tiebreak.runs import Run
from tiebreak.verbs import train
from tiny import settings, unsealed

WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]

TRAINED = ["config.yaml", "run.json"]
MODEL = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json"]
MODEL += ["tokenizer_config.json"]
TRAINED += [f"{folder}/{name}" for folder in ("policy", "reference") for name in MODEL]
GIVEN = ["data.json", "audit.json", "dropped.jsonl", "train_prompts.json", "heldout_pairs.jsonl", "metrics.jsonl"]
GIVEN += ["judge.safetensors"]
MEASURED = ["evidence.jsonl", "samples.jsonl", "draws.jsonl", "judgements.jsonl", "tasks.jsonl", "measures.jsonl"]
MEASURED += ["evaluation.json", "diagnoses.json"]
SEALED = [*TRAINED, *GIVEN, *MEASURED]
MADE_OF_THESE = {"capability.json", "report.html", ".lock"}
"""What no verb reads."""


@pytest.fixture(scope="module")
def config(tiny_adapter, tmp_path_factory):
    """Settings of a run that makes every file that a run can have."""
    folder, draw = tmp_path_factory.mktemp("whole"), random.Random(0)
    rows = []
    for place in range(60):
        prompt, tail = (" ".join(draw.choices(WORDS, k=draw.randint(2, 6))) for _ in range(2))
        rows.append({"prompt": f"{prompt} {place}", "chosen": f"yes {tail}", "rejected": f"no {tail}"})
    rows.append({"prompt": "the same", "chosen": "yes", "rejected": "yes"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": "cats", "kind": "multiple_choice", "as": "text"}
    task["items"] = [{"question": f"{word} is", "choices": ["cat", "dog"], "answer": 0} for word in WORDS[:3]]
    (folder / "cats.json").write_text(json.dumps(task))
    return settings(
        tiny_adapter,
        data__train=str(folder / "pairs.jsonl"),
        data__heldout_share=0.45,
        data__max_dropped_share=0.5,
        training__epochs=1,
        training__pairs_per_step=10,
        training__checkpoint_steps=9,
        training__token_budget=512,
        evaluation__num_samples=3,
        evaluation__num_draws=1,
        evaluation__max_new_tokens=3,
        evaluation__probes=1,
        evaluation__tasks=[str(folder / "cats.json")],
        output__dir=str(folder / "run"),
        output__trackers=[],
    )


@pytest.fixture(scope="module")
def finished(config) -> Path:
    return train.train(config).path


@pytest.fixture
def run(finished, tmp_path) -> Run:
    return Run(shutil.copytree(finished, tmp_path / "run"))


def _flipped(place: str) -> Callable[[Path], object]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        where = {"first": 0, "middle": len(content) // 2, "last": -1}[place]
        content[where] ^= 0x01
        path.write_bytes(content)

    return flip


DAMAGE: dict[str, Callable[[Path], object]] = {
    "first byte flipped": _flipped("first"),
    "middle byte flipped": _flipped("middle"),
    "last byte flipped": _flipped("last"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "appended to": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
}


def _state(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def _verbs(run: Run, config, beside: Path) -> dict[str, tuple[list[str], Callable[[], object]]]:
    """What each verb reads of a finished run, and the verb."""
    asked = config.model_copy(update={"output": config.output.model_copy(update={"dir": str(run.path)})})
    path = str(run.path)
    return {
        "train": (SEALED, lambda: train.train(asked)),
        "evaluate": ([*TRAINED, *GIVEN], lambda: tiebreak.evaluate(path, quiet=True)),
        "evaluate --checkpoints": ([*TRAINED, *GIVEN], lambda: tiebreak.evaluate(path, checkpoints=True, quiet=True)),
        "gate": (["config.yaml", "run.json", "measures.jsonl", "evaluation.json"], lambda: tiebreak.gate(path)),
        "gate --record": (
            ["config.yaml", "run.json", *GIVEN, *MEASURED],
            lambda: tiebreak.gate(path, record=True),
        ),
        "report": (["config.yaml", "run.json", *GIVEN, *MEASURED], lambda: tiebreak.report(path)),
        "export": (SEALED, lambda: tiebreak.export(path, beside / "out", quiet=True)),
        "chat": (TRAINED, lambda: tiebreak.chat(path)),
        "promote": (SEALED, lambda: tiebreak.promote(path, beside / "models", quiet=True)),
        "judge": (["run.json", "samples.jsonl"], lambda: tiebreak.judge(path, "rule:repetition", quiet=True)),
    }


def test_every_file_of_a_finished_run_that_is_read_is_among_those_that_are_damaged_here(finished):
    beside = {"checkpoints", "evaluations"}  # each with manifests of its own
    found = {name for name in _state(finished) if name.partition("/")[0] not in beside}
    assert found - MADE_OF_THESE == set(SEALED)
    sealed = Run(finished).manifest["files"]
    assert set(sealed) == set(SEALED) - {"run.json"}
    assert {name for name in SEALED if not (finished / name).stat().st_size} == set()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", SEALED)
def test_whoever_reads_a_damaged_file_names_it_and_changes_nothing(run, config, tmp_path, name, damage):
    DAMAGE[damage](run.path / name)
    before = _state(run.path)
    for verb, (reads, call) in _verbs(run, config, tmp_path).items():
        if name not in reads or (verb in ("train", "judge") and (name, damage) == ("run.json", "missing")):
            continue  # a folder without run.json is no run: to train it is taken, to judge a folder of data
        with pytest.raises(RunError) as caught:
            call()
        message = str(caught.value)
        assert name in message, (verb, message)
        assert caught.value.exit_code == EXIT_USAGE
        assert "\n" not in message
    assert _state(run.path) == before
    assert not (tmp_path / "out").exists()


def test_a_run_that_is_whole_is_used_by_all_of_them(run, config, tmp_path):
    for verb, (_, call) in _verbs(run, config, tmp_path).items():
        try:
            call()
        except NotPassing:
            assert verb == "promote"
    assert (tmp_path / "out" / "model.safetensors").exists()
    run.verify()


def test_what_a_verb_does_not_read_does_not_keep_it_from_working(run):
    for name in (*GIVEN, *MEASURED):
        DAMAGE["emptied"](run.path / name)
    assert tiebreak.chat(run, max_new_tokens=1).ask("the cat") is not None


def test_an_evaluation_that_was_damaged_is_made_anew_by_the_command_that_is_named(run):
    whole = {name: value for name, value in _state(run.path).items() if name in MEASURED}
    for name, damage in zip(MEASURED, cycle(DAMAGE.values()), strict=False):
        damage(run.path / name)
    with pytest.raises(RunError, match=r"'tiebreak evaluate .*' makes it anew"):
        tiebreak.report(run)
    tiebreak.evaluate(run, quiet=True)
    run.verify()
    assert {name: value for name, value in _state(run.path).items() if name in MEASURED} == whole


@pytest.mark.parametrize("name", ["policy/generation_config.json", "reference/more.txt", "policy/deep/er.json"])
def test_a_file_that_the_run_did_not_write_beside_its_weights_is_named(run, name):
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_text("{}")
    for call in (tiebreak.chat, lambda run: tiebreak.evaluate(run, quiet=True)):
        with pytest.raises(RunError, match=rf"{name}: was not written by the run"):
            call(run)


def test_another_run_that_is_measured_against_has_to_be_whole_too(run, finished):
    _flipped("middle")(run.policy_folder / "adapter_model.safetensors")
    with pytest.raises(RunError, match=r"adapter_model\.safetensors: is not what was written"):
        tiebreak.evaluate(finished, against=str(run.path), quiet=True)


def test_the_attributes_of_a_run_are_proven_as_well(run):
    for name, attribute in {"samples.jsonl": "samples", "metrics.jsonl": "metrics", "data.json": "data"}.items():
        _flipped("middle")(run.path / name)
        with pytest.raises(RunError, match=name):
            getattr(run, attribute)


def test_the_command_line_ends_in_one_line_and_with_the_code_of_usage(run):
    _flipped("last")(run.evidence_file)
    done = CliRunner().invoke(app, ["report", str(run.path)])
    assert (done.exception.exit_code, str(done.exception).count("\n")) == (EXIT_USAGE, 0)


@pytest.mark.parametrize("verb", ["config", "plan"])
def test_settings_of_a_run_are_shown_and_planned_by_only_as_the_run_wrote_them(verb, run):
    assert CliRunner().invoke(app, [verb, str(run.config_file), "--quiet"]).exception is None
    text = run.config_file.read_text()
    run.config_file.write_text(text.replace("seed: 0", "seed: 1", 1))
    assert run.config_file.read_text() != text
    done = CliRunner().invoke(app, [verb, str(run.config_file), "--quiet"])
    assert "config.yaml: is not what was written" in str(done.exception)


# ------------------------------------------------------------------------------------------------ changed on purpose


def _margin(run: Run, value: float, **more) -> None:
    told = yaml.safe_load(run.config_file.read_text())
    told["gate"]["rules"]["repetition"]["margin"] = value
    told["training"] |= more
    run.config_file.write_text(yaml.safe_dump(told))


def test_rules_that_were_changed_in_a_run_decide_once_that_is_said_to_be_meant(run):
    _margin(run, 0.123)
    for call in (tiebreak.gate, tiebreak.report, tiebreak.chat):
        with pytest.raises(RunError, match=r"config\.yaml: .*'tiebreak gate .* --record --accept config' decide by"):
            call(run)
    done = CliRunner().invoke(app, ["gate", str(run.path), "--record", "--accept", "config", "--json"])
    assert done.exit_code in (0, 3, 4), done.exception
    assert run.config.gate.rules["repetition"].margin == 0.123
    run.verify()
    assert tiebreak.gate(run).verdict == run.verdict


def test_settings_that_weights_depend_on_are_not_accepted_afterwards(run):
    _margin(run, 0.123, learning_rate=0.5)
    before = _state(run.path)
    with pytest.raises(RunError, match="settings that weights depend on were changed"):
        tiebreak.gate(run, record=True, accept=["config"])
    assert _state(run.path) == before


@pytest.mark.parametrize("how", [{"accept": ["config"]}, {"accept": ["data"], "record": True}])
def test_only_the_configuration_is_accepted_and_only_to_be_recorded(run, how):
    with pytest.raises(ConfigError, match="gate --accept: wanted config, with --record"):
        tiebreak.gate(run, **how)


# ------------------------------------------------------------------------------------------------ runs of before


def test_a_run_from_before_seals_is_used_and_told_to_be_unproven(run, tmp_path, capsys):
    unsealed(run)
    DAMAGE["appended to"](run.dropped_file)
    tiebreak.report(run)
    tiebreak.export(run, tmp_path / "out")
    told = " ".join(capsys.readouterr().err.split())
    assert "of a version that kept no digests of its files" in told
    assert "keeps nothing of what its training saw" in told
    tiebreak.evaluate(run, quiet=True)
    assert not run.is_sealed


@pytest.mark.parametrize("line", ["{", '{"prompt": 1}', '{"prompt": "a", "chosen": "b"}', "[]"])
def test_a_held_out_line_of_such_a_run_that_is_no_pair_is_not_dropped_unsaid(run, tmp_path, line):
    unsealed(run)
    first, _, *rest = run.heldout_pairs_file.read_text().splitlines(keepends=True)
    run.heldout_pairs_file.write_text("".join([first, line + "\n", *rest]))
    before = _state(run.path)
    for call in (tiebreak.evaluate, lambda run, quiet: tiebreak.export(run, tmp_path / "out", quiet=quiet)):
        with pytest.raises(RunError, match=r"heldout_pairs\.jsonl: 1 of \d+ lines are not as a run writes them"):
            call(run, quiet=True)
    assert _state(run.path) == before


# ------------------------------------------------------------------------------------------------ killed in between

PLACES = ["keep:file", "keep:file:4", "keep:file:7", "keep:seals"]


@pytest.mark.parametrize("place", PLACES)
def test_an_evaluation_that_ends_while_its_files_are_written_is_recovered_by_the_same_command(run, place):
    """No handler runs in between, so what is left is what a kill leaves."""
    other = [{**row, "policy_chosen_logps": 0.5} for row in run.rows(run.evidence_file)]
    changed = {run.evaluation_file: as_json(run.evaluation | {"verdict": "fail"})}
    run.keep({run.evidence_file: as_jsonl(other), run.samples_file: b"", run.measures_file: b"", **changed})
    faults.arm(f"full@{place}")
    try:
        with pytest.raises(OSError, match="No space left"):
            tiebreak.evaluate(run, quiet=True)
    finally:
        faults.arm(None)
    if place in ("keep:file:4", "keep:file:7"):
        with pytest.raises(RunError, match=r"was cut off while its evaluation was written; 'tiebreak evaluate .*' wr"):
            tiebreak.report(run)
    else:
        run.verify()  # all old, or all new
    assert tiebreak.chat(run)
    tiebreak.evaluate(run, quiet=True)
    run.verify()
    assert run.manifest["being_written"] == {}
    assert len(run.samples) == 3


@pytest.mark.parametrize("place", ["keep:file", "keep:seals"])
def test_a_decision_that_is_not_all_recorded_is_recovered_by_the_same_command(run, place):
    faults.arm(f"full@{place}")
    try:
        with pytest.raises(OSError, match="No space left"):
            tiebreak.gate(run, {"gate.overrides.repetition": "few"}, record=True)
    finally:
        faults.arm(None)
    run.verify()
    tiebreak.gate(run, {"gate.overrides.repetition": "few"}, record=True)
    run.verify()
    assert run.manifest["overridden"] == run.evaluation["overridden"]


# ------------------------------------------------------------------------------------------------ what training saw


def test_an_export_is_held_against_what_training_saw(run, tmp_path):
    seen = run.manifest["trained_logps"]
    assert tiebreak.export(run, tmp_path / "out", quiet=True).num_checked_pairs == len(seen["pairs"]) == 8
    first = next(iter(seen["pairs"]))
    run.update_manifest(trained_logps=seen | {"pairs": seen["pairs"] | {first: [-1.0, -2.0]}})
    with pytest.raises(ExportError, match=r"its policy, loaded, differs by .* nats from what its training saw"):
        tiebreak.export(run, tmp_path / "other", quiet=True)
    assert not (tmp_path / "other").exists()
