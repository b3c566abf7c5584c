from __future__ import annotations

import pytest

from tiebreak.files import write_jsonl


@pytest.fixture
def alternating(tmp_path):
    """Write rows that `make` gives for a question and whether the sides of this row are turned: every second one's."""

    def save(make, num=12):
        path = tmp_path / "rows.jsonl"
        write_jsonl(path, (make(f"Is it {n}?", bool(n % 2)) for n in range(num)))
        return path

    return save
