"""Files of other trainers, written where a test is at work."""

from __future__ import annotations

import pytest


def _writer(name: str):
    @pytest.fixture
    def writer(tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def write(text: str):
            (tmp_path / name).write_text(text)
            return tmp_path / name

        return write

    return writer


code, script = _writer("train.py"), _writer("run.sh")
