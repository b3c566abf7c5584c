"""A run whose reference follows the policy, killed and started again: the same bytes, those of the reference too."""

from __future__ import annotations

import json
import signal

import pytest
from harness import NUM_STEPS, assert_nothing_partial, assert_resumes
from safetensors.torch import load_file

from tiebreak.errors import EXIT_USAGE

MOVES = {"every": 3, "share": 0.6}


def _moving(new_case, folder, adapter):
    case = new_case(folder, adapter)
    return case.configure(reference__store="auto", reference__moves=MOVES)


@pytest.fixture(scope="module", params=["lora", "none"])
def adapter(request):
    return request.param


@pytest.fixture(scope="module")
def whole(new_case, tmp_path_factory, adapter):
    case = _moving(new_case, tmp_path_factory.mktemp("undisturbed") / "case", adapter)
    ended = case.train()
    assert ended.code == 0, ended.err
    return case


@pytest.mark.parametrize("place", ["step:end:6", "save:policy:4", "save:rename:4", "step:gradient:7", "policy"])
def test_killed_at(place, new_case, tmp_path, adapter, whole):
    case = _moving(new_case, tmp_path / "case", adapter)
    ended = case.train(fault=f"kill@{place}")
    assert ended.code == -signal.SIGKILL, ended.err
    assert_nothing_partial(case)
    assert_resumes(case, whole.result())
    assert case.manifest["reference_moves"] == whole.manifest["reference_moves"]


def test_the_manifest_says_how_often_it_moved_and_a_checkpoint_holds_it(whole):
    told = whole.manifest["reference_moves"]
    assert {name: told[name] for name in ("every", "share", "num_moves")} == {**MOVES, "num_moves": NUM_STEPS // 3}
    assert "moves 0.6 of the way to the policy every 3 steps" in whole.manifest["reference"]
    assert [row["reference_moves"] for row in whole.rows() if "reference_moves" in row] == [1, 2, 3, 4]
    held = load_file(whole.checkpoints[-1] / "moving.safetensors")
    assert int(held["num_moves"]) == 4
    report = (whole.run / "report.html").read_text()
    assert "what is measured with its start; it moved 4 times" in report


def test_what_is_measured_is_measured_against_the_start(whole):
    def margins():
        return [json.loads(line)["margin"] for line in (whole.run / "evidence.jsonl").read_text().splitlines()]

    probes, found = [row for row in whole.rows() if "heldout/loss" in row], margins()
    assert probes[0]["heldout/rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert probes[-1]["heldout/rewards/margins"] == pytest.approx(sum(found) / len(found), rel=1e-4)
    # Steps compare with what moved: of all that was learned they see the last part.
    assert max(row["rewards/margins"] for row in whole.rows() if "loss" in row) < probes[-1]["heldout/rewards/margins"]
    again = whole.train(command=("evaluate", "run", "--quiet"))
    assert again.code == 0, again.err
    assert margins() == pytest.approx(found, rel=1e-4)


def test_a_reference_neither_begins_nor_ceases_to_move_on_the_way(new_case, tmp_path, adapter):
    case = _moving(new_case, tmp_path / "case", adapter)
    case.train(fault="kill@step:end:6")
    for moves, words in ((None, "reference.moves was set"), ({"every": 4, "share": 0.6}, "reference.moves.every")):
        case.configure(reference__moves=moves)
        ended = case.train("--accept", "config") if moves is None else case.train()
        assert ended.code == EXIT_USAGE, ended.err
        assert words in ended.error
    assert [path.name for path in case.checkpoints] == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference__store": "store"}, "take reference.store out, or reference.moves"),
        ({"loss__name": "simpo"}, "simpo compares with no reference"),
        ({"loss__name": "orpo"}, "orpo compares with no reference"),
    ],
)
def test_what_cannot_move_is_refused_before_anything_is_loaded(changes, words, new_case, tmp_path):
    case = _moving(new_case, tmp_path / "case", "none").configure(model__name="nowhere/nothing", **changes)
    ended = case.train()
    assert ended.code == EXIT_USAGE, ended.err
    assert words in ended.error
    assert not case.run.exists()
