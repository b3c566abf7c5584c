"""The GPU benchmark runs, says what it could not measure, and its kernels attend to what a packed row means.

No GPU is needed: what only a GPU has is checked through a stand-in of torch's function, written from its documentation.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

import psutil
import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_attention  # noqa: E402
import gpu_kernels  # noqa: E402
from gpu_kernels import Row  # noqa: E402
from gpu_models import LENGTHS, Setting, drawn_lengths  # noqa: E402

from tiebreak.maths.packing import Segment  # noqa: E402

CPU = Setting(torch.device("cpu"), tiny=True)
ROW = Row((Segment(3, (2, 4)), Segment(5, (1, 0)), Segment(2, (0, 7))))


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")

    def inline(part, arguments, _until):
        return gpu.work(part, arguments, folder / f"{part}.json", time.time() + 600)

    out = folder / "all.json"
    asked = ["--device", "cpu", "--tiny", "--parts", "parity,attention,throughput", "--out", str(out)]
    code = gpu.main(asked, run=inline)
    return code, json.loads(out.read_text())


def _nulls(found, path=""):
    """Every null that is neither a reason nor has one beside it."""
    if isinstance(found, list):
        return [name for index, one in enumerate(found) for name in _nulls(one, f"{path}/{index}")]
    if not isinstance(found, dict):
        return []
    bare = [
        f"{path}/{key}"
        for key, value in found.items()
        if value is None
        and not key.endswith(("reason", "refusal"))
        and not (found.get(f"{key}_reason") or found.get("reason"))
    ]
    return bare + [name for key, value in found.items() for name in _nulls(value, f"{path}/{key}")]


def test_a_trial_on_the_cpu_measures_what_a_cpu_can(result):
    code, found = result
    assert code == 0 and found["failed"] == []
    for part in ("parity", "throughput"):
        assert {case["status"] for case in found["parts"][part]["cases"].values()} == {"measured"}
    measured = {name for name, case in found["parts"]["attention"]["cases"].items() if case["status"] == "measured"}
    assert {name.split("/")[0] for name in measured} == {"engine", "sdpa"}


def test_what_was_not_measured_is_null_and_says_why(result):
    _, found = result
    assert _nulls(found) == []
    assert {name.split("/")[1] for name in found["not_measured"]} >= {"alignment", "varlen", "flex"}
    assert all("CUDA" in why or "CPU" in why for why in found["not_measured"].values())


def test_every_family_has_the_packed_layout_and_the_plain_numbers(result):
    cases = result[1]["parts"]["parity"]["cases"]
    assert len(cases) == 8
    assert all(case["figures"]["passed"] and case["figures"]["engine_layout"] == "packed" for case in cases.values())


def test_a_cached_reference_saves_operations_and_no_pairs(result):
    for case in result[1]["parts"]["throughput"]["cases"].values():
        first, cached = case["figures"]["first_run"], case["figures"]["cached_reference"]
        for one, operations_per_token in ((first, 6), (cached, 4)):
            body = operations_per_token * case["figures"]["body_weights"] * one["body_tokens_per_second"] / 1e12
            assert 1 < one["achieved_tflops"] / body < 3  # the rest is the head


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so_in_one_line(capsys):
    assert gpu.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "no CUDA device" in shown.err


def test_parts_without_time_are_named(capsys):
    code = gpu.main(["--device", "cpu", "--tiny", "--minutes", "0.05", "--parts", "parity,attention"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1 and set(found["not_measured"]) == {"parity", "attention"}


def test_a_part_that_outlasts_its_time_is_ended_and_named():
    found = gpu.isolated("parity", Namespace(device="cpu", tiny=True), time.time() + 0.2)
    assert found["status"] == "skipped" and "time was over" in found["reason"]
    assert "--worker" not in [word for child in psutil.Process().children() for word in child.cmdline()]


def test_a_broken_case_costs_no_other():
    def broken(_):
        raise RuntimeError("no kernel\nimage")

    outcome = gpu._outcome(broken, 1.0)
    assert outcome["status"] == "failed" and outcome["reason"] == "RuntimeError: no kernel image"
    assert gpu.failed({"attention": {"cases": {"x": outcome}}}) == ["attention/x"]


@pytest.mark.parametrize("name", LENGTHS)
def test_drawn_lengths_have_the_stated_means_and_keep_the_cap(name):
    wanted = LENGTHS[name]
    drawn = drawn_lengths(name, 2000, Setting(torch.device("cpu"), tiny=False))
    for column, mean in zip(zip(*drawn, strict=True), (wanted.prompt, wanted.chosen, wanted.rejected), strict=True):
        assert sum(column) / len(column) == pytest.approx(mean, rel=0.01)
    assert max(prompt + max(sides) for prompt, *sides in drawn) <= wanted.cap
    assert drawn[:5] == drawn_lengths(name, 5, Setting(torch.device("cpu"), tiny=False))


def _documented_varlen(corner):
    """`varlen_attn` as its documentation has it, one sequence after the other, aligned at a corner of one's choice."""

    def varlen_attn(query, key, value, cu_q, cu_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):
        assert cu_q.dtype == cu_k.dtype == torch.int32 and key.shape == value.shape
        assert (max_q, max_k) == (int(cu_q.diff().max()), int(cu_k.diff().max()))
        assert (cu_q[-1], cu_k[-1]) == (len(query), len(key))
        left, right = window_size
        assert right == 0 and enable_gqa == (key.shape[1] != query.shape[1])
        outputs = []
        for i in range(len(cu_q) - 1):
            q, k, v = query[cu_q[i] : cu_q[i + 1]], key[cu_k[i] : cu_k[i + 1]], value[cu_k[i] : cu_k[i + 1]]
            k, v = (x.float().repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q.float(), k) * q.shape[-1] ** -0.5
            shift = len(k) - len(q) if corner == "bottom_right" else 0
            back = torch.arange(len(q))[:, None] + shift - torch.arange(len(k))
            seen = (back >= 0) & (back <= (left if left >= 0 else len(k)))
            outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v))
        return torch.cat(outputs).to(query.dtype)

    return varlen_attn, {"window_size", "enable_gqa"}


