"""Promise: what is done in a folder stays in it, whatever links, pipes and second names it came with."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from tiebreak import files, folders
from tiebreak.engine.reference.store import LogpStore
from tiebreak.errors import JudgeError, RunError
from tiebreak.evaluation.judges.kept import KeptAnswers

NAMES = [
    ".lock", ".answers.jsonl", ".evaluation.jsonl", ".tasks", "run.json", "config.yaml", "metrics.jsonl", "data.json",
    "report.html", "evaluation.json", "evidence.jsonl", "samples.jsonl", "policy", "policy/adapter_model.safetensors",
    "policy/deep", "checkpoints", "checkpoints/values", "checkpoints/step-00000002", "evaluations", "quarantine",
    "tensorboard",
]  # fmt: skip
"""Files and folders of a run, there or not."""


def verbs(run: Path) -> list[list[object]]:
    return [
        ["evaluate", run], ["report", run], ["gate", run], ["gate", run, "--record"], ["chat", run, "-p", "hi"],
        ["export", run, "--out", "out"], ["promote", run, "--to", "models"], ["judge", run, "--judge", "rule:length"],
    ]  # fmt: skip


@pytest.fixture
def outside(tmp_path):
    """A file and a folder of somebody else, and the check that nothing became of them."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text("mine, and no line of JSON\nhalf a li")
    (place / "folder").mkdir()
    (place / "folder" / ".step-1").write_text("mine")
    before = {path: path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}
    yield place
    assert {path: path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")} == before


def put(place: Path, kind: str, outside: Path) -> None:
    """Put something in the place of a file or folder of a run."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        leads = {"file": outside / "file", "folder": outside / "folder", "nowhere": outside / "new"}
        place.symlink_to(leads[kind])


@pytest.mark.parametrize("name", NAMES)
def test_a_link_in_the_place_of_any_part_of_a_run_is_refused_by_its_name(run_copy, outside, command, refused, name):
    for kind in ("file", "folder", "nowhere"):
        put(run_copy / name, kind, outside)
        refused(command("evaluate", run_copy), f"{run_copy / name}: is a link")


@pytest.mark.parametrize("name", ["metrics.jsonl", "policy/deep"])
def test_no_verb_touches_a_run_that_holds_a_link_or_a_pipe(run_copy, outside, command, refused, here, name):
    for kind in ("file", "pipe"):
        put(run_copy / name, kind, outside)
        for words in verbs(run_copy):
            refused(command(*words), f"{run_copy / name}: is {'a link' if kind == 'file' else 'neither'}")
    assert not (here / "out").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "nowhere", "pipe"])
@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "checkpoints", "policy"])
def test_training_goes_into_no_folder_with_links(tiny_model, pairs, outside, here, trained_on, refused, name, kind):
    put(here / "runs" / "my" / name, kind, outside)
    refused(trained_on(tiny_model, pairs), name, "is a link" if kind != "pipe" else "is neither file nor folder")


def test_a_run_that_is_itself_reached_through_a_link_is_any_other(run_copy, here, command):
    (here / "linked").symlink_to(run_copy)
    assert command("evaluate", here / "linked")[0] == 0
    assert (here / "linked").is_symlink()


@pytest.mark.parametrize("kind", ["file", "nowhere", "folder", "pipe"])
def test_nothing_is_appended_or_locked_through_what_took_the_place_of_a_file_meanwhile(tmp_path, outside, kind):
    for name, write in (
        ("kept.jsonl", lambda: files.append_jsonl(tmp_path / "run" / "kept.jsonl", [{"a": 1}])),
        (".lock", lambda: folders.locked(tmp_path / "run").__enter__()),
    ):
        put(tmp_path / "run" / name, kind, outside)
        with pytest.raises(RunError, match=name):
            write()
    assert not (outside / "new").exists()


def test_a_file_with_a_second_name_is_not_written_into(tmp_path, outside):
    (tmp_path / "kept.jsonl").hardlink_to(outside / "file")
    with pytest.raises(RunError, match="has a second name"):
        files.append_jsonl(tmp_path / "kept.jsonl", [{"a": 1}])


def test_a_cache_writes_through_no_link(tmp_path, outside):
    with sqlite3.connect(outside / "file.sqlite") as other:
        other.execute("CREATE TABLE mine (a)")
    (tmp_path / "judgements.sqlite").symlink_to(outside / "file.sqlite")
    with pytest.raises(JudgeError, match="is a link"), KeptAnswers(tmp_path / "judgements.sqlite"):
        pass
    (outside / "file.sqlite").unlink()
    name = LogpStore(tmp_path / "store", {"a": 1})._folder.name
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).symlink_to(outside / "folder")
    with pytest.raises(RunError, match="is a link"):
        LogpStore(tmp_path / "store", {"a": 1})


# ------------------------------------------------------------------------------------------ what appears where we write


def _appears(monkeypatch, when: str, place: Path, kind: str) -> None:
    """Let somebody put something at a place while a verb is at work, just before it writes what it made there."""
    module, _, name = when.rpartition(".")
    before = getattr(__import__(module, fromlist=[name]), name)

    def then(*words, **named):
        if not os.path.lexists(place):
            if kind == "folder":
                place.mkdir()
            (place / "mine" if kind == "folder" else place).write_text("mine")
        return before(*words, **named)

    monkeypatch.setattr(when, then)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_export_deletes_nothing_that_appeared_where_it_goes(run_copy, here, command, refused, monkeypatch, kind):
    _appears(monkeypatch, "tiebreak.verbs.export._describe", here / "out", kind)
    refused(command("export", run_copy, "--out", "out"), "out: appeared while the artefact was made")
    kept = here / "out" / "mine" if kind == "folder" else here / "out"
    assert kept.read_text() == "mine"
    assert [path.name for path in here.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("words", "out"),
    [(["convert"], "out.jsonl"), (["clean"], "out.jsonl"), (["clean"], "out")],
    ids=["convert", "clean to a file", "clean to a folder"],
)
def test_nor_do_convert_and_clean(pairs, here, command, refused, monkeypatch, words, out):
    when = "tiebreak.verbs.convert.refuse_unusable" if words == ["convert"] else "tiebreak.verbs.clean._Sorting.run"
    kind = "folder" if out == "out" else "file"
    if words == ["clean"]:
        from tiebreak.verbs import clean

        before = clean._Sorting.run

        def then(self, *told):
            (here / "out").mkdir() if kind == "folder" else None
            (here / out / "mine" if kind == "folder" else here / out).write_text("mine")
            return before(self, *told)

        monkeypatch.setattr(clean._Sorting, "run", then)
    else:
        _appears(monkeypatch, when, here / out, kind)
    refused(command(*words, pairs, out, *(["--to", "tiebreak"] if words == ["convert"] else [])), "cannot be written")
    assert (here / out / "mine" if kind == "folder" else here / out).read_text() == "mine"
