"""Promotion, rollback and history: what comes in, what is current, and what a damaged registry says."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import tiebreak
from decisions import NUM, decided
from tiebreak.cli.app import app
from tiebreak.config import dump_config, load_config
from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.errors import ConfigError, NotPassing, RegistryError, RunError
from tiebreak.files import PART, as_json, as_jsonl, read_jsonl, write_json
from tiebreak.fingerprint import file_digest
from tiebreak.folders import locked
from tiebreak.progress import Noting, Silent
from tiebreak.registry import LINEAGE, Registry
from tiebreak.runs import Run
from tiebreak.training.trained import load_trained
from tiebreak.verbs import evaluate, train
from tiebreak.verbs import promote as promoting
from tiny import drawn_pairs, settings, unsealed


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A finished run of the tiny model."""
    folder = tmp_path_factory.mktemp("promoted")
    return _trained(tiny_model, folder, training__learning_rate=5e-3, evaluation__probes=2)


def _trained(model: Path, folder: Path, **more) -> Run:
    config = settings(
        model,
        data__train=drawn_pairs(folder),
        data__heldout_share=0.3,
        evaluation__num_samples=2,
        evaluation__max_new_tokens=4,
        evaluation__neutral_probe=False,
        output__dir=str(folder / "run"),
        output__trackers=[],
        **more,
    )
    return train.train(config)


@pytest.fixture
def run(trained, tmp_path) -> Run:
    """A run that passes."""
    return decided(Run(shutil.copytree(trained.path, tmp_path / "run")))


