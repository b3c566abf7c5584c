"""How threads that wait for each other do so: asleep, and not spinning on a core that another process needs.

Owns the setting. libgomp reads it once, when torch is loaded, so whoever sets it does so before.
"""

from __future__ import annotations

from collections.abc import MutableMapping

WAITING = {"OMP_WAIT_POLICY": "passive"}
"""A thread that waits for another one sleeps, and leaves its core to whoever has work: docs/experiments/start.md."""
_NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_asleep(environment: MutableMapping[str, str]) -> None:
    """Set it where the user has set nothing of the kind."""
    if not any(name in environment for name in _NAMES):
        environment.update(WAITING)
