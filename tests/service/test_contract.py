"""The service by its own description: whatever fits it, or hardly does, is answered and breaks nothing."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from bounds import LONG
from served_by_command import operated

SECONDS = 240 if LONG else 15  # a test that takes five minutes is taken for one that hangs


@pytest.mark.slow  # the time that it draws requests for
def test_no_request_that_can_be_drawn_is_a_fault_of_the_server(tmp_path):
    with operated(tmp_path, {"tiny": {"model": {"name": "none"}}}) as service:
        url = service.url.removesuffix("/v1") + "/openapi.json"
        header = f"Authorization: Bearer {service.token}"
        told = ["--checks", "not_a_server_error", "--max-time", str(SECONDS), "--phases", "coverage,fuzzing"]
        seed = [] if LONG else ["--seed", "1"]
        words = [sys.executable, "-m", "schemathesis.cli", "run", url, "-H", header, *told, *seed, "--no-color"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS + 120)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        drawn = re.search(r"(\d+) generated", done.stdout)
        assert drawn and int(drawn[1]) > 0, done.stdout[-3000:]
        assert service.process.poll() is None