@pytest.mark.parametrize(("corner", "passes"), [("bottom_right", True), ("top_left", False)])
@pytest.mark.parametrize("window", [None, 8])
def test_the_alignment_check_tells_the_corners_apart(monkeypatch, corner, passes, window):
    monkeypatch.setattr(gpu_kernels, "_varlen_attn", lambda _: _documented_varlen(corner))
    found = gpu_attention._alignment(window, gpu_attention.KEY_HEADS, CPU, 1.0)
    assert found["passed"] is passes


def test_all_kernels_attend_alike(monkeypatch):
    monkeypatch.setattr(gpu_kernels, "_varlen_attn", lambda _: _documented_varlen("bottom_right"))
    inputs = gpu_attention.inputs_of(ROW, gpu_attention.KEY_HEADS, CPU).in_fp32()
    wanted = gpu_attention.answers(gpu_kernels.exact(ROW), inputs)
    for name in ("varlen", "varlen_repeated", "engine", "sdpa"):
        found = gpu_attention.answers(gpu_kernels.KERNELS[name](ROW, CPU.device), inputs)
        assert max(gpu_attention.differences(found, wanted).values()) < 1e-5, name


def test_the_mask_of_flex_attention_is_that_of_the_runs():
    at = torch.arange(ROW.num_tokens)
    visible = gpu_kernels.visible(ROW, CPU.device)(None, None, at[:, None], at)
    wanted = torch.zeros(ROW.num_tokens, ROW.num_tokens, dtype=torch.bool)
    for run in ROW.runs:
        for query in run.queries:
            wanted[query, [key for key in (*run.prompt, *run.own) if key <= query]] = True
    assert torch.equal(visible, wanted)
