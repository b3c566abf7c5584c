"""What became of a model since a run recorded it, and what cannot be known."""

from __future__ import annotations

import os
import shutil
import time

import huggingface_hub
import pytest

from tiebreak.engine.since import changed_since
from tiebreak.engine.sources import resolve
from tiny import settings

BEGAN = "2026-01-05T10:00:00+00:00"


@pytest.fixture
def base(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "base")


def test_a_folder_is_told_by_its_bytes_whatever_its_dates(base):
    identity = resolve(settings(base).model).identity
    os.utime(base / "model.safetensors", (2e9, 2e9))
    assert changed_since(str(base), identity, None, BEGAN) == (False, "the same bytes")
    with (base / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    os.utime(base / "model.safetensors", (0, 0))
    assert changed_since(str(base), identity, None, BEGAN) == (True, "its bytes are others")


def test_a_folder_that_is_gone_or_holds_a_pipe_is_not_known(base):
    os.mkfifo(base / "more.safetensors")
    assert changed_since(str(base), "base sha256:00", None, BEGAN)[0] is None
    shutil.rmtree(base)
    assert changed_since(str(base), "base sha256:00", None, BEGAN) == (None, "its folder is not there")


def test_of_a_hub_only_a_commit_or_the_dates_here_say_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert changed_since("org/name", "org/name", "a" * 40, BEGAN)[0] is False
    assert changed_since("org/name", "org/name", "v1", BEGAN)[0] is None
    assert changed_since("org/name", "org/name", None, BEGAN)[0] is None
    kept = tmp_path / "models--org--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("b" * 40)
    (kept / "snapshots" / ("b" * 40)).mkdir(parents=True)
    assert changed_since("org/name", "org/name", None, BEGAN)[0] is None  # fetched here for the first time
    (kept / "snapshots" / ("c" * 40)).mkdir()
    assert changed_since("org/name", "org/name", None, BEGAN)[0] is True
    later = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 100))
    assert changed_since("org/name", "org/name", None, later)[0] is False
    assert changed_since("org/name", "org/name", None, "no time")[0] is None
