"""The scripts for clusters, as far as they can be tried without one: syntax, options, keys, and what they end with."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import tiebreak

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "examples" / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
# sbatch's long options that stand in a script, each with what it takes (slurm.schedmd.com/sbatch.html).
DIRECTIVES = {
    "job-name": r"\w+", "nodes": r"\d+", "ntasks-per-node": r"1", "gpus-per-node": r"\d+", "cpus-per-task": r"\d+",
    "time": r"\d+:\d\d:\d\d", "signal": r"B:USR1@\d+", "requeue": None, "open-mode": r"append|truncate",
    "output": r"\S*%j\S*",
}  # fmt: skip
SKY = {"name", "workdir", "num_nodes", "resources", "envs", "file_mounts", "setup", "run"}
SKY_RESOURCES = {"accelerators", "use_spot", "disk_size", "job_recovery"}
ENDS = {"done": 0, "interrupted": 75, "running": 75, "failed": 1}


def test_every_script_stands_on_the_page():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert {path.name for path in CLUSTER.iterdir() if path.is_file()} == set(
        re.findall(r"`(\w+\.(?:sh|yaml|py))`", page)
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_of_its_shell(script):
    first = script.read_text(encoding="utf-8").splitlines()[0]
    shell = first.rpartition("/")[2]
    assert subprocess.run([shell, "-n", script], check=False, capture_output=True).returncode == 0
    if found := shutil.which("shellcheck"):
        told = subprocess.run([found, script], check=False, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout


TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
"""torchrun of this Python, whether or not it is on the path."""
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""Where scripts find a Python, as on a machine with an environment that is switched on."""


def _torchrun(words: list[str]) -> list[str]:
    """The words of a call of torchrun, from its options to the end of its command."""
    return words[words.index("torchrun") + 1 :]


