"""Workers that a scheduler runs: queue, run, loss and cancel, with Slurm's commands stood in for by a few lines."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from job_service import service, weights
from tiebreak.config.service import LauncherConfig, load_serve
from tiebreak.errors import ConfigError, RunError
from tiebreak.service import commands, jobs
from tiebreak.service.commands import Command, check_words, filled
from tiebreak.service.launching import LOCK, is_held, signature
from tiebreak.service.supervisor import launcher_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "service"
TEXTS = sorted(path for path in EXAMPLES.glob("*.yaml") if "launcher" in path.read_text(encoding="utf-8"))

# A cluster of one machine: a job waits until there is a file `go`, and is asked after by its number.
SLURM = {
    "sbatch": """
for word; do last=$word; done
number=$(($(cat "$CLUSTER/last" 2>/dev/null || echo 40) + 1)); echo "$number" >"$CLUSTER/last"
printf '%s\\n' "$@" >"$CLUSTER/$number.words"
setsid nohup sh -c "while [ ! -e '$CLUSTER/go' ]; do sleep 0.02; done; touch '$CLUSTER/$number.runs'; $last" \\
    >"$CLUSTER/$number.log" 2>&1 &
echo $! >"$CLUSTER/$number.pid"
[ -e "$CLUSTER/late" ] && { echo "$number;cluster"; exit 1; }
[ -e "$CLUSTER/slow" ] && { echo "$number;cluster"; sleep 60; }
[ -e "$CLUSTER/refuse" ] && { echo 'sbatch: error: Batch job submission failed' >&2; exit 1; }
echo "$number;cluster"
""",
    "squeue": """
echo "$@" >>"$CLUSTER/asked"
[ -e "$CLUSTER/silent" ] && exit 1
[ -e "$CLUSTER/odd" ] && { echo DREAMING; exit 0; }
for word; do case $word in --jobs=*) number=${word#--jobs=} ;; esac; done
if ! kill -0 "$(cat "$CLUSTER/$number.pid")" 2>/dev/null; then echo FAILED
elif [ -e "$CLUSTER/$number.runs" ]; then echo RUNNING
else echo PENDING; fi
""",
    "scancel": """
for word; do number=$word; done
echo "$@" >>"$CLUSTER/cancelled"
case $1 in
--state=PENDING) [ -e "$CLUSTER/$number.runs" ] || kill -KILL "$(cat "$CLUSTER/$number.pid")" ;;
*) [ ! -e "$CLUSTER/$number.runs" ] || kill -TERM "$(cat "$CLUSTER/$number.pid")" ;;
esac
exit 0
""",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Put sbatch, squeue and scancel on the path; ends what they started."""
    place, folder = tmp_path / "bin", tmp_path / "cluster"
    place.mkdir()
    folder.mkdir()
    for name, code in SLURM.items():
        (place / name).write_text(f"#!/bin/sh\n{code}")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("CLUSTER", str(folder))
    monkeypatch.setattr(commands, "SETTLE_SECONDS", 0.2)
    yield folder
    for file in folder.glob("*.pid"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)


def _slurm(**changes) -> LauncherConfig:
    told = yaml.safe_load((EXAMPLES / "slurm.yaml").read_text(encoding="utf-8"))["launcher"]
    return LauncherConfig.model_validate(told | {"poll_seconds": 0.05} | changes)


@pytest.fixture
def launcher(cluster):
    said = []
    made = Command(_slurm(), lambda job, message: said.append((job, message)), settle_seconds=0.2)
    made.said = said
    return made


def _handle(folder: Path, attempt: int = 1) -> dict:
    folder.mkdir(exist_ok=True)
    return {"folder": str(folder), "job": "ftjob-one", "attempt": attempt}


def _until(found) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


