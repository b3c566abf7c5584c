"""Runs side by side: what differs, what is compared on what, what follows, and what cannot be known."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tiebreak
from tiebreak.errors import ConfigError, RunError
from tiebreak.files import as_json, write_json, write_jsonl
from tiebreak.reporting.comparison import print_comparison
from tiebreak.runs import Run
from tiebreak.seals import seal_of_file, sealed_json
from written_runs import NUM, PROMPTS, row_of, written_run


def _audit(length=100.0, num=400):
    edges = [0, 50, 100, 150, 200, 400]
    bins = [0, num // 2, num // 2, 0, 0] if length <= 100 else [0, 0, 0, num // 2, num // 2]
    words = {"edges": edges, "chosen": bins, "rejected": [0, num, 0, 0, 0], "prompt": [num, 0, 0, 0, 0]}
    medians = {"chosen": {"median": length}, "rejected": {"median": 70.0}, "prompt": {"median": 9.0}}
    interval = {"accuracy": 0.5, "low": 0.45, "high": 0.55}
    return {
        "unit": "pairs", "words": medians, "histograms": {"words": words, "margin": None},
        "prompts": {"effective": float(num)}, "chosen_longer_share": 0.5,
        "shortcut": {"length": interval, "features": interval}, "agreement": None, "label_noise": None,
    }  # fmt: skip


@pytest.fixture
def made(tmp_path):
    """A run of 40 held-out pairs on 20 prompts; `gap` is what it gained on them, `shift` renames pairs."""

    def make(name, gap=1.0, shift=0, audit=None, began="2026-01-05T10:00:00+00:00", data="d", **settings) -> Run:
        run = written_run(tmp_path, name=name, **settings)
        draw = np.random.default_rng(0)
        gaps = (gap + 0.2 * draw.normal(size=NUM)).tolist()
        twice = [f"prompt{(place + shift) // 2}" for place in range(NUM)]
        won = [float(one > 0) for one in gaps]
        rows = [
            row_of("accuracy", 0.5, won, twice),
            row_of("logratio_gap", 0.0, gaps, twice),
            row_of("loss", 0.7, [0.7 - one / 10 for one in gaps], twice),
            row_of("answers/preferred", 0.5, [1.0] * 30 + [0.0] * 10),
        ]
        write_jsonl(run.measures_file, (row.as_dict() for row in rows))
        evidence = [{"pair_id": f"pair{place + shift}", "prompt_id": twice[place]} for place in range(NUM)]
        write_jsonl(run.evidence_file, evidence)
        write_json(run.evaluation_file, run.evaluation | {"judge": {"identity": "a judge"}})
        write_json(run.audit_file, audit or _audit())
        write_json(run.train_prompts_file, {"prompt_ids": [f"{data}{place}" for place in range(100)]})
        told = {"schema": 2, "started": began, "data_fingerprint": data * 64, "base_identity": "llama sha256:00"}
        write_json(run.manifest_file, run.manifest | told)
        return run

    return make


def _found(*runs):
    return tiebreak.compare(*runs).as_dict()


def test_what_differs_is_told_and_what_is_equal_is_counted(made):
    found = _found(made("a"), made("b", **{"loss.beta": 0.3, "training.epochs": 2}))
    assert {one["key"]: one["values"] for one in found["differences"]} == {
        "loss.beta": [0.1, 0.3],
        "training.epochs": [1, 2],
    }
    assert found["num_equal"]["settings"] > 50
    assert found["num_equal"]["versions"] == 1


def test_scores_are_paired_on_common_pairs_and_the_rest_is_counted(made):
    found = _found(made("a", gap=1.0), made("b", gap=1.5, shift=10))
    scores = {one["key"]: one for one in found["others"][0]["scores"]}
    assert (scores["accuracy"]["num"], scores["accuracy"]["num_alone"]) == (30, [10, 10])
    assert scores["logratio_gap"]["says"] == "better"
    assert scores["answers/preferred"]["num"] == 40
    assert scores["answers/preferred"]["says"] == "not told apart"


def test_several_runs_are_held_against_the_first_and_corrected_together(made):
    found = _found(made("a"), made("b", gap=1.5), made("c", gap=0.5))
    says = [{one["key"]: one["says"] for one in other["scores"]} for other in found["others"]]
    assert [one["logratio_gap"] for one in says] == ["better", "worse"]
    num = sum(len(other["scores"]) for other in found["others"])
    least = min(one["p"] for other in found["others"] for one in other["scores"])
    assert min(one["p_adjusted"] for other in found["others"] for one in other["scores"]) == pytest.approx(num * least)


def test_another_objective_leaves_out_its_own_unit_and_nothing_else(made):
    found = _found(made("a"), made("b", **{"loss.beta": 0.3}))["others"][0]
    assert found["apart"] == {"loss": "another loss.beta"}
    assert {one["key"] for one in found["scores"]} == {"accuracy", "logratio_gap", "answers/preferred"}


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ({"identity": "a judge"}, ""),
        ({"identity": "another"}, "another judge"),
        ({}, "only with the same judge, and which one judged B is not known (to evaluate it again"),
        (None, "only with the same judge"),
    ],
)
def test_what_two_judges_say_is_not_held_against_each_other(made, judge, why):
    first, other = made("a"), made("b")
    write_json(other.evaluation_file, other.evaluation | {"judge": judge})
    apart = _found(first, other)["others"][0]["apart"]
    assert [*apart] == ["answers/preferred"] * bool(why)
    assert apart.get("answers/preferred", "").startswith(why)


@pytest.mark.parametrize(
    ("doubts", "notes", "settings", "why"),
    [
        (("", ""), ("", "of answers that differ (3 do not)"), {}, ""),
        (("", "half of the votes came too fast"), ("", ""), {}, "nothing is decided on it (B: half of the votes"),
        (("it is in doubt", ""), ("", ""), {}, "nothing is decided on it (A: it is in doubt)"),
        (("", ""), ("", ""), {"evaluation.max_new_tokens": 33}, "another evaluation.max_new_tokens"),
    ],
    ids=str,
)
def test_what_people_say_is_compared_of_equally_long_answers_and_never_where_it_is_in_doubt(
    made, doubts, notes, settings, why
):
    runs = [made("a"), made("b", **settings)]
    for run, doubt, note in zip(runs, doubts, notes, strict=True):
        row = replace(row_of("human_win_rate", 0.5, [1.0] * 30 + [0.0] * 10), doubt=doubt, note=note)
        write_jsonl(run.measures_file, [row.as_dict()])
    found = _found(*runs)["others"][0]
    assert found["apart"].get("human_win_rate", "").startswith(why)
    assert [one["key"] for one in found["scores"]] == ([] if why else ["human_win_rate"])


@pytest.mark.parametrize("name", ["beta_dpo", "alpha_dpo"])
def test_a_loss_by_what_a_run_remembers_is_compared_with_no_other(made, name):
    found = _found(made("a", **{"loss.name": name}), made("b", **{"loss.name": name}))["others"][0]
    assert found["apart"] == {"loss": f"{name} measures it by what it remembers of its own steps"}


@pytest.mark.parametrize(
    ("name", "is_coupled"),
    [
        ({"name": "aot"}, True),
        ({"name": "dr_dpo"}, True),
        ({"terms": [{"name": "sft"}, {"name": "aot"}]}, True),
        ({"name": "bco"}, True),
        ({"name": "bco", "delta": 0.0}, False),
        ({"name": "dpo"}, False),
        ({"name": "dpo", "beta_schedule": {"to": 0.02}}, False),  # both are measured at its end
    ],
    ids=str,
)
def test_a_loss_of_all_pairs_together_is_compared_on_the_same_pairs_alone(made, name, is_coupled):
    first, same = made("a", loss=name), made("b", loss=name)
    assert _found(first, same)["others"][0]["apart"] == {}
    apart = _found(first, made("c", shift=10, loss=name))["others"][0]["apart"]
    assert [*apart] == (["loss"] if is_coupled else [])
    assert not is_coupled or "depends on the others" in apart["loss"]


def test_a_run_that_was_cut_off_is_told_to_go_on_with_training(made):
    runs = [made("a"), made("b")]
    runs[1].update_manifest(status="running")
    runs[1].evaluation_file.unlink()
    told = next(one for one in _found(*runs)["unknown"] if "evaluation not known" in one)
    assert f"tiebreak train {runs[1].config_file}" in told
    runs[1].policy_folder.mkdir()
    told = next(one for one in _found(*runs)["unknown"] if "evaluation not known" in one)
    assert f"tiebreak evaluate {runs[1].path}" in told


def test_differences_that_are_all_alike_have_no_interval(made, capsys):
    runs = [made("a"), made("b")]
    for run, tokens in zip(runs, (100.0, 19.0), strict=True):
        write_jsonl(run.measures_file, [row_of("answers/length", 100.0, [tokens] * 4, PROMPTS[:4]).as_dict()])
    found = _found(*runs)
    score = found["others"][0]["scores"][0]
    assert (score["difference"]["low"], score["difference"]["high"]) == (None, None)
    assert score["says"] == "not told apart"
    print_comparison(found)
    shown = capsys.readouterr().out
    assert "× 0.19" in shown
    assert "all alike" in shown
    assert "0.19 …" not in shown


def test_other_held_out_prompts_leave_the_scores_apart_and_compare_each_on_its_own(made):
    found = _found(made("a"), made("b", shift=1000, data="e"))
    other = found["others"][0]
    assert other["apart"]["accuracy"] == "no item in common"
    assert [one["key"] for one in other["scores"]] == ["answers/preferred"]
    own = [one for one in other["drift"] if one["key"] == "own/accuracy"]
    assert [one["moved"] for one in own] == [False]
    assert other["prompts"] == {"common": 0, "A": 100, "B": 100}


def test_a_beta_of_before_is_to_be_swept_again_where_the_data_moved(made):
    january = made("a", audit=_audit(100.0))
    may = made("b", audit=_audit(300.0), data="e", began="2026-05-02T10:00:00+00:00")
    found = _found(january, may)
    assert {one["key"] for one in found["others"][0]["drift"] if one["moved"]} == {"words/chosen"}
    assert found["advice"] == [
        "B has loss.beta 0.1 as A has, and its data are others (words of chosen (median)): sweep it again on them"
    ]
    assert _found(may, january)["advice"][0].startswith("A has loss.beta 0.1 as B has")  # the later one, in any order
    swept = made("c", audit=_audit(300.0), data="e", began="2026-06-01T10:00:00+00:00", **{"loss.beta": 0.05})
    assert _found(january, swept)["advice"] == []
    same = made("d", audit=_audit(100.0), data="e", began="2026-06-01T10:00:00+00:00")
    assert _found(january, same)["advice"] == []


def test_a_reference_older_than_its_base_model_is_told(made, tmp_path, tiny_model):
    from tiebreak.config import load_config
    from tiebreak.engine.sources import resolve

    base = shutil.copytree(tiny_model, tmp_path / "base")
    identity = resolve(load_config(None, {"model.name": str(base), "output.dir": "x"}).model).identity
    runs = [made("a"), made("b")]
    for run in runs:
        told = {"base_model": str(base), "model_folder": str(base), "model": identity, "base_identity": identity}
        write_json(run.manifest_file, run.manifest | told)
    assert _found(*runs)["advice"] == []
    config = base / "generation_config.json"
    config.write_text(json.dumps({"temperature": 0.123}))
    advice = _found(*runs)["advice"]
    assert len(advice) == 2
    assert "A's reference is older than its base model" in advice[0]
    shutil.rmtree(base)
    assert any("its folder is not there" in one for one in _found(*runs)["unknown"])


def test_a_hub_id_without_a_revision_is_not_known(made):
    runs = [made("a"), made("b")]
    for run in runs:
        write_json(
            run.manifest_file, run.manifest | {"base_model": "nobody/nothing", "base_identity": "nobody/nothing"}
        )
    assert any("no revision was set" in one for one in _found(*runs)["unknown"])


def test_an_older_run_and_one_without_evaluation_are_compared_in_what_they_know(made):
    old, new = made("a"), made("b", **{"training.epochs": 2})
    told = {key: value for key, value in old.manifest.items() if key not in ("schema", "versions")}
    write_json(old.manifest_file, told)
    lines = old.config_file.read_text().splitlines()
    kept = [line for line in lines if "schedule" not in line]  # a setting that it did not have
    old.config_file.write_text("\n".join(kept).replace("model:", "model:\n  sort_of_thing: 1", 1))
    for name in (new.evaluation_file, old.audit_file):
        name.unlink()
    found = _found(old, new)
    keys = {one["key"] for one in found["differences"]}
    assert {"training.epochs", "model.sort_of_thing"} <= keys
    assert "training.schedule" not in keys
    assert "versions" not in {one["part"] for one in found["differences"]}
    assert any(one.startswith("A: written by an older version") for one in found["unknown"])
    assert any(one.startswith("B: evaluation not known: ") for one in found["unknown"])
    assert found["others"][0]["apart"]["accuracy"] == "not measured in B"


@pytest.mark.parametrize("name", ["evidence_file", "measures_file", "config_file", "data_file", "audit_file"])
def test_a_damaged_file_costs_its_part_alone(made, name):
    runs = [made("a"), made("b")]
    file = getattr(runs[1], name)
    seals = {one.name: seal_of_file(one) for one in runs[1].path.iterdir() if one.name != "run.json"}
    runs[1].manifest_file.write_bytes(sealed_json(runs[1].manifest | {"files": seals}))
    assert _found(*runs)["unknown"] == []
    file.write_bytes(file.read_bytes().replace(b"0", b"1", 1) + b" ")
    told = [one for one in _found(*runs)["unknown"] if "is not what was written" in one]
    assert len(told) == 1
    assert told[0].startswith("B: ")


def test_what_is_no_comparison_is_refused_in_a_line(made, tmp_path):
    run = made("a")
    with pytest.raises(ConfigError, match="wanted 2 to 26 run folders, found 1"):
        tiebreak.compare(run)
    (tmp_path / "link").symlink_to(run.path)
    with pytest.raises(ConfigError, match="are the same run"):
        tiebreak.compare(run, tmp_path / "link")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"holds no run\.json"):
        tiebreak.compare(run, tmp_path / "empty")
    with pytest.raises(RunError, match="no such run folder"):
        tiebreak.compare(run, tmp_path / "none")
    made("b").manifest_file.write_bytes(as_json({"status": 5}))
    with pytest.raises(RunError, match="is not as a run writes it"):
        tiebreak.compare(run, tmp_path / "b")


@pytest.mark.parametrize("columns", [60, 80])
def test_the_screen_fits_and_obeys_nothing_of_the_files(made, monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    january = made("a\x1b[31m")
    may = made("b", shift=4, audit=_audit(300.0), data="e", began="2026-05-02T10:00:00+00:00")
    print_comparison(_found(january, may))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    assert "\x1b[31m" not in shown
    for word in ("B against A", "unclear", "moved", "sweep", "left out", "training prompts"):
        assert word in shown
    assert len(PROMPTS) == NUM


SFT = {"identity": "sft sha256:11", "base_identity": "llama sha256:00", "folder": "/gone/sft", "name": "sft"}
OVER_THE_REFERENCE = {"accuracy", "logratio_gap", "loss", "answers/preferred"}


def _against(run, weights, named=None):
    run.update_manifest(reference_weights=weights, reference_model=named)
    return run


def test_a_change_against_another_reference_is_not_held_beside_one(made, capsys):
    runs = [_against(made("a"), "sha256:1"), _against(made("b"), "sha256:2", SFT), _against(made("c"), "sha256:1")]
    runs[1].update_manifest(reference="sft sha256:11 on llama sha256:00, frozen copy")
    for run in runs:
        rows = [*run.rows(run.measures_file), row_of("answers/rule", 0.5, [1.0] * 40).as_dict()]
        write_jsonl(run.measures_file, rows)
    found = _found(*runs)
    b, c = found["others"]
    assert (b["same_reference"], c["same_reference"]) == (False, True)
    assert {*b["apart"]} == OVER_THE_REFERENCE
    assert {*b["apart"].values()} == {
        "another reference (A: llama sha256:00, adapter off; B: sft sha256:11 on llama sha256:00, frozen copy)"
    }
    assert [one["key"] for one in b["scores"]] == ["answers/rule"]
    assert c["apart"] == {}
    assert ("model", "reference") in {(one["part"], one["key"]) for one in found["differences"]}
    print_comparison(found)
    assert "another reference" in capsys.readouterr().out


def test_a_loss_that_asks_no_reference_is_compared_whatever_that_is(made):
    free = {"loss": {"name": "simpo"}}
    runs = [_against(made("a", **free), "sha256:1"), _against(made("b", **free), "sha256:2", SFT)]
    assert {*_found(*runs)["others"][0]["apart"]} == OVER_THE_REFERENCE - {"loss"}


def test_a_reference_in_another_dtype_or_form_is_the_same_one(made):
    runs = [_against(made("a"), "sha256:1"), _against(made("b"), "sha256:2")]
    runs[1].update_manifest(reference="llama sha256:00, frozen copy", model="moved sha256:00")
    found = _found(*runs)
    assert (found["others"][0]["same_reference"], found["others"][0]["apart"]) == (True, {})
    assert found["differences"] == []


def test_a_reference_that_is_not_known_is_said_to_be_so(made):
    runs = [made("a"), made("b")]
    runs[1].update_manifest(model=None)
    other = _found(*runs)["others"][0]
    assert other["same_reference"] is None
    assert {*other["apart"].values()} == {"only with the same reference, and whether it is the same is not known"}
    assert {*other["apart"]} == OVER_THE_REFERENCE


def test_another_reference_is_no_drift_of_the_data(made):
    runs = [_against(made("a"), "sha256:1"), _against(made("b", shift=1000, data="e"), "sha256:2", SFT)]
    assert not [one for one in _found(*runs)["others"][0]["drift"] if one["key"].startswith("own/")]
