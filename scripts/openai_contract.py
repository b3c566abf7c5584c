"""Run the tests that OpenAI's own client has for fine-tuning, files, uploads and models against `tiebreak serve`.

    pip download --no-deps --no-binary :all: openai==3.57.0 && tar -xzf openai-3.57.0.tar.gz
    pip install pytest-asyncio
    python scripts/openai_contract.py openai-3.57.0            # exit 1 where something fails that is not expected to

The tests stand in the package's source distribution and ask for objects by ids of their own (`file-abc123`, …): before
each of them the service's tables are filled anew with objects of these ids. What is expected to fail, and why, is
`EXPECTED`; a test that is listed there and passes is told, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tiebreak.service.store import Store, now, open_store

TESTS = ("fine_tuning/test_jobs.py", "fine_tuning/jobs/test_checkpoints.py", "test_files.py", "test_models.py",
         "test_uploads.py", "uploads/test_parts.py")  # fmt: skip
KEY = "My API Key"
"""Of their conftest."""

EXPECTED = {
    r"test_jobs\.py.*pause": "answers `paused`, which the specification's examples have and its enum lacks",
    r"test_jobs\.py.*test_method_create_with_all_params": "integrations: the service reports to no W&B",
    r"test_uploads\.py.*complete": "names a part that nobody sent",
    r"test_(files|uploads)\.py.*create": "purpose assistants: files are for fine-tune alone",
}
"""Which tests fail, as patterns of their names, and why."""

PLUGIN = """
import pytest
from pathlib import Path
import os, sys
sys.path.insert(0, os.environ["CONTRACT_SCRIPTS"])
import openai_contract

@pytest.fixture(autouse=True)
def _objects(request):
    openai_contract.fill(Path(os.environ["CONTRACT_DIR"]), "paused" if "resume" in request.node.name else "queued")
"""

SERVE = """
models:
  gpt-4o-mini: {model: {name: smollm2-135m-instruct}}
  gpt-6-astra: {model: {name: smollm2-135m-instruct}}
quotas: {jobs_at_once: 100000, jobs_a_day: 100000}
limits: {queue: 100000}
"""


def fill(folder: Path, state: str) -> None:
    """Give a service the objects that the tests ask for, as if nothing had happened to them: jobs in this state."""
    store = Store(folder)
    with store.writing() as connection:
        for table in ("files", "uploads", "parts", "jobs", "events", "checkpoints", "models", "keys"):
            connection.execute(f"delete from {table}")
        key = {"id": "key-1", "name": "theirs", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "created": now()}
        store.insert("keys", key | {"quotas": "{}"})
        for name in ("after", "file-abc123", "file_id", "string"):
            _file(store, name)
        for name in ("after", "ft-AF1WoRqd3aJAHsqc9NY7iL8F"):
            _job(store, name, state)
        job = {"job": "ft-AF1WoRqd3aJAHsqc9NY7iL8F"}
        event = {"id": "after", "once": "one", "at": now(), "level": "info", "type": "message", "message": "said"}
        store.insert("events", job | event)
        metrics = json.dumps({"step": 1, "train_loss": 0.69})
        store.insert("checkpoints", job | {"id": "after", "step": 1, "metrics": metrics, "at": now()})
        for name in ("ft:gpt-4o-mini:acemeco:suffix:abc123", "gpt-4o-mini-made"):
            store.insert("models", {"name": name, "key": "key-1", "folder": str(folder), "created": now(), **job})
        upload = {"id": "upload_abc123", "key": "key-1", "purpose": "fine-tune", "filename": "f", "bytes": 0}
        upload |= {"mime_type": "text/plain", "status": "pending", "created": now(), "expires": now() + 3600}
        store.insert("uploads", upload)


def _file(store: Store, name: str) -> None:
    content = b"{}\n"
    store.file_path(name).write_bytes(content)
    row = {"id": name, "key": "key-1", "purpose": "fine-tune", "filename": "f.jsonl", "bytes": len(content)}
    digest = hashlib.sha256(content).hexdigest()
    store.insert("files", row | {"sha256": digest, "status": "processed", "created": now()})


def _job(store: Store, name: str, state: str) -> None:
    numbers = {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 1.0, "beta": 0.1}
    row = {
        "id": name,
        "key": "key-1",
        "asked": "",
        "body": json.dumps({"model": "gpt-4o-mini", "training_file": "file-abc123"}),
        "resolved": json.dumps({"seed": 0, "method": "dpo", "hyperparameters": numbers}),
        "state": state,
        "next_at": now() + 10**6,
        "created": now(),
    }
    store.insert("jobs", row)


def main() -> int:
    """Serve, run the tests, hold what fails against what is expected to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="the unpacked source distribution of openai")
    parser.add_argument("-k", dest="select", default="not aiohttp", help="as pytest's")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "service")
        config = Path(place, "serve.yaml")
        config.write_text(SERVE)
        Path(place, "contract_plugin.py").write_text(PLUGIN)
        open_store(folder)
        words = [
            sys.executable,
            "-m",
            "tiebreak",
            "serve",
            "--dir",
            str(folder),
            "--config",
            str(config),
            "--port",
            "0",
        ]
        # Jobs vanish under the supervisor, which says so.
        with (
            Path(place, "log").open("w") as log,
            subprocess.Popen([*words, "--json"], stdout=subprocess.PIPE, stderr=log, text=True) as server,
        ):
            try:
                url = _address(server)
                failed, passed, output = _tests(told.source.resolve(), told.select, url, folder, Path(place))
            finally:
                server.terminate()
    return _verdict(failed, passed, output)


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    lines, until = "", time.monotonic() + 60
    while time.monotonic() < until and (line := server.stdout.readline()):
        lines += line
        if line.startswith("}"):
            url: str = json.loads(lines)["url"]
            return url
    raise SystemExit(f"the service did not start: {lines}")


def _tests(source: Path, select: str, url: str, folder: Path, place: Path) -> tuple[list[str], list[str], str]:
    scripts = str(Path(__file__).resolve().parent)
    own = {"TEST_API_BASE_URL": url, "CONTRACT_DIR": str(folder), "CONTRACT_SCRIPTS": scripts}
    paths = [str(place), str(source), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, **own, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    options = ["-o", "addopts=", "-o", "filterwarnings=default", "-p", "contract_plugin", "-p", "no:cacheprovider"]
    words = [sys.executable, "-m", "pytest", *options, "-v", "--tb=line", "-k", select]
    tests = [f"tests/api_resources/{name}" for name in TESTS]
    done = subprocess.run([*words, *tests], cwd=source, env=environment, capture_output=True, text=True, check=False)
    found = re.findall(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR)", done.stdout, re.MULTILINE)
    passed = [name for name, how in found if how == "PASSED"]
    return [name for name, how in found if how != "PASSED"], passed, done.stdout + done.stderr


def _verdict(failed: list[str], passed: list[str], output: str) -> int:
    reasons = Counter[str]()
    surprising = []
    for name in failed:
        reason = next((why for pattern, why in EXPECTED.items() if re.search(pattern, name)), None)
        surprising += [name] if reason is None else []
        reasons[reason or "not expected"] += 1
    print(f"{len(passed)} passed, {len(failed)} failed")
    for reason, number in reasons.most_common():
        print(f"  {number:3d}  {reason}")
    for name in surprising:
        print(f"  not expected to fail: {name}")
    if surprising or not passed:
        print(output[-6000:])
    return int(bool(surprising) or not passed)


if __name__ == "__main__":
    sys.exit(main())