WORKER = (
    "import json, signal, sys, time; from pathlib import Path; folder = Path(sys.argv[1]); told = []; "
    "signal.signal(signal.SIGTERM, lambda *_: told.append(75)); (folder / 'ready').touch(); "
    "[time.sleep(0.01) for _ in iter(lambda: bool(told) or (folder / 'end').exists(), True)]; "
    "(folder / 'ended.json').write_text(json.dumps({'exit': told[0] if told else 0, 'attempt': 1}))"
)


def _words(folder: Path) -> list[str]:
    return [sys.executable, "-c", WORKER, str(folder)]


def test_a_worker_waits_runs_and_ends(cluster, launcher, tmp_path):
    folder = tmp_path / "a job's folder"
    told = launcher.start(_handle(folder), _words(folder))
    assert told["handle"] == "41"
    time.sleep(0.3)
    assert launcher.poll(told) == "running"
    assert not (cluster / "41.runs").exists()
    (cluster / "go").touch()
    _until((folder / "ready").exists)
    assert launcher.poll(told) == "running"
    (folder / "end").touch()
    _until(lambda: launcher.poll(told) == "done")
    assert "--signal=B:TERM@120" in (cluster / "41.words").read_text().splitlines()
    assert "--job-name=ftjob-one" in (cluster / "41.words").read_text().splitlines()
    assert launcher.said == []


def test_a_worker_is_submitted_once_whoever_asks(cluster, launcher, tmp_path):
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    other = Command(_slurm(), lambda *_: None)
    # Another server, which knows no more than what stood in the store before anything was submitted.
    assert other.start(_handle(tmp_path / "job"), _words(tmp_path / "job")) == _handle(tmp_path / "job")
    assert other.poll(_handle(tmp_path / "job")) == launcher.poll(told) == "running"
    assert (cluster / "last").read_text() == "41\n"


