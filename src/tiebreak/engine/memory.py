"""How much memory this process holds.

Owns the question for every kind of device.
"""

from __future__ import annotations

import resource
import sys

import psutil
import torch


def memory_bytes(device: torch.device) -> int:
    """Return the bytes in use now: peak of the GPU since the start, or resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most bytes that were in use since the process began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
