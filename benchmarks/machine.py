"""What this machine can do and what a process took of it: sgemm, peak memory, names and versions.

Owns the yardstick. `sgemm` is the rate of one large fp32 matrix product, the most that training could reach.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jobs import Job, Result, Row

PACKAGES = ("torch", "transformers", "peft", "trl", "tiebreak")
REPEATS = 3
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "sve", "sve_bf16")


def run(job: Job) -> Result:
    """Return GFLOP/s by size of the square matrices, and the best of them."""
    rates = {str(size): sgemm_gflops(size) for size in job.settings.sgemm_sizes}
    return {"gflops_by_size": rates, "gflops": max(rates.values())}


def sgemm_gflops(size: int) -> float:
    """Return the best of a few products of two `size` × `size` fp32 matrices, 2 size³ operations each."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    product = left @ right  # threads and buffers come up
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        torch.mm(left, right, out=product)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds) / 1e9


def measured(job: Job, rows: list[Row], seconds: list[float], losses: list[float], **more: Any) -> Result:
    """Return a contestant's result: what it took, how long each step lasted, and the most memory of its process."""
    return {
        "contestant": job.kind,
        "num_pairs": len(rows),
        "unique_tokens": sum(len(row[key]) for row in rows for key in ("prompt_ids", "chosen_ids", "rejected_ids")),
        "step_seconds": seconds,
        "losses": losses,
        "peak_rss_bytes": peak_rss_bytes(),
        "threads": torch.get_num_threads(),
        **more,
    }


def peak_rss_bytes() -> int:
    """Return the most resident memory of this process, or since `forget_peak`; whole life where /proc is missing."""
    found = _status("VmHWM")
    if found is not None:
        return found
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Return the resident memory of this process now; the peak where /proc is missing."""
    found = _status("VmRSS")
    return peak_rss_bytes() if found is None else found


def forget_peak() -> None:
    """Let `peak_rss_bytes` start anew, where the system can."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5", encoding="ascii")


def _status(key: str) -> int | None:
    """Return a field of /proc/self/status in bytes."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="ascii", errors="replace").splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":")), None)


def description() -> dict[str, Any]:
    """Return the names of the processor and how many threads torch takes."""
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {
        "cpu": _cpu_name(),
        "instructions": _instructions(),
        "logical_cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "load_average_at_start": load,
    }


def versions() -> dict[str, str]:
    """Return the versions of all that took part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _instructions() -> list[str]:
    """Return those that decide how fast matrices are multiplied, as far as this torch can tell."""
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in INSTRUCTIONS if told.get(name)]


def _cpu_name() -> str:
    """Return the name of the processor with its family and model: in a virtual machine the name alone may be vague."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    return f"{told['model name']} (family {told.get('cpu family', '?')}, model {told.get('model', '?')})"
