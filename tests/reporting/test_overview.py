"""A page over all runs of a folder: every run is a row, whatever state it is in."""

from __future__ import annotations

import pytest

import tiebreak
from tiebreak import folders
from tiebreak.errors import RunError
from tiebreak.files import write_json
from tiebreak.reporting.overview import INDEX, listed, render_overview, runs_in, write_overview
from tiebreak.reporting.page import render_report
from tiebreak.runs import Run
from tiebreak.seals import seal_of_file, sealed_json
from written_runs import recorded_run, row_of, written_run


@pytest.fixture
def folder(tmp_path):
    written_run(tmp_path, name="whole")
    for name, status in (("half", "running"), ("broken", "failed")):
        run = written_run(tmp_path / "deep", name=name)
        run.update_manifest(status=status)
        run.evaluation_file.unlink()
    written_run(tmp_path, name="old").update_manifest(schema=1)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text("[")
    return tmp_path


def _row(folder, name):
    return listed(folder, folder / name)


def test_every_run_is_found_and_none_is_looked_into(folder):
    written_run(folder / "whole" / "evaluations", name="again")
    written_run(folder / ".hidden", name="away")
    (folder / "link").symlink_to(folder / "whole")
    names = [path.relative_to(folder).as_posix() for path in runs_in(folder)]
    assert names == ["deep/broken", "deep/half", "old", "torn", "whole"]


def test_a_row_says_how_a_run_stands(folder):
    assert (_row(folder, "whole").verdict, _row(folder, "whole").fault) == ("inconclusive", "")
    assert _row(folder, "whole").accuracy["mean"] == 0.9
    assert _row(folder, "deep/half").verdict == "dead"
    assert _row(folder, "deep/broken").verdict == "failed"
    assert "holds no evaluation" in _row(folder, "deep/broken").fault
    assert "older version (schema 1)" in _row(folder, "old").fault
    assert _row(folder, "torn").verdict == "damaged"
    assert "run.json: cannot be read" in _row(folder, "torn").fault
    assert str(folder) not in _row(folder, "torn").fault


def test_a_run_whose_folder_is_locked_is_running(folder):
    with folders.locked(folder / "deep" / "half"):
        assert _row(folder, "deep/half").verdict == "still running"
        assert "still running" in render_report(tiebreak.Run(folder / "deep" / "half"))
    assert _row(folder, "deep/half").verdict == "dead"


def test_a_run_whose_measures_are_not_what_was_written_is_damaged(folder):
    run = Run(folder / "whole")
    seals = {one.name: seal_of_file(one) for one in run.path.iterdir() if one.is_file() and one.name != "run.json"}
    run.manifest_file.write_bytes(sealed_json(run.manifest | {"files": seals}))
    assert _row(folder, "whole").verdict == "inconclusive"
    run.measures_file.write_bytes(run.measures_file.read_bytes().replace(b"1", b"0", 1))
    assert _row(folder, "whole").verdict == "damaged"
    assert "measures.jsonl: is not what was written" in _row(folder, "whole").fault


def test_losses_stand_in_one_column_only_where_they_are_of_one_scale(tmp_path):
    loss = row_of("loss", 0.7, 0.5)
    for name in ("a", "b"):
        written_run(tmp_path, loss, name=name)
    assert "Held-out loss" in render_overview(tmp_path)
    written_run(tmp_path, loss, name="c", **{"loss.beta": 0.3})
    page = render_overview(tmp_path)
    assert "Held-out loss" not in page
    assert "left out: only losses of one objective" in page
    for name in ("x", "y"):
        written_run(tmp_path / "remembers", loss, name=name, **{"loss.name": "beta_dpo"})
    assert "Held-out loss" not in render_overview(tmp_path / "remembers")


@pytest.mark.parametrize(
    "damage",
    [{"verdict": 3}, {"verdict": "pass", "accuracy": 3}, {"verdict": "pass", "accuracy": {}, "table": [3]}],
    ids=str,
)
def test_an_evaluation_that_no_run_wrote_is_a_row_that_says_so(folder, damage):
    write_json(folder / "whole" / "evaluation.json", damage)
    assert "not as a run writes them" in _row(folder, "whole").fault


def test_the_page_names_every_run_with_its_diagnoses(folder):
    recorded_run(folder, name="seen")
    page = render_overview(folder)
    for name in ("deep/broken", "deep/half", "old", "torn", "whole", "seen"):
        assert f">{name}<" in page
    assert "Likelihood displacement" in page


def test_the_command_writes_the_page_and_no_page_of_somebody_else_over(folder):
    assert tiebreak.report(folder) == folder / INDEX
    assert write_overview(folder) == folder / INDEX
    (folder / INDEX).write_text("<h1>mine</h1>")
    with pytest.raises(RunError, match="is no page of tiebreak, and is not written over"):
        tiebreak.report(folder)
    with pytest.raises(RunError, match=r"holds no run\.json"):
        (folder / "empty").mkdir()
        tiebreak.report(folder / "empty")


# ------------------------------------------------------------------------------------------- runs that are not whole


def test_a_run_without_an_evaluation_has_a_page_of_what_is_there_and_of_what_goes_on(folder):
    half = folder / "deep" / "half"
    text = tiebreak.report(half).read_text()
    assert "No verdict yet" in text
    assert "dead: its process is gone" in text
    assert "evaluation.json: nothing was measured" in text
    assert f"tiebreak train {half}/config.yaml" in text
    assert "Capability card" not in text
    assert not (half / "capability.json").exists()


def test_a_line_that_is_being_written_does_not_keep_a_run_from_being_shown(folder):
    run = recorded_run(folder, name="live")
    run.update_manifest(status="running")
    run.evaluation_file.unlink()
    with run.metrics_file.open("a") as file:
        file.write('{"step": 41, "lo')
    assert "held-out: 0.69 at first, 0.29 at last" in render_report(run)
    run.update_manifest(status="done")
    with pytest.raises(RunError, match=r"evaluation\.json"):
        render_report(run)


def test_a_page_of_an_older_run_says_so(folder):
    assert "it was made by an older version (schema 1)" in render_report(tiebreak.Run(folder / "old"))
