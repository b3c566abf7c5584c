"""What needs a process to which torch says that there is a GPU: `tests/test_gpu_shapes.py` starts it."""

from __future__ import annotations

import pytest

from fake_card import a_card, is_there

collect_ignore_glob = [] if is_there() else ["test_*.py"]


@pytest.fixture
def waits(monkeypatch):
    """Tensors are fake while a test runs, and this is where the host waited for the device."""
    with a_card(monkeypatch) as waits:
        yield waits
