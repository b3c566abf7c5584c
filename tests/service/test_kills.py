"""SIGKILL of workers and of whoever watches them, at moments that nobody named: the job ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bounds import LONG
from job_service import Service, service, weights
from tiebreak.service import shelf
from tiebreak.service.jobs import ENDED, Job
from tiebreak.service.launching import LOCK, is_held, signature

PROGRAM = """
import sys
from pathlib import Path
from tiebreak.service.launching import Local
import job_service
made = job_service.service(Path(sys.argv[1]), Path(sys.argv[2]), limits={"attempts": 100})
supervisor = made.supervisor()
supervisor.start()
print("ready", flush=True)
sys.stdin.read()
supervisor.close()
"""
WANTED = [f"step-{number}" for number in range(1, 13)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_model):
    """The weights that `tiebreak train` makes of the job's settings, and what is said of the run, by name."""
    made = service(tmp_path_factory.mktemp("undisturbed") / "service", tiny_model)
    job = made.create()
    supervisor = made.supervisor()
    made.until(supervisor, job, "running")
    made.when(supervisor, lambda: made.job(job).worker is None)
    assert made.job(job).state == "succeeded", made.log(job)
    again = made.folder(job).parent / "again"
    words = ["train", str(made.folder(job) / "config.yaml"), "--set", f"output.dir={again}", "--quiet"]
    subprocess.run([sys.executable, "-m", "tiebreak", *words], check=True, capture_output=True)
    assert weights(again / "policy") == weights(made.folder(job) / "run" / "policy")
    return weights(again / "policy"), _once(made, job)


def _once(made: Service, job: Job) -> list[str]:
    """What is told once of a run and its end, in the order that it was told in.

    But for deaths, and what a run warned of: how busy the machine was, what an attempt that was cut off left.
    """
    names = [str(event["once"]) for event in made.events(job) if event["once"]]
    return [name for name in names if not name.startswith(("died-", "warned-"))]


def _watch(folder: Path, model: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])}
    watching = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline() == "ready\n"
    return watching


def _kill_worker(made: Service, job: Job) -> bool:
    told = signature(made.folder(job))
    if not told or not is_held(made.folder(job) / LOCK):
        return False
    os.kill(told["pid"], signal.SIGKILL)
    return True


def _wait_for_training(made: Service, job: Job) -> None:
    """Return once the run has written a row more, which takes the seconds of loading torch; or has come to its end."""
    file, end = made.folder(job) / "run" / "metrics.jsonl", time.monotonic() + 30
    before = file.stat().st_mtime_ns if file.exists() else 0
    while time.monotonic() < end and made.job(job).state not in ENDED:
        if file.exists() and file.stat().st_mtime_ns != before:
            return
        time.sleep(0.01)


def _disturbed(made: Service, model: Path, job: Job, kills: int, seed: int) -> Counter[str]:
    """Kill workers and watchers until so many are dead, then let the job come to its end; return who was killed."""
    draw, dead, most = random.Random(seed), Counter[str](), time.monotonic() + 60 + 20 * kills
    watching = _watch(made.store.folder, model)
    try:
        while made.job(job).state not in ENDED:
            assert time.monotonic() < most, (made.messages(job), made.log(job)[-2000:])
            if dead.total() >= kills:
                time.sleep(0.1)
                continue
            if draw.random() < 0.5:
                _wait_for_training(made, job)
            time.sleep(draw.choice([draw.uniform(0, 0.7), draw.uniform(0, 4)]))
            who = draw.choice(["worker", "worker", "watcher", "both"])
            if who != "watcher" and _kill_worker(made, job):
                dead["worker"] += 1
            if who != "worker":
                watching.kill()
                watching.communicate()
                dead["watcher"] += 1
                watching = _watch(made.store.folder, model)
    finally:
        watching.communicate()
    return dead


def _assert_as_if_nothing_had_been(made: Service, job: Job, undisturbed) -> None:
    wanted, told = undisturbed
    found = made.job(job)
    assert found.state == "succeeded", (found.error, made.log(job)[-3000:])
    assert weights(made.folder(job) / "run" / "policy") == wanted
    assert weights(made.folder(job) / "artefact") == wanted
    once = _once(made, job)
    assert [name for name in once if name.startswith("step-")] == WANTED
    assert once == told
    said = Counter(made.messages(job))
    assert said["The job has successfully completed"] == said["Files validated, moving job to queued state"] == 1
    assert [row["name"] for row in made.store.rows("select name from models")] == [found.model]
    files = shelf.listed(made.store, made.key, purpose=shelf.RESULTS)[0]
    assert sorted(file.id for file in files) == sorted(found.results)
    assert len(files) == 3
    assert [row["step"] for row in made.store.rows("select step from checkpoints order by step")] == [4, 8, 10, 12]


def _try(tmp_path, model, undisturbed, kills, seed) -> Counter[str]:
    """Kill so many at a job, and at another one where that came to its end before."""
    dead = Counter[str]()
    for number in range(kills):
        if dead.total() < kills:
            made = service(tmp_path / f"service-{number}", model, limits={"attempts": 100})
            job = made.create()
            dead += _disturbed(made, model, job, kills - dead.total(), seed + 1000 * number)
            _assert_as_if_nothing_had_been(made, job, undisturbed)
    return dead


# Each kill costs the seconds that a worker takes to load torch again.
@pytest.mark.slow
def test_a_job_whose_worker_and_watcher_are_killed_ends_the_same(tmp_path, tiny_model, undisturbed):
    _try(tmp_path, tiny_model, undisturbed, 5, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["step:end:7", "export", "work:ended"])
def test_a_worker_that_is_killed_at_a_named_place_goes_on(tmp_path, tiny_model, undisturbed, monkeypatch, point):
    made = service(tmp_path / "service", tiny_model)
    job, supervisor = made.create(), made.supervisor()
    with monkeypatch.context() as patch:
        patch.setenv("TIEBREAK_FAULT", f"kill@{point}")
        made.when(supervisor, lambda: made.job(job).read_to.get("starts") == 1)
    made.until(supervisor, job, *ENDED)
    assert made.job(job).read_to["starts"] == 2
    _assert_as_if_nothing_had_been(made, job, undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="the long form, minutes of kills: set TIEBREAK_LONG=1")
@pytest.mark.parametrize("seed", range(100, 100 + int(os.environ.get("TIEBREAK_KILLS", "40")) // 5))
def test_many_kills(tmp_path, tiny_model, undisturbed, seed):
    dead = _try(tmp_path, tiny_model, undisturbed, 5, seed)
    assert dead.total() >= 5
    print(f"killed: {dict(dead)}")
