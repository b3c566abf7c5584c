"""The throughput benchmark measures what it says: the same work for all, ratios and operations by their definition."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from frontier_stories import best_possible, labelled, win_rate  # noqa: E402
from jobs import Job, JobError, Settings, call  # noqa: E402
from reckoning import all_operations, operations, rated, summary, trajectory, work_of  # noqa: E402
from rounds import warmup_of, window  # noqa: E402

from tiebreak.records import TokenizedPair  # noqa: E402

pytest.importorskip("trl", reason="the benchmark runs beside TRL, which pip install 'tiebreak[test]' brings")

# Raised inside trl, transformers and accelerate, by their calls of each other's old names; none is a call of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]


def _row(prompt, chosen, rejected, name="a"):
    return {"pair_id": name, "prompt_id": name, "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _result(rate, losses=(0.5,), tokens=10):
    return rated(
        {
            "num_pairs": 2,
            "unique_tokens": tokens,
            "step_seconds": [2 / rate],
            "losses": list(losses),
            "peak_rss_bytes": 100,
            "arithmetic_gflops": 5.0,
            "sgemm_share": 0.5,
            "sgemm_share_all_products": 0.6,
        }
    )


def _round(**contestants):
    return {"sgemm_gflops": 10.0, "contestants": contestants}


def _settings(data, model, method="lora"):
    return Settings(str(data), str(model), method, 128, 2, 2, 1, 1e-3, 8, 2, 2, (32,), None)


@pytest.fixture(scope="module")
def pair_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    words = ["cat", "dog", "park", "mat", "sat", "ran", "yes"]
    rows = [
        {"prompt": f"the {words[i % 7]} " * (1 + i % 3) + str(i), "chosen": "yes " * (1 + i % 4), "rejected": "no"}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_script_still_finds_what_it_imports():
    names = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
    code = f"import importlib; [importlib.import_module(name) for name in {names}]"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_ratio_is_the_median_of_the_rounds_own_ratios():
    rounds = [_round(tiebreak=_result(ours), trl_default=_result(theirs)) for ours, theirs in [(8, 2), (9, 1), (2, 1)]]
    found = summary(rounds)
    assert found["ratios"]["trl_default"] == pytest.approx(4)
    assert found["ratios_of_medians"]["trl_default"] == pytest.approx(8)
    assert found["ratios"]["trl_tuned"] is None
    assert found["memory"]["ratio_to_trl_default"]["tiebreak"] == 1


def test_grouped_batches_are_compared_by_tokens_and_not_by_pairs():
    rounds = [_round(tiebreak_cached=_result(4, tokens=10), trl_tuned_grouped=_result(4, tokens=20))]
    assert summary(rounds)["ratios"]["trl_tuned_grouped"] == pytest.approx(0.5)


@pytest.mark.parametrize(("loss", "passed"), [(0.50005, True), (0.5002, False), (math.nan, False)])
def test_losses_that_part_do_not_pass(loss, passed):
    rounds = [_round(tiebreak=_result(1), trl_tuned=_result(1, losses=[loss]))]
    assert trajectory(rounds)["passed"] is passed


def test_operations_count_each_prompt_of_a_step_once():
    rows = [_row([1, 2, 3], [4, 5], [6]), _row([1, 2, 3], [7, 8, 9], [6], "b"), _row([1], [2], [3], "c")]
    # Step 1: 3 prompt tokens, 1 + 0 and 2 + 0 that continue it; step 2: 1 prompt token.
    assert work_of(rows, 2) == (7, 5)
    shape = {"body": 100, "vocabulary": 10, "width": 3}
    assert operations(rows, 2, shape, lora=True, live=True) == 100 * 7 * 6 + 60 * 5 * 3
    assert operations(rows, 2, shape, lora=False, live=False) == 100 * 7 * 6 + 60 * 5 * 3
    assert operations(rows, 2, shape, lora=True, live=False) == 100 * 7 * 4 + 60 * 5 * 2


def test_all_operations_add_the_adapter_and_what_attention_sees():
    rows = [_row([1, 1, 1], [2, 2], [3], "a")]  # 3 prompt tokens see 1 + 2 + 3, the chosen one sees 3 and itself
    shape = {"body": 100, "vocabulary": 10, "width": 3, "adapter": 5, "attention": 7}
    rest = operations(rows, 2, shape, lora=True, live=True)
    assert all_operations(rows, 2, shape, lora=True, live=True) == rest + 6 * 5 * 4 + 4 * 7 * 10 * 4


def test_rounds_take_new_pairs_and_the_warm_up_takes_none_of_them():
    rows = [_row([1] * size, [2], [3], str(size)) for size in range(1, 6)]
    assert [row["pair_id"] for row in window(rows, 1, 3)] == ["4", "5", "1"]
    assert [row["pair_id"] for row in warmup_of(rows, window(rows, 1, 3), 2)] == ["2", "3"]


def test_grouped_batches_are_of_similar_length_and_spread_over_the_pool():
    from contestant_trl import grouped_rows

    rows = [_row([1] * size, [2], [3], str(size)) for size in range(1, 13)]
    found = [int(row["pair_id"]) for row in grouped_rows(rows, 3, 2)]
    assert found == [9, 8, 7, 3, 2, 1]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_all_contestants_take_the_same_steps(method, pair_file, tiny_model, tmp_path):
    import contestant_tiebreak
    import contestant_trl

    job = Job("prepare", str(tmp_path), _settings(pair_file, tiny_model, method), scratch=str(tmp_path / "scratch"))
    facts = contestant_tiebreak.run(job)
    rows = facts.pop("rows")
    taken = window(rows, 0, 4)
    job = replace(job, rows=taken, warmup=warmup_of(rows, taken, 1), facts=facts)
    found = {}
    for module, kinds in {
        contestant_tiebreak: ("tiebreak", "tiebreak_cached"),
        contestant_trl: ("trl_default", "trl_tuned"),
    }.items():
        found |= {kind: rated(module.run(replace(job, kind=kind))) for kind in kinds}
    for result in found.values():
        assert len(result["step_seconds"]) == len(result["losses"]) == 2
        assert result["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
        assert result["unique_tokens"] == found["tiebreak"]["unique_tokens"]
    assert abs(found["tiebreak"]["losses"][1] - math.log(2)) > 1e-4  # the first step did move something
    compared = trajectory([_round(**found)])
    assert compared["passed"], compared
    assert max(compared["max_loss_difference"].values()) <= 1e-5


def test_a_job_that_dies_says_what_it_last_wrote(tmp_path):
    with pytest.raises(JobError, match=r"(?s)juggle: ended with exit code 1.*KeyError"):
        call(Job("juggle", str(tmp_path), _settings("none", "none")))


def test_a_win_rate_counts_ties_half_and_prompts_alike():
    assert win_rate([[2, 0], [1]], [[1], [1, 0, 0, 0]]) == pytest.approx((0.5 + 0.875) / 2)
    rewards = [[0, 1, 1, 3], [2, 2, 0, 5]]
    assert best_possible(rewards, 0) == pytest.approx((0, 0.5))
    known = [best_possible(rewards, strength) for strength in (1, 3, 9, 300)]
    assert known == sorted(known)
    # The best of four is the last of them: log 4 nats, and a win over three with a tie against itself.
    assert known[-1] == pytest.approx((math.log(4), 0.875))


def test_turned_labels_are_so_many_of_the_same_pairs():
    pairs = [TokenizedPair(f"{place}", f"{place}", (1,), (5, place + 9), (6,)) for place in range(30)]
    clean, noisy = (labelled(pairs, 20, flips, 3) for flips in (0.0, 0.2))
    assert [one.prompt_id for one in clean] == [one.prompt_id for one in noisy]
    assert sum(one.chosen_ids == other.rejected_ids for one, other in zip(clean, noisy, strict=True)) == 4
    assert sum(one == other for one, other in zip(clean, noisy, strict=True)) == 16


def test_the_frontier_goes_on_where_it_was_cut_off(stories, tmp_path, monkeypatch, capsys):
    import frontier

    sizes = ["--pairs", "6", "--pairs-per-step", "3", "--prompts", "3", "--pool", "4", "--seeds", "0", "--scales", "1"]
    command = ["frontier", "--model", str(stories), "--out", str(tmp_path), "--losses", "dpo", "kto", *sizes]
    monkeypatch.setattr(sys, "argv", [*command, "--figures", str(tmp_path)])
    frontier.main()
    table, file = capsys.readouterr().out, tmp_path / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(row["loss"], row["flips"]) for row in rows] == [("dpo", 0), ("dpo", 0.2), ("kto", 0), ("kto", 0.2)]
    assert all(0 <= row["win"] <= 1 and abs(row["kl"]) < 5 and row["reward"] > 0 for row in rows)
    assert (tmp_path / "frontier-0.svg").read_text() != (tmp_path / "frontier-20.svg").read_text()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]) + '{"loss": "k')
    frontier.main()
    assert capsys.readouterr().out == table
    monkeypatch.setattr(sys, "argv", [*command, "--opening", "One day,"])
    with pytest.raises(SystemExit, match="take another --out"):
        frontier.main()


@pytest.mark.slow
def test_the_command_prints_one_json_object(pair_file, tiny_model, tmp_path):
    sizes = ["--rounds", "1", "--steps", "1", "--pairs-per-step", "2", "--sgemm", "64", "--max-length", "128"]
    command = [sys.executable, BENCHMARKS / "throughput.py", "--data", pair_file, "--model", tiny_model, *sizes]
    done = subprocess.run(
        [*command, "--contestants", "tiebreak", "--threads", "1", "--json", "--out", tmp_path / "result.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["machine"]["threads"] == 1
    assert result["sgemm"]["share"]["tiebreak"] > 0
    assert result["unique_tokens_per_second"]["tiebreak"] > 0
    assert result["ratios"]["trl_default"] is None


@pytest.mark.parametrize("faulty", [("--data", "absent.jsonl"), ("--data", __file__, "--out", "absent/result.json")])
def test_what_cannot_work_is_said_in_one_line_before_anything_runs(faulty):
    code = [sys.executable, str(BENCHMARKS / "throughput.py"), *faulty]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {faulty[-1]}: ")
