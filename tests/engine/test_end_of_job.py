"""A job's process group is gone when its block is left, whoever still holds the ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ports import free_port

_ENDED = """
from pathlib import Path
import torch
from tiebreak.engine.together import joined

def named():
    return sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))

with joined(60) as ranks:
    ranks.total(torch.ones(3))
    inside = named()
print(inside, named())
assert any("gloo" in name for name in inside) and not any("gloo" in name for name in named())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux shows them")
def test_no_thread_of_the_group_outlives_the_block_although_the_ranks_are_still_held():
    # One that lets go of a tensor while the interpreter ends aborts the process, and a launcher calls the job failed.
    port = str(free_port())
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", _ENDED], check=False, env=os.environ | job, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
