"""Several processes under a launcher, with the real command line: one that dies, hangs or is stopped ends the job in
bounded time, is named, and the same command goes on; a signal to the launcher saves; other numbers of processes go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ports import free_port
from tiny import drawn_pairs

STEPS = 6


class Job:
    """What is trained, by so many processes as it is asked with."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.pairs = drawn_pairs(folder)

    def command(self, out: str, num: int, *more: str, node: int | None = None, port: int = 0) -> list[str]:
        changes = {
            "model.name": self.model, "data.train": self.pairs, "output.dir": self.folder / out, "model.device": "cpu",
            "adapter.rank": 4, "training.pairs_per_step": 6, "training.learning_rate": 0.001,
            "training.checkpoint_steps": 1, "reference.store": "off", "signals.looks": 0, "evaluation.num_samples": 2,
            "evaluation.max_new_tokens": 4, "evaluation.num_draws": 0, "evaluation.neutral_probe": "false",
            "distributed.timeout_seconds": 15, "output.trackers": "[]",
        }  # fmt: skip
        own = ["-m", "tiebreak", "train", "--json"]
        for change in (*(f"{key}={value}" for key, value in changes.items()), *more):
            own += ["--set", change]
        if num == 1 and node is None:
            return [sys.executable, *own]
        nodes = [] if node is None else ["--nnodes", "2", "--node-rank", str(node), "--master-addr", "127.0.0.1"]
        return [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(num), *nodes),
            *("--master-port", str(port or free_port()), *own),
        ]

    def run(self, out: str, num: int, *more: str, fault: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TIEBREAK_FAULT": fault}
        if not fault:
            del environment["TIEBREAK_FAULT"]
        return subprocess.run(
            self.command(out, num, *more), env=environment, capture_output=True, text=True, timeout=150, check=False
        )

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / out / "policy" / "adapter_model.safetensors")

    def losses(self, out: str) -> list[float]:
        lines = (self.folder / out / "metrics.jsonl").read_text().splitlines()
        return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


@pytest.fixture(scope="module")
def job(tiny_model, tmp_path_factory):
    return Job(tmp_path_factory.mktemp("several"), tiny_model)


@pytest.fixture(scope="module")
def undisturbed(job):
    """A run of two processes that nobody disturbs."""
    ran = job.run("undisturbed", 2)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return job.weights("undisturbed"), job.losses("undisturbed"), json.loads(ran.stdout)


def _close(one, two) -> bool:
    return all(torch.allclose(one[key], two[key], rtol=0, atol=1e-5) for key in one) and one.keys() == two.keys()


def test_two_processes_end_as_one_does_and_only_one_of_them_speaks(job, undisturbed):
    weights, losses, told = undisturbed
    ran = job.run("alone", 1)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert _close(weights, job.weights("alone"))
    assert losses == pytest.approx(job.losses("alone"), rel=1e-5)
    assert told["verdict"] == json.loads(ran.stdout)["verdict"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("kill@other:task:14", "rank 1 of 2"),
        ("hang@other:task:14", "did not take part for 15 s (distributed.timeout_seconds) and hangs"),
        ("stop@other:task:14", "has given no sign of life for 15 s"),
    ],
)
def test_a_process_that_is_lost_ends_the_job_is_named_and_the_same_command_goes_on(job, undisturbed, fault, said):
    out = fault[:4]
    began = time.monotonic()
    ran = job.run(out, 2, fault=fault)
    assert ran.returncode != 0
    assert time.monotonic() - began < 120
    line = next(line for line in ran.stderr.splitlines() if line.startswith("error: rank 1 of 2"))
    assert said in line
    assert "the same command goes on from the last checkpoint" in line
    again = job.run(out, 2)
    assert again.returncode == 0, again.stderr[-2000:]
    weights, losses, _ = undisturbed
    assert all(torch.equal(weights[key], value) for key, value in job.weights(out).items())
    assert losses == job.losses(out)


def test_a_signal_to_the_launcher_saves_once_and_other_numbers_of_processes_go_on(job, undisturbed):
    launcher = subprocess.Popen(
        job.command("signalled", 2), env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics, deadline = job.folder / "signalled" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and '"loss"' in metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    _, stderr = launcher.communicate(timeout=60)
    assert stderr.count("stopped by SIGTERM; run the same command again to resume") == 1
    assert job.run("signalled", 1).returncode == 0
    weights, losses, _ = undisturbed
    assert _close(weights, job.weights("signalled"))
    assert job.losses("signalled") == pytest.approx(losses, rel=1e-5)


def test_two_machines_train_as_one_does(job, undisturbed):
    port, processes = free_port(), []
    for node in range(2):
        processes.append(
            subprocess.Popen(
                job.command("machines", 1, node=node, port=port), env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
    told = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert all(torch.equal(undisturbed[0][key], value) for key, value in job.weights("machines").items())
