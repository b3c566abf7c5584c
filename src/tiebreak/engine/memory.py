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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of a GPU or of the machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)
    )


def release_cached(device: torch.device) -> None:
    """Give cached, unused blocks of a GPU back."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
