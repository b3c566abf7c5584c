"""Files of bytes for the tests of containers and readers."""

from __future__ import annotations

import itertools

import pytest


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Write bytes to a new file and return its path."""
    folder, numbers = tmp_path_factory.mktemp("files"), itertools.count()

    def save(content: bytes, name: str = "pairs.jsonl"):
        path = folder / str(next(numbers)) / name
        path.parent.mkdir()
        path.write_bytes(content)
        return path

    return save
