"""How much memory this process holds, and how the C library hands it back.

Owns both questions for every kind of device.
"""

from __future__ import annotations

import ctypes
import resource
import sys

import psutil
import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc


def keep_freed_memory() -> bool:
    """Make this process keep the memory that tensors free, for the tensors of the next layer; return whether it does.

    By default glibc gives large blocks back to the system and asks for them again, zeroed page by page. For programs,
    at their start; the setting is the process's.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return False
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: 64 * 2**20}
    results = [mallopt(name, value) for name, value in settings.items()]
    return results == [1, 1, 1]


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
