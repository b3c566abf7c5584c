"""What runs on a GPU runs here on tensors without numbers: shapes, dtypes and devices fit, and no one waits unasked.

torch for CPUs has no place for the backward pass of such tensors. A dozen lines of C++ make one; they have to be loaded
before torch, and hold for the whole process. So each file of `gpu_shapes` runs in a process of its own, which is why a
test here takes as long as all of a file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
FILES = sorted((HERE / "gpu_shapes").glob("test_*.py"))
RUN = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); import pytest; sys.exit(pytest.main(sys.argv[2:]))"
OPTIONS = ["-q", "-n", "0", "-p", "no:cacheprovider", "--tb=short"]


@pytest.fixture(scope="module")
def no_gpu(tmp_path_factory):
    """The library that stands for a device; nothing is pretended where there is a torch for GPUs."""
    if torch.accelerator.current_accelerator() is not None:
        pytest.skip("this torch is built for a GPU: tests/gpu_shapes run as they are")
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C++ compiler on Linux")
    root, library = Path(torch.__file__).parent, tmp_path_factory.mktemp("no_gpu") / "no_gpu.so"
    where = [f"-I{root / 'include'}", f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}"]
    source = HERE / "gpu_shapes" / "no_gpu.cpp"
    command = [compiler, "-std=c++20", "-shared", "-fPIC", "-O0", str(source), *where, "-lc10", "-ltorch_cpu"]
    subprocess.run([*command, "-o", str(library)], check=True, timeout=120)
    return library


@pytest.mark.parametrize("file", FILES, ids=[file.stem.removeprefix("test_") for file in FILES])
def test_what_a_gpu_runs_fits_together(file, no_gpu):
    command = [sys.executable, "-c", RUN, str(no_gpu), *OPTIONS, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parent, env=_environment())
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def _environment():
    """Ours, without what ties a process to the run of tests that it comes from."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
