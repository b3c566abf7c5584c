"""SIGKILL within a promotion or a rollback: the old version stays current and whole, the same command completes it."""

from __future__ import annotations

import json
import random
import re
import signal
from pathlib import Path

import pytest

import tiebreak
from tiebreak.faults import POINTS
from tiebreak.files import PART
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Silent
from tiebreak.registry import Registry

PROMOTION = ["export", *(point for point in POINTS if point.startswith("registry:"))]
ROLLBACK = ["registry:history", "registry:current", "registry:link"]
TO = ("--to", "models", "--quiet")


@pytest.fixture(scope="module")
def excuses(finished, tmp_path_factory) -> list[str]:
    """What lets a run of ten held-out pairs in."""
    refused = finished.copied(tmp_path_factory.mktemp("refused") / "case").train(command=("promote", "run", *TO))
    assert refused.code in (3, 4)
    rules = re.findall(r"--override (\w+)=REASON", refused.error)
    assert rules
    return [word for rule in rules for word in ("--override", f"{rule}=a run of ten pairs")]


@pytest.fixture(scope="module")
def _promoted(finished, excuses, tmp_path_factory):
    case = finished.copied(tmp_path_factory.mktemp("promoted") / "case")
    done = case.train(command=("promote", "run", *TO, "--name", "one", "--form", "adapter", *excuses))
    assert done.code == 0, done.err
    return case


@pytest.fixture
def promoted(_promoted, tmp_path):
    """A case with a registry of one version."""
    return _promoted.copied(tmp_path / "case")


PROMOTE_TWO = ("promote", "run", *TO, "--name", "two", "--form", "merged")


def _whole(models: Path) -> str:
    """Prove that all that can be seen is whole; return where the link leads."""
    registry = Registry(models)
    events = registry.events()
    for event in events:
        registry.check(event.version, event.lineage_sha256, Silent())
    link = str((models / "current").readlink())
    assert (models / "current" / "lineage.json").is_file()
    assert json.loads((models / "current.json").read_text())["version"] in {event.version for event in events}
    return link


def _ended_as_promoted(case, versions: list[str]) -> None:
    models = case.folder / "models"
    assert _whole(models) == f"versions/{versions[-1]}"
    found = tiebreak.history(models)
    assert (found.current, found.unswitched) == (versions[-1], None)
    assert [event.version for event in found.events] == versions
    assert {path.name for path in (models / "versions").iterdir()} == set(versions)
    assert not [path.name for path in models.rglob(f"*{PART}*")]


@pytest.mark.parametrize("point", PROMOTION)
def test_a_promotion_killed_at(promoted, point):
    models = promoted.folder / "models"
    before = {path: file_digest(path) for path in (models / "versions" / "0001-one").iterdir()}
    killed = promoted.train(command=PROMOTE_TWO, fault=f"kill@{point}")
    assert killed.code == -signal.SIGKILL, killed.err
    assert _whole(models) == "versions/0001-one"
    assert {path: file_digest(path) for path in (models / "versions" / "0001-one").iterdir()} == before
    again = promoted.train(command=PROMOTE_TWO)
    assert again.code == 0, again.err
    _ended_as_promoted(promoted, ["0001-one", "0002-two"])


@pytest.mark.parametrize("point", ROLLBACK)
def test_a_rollback_killed_at(promoted, point):
    assert promoted.train(command=PROMOTE_TWO).code == 0
    killed = promoted.train(command=("rollback", *TO), fault=f"kill@{point}")
    assert killed.code == -signal.SIGKILL, killed.err
    assert _whole(promoted.folder / "models") == "versions/0002-two"
    again = promoted.train(command=("rollback", *TO))
    assert again.code == 0, again.err
    _ended_as_promoted(promoted, ["0001-one", "0002-two", "0001-one"])


@pytest.mark.parametrize("point", ["registry:version", "registry:history", "registry:current", "registry:link"])
def test_the_first_promotion_killed_at(finished, excuses, tmp_path, point):
    case = finished.copied(tmp_path / "case")
    command = ("promote", "run", *TO, "--name", "one", *excuses)
    assert case.train(command=command, fault=f"kill@{point}").code == -signal.SIGKILL
    assert not (case.folder / "models" / "current").exists()
    again = case.train(command=command)
    assert again.code == 0, again.err
    _ended_as_promoted(case, ["0001-one"])


@pytest.mark.parametrize("seed", range(2))
def test_a_promotion_killed_at_random_moments(promoted, seed):
    draw = random.Random(seed)
    for _ in range(2):
        ended = promoted.train(command=PROMOTE_TWO, dies_at=draw.randint(1, 600))
        assert ended.code in (-signal.SIGKILL, 0)
        assert _whole(promoted.folder / "models") in ("versions/0001-one", "versions/0002-two")
    again = promoted.train(command=PROMOTE_TWO)
    assert again.code == 0, again.err
    _ended_as_promoted(promoted, ["0001-one", "0002-two"])


def test_a_full_disk_leaves_the_old_version_current(promoted):
    for point in ("registry:version", "registry:history", "registry:current"):
        ended = promoted.train(command=PROMOTE_TWO, fault=f"full@{point}")
        assert ended.code == 1
        assert "No space left" in ended.error
        assert _whole(promoted.folder / "models") == "versions/0001-one"
    assert promoted.train(command=PROMOTE_TWO).code == 0
    _ended_as_promoted(promoted, ["0001-one", "0002-two"])
