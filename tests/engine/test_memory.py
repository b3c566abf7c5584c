"""How much memory there is for a process: that of the machine, or what a container or a job leaves of it."""

from __future__ import annotations

import psutil
import pytest

from tiebreak.engine import memory

GIB = 2**30


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """A system of control groups, written as a test wants it: files by name, and the lines that name the own group."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OF_THIS", tmp_path / "own")

    def write(own: str, **files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for folder, content in files.items():
            place = tmp_path / "cgroup" / folder.replace("__", "/").strip("/")
            place.mkdir(parents=True, exist_ok=True)
            for name, text in content.items():
                (place / name).write_text(text)

    return write


def _second(most: object, used: int, cache: int = 0) -> dict[str, str]:
    told = f"anon 1\ninactive_file {cache // 2}\nactive_file {cache // 2}\n"
    return {"memory.max": f"{most}\n", "memory.current": f"{used}\n", "memory.stat": told}


def _first(most: int, used: int, cache: int = 0) -> dict[str, str]:
    told = f"cache 1\nactive_file 7\ntotal_inactive_file {cache // 2}\ntotal_active_file {cache // 2}\n"
    return {"memory.limit_in_bytes": str(most), "memory.usage_in_bytes": str(used), "memory.stat": told}


def _machine() -> int:
    return psutil.virtual_memory().total


def test_a_container_has_what_its_group_leaves_and_files_that_were_read_are_free(groups):
    groups("0::/\n", __=_second(GIB, GIB // 2, GIB // 4))
    assert memory.usable_bytes() == (GIB * 3 // 4, GIB)


def test_the_narrowest_of_the_groups_above_decides(groups):
    groups(
        "1:name=systemd:/\n0::/slurm/job_7/step_0\n",
        slurm__job_7__step_0=_second("max", GIB // 8),
        slurm__job_7=_second(GIB // 2, GIB // 8),
        slurm=_second(2 * GIB, GIB // 8),
    )
    assert memory.usable_bytes() == (GIB * 3 // 8, GIB // 2)


def test_the_first_version_of_groups_is_read_as_well(groups):
    groups("4:cpuset,memory:/docker/abc\n", memory__docker__abc=_first(GIB, GIB * 2, GIB // 2))
    assert memory.usable_bytes() == (0, GIB)


@pytest.mark.parametrize("own", ["", "0::/\n", "no group\n", "4:memory:/gone\n"])
def test_without_a_limit_it_is_the_machine_s(groups, own):
    groups(own, __={"memory.max": "max\n"}, memory=_first(2**63 - 4096, 5))
    free, total = memory.usable_bytes()
    assert (total, 0 < free <= total) == (_machine(), True)