def test_a_server_that_dies_while_it_submits_leaves_a_handle(cluster, tmp_path):
    # A server that dies before its command begins has submitted nothing; this one dies while it is at it.
    begun, go = tmp_path / "begun", tmp_path / "go"
    script = 'touch "$2"; while [ ! -e "$3" ]; do sleep 0.02; done; exec sbatch --parsable "$1"'
    slow = _slurm(submit=["sh", "-c", script, "sh", "sleep 30", str(begun), str(go)])
    handle = _handle(tmp_path / "job")
    code = (
        "import json, sys; from tiebreak.service.commands import Command; "
        "from tiebreak.config.service import LauncherConfig; settings = LauncherConfig(**json.loads(sys.argv[1])); "
        "print('begins', flush=True); Command(settings, print).start(json.loads(sys.argv[2]), ['worker'])"
    )
    words = [sys.executable, "-c", code, slow.model_dump_json(), json.dumps(handle)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    _until(begun.exists)
    assert is_held(tmp_path / "job" / "submitted-1.txt")
    server.kill()
    server.communicate()
    launcher = Command(slow, lambda *_: None)
    assert launcher.poll(handle) == "running"
    assert launcher.start(handle, ["worker"]) == handle
    go.touch()
    _until((tmp_path / "job" / "submitted-1.txt").read_text)
    assert launcher.poll(handle) == "running"
    assert (cluster / "last").read_text() == "41\n"


def test_a_worker_that_the_scheduler_lost_is_lost_once_the_folder_has_had_time_to_show_its_end(
    cluster, launcher, tmp_path
):
    (cluster / "go").touch()
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    _until((tmp_path / "job" / "ready").exists)
    os.kill(int((cluster / "41.pid").read_text()), signal.SIGKILL)
    began = time.monotonic()
    _until(lambda: launcher.poll(told) == "lost")
    assert time.monotonic() - began > 0.2


def test_a_status_that_fails_five_times_in_a_row_is_a_loss(cluster, launcher, tmp_path):
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    (cluster / "silent").touch()
    _until(lambda: launcher.poll(told) == "lost")
    assert len((cluster / "asked").read_text().splitlines()) == 5


def test_a_word_that_is_not_known_means_that_it_runs_and_is_told(cluster, launcher, tmp_path):
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    (cluster / "odd").touch()
    _until(lambda: launcher.poll(told) == "running" and launcher.said)
    assert launcher.said[0] == ("ftjob-one", "The scheduler says 'DREAMING', which launcher.states does not name.")


def test_it_is_asked_no_more_often_than_the_operator_says(cluster, tmp_path):
    launcher = Command(_slurm(poll_seconds=3600), lambda *_: None)
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    assert {launcher.poll(told) for _ in range(20)} == {"running"}
    assert len((cluster / "asked").read_text().splitlines()) == 1


def test_a_worker_that_waits_leaves_the_queue_and_one_that_runs_is_told(cluster, launcher, tmp_path):
    waits = launcher.start(_handle(tmp_path / "one"), _words(tmp_path / "one"))
    assert "asked" in launcher.stop(waits, 30)
    _until(lambda: launcher.poll(waits) == "lost")
    (cluster / "go").touch()
    runs = launcher.start(_handle(tmp_path / "two"), _words(tmp_path / "two"))
    _until((tmp_path / "two" / "ready").exists)
    runs = launcher.stop(runs, 30)
    assert launcher.stop(runs, 30) == runs
    _until(lambda: launcher.poll(runs) == "done")
    assert json.loads((tmp_path / "two" / "ended.json").read_text())["exit"] == 75
    assert len((cluster / "cancelled").read_text().splitlines()) == 4


def test_what_cannot_be_submitted_is_one_line_and_leaves_nothing(cluster, launcher, tmp_path):
    (cluster / "refuse").touch()
    with pytest.raises(RunError, match=r"launcher\.submit: ended with 1"):
        launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    assert launcher.poll(_handle(tmp_path / "job")) == "lost"
    assert "Batch job submission failed" in (tmp_path / "job" / "worker.log").read_text()
    silent = Command(_slurm(submit=["true"]), lambda *_: None)
    with pytest.raises(RunError, match=r"printed '', in which launcher\.handle finds nothing"):
        silent.start(_handle(tmp_path / "job", 2), ["worker"])
    missing = Command(_slurm(submit=["no-such-command"]), lambda *_: None)
    with pytest.raises(RunError, match="No such file"):
        missing.start(_handle(tmp_path / "job", 3), ["worker"])


@pytest.mark.parametrize("how", ["late", "slow"])
def test_a_submission_that_fails_after_the_scheduler_took_it_is_not_made_twice(
    cluster, launcher, tmp_path, monkeypatch, how
):
    monkeypatch.setattr(commands, "_COMMAND_SECONDS", 5.0)
    (cluster / how).touch()
    told = launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    assert (told["handle"], launcher.poll(told)) == ("41", "running")
    [(job, said)] = launcher.said
    assert job == "ftjob-one"
    assert "the scheduler has the job" in said
    launcher.stop(told, 30)
    assert "41" in (cluster / "cancelled").read_text()


def test_a_number_that_the_scheduler_does_not_have_is_no_submission(cluster, launcher, tmp_path):
    (cluster / "late").touch()
    (cluster / "silent").touch()
    with pytest.raises(RunError, match=r"launcher\.submit: ended with 1"):
        launcher.start(_handle(tmp_path / "job"), _words(tmp_path / "job"))
    assert launcher.poll(_handle(tmp_path / "job")) == "lost"


# --------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("key", "word", "said"),
    [
        ("submit", "--name={jb}", r"launcher\.submit: \{jb\} stands for nothing; there are \{attempt\}"),
        ("submit", "{handle}", r"launcher\.submit: \{handle\} stands for nothing"),
        ("status", "{", r"launcher\.status: '\{' cannot be filled"),
        ("cancel", "{job:>3}", r"launcher\.cancel: '\{job:>3\}' says more about \{job\} than its name"),
        ("cancel", "{}", r"launcher\.cancel: \{\} stands for nothing"),
    ],
)
def test_words_that_nothing_stands_for_are_refused(key, word, said):
    with pytest.raises(ConfigError, match=said):
        check_words(_slurm(**{key: [word]}))


