"""How the C library hands freed memory back. Loads nothing: programs ask before torch is there.

Owns the setting of the process.
"""

from __future__ import annotations

import ctypes
import sys

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