@pytest.fixture(scope="module")
def _two(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("registry")
    run = decided(Run(shutil.copytree(trained.path, folder / "run")))
    _promoted(run, folder / "models", name="one")
    _promoted(run, folder / "models", name="two", form="adapter")
    return folder / "models"


@pytest.fixture
def two(_two, models) -> Path:
    """A registry of two versions."""
    return shutil.copytree(_two, models, symlinks=True)


@pytest.fixture
def models(tmp_path) -> Path:
    return tmp_path / "models"


def _other(run: Run, path: Path) -> Run:
    """The same run trained a little further, and measured."""
    other = unsealed(Run(shutil.copytree(run.path, path)))
    file = other.policy_folder / "adapter_model.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    tiebreak.evaluate(other, quiet=True)
    return decided(other)


@pytest.fixture(scope="module")
def with_tools(tiny_model, tokenizer, tmp_path_factory) -> Run:
    """A finished run of the tiny model, whose tokenizer has a template for tools as well and ends a turn by its own."""
    folder = tmp_path_factory.mktemp("tools")
    shutil.copytree(tiny_model, folder / "model")
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": tokenizer.chat_template, "tool_use": f"{tokenizer.chat_template} "}
    several.save_pretrained(folder / "model")
    generation = folder / "model" / "generation_config.json"
    # As many base models advise: a temperature, and nothing that says to draw.
    write_json(generation, {"eos_token_id": tokenizer.pad_token_id, "temperature": 0.7, "top_p": 0.8})
    return decided(_trained(folder / "model", folder))


def _state(folder: Path) -> dict[str, str]:
    """Everything that is there, but for the lock."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else file_digest(path)
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != ".lock"
    }


def _command(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})


def _promoted(run, models, **how):
    return tiebreak.promote(run, models, quiet=True, **how)


# ------------------------------------------------------------------------------------------------------ what comes in


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_a_model_with_several_templates_comes_in_whole_and_ends_where_it_was_measured_to_end(with_tools, models, form):
    made = _promoted(with_tools, models, form=form)
    assert _promoted(with_tools, models, form=form).already
    folder = models / "versions" / made.version
    assert AutoTokenizer.from_pretrained(folder).chat_template.keys() == {"default", "tool_use"}
    digests = json.loads((folder / "tiebreak.json").read_text())["files_sha256"]
    assert "additional_chat_templates/tool_use.jinja" in digests
    if form == "merged":
        ends = load_trained(with_tools, Silent()).policy.eos_ids
        assert len(ends) == 2
        assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [*ends]
    tampered = folder / "additional_chat_templates" / "tool_use.jinja"
    tampered.write_text("another")
    with pytest.raises(RegistryError, match=r"tool_use\.jinja: is not what was promoted"):
        _promoted(with_tools, models, form=form)


def test_a_run_that_passes_becomes_current_with_its_lineage(run, models):
    made = _promoted(run, models)
    folder = models / "versions" / "0001-run"
    assert (made.version, made.replaced, made.verdict, made.already) == ("0001-run", None, "pass", False)
    assert str((models / "current").readlink()) == "versions/0001-run"
    assert json.loads((models / "current.json").read_text())["version"] == "0001-run"
    AutoModelForCausalLM.from_pretrained(models / "current")
    lineage = json.loads((folder / LINEAGE).read_text())
    files = {path.name for path in folder.iterdir()} - {LINEAGE}
    assert lineage["files_sha256"] == {name: file_digest(folder / name) for name in files}
    assert {"model.safetensors", "README.md", "tokenizer.json", "tiebreak.json"} <= files
    for key in ("data_fingerprint", "config_fingerprint", "reference", "model"):
        assert lineage[key] == run.manifest[key]
    assert lineage["base_model"] == run.manifest["base_identity"]
    assert lineage["run"] == "run"
    assert lineage["decision"]["verdict"] == "pass"
    assert {check["name"] for check in lineage["decision"]["checks"]} >= {"accuracy", "preferred", "repetition"}
    assert lineage["evidence_sha256"]["measures.jsonl"] == file_digest(run.measures_file)
    assert lineage["versions"]["promoted"]["tiebreak"] == tiebreak.__version__
    assert lineage["seed"] == run.config.training.seed
    assert str(run.path.parent) not in (folder / LINEAGE).read_text()
    [event] = tiebreak.history(models).events
    assert event.lineage_sha256 == file_digest(folder / LINEAGE)


def test_a_registry_takes_the_adapter_and_a_name_of_its_own(run, models):
    made = _promoted(run, models, name="bot.2", form="adapter")
    assert made.version == "0001-bot.2"
    assert (models / "current" / "adapter_model.safetensors").exists()
    for name in ("", "..", "a/b", "-x", "a b", "x" * 61, "a\n", "é"):
        with pytest.raises(ConfigError, match="--name"):
            _promoted(run, models, name=name)


@pytest.mark.parametrize(("won", "verdict", "code"), [(10, "fail", 3), (55, "inconclusive", 4)])
def test_a_run_that_does_not_pass_stays_outside(run, models, won, verdict, code):
    decided(run, won)
    before = _state(run.path)
    with pytest.raises(NotPassing, match=rf"its verdict is {verdict}: .*--override preferred=REASON"):
        _promoted(run, models)
    assert not models.exists()
    assert _state(run.path) == before
    with pytest.raises(NotPassing):
        _promoted(run, models, overrides={"longer": "another rule"})
    done = _command("promote", run.path, "--to", models, "-q")
    assert done.exception.exit_code == code


def test_a_named_override_lets_a_run_in_and_is_shown_everywhere(run, models):
    decided(run, 10)
    reason = "people | read them <all>"
    done = _command("promote", run.path, "--to", models, "-q", "--override", f"preferred={reason}")
    assert done.exit_code == 0, done.exception
    assert f"overridden: preferred ({reason})" in done.output
    assert run.manifest["overridden"] == run.evaluation["overridden"] == {"preferred": reason}
    assert run.verdict == "pass"
    assert "people | read them &lt;all&gt;" in run.report_file.read_text()
    assert json.loads((models / "current" / LINEAGE).read_text())["decision"]["overridden"] == {"preferred": reason}
    assert r"people \| read them &lt;all&gt;" in (models / "current" / "README.md").read_text()
    [event] = tiebreak.history(models).events
    assert event.overridden == {"preferred": reason}
    shown = _command("history", "--to", models).output
    assert "pass, 1 overridden" in shown
    assert f"0001-run: preferred is overridden ({reason})" in shown


def test_what_the_run_s_own_verdict_has_overridden_counts(run, models):
    decided(run, 10)
    tiebreak.gate(run, ["gate.overrides.preferred=read by hand"], record=True)
    assert _promoted(run, models).overridden == {"preferred": "read by hand"}


def test_rules_that_are_gone_or_looser_are_shown_wherever_a_pass_is(run, models):
    file = run.config_file
    rules = {name: None for name in DEFAULT_RULES if name not in ("preferred", "repetition")}
    gate = {"rules": rules | {"repetition": {"margin": 0.5}}}
    file.write_text(dump_config(load_config(file, {f"gate.{key}": value for key, value in gate.items()})))
    tiebreak.gate(run, record=True, accept=["config"])
    done = _command("promote", run.path, "--to", models, "-q")
    assert done.exit_code == 0, done.exception
    [event] = tiebreak.history(models).events
    assert event.loosened == dict.fromkeys(rules, "taken away") | {"repetition": "margin 0.5 instead of 0.05"}
    assert event.loosened == run.evaluation["loosened"]
    assert json.loads((models / "current" / LINEAGE).read_text())["decision"]["loosened"] == event.loosened
    shown, card = _command("history", "--to", models).output, (models / "current" / "README.md").read_text()
    assert f"pass, {len(event.loosened)} gone or looser" in shown
    for text in (shown, card.replace("\\_", "_"), done.output, run.report_file.read_text()):
        assert "default rules taken away: accuracy, moved, at_equal_length" in text.replace("Default", "default")
        assert "repetition is looser than by default (margin 0.5 instead of 0.05)" in text
    assert "| distinct | less than the default rule asks | taken away |" in card


def test_a_history_of_before_says_nothing_of_looser_rules_and_is_whole(two):
    lines, before = [], "0" * 64
    for line in (two / "history.jsonl").read_text().splitlines():
        told = {key: value for key, value in json.loads(line).items() if key != "loosened"}
        lines.append(json.dumps(told | {"line_before_sha256": before}))
        before = hashlib.sha256(lines[-1].encode()).hexdigest()
    (two / "history.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (two / "current.json").unlink()
    assert [event.loosened for event in tiebreak.history(two).events] == [{}, {}]
    assert tiebreak.rollback(two, quiet=True).version == "0001-one"
    assert len(tiebreak.history(two).events) == 3


def test_measuring_anew_drops_what_was_recorded_and_says_so(run, models):
    decided(run, 10)
    _promoted(run, models, overrides={"preferred": "read by hand"})
    heard = Noting(Silent())
    evaluate.evaluate(run, heard)
    assert any("counts again: preferred (read by hand)" in text for text in heard.warnings)
    assert run.evaluation["recorded_overrides"] == run.evaluation["overridden"] == {}


def test_an_override_wants_a_rule_of_the_gate_and_a_reason(run, models):
    for overrides, told in (
        ({"prefered": "x"}, "no such rule. Did you mean 'preferred'"),
        ({"preferred": " "}, "the reason why"),
        ({"preferred": "\udce9"}, "the reason why"),
    ):
        with pytest.raises(ConfigError, match=told):
            _promoted(run, models, overrides=overrides)
    assert isinstance(_command("promote", run.path, "--to", models, "--override", "preferred").exception, ConfigError)
    assert not models.exists()


def test_a_value_that_is_no_number_cannot_be_overridden(run, models):
    decided(run, chosen_logps=([float("nan")] + [-2.0] * (NUM - 1), -2.0))
    with pytest.raises(NotPassing, match="not finite"):
        _promoted(run, models, overrides=dict.fromkeys(DEFAULT_RULES, "all of them"))


def test_a_verdict_that_its_own_measures_do_not_give_is_refused(run, models):
    decided(run, 10)
    run.keep({run.evaluation_file: as_json(run.evaluation | {"verdict": "pass"})})
    with pytest.raises(RunError, match="its files say fail and pass, and what it measured says fail"):
        _promoted(run, models)
    assert not models.exists()


def test_weights_that_the_evidence_is_not_about_are_refused(run, models):
    unsealed(run)
    file = run.policy_folder / "adapter_model.safetensors"
    save_file({name: 1.1 * tensor for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(RunError, match="measured with other weights than its policy/ holds"):
        _promoted(run, models)
    assert _names(models) == set()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_a_run_that_did_not_come_to_its_end_is_refused(run, models):
    run.update_manifest(status="interrupted")
    with pytest.raises(RunError, match="'interrupted', and only one that came to its end is promoted"):
        _promoted(run, models)


def test_promoting_a_run_twice_says_so_and_does_nothing(run, models):
    _promoted(run, models)
    before = _state(models)
    again = _promoted(run, models)
    assert (again.already, again.version) == (True, "0001-run")
    assert _state(models) == before
    assert "is already 0001-run" in _command("promote", run.path, "--to", models, "-q").output
    assert _promoted(run, models, form="adapter").version == "0002-run"


def test_another_name_or_reason_for_what_is_current_becomes_a_version_of_its_own(run, models):
    decided(run, 10)
    made = _promoted(run, models, overrides={"preferred": "read by hand"}, form="adapter")
    assert _promoted(run, models).already
    assert _promoted(run, models, name="run", overrides={"preferred": "read by hand"}).already
    named = _promoted(run, models, name="bot")
    assert (named.version, named.replaced, named.form, named.already) == ("0002-bot", made.version, "adapter", False)
    again = _promoted(run, models, name="bot", overrides={"preferred": "read by two"})
    assert (again.version, again.overridden) == ("0003-bot", {"preferred": "read by two"})
    assert tiebreak.history(models).events[-1].overridden == run.evaluation["overridden"] == again.overridden


# --------------------------------------------------------------------------------------------------- rollback, history


def test_rollbacks_go_back_version_by_version_and_never_forward(run, models):
    for name in ("one", "two", "three"):
        _promoted(run, models, name=name, form="adapter" if name == "two" else "merged")
    assert tiebreak.rollback(models, quiet=True).version == "0002-two"
    assert json.loads(_command("rollback", "--to", models, "-q", "--json").output)["version"] == "0001-one"
    with pytest.raises(RegistryError, match="0001-one is the first, so there is nothing to go back to"):
        tiebreak.rollback(models, quiet=True)
    assert _promoted(run, models, name="four", form="adapter").replaced == "0001-one"
    assert tiebreak.rollback(models, quiet=True).version == "0001-one"
    found = tiebreak.history(models)
    assert [(one.what, one.version, one.replaced) for one in found.events] == [
        ("promoted", "0001-one", None),
        ("promoted", "0002-two", "0001-one"),
        ("promoted", "0003-three", "0002-two"),
        ("rolled back", "0002-two", "0003-three"),
        ("rolled back", "0001-one", "0002-two"),
        ("promoted", "0004-four", "0001-one"),
        ("rolled back", "0001-one", "0004-four"),
    ]
    assert (found.current, found.unswitched) == ("0001-one", None)
    assert str((models / "current").readlink()) == "versions/0001-one"
    assert _command("history", "--to", models).output.count("→") == 1


def test_where_there_is_no_registry_that_is_said(models, tmp_path):
    for call in (tiebreak.history, tiebreak.rollback):
        with pytest.raises(RegistryError, match="is no registry; 'tiebreak promote RUN --to DIR' makes one"):
            call(models)
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="is no folder"):
        tiebreak.history(tmp_path / "file")


# --------------------------------------------------------------------------------------------------------------- damage


def _refused(models, told):
    """Both commands that read say so in one line, and nothing is changed."""
    before = _state(models)
    for call in (tiebreak.history, lambda models: tiebreak.rollback(models, quiet=True)):
        with pytest.raises(RegistryError, match=told) as error:
            call(models)
        assert "\n" not in str(error.value)
    assert _state(models) == before


def _edited(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_changed_line_of_the_history_is_found(two):
    _edited(two / "history.jsonl", '"run": "run"', '"run": "other"')
    _refused(two, r"history\.jsonl:2: does not follow from the line before")


def test_a_changed_last_line_and_a_missing_one_are_found(two):
    lines = (two / "history.jsonl").read_text().splitlines(keepends=True)
    (two / "history.jsonl").write_text(lines[0] + lines[1].replace('"pass"', '"fail"'))
    _refused(two, r"its last line is not the one that current\.json knows")
    (two / "history.jsonl").write_text("")
    _refused(two, r"its last line is not the one that current\.json knows")
    (two / "history.jsonl").write_text(lines[1])
    _refused(two, r"history\.jsonl:1: does not follow")
    (two / "history.jsonl").unlink()
    _refused(two, r"its last line is not the one that current\.json knows")


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        "\x00",
        '{"event": 1}',
        "[" * 100_000,
        lambda said: said | {"version": "../../etc"},
        lambda said: said | {"version": "0001-a/../b"},
        lambda said: said | {"overridden": [1]},
        lambda said: said | {"more": 1},
        lambda said: said | {"event": "1"},
    ],
    ids=lambda line: None if callable(line) else ascii(line[:12]),
)
def test_a_line_that_is_none_is_one_line(two, line):
    if callable(line):
        line = json.dumps(line(json.loads((two / "history.jsonl").read_text().splitlines()[0])))
    (two / "history.jsonl").write_text(line + "\n")
    _refused(two, r"history\.jsonl:1: is not a line as promote writes it")


def test_a_history_that_is_cut_off_is_one_line(two):
    content = (two / "history.jsonl").read_bytes()
    (two / "history.jsonl").write_bytes(content[:-20])
    _refused(two, "its last line is cut off")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", "\x00"])
def test_a_pointer_that_is_none_is_one_line(two, text):
    (two / "current.json").write_text(text)
    _refused(two, r"current\.json: is not as promote writes it|its last line is not the one")


def test_a_rollback_goes_to_nothing_that_was_changed(two):
    version = two / "versions" / "0001-one"
    weights = (version / "model.safetensors").read_bytes()

    def refused(told):
        before = _state(two)
        with pytest.raises(RegistryError, match=told):
            tiebreak.rollback(two, quiet=True)
        assert _state(two) == before
        assert tiebreak.history(two).current == "0002-two"

    (version / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused(r"model\.safetensors: is not what was promoted")
    (version / "model.safetensors").unlink()
    refused(r"model\.safetensors: is gone")
    (two / "copy").write_bytes(weights)
    (version / "model.safetensors").symlink_to("../../copy")
    refused(r"model\.safetensors: is a link")
    (version / "model.safetensors").unlink()
    (version / "model.safetensors").write_bytes(weights)
    (version / "more.py").write_text("")
    refused(r"more\.py: is not what was promoted")
    (version / "more.py").unlink()
    lineage = (version / LINEAGE).read_text()
    _edited(version / LINEAGE, '"seed": ', '"seed": 1')
    refused(r"lineage\.json: is not what was promoted")
    (version / LINEAGE).write_text(lineage)
    version.rename(two / "elsewhere")
    refused("is gone, or is no folder")
    version.symlink_to("../elsewhere")
    refused("is gone, or is no folder")
    version.unlink()
    (two / "elsewhere").rename(version)
    assert tiebreak.rollback(two, quiet=True).version == "0001-one"


@pytest.mark.parametrize("name", ["history.jsonl", "current.json", ".lock", "versions", "current"])
def test_what_is_no_part_of_a_registry_is_refused_where_one_should_be(two, run, name, tmp_path):
    part = two / name
    kept = tmp_path / "kept"
    part.rename(kept)
    part.mkdir() if name == "current" else part.symlink_to(kept)
    before = _state(two)
    for call in (lambda: tiebreak.rollback(two, quiet=True), lambda: _promoted(run, two)):
        with pytest.raises(RegistryError, match=f"{name}: is (a link|no link)"):
            call()
    assert _state(two) == before


def test_a_link_to_a_registry_is_followed(run, models, tmp_path):
    models.mkdir()
    (tmp_path / "link").symlink_to("models")
    _promoted(run, tmp_path / "link")
    assert (models / "current" / "model.safetensors").exists()


def test_a_version_that_nobody_recorded_is_left_alone_and_its_number_is_not_given_again(two, run):
    mine = two / "versions" / "0007-mine"
    mine.mkdir()
    (mine / "note.txt").write_text("mine")
    assert _promoted(run, two, name="three", form="merged").version == "0008-three"
    assert (mine / "note.txt").read_text() == "mine"


def test_a_link_that_somebody_turned_is_told_and_put_right(two, run):
    (two / "current").unlink()
    (two / "current").symlink_to("versions/0001-one")
    found = tiebreak.history(two)
    assert found.current == "0002-two"
    assert found.unswitched.endswith("current leads to versions/0001-one, and not to versions/0002-two")
    assert "puts it right" in _command("history", "--to", two).output
    assert _promoted(run, two, form="adapter").already
    assert tiebreak.history(two).unswitched is None
    assert str((two / "current").readlink()) == "versions/0002-two"


def test_where_links_are_not_to_be_had_current_json_says_it(run, models, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("tiebreak.files.Path.symlink_to", refuse)
    _promoted(run, models)
    assert not (models / "current").exists()
    assert tiebreak.history(models).unswitched is None
    assert json.loads((models / "current.json").read_text())["path"] == "versions/0001-run"


# -------------------------------------------------------------------------------------------------------- two processes

HOLD = """
import sys
from pathlib import Path
from tiebreak.progress import Silent
from tiebreak.registry import Registry
with Registry(Path(sys.argv[1])).changing(Silent()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_registry_and_changes_nothing(two, run):
    command = [sys.executable, "-c", HOLD, str(two)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        before = _state(two)
        for call in (lambda: tiebreak.rollback(two, quiet=True), lambda: _promoted(run, two)):
            with pytest.raises(
                RegistryError, match=rf"in use by \S+ pid {process.pid}; wait for it or choose another --to"
            ):
                call()
        assert _state(two) == before
        assert tiebreak.history(two).current == "0002-two"  # looking takes no lock
        process.kill()
    assert tiebreak.rollback(two, quiet=True).version == "0001-one"


HOLD_RUN = """
import sys
from pathlib import Path
from tiebreak import folders
with folders.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_changes_is_neither_promoted_nor_decided_on(run, models):
    command = [sys.executable, "-c", HOLD_RUN, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        before = _state(run.path)
        with pytest.raises(RunError, match=rf"in use by \S+ pid {process.pid}; wait for it or promote another run"):
            _promoted(run, models)
        with pytest.raises(RunError, match=rf"in use by \S+ pid {process.pid}"):
            tiebreak.gate(run, record=True)
        assert (_state(run.path), models.exists()) == (before, False)
        process.kill()
    assert _promoted(run, models).version == "0001-run"


def test_a_run_is_held_until_it_is_in_the_registry(run, models, monkeypatch):
    asked = []

    def append(registry, *words, **said):
        with pytest.raises(RunError, match="in use by"), locked(run.path):
            pass
        asked.append(registry.path)
        return appended(registry, *words, **said)

    appended = Registry.append
    monkeypatch.setattr(Registry, "append", append)
    _promoted(run, models)
    assert asked == [models]
    with locked(run.path):
        pass


def test_a_run_that_cannot_be_written_to_is_promoted_as_it_is(run, models, monkeypatch):
    (run.path / ".lock").unlink(missing_ok=True)
    monkeypatch.setattr("os.access", lambda path, *_: Path(path) != run.path)  # whoever is root may always
    _promoted(run, models)
    assert not (run.path / ".lock").exists()


def test_whoever_looks_while_another_switches_sees_a_whole_history(two):
    registry = Registry(two)
    same = registry.events()[-1].model_dump(exclude={"event", "what", "time", "replaced", "line_before_sha256"})
    seen, over = [], threading.Event()

    def look():
        while not over.is_set():
            seen.append(len(tiebreak.history(two).events))

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(30):
        registry.append(registry.events(), "promoted", time=str(number), **same)
    over.set()
    looking.join()
    assert seen == sorted(seen)
    assert len(tiebreak.history(two).events) == 32


def test_a_folder_that_nothing_can_be_written_to_is_told_before_anything_is(run, here):
    for to in ("https://user:secret@host/x", "\udce9"):
        with pytest.raises(ConfigError, match="--out") as told:
            _promoted(run, to)
        assert "secret" not in str(told.value)
    assert list(here.iterdir()) == []


def test_what_a_killed_promotion_left_is_removed_and_nothing_else(two, run):
    registry = Registry(two)
    events = registry.events()
    for name in (f".0003-x.abcd1234{PART}", "0003-left", "0003-other"):
        (two / "versions" / name).mkdir()
    write_json(two / "versions" / "0003-left" / LINEAGE, {"follows_sha256": registry.tip(events)})
    write_json(two / "versions" / "0003-other" / LINEAGE, {"follows_sha256": registry.tip(events[:1])})
    (two / f".current.abcd1234{PART}").mkdir()
    assert _promoted(run, two, name="three", form="merged").version == "0004-three"
    assert {path.name for path in (two / "versions").iterdir()} == {
        *("0001-one", "0002-two", "0003-other", "0004-three")
    }
    assert not list(two.glob(f".*{PART}"))


def test_another_run_takes_the_place_of_the_one_before(run, models, tmp_path):
    other = _other(run, tmp_path / "other run!")
    _promoted(run, models)
    made = _promoted(other, models)
    assert (made.version, made.replaced) == ("0002-other-run", "0001-run")
    assert len(read_jsonl(models / "history.jsonl")) == 2


def test_completions_on_their_own_are_held_against_the_evidence_that_the_run_measured(tiny_model, tmp_path):
    """Who meets whom hangs on all that is held out: a few of it, taken first, would be other duels, or none."""
    rows = [{"prompt": f"the cat {n}", "completion": f"yes the dog {n % 7}", "label": n % 3 > 0} for n in range(60)]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model.name": str(tiny_model), "model.device": "cpu", "data.train": str(tmp_path / "thumbs.jsonl"),
        "data.heldout_share": 0.4, "data.allow": ["few_prompts"], "loss": "kto", "training.learning_rate": 5e-3,
        "evaluation.num_samples": 0, "evaluation.num_draws": 0, "evaluation.neutral_probe": False,
        "evaluation.probes": 0, "output.dir": str(tmp_path / "kto"), "output.trackers": [],
    }  # fmt: skip
    run = tiebreak.train(None, settings, quiet=True)
    promoting._require_measured(run, load_trained(run), Silent())
    kept = run.rows(run.evidence_file)
    run.keep(
        {run.evidence_file: as_jsonl(row | {"policy_chosen_logps": row["policy_chosen_logps"] - 1} for row in kept)}
    )
    with pytest.raises(RunError, match="was measured with other weights than its policy/ holds"):
        promoting._require_measured(run, load_trained(run), Silent())