def _calls() -> dict[str, list[str]]:
    found = {}
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            if "torchrun --nnodes" in line:
                found[path.name] = _torchrun(shlex.split(line.rstrip("'").strip()))
    sky = yaml.safe_load((CLUSTER / "sky.yaml").read_text(encoding="utf-8"))
    found["sky.yaml"] = _torchrun(shlex.split(sky["run"].replace("\\\n", " ")))
    job = list(yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8")))[1]
    found["kubernetes.yaml"] = _torchrun(job["spec"]["template"]["spec"]["containers"][0]["args"])
    return found


@pytest.fixture(scope="module")
def known() -> str:
    """What torchrun says of its options."""
    return subprocess.run([*TORCHRUN, "--help"], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sh", "sky.yaml", "kubernetes.yaml"])
def test_every_call_of_torchrun_has_options_that_it_knows_and_trains_a_configuration(name, known):
    words = _calls()[name]
    own, training = words[: words.index("-m")], words[words.index("-m") :]
    options = [word for word in own if word.startswith("-")]
    assert own[::2] == options  # each with a value
    assert all(re.search(rf"^\s+(-\w, )?{option}\b", known, re.MULTILINE) for option in options), options
    assert {"--nnodes", "--nproc-per-node"} <= {*options}
    assert ({"--rdzv-backend", "--rdzv-endpoint", "--rdzv-id"} <= {*options}) != ("--master-addr" in options)
    assert training[:3] == ["-m", "tiebreak", "train"]
    assert training[4:5] == ["--set"]
    assert training[5].startswith("output.dir=")


def test_what_slurm_is_asked_for_is_what_sbatch_knows():
    asked = re.findall(
        r"^#SBATCH --([\w-]+)(?:=(.*))?$", (CLUSTER / "slurm.sh").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name for name, _ in asked} == DIRECTIVES.keys()
    for name, value in asked:
        pattern = DIRECTIVES[name]
        assert value == "" if pattern is None else re.fullmatch(pattern, value), name


def test_the_job_of_skypilot_goes_on_where_it_ends_with_75():
    told = yaml.safe_load((CLUSTER / "sky.yaml").read_text(encoding="utf-8"))
    assert told.keys() <= SKY
    assert told["resources"].keys() <= SKY_RESOURCES
    assert told["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert told["envs"]["RUN"].startswith(next(iter(told["file_mounts"])))
    assert subprocess.run(["bash", "-n"], input=told["run"], text=True, check=False).returncode == 0


def test_the_job_of_kubernetes_finds_its_first_pod_and_makes_one_that_ends_with_75_again():
    service, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for
    [train] = pod["containers"]
    told = {one["name"]: one["value"] for one in train["env"]}
    assert spec["completions"] == spec["parallelism"] == int(told["NODES"])
    assert int(told["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert f"{job['metadata']['name']}-0.{service['metadata']['name']}:29500" in train["args"]
    [codes] = [rule["onExitCodes"] for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert (codes["containerName"], codes["values"]) == (train["name"], [75])
    assert set(re.findall(r"\$\((\w+)\)", " ".join(train["command"] + train["args"]))) <= told.keys()
    assert {one["name"] for one in train["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


def test_what_a_worker_of_ray_calls_is_there():
    tree = ast.parse((CLUSTER / "ray_train.py").read_text(encoding="utf-8"))
    [call] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func) == "tiebreak.train"
    ]
    inspect.signature(tiebreak.train).bind(*call.args, **{word.arg: word.value for word in call.keywords})
    done = subprocess.run(
        [sys.executable, CLUSTER / "ray_train.py", "--help"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "--workers" in done.stdout) == (0, True)


# -------------------------------------------------------------------------------------------------- what they end with


def _ended(run: Path, command: str, **more: str) -> int:
    words = ["sh", str(CLUSTER / "exit_code.sh"), str(run), "sh", "-c", command]
    return subprocess.run(words, check=False, env={**os.environ, "PATH": PATH, **more}, timeout=60).returncode


@pytest.mark.parametrize("status", ENDS)
def test_the_run_decides_what_a_launcher_ends_with(tmp_path, status):
    write = f"""printf '{{"status": "{status}"}}' > {tmp_path}/run.json"""
    assert _ended(tmp_path, f"{write}; exit {int(status != 'done')}") == ENDS[status]


def test_a_run_that_this_launch_did_not_touch_decides_nothing(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "interrupted"}')
    os.utime(tmp_path / "run.json", (1, 1))
    assert _ended(tmp_path, "exit 2") == 2
    assert _ended(tmp_path / "none", "exit 2") == 2
    assert _ended(tmp_path / "none", "exit 0") == 0


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_passed_on_once_and_waited_for(tmp_path, asked):
    (tmp_path / "launcher.py").write_text(f"""
import json, pathlib, signal, sys, time
folder = pathlib.Path({str(tmp_path)!r})
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
(folder / "ready").touch()
for _ in range(6000):  # a minute: nothing is left behind where no signal comes
    if seen:
        break
    time.sleep(0.01)
time.sleep(0.3)
(folder / "run.json").write_text(json.dumps({{"status": "interrupted", "seen": len(seen)}}))
sys.exit(1)
""")
    words = ["sh", str(CLUSTER / "exit_code.sh"), str(tmp_path), sys.executable, str(tmp_path / "launcher.py")]
    process = subprocess.Popen(words, env={**os.environ, "PATH": PATH})
    _wait_for(tmp_path / "ready")
    process.send_signal(asked)
    assert process.wait(30) == 75
    assert '"seen": 1' in (tmp_path / "run.json").read_text()


def _wait_for(file: Path) -> None:
    end = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < end, file
        time.sleep(0.02)


# Two processes that load torch: some seconds.
def test_torchrun_forgets_the_code_of_its_workers_and_the_script_does_not(tmp_path):
    (tmp_path / "worker.py").write_text(
        "import os, pathlib, sys\n"
        f"run = pathlib.Path({str(tmp_path / 'run')!r})\n"
        "run.mkdir(exist_ok=True)\n"
        "if os.environ['RANK'] == '0':\n"
        "    (run / 'run.json').write_text('{\"status\": \"interrupted\"}')\n"
        "sys.exit(75)\n"
    )
    torchrun = f"{shlex.join(TORCHRUN)} --standalone --nproc-per-node 2 {tmp_path}/worker.py"
    assert subprocess.run(shlex.split(torchrun), check=False, capture_output=True).returncode == 1
    assert _ended(tmp_path / "run", f"exec {torchrun}") == 75


@pytest.mark.parametrize(
    ("status", "restarts", "requeues"), [("interrupted", 0, True), ("failed", 0, False), ("interrupted", 50, False)]
)
def test_slurm_queues_a_run_again_that_was_interrupted(tmp_path, status, restarts, requeues):
    """Slurm's commands are stood in for by a few lines: one machine, which runs what srun is given."""
    commands = {
        "scontrol": 'if [ "$1" = show ]; then echo head; else echo "$@" >>"$TRACE"; fi',
        "srun": 'shift; SLURM_NODEID=0 exec "$@"',
        "torchrun": f"""trap 'printf "{{\\"status\\": \\"{status}\\"}}" >"$RUN/run.json"; exit 1' TERM
echo "$@" >"$TRACE.torchrun"; i=0; while [ $i -lt 300 ]; do sleep 0.1; i=$((i + 1)); done""",
    }
    (tmp_path / "bin").mkdir()
    (tmp_path / "run").mkdir()
    for name, code in commands.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    trace = tmp_path / "trace"
    told = {
        "PATH": f"{tmp_path / 'bin'}:{PATH}", "TRACE": str(trace), "TIEBREAK_CLUSTER": str(CLUSTER),
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NODELIST": "head", "SLURM_NNODES": "1", "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip
    words = ["bash", str(CLUSTER / "slurm.sh"), str(tmp_path / "run"), "my.yaml"]
    process = subprocess.Popen(words, env={**os.environ, **told}, cwd=tmp_path)
    _wait_for(trace.with_suffix(".torchrun"))
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == (75 if status == "interrupted" else 1)
    assert (trace.read_text() if trace.exists() else "") == ("requeue 1234\n" if requeues else "")
    assert "--rdzv-endpoint head:21234 " in trace.with_suffix(".torchrun").read_text()
    assert not (tmp_path / "tiebreak-1234.pid").exists()
