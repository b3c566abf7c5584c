"""The undisturbed run, a run that was cut off in its middle, and the process that starts runs quickly."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bounds import LONG

pytest.register_assert_rewrite("harness")
from harness import Case, Warm, settings  # noqa: E402


def pytest_collection_modifyitems(items):
    if LONG:
        return
    for item in items:
        if item.get_closest_marker("slow_faults"):
            item.add_marker(pytest.mark.skip(reason="the long form of the battery: set TIEBREAK_LONG=1"))


@pytest.fixture(scope="session")
def warm(tiny_model):
    server = Warm(tiny_model)
    yield server
    server.close()


@pytest.fixture(scope="session")
def new_case(warm, tiny_model):
    """Make a case that nothing has happened to."""

    def make(folder, adapter: str = "lora") -> Case:
        return Case(folder, warm.start, settings(adapter)).lay_out(tiny_model)

    return make


@pytest.fixture
def case(new_case, tmp_path) -> Case:
    return new_case(tmp_path / "case")


@pytest.fixture(scope="session")
def finished(new_case, tmp_path_factory) -> Case:
    """A run that nobody disturbed, started as a user starts it."""
    done = new_case(tmp_path_factory.mktemp("undisturbed") / "lora")
    ended = done.train(as_user=True)
    assert ended.code == 0, ended.err
    return done


@pytest.fixture(scope="session")
def undisturbed(finished):
    """The result that every disturbed run has to reach."""
    return finished.result()


@pytest.fixture(scope="session")
def undisturbed_full(new_case, tmp_path_factory):
    """The same for full fine-tuning, whose reference is a frozen copy."""
    done = new_case(tmp_path_factory.mktemp("undisturbed") / "full", "none")
    ended = done.train()
    assert ended.code == 0, ended.err
    return done.result()


@pytest.fixture(scope="session")
def _killed_at_step_8(new_case, tmp_path_factory) -> Case:
    halted = new_case(tmp_path_factory.mktemp("halted") / "case")
    ended = halted.train(fault="kill@step:end:8")
    assert ended.code == -9, ended.err
    assert [path.name for path in halted.checkpoints] == ["step-00000004", "step-00000006"]
    return halted


@pytest.fixture
def halted(_killed_at_step_8, tmp_path) -> Case:
    """A run of twelve steps that was killed in its eighth, in the middle of the second epoch; checkpoints 4 and 6."""
    return _killed_at_step_8.copied(tmp_path / "case")


@pytest.fixture
def small_disk(tmp_path):
    """Mount a folder of a given size, as a disk of its own; skips where that is not allowed."""
    mounted = []

    def mount(megabytes: int):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        wanted = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(wanted, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root on Linux")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