def test_a_pattern_without_a_group_is_refused():
    with pytest.raises(ConfigError, match=r"launcher\.handle: wanted a pattern with a group"):
        check_words(_slurm(handle=r"\d+"))


def test_what_is_filled_in_is_not_read_again_and_no_shell_reads_it():
    told = {"job": "{folder}; rm -rf $HOME", "folder": "/x"}
    assert filled(["a{job}b", "{{job}}", "{folder}{job}"], told) == [
        "a{folder}; rm -rf $HOMEb",
        "{job}",
        "/x{folder}; rm -rf $HOME",
    ]


# ------------------------------------------------------------------------------------------------------- shipped texts


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)
def test_a_shipped_text_is_one_that_the_service_takes(text, tmp_path):
    from tiebreak.service.store import open_store

    settings, _ = load_serve(text)
    assert settings.launcher.kind == "command"
    launcher_of(settings.launcher, open_store(tmp_path / "service"))
    assert {"running", "done", "lost"} == set(settings.launcher.states.values())
    named = [word for word in settings.launcher.submit if word.startswith("examples/")]
    assert all((ROOT / word).is_file() for word in named)


def test_there_is_a_text_for_each_scheduler():
    assert [path.stem for path in TEXTS] == ["dstack", "kubernetes", "ray", "skypilot", "slurm"]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_one_of_its_shell(script):
    assert subprocess.run(["sh", "-n", script], check=False, capture_output=True).returncode == 0
    if found := shutil.which("shellcheck"):
        told = subprocess.run([found, script], check=False, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout


def test_a_job_of_kubernetes_gets_a_name_that_it_allows_and_the_folder(tmp_path, monkeypatch):
    (tmp_path / "kubectl").write_text(f"#!/bin/sh\ncat >{tmp_path}/made\necho job.batch/$RANDOM_NAME\n")
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RANDOM_NAME", "one")
    words = ["sh", str(EXAMPLES / "kubernetes.sh"), "ftjob-AbC", "2", "/data/service/jobs/ftjob-AbC"]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "job.batch/one\n"
    made = yaml.safe_load((tmp_path / "made").read_text())
    assert made["metadata"]["name"] == "ftjob-abc-2"
    [worker] = made["spec"]["template"]["spec"]["containers"]
    assert worker["command"][-2:] == ["tiebreak.service.work", "/data/service/jobs/ftjob-AbC"]
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    assert {one["name"] for one in worker["volumeMounts"]} == {
        one["name"] for one in made["spec"]["template"]["spec"]["volumes"]
    }


# --------------------------------------------------------------------------------------------------- a job, end to end


# Two workers, one after the other, each of which loads torch.
@pytest.mark.slow
def test_a_job_is_lost_once_and_succeeds_on_a_cluster(cluster, tmp_path, tiny_model):
    made = service(tmp_path / "service", tiny_model, launcher=_slurm().model_dump())
    made.launcher = launcher_of(made.settings.launcher, made.store)
    job, supervisor = made.create(), made.supervisor()
    made.until(supervisor, job, "running")
    time.sleep(0.3)
    supervisor.look()
    assert made.job(job).state == "running"
    (cluster / "go").touch()
    made.when(supervisor, lambda: any("Step 2/" in said for said in made.messages(job)) or is_over(made, job))
    if is_held(made.folder(job) / LOCK):
        os.kill(signature(made.folder(job))["pid"], signal.SIGKILL)
    found = made.until(supervisor, job, "succeeded", "failed")
    assert found.state == "succeeded", (found.error, made.log(job))
    assert weights(made.folder(job) / "artefact")
    steps = [event["once"] for event in made.events(job) if (event["once"] or "").startswith("step-")]
    assert steps == [f"step-{n}" for n in range(1, 13)]


def is_over(made, job) -> bool:
    return made.job(job).state in jobs.ENDED
