"""Promise: nothing that a stranger made keeps anybody waiting; what would is one line."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

import tiebreak.config
from tiebreak.config import ModelConfig, load_config
from tiebreak.config.capabilities import ExactAnswer, MultipleChoice, PlainText, Refusal
from tiebreak.config.judges import ServerJudge
from tiebreak.data import hub
from tiebreak.engine.sources import resolve
from tiebreak.engine.tokenizer import load_tokenizer
from tiebreak.errors import ConfigError, ModelError

SECONDS = 90
"""Far above what a refusal takes, far below what the wait would."""


@pytest.fixture(autouse=True)
def _soon():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS


# ----------------------------------------------------------------------------------------------------------------- data


def packed(path: Path, piece: bytes, times: int) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(times):
            file.write(piece)
    return path


def zstd(path: Path, piece: bytes, times: int) -> Path:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        for _ in range(times):
            file.write(piece)
    return path


ROW = b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
TABLE = b"prompt,chosen,rejected\na,b,c\n"


@pytest.mark.parametrize(
    ("blank", "pack", "head"),
    [(b"\n", packed, b""), (b"\n", zstd, ROW), (b" ", packed, ROW), (b" ", zstd, b""), (b" \r\n", packed, TABLE),
     (b"\n", zstd, TABLE), (b"\n", packed, b"[" + ROW), (b" \r\n", zstd, b"[" + ROW)],
)  # fmt: skip
def test_blanks_without_end_are_one_line(command, here, refused, pack, head, blank):
    chunk = blank * (2**20 // len(blank))
    path = pack(here / "pairs.jsonl.packed", chunk, 12)
    path.write_bytes(pack(here / "head", head, 1).read_bytes() + path.read_bytes() if head else path.read_bytes())
    refused(command("check", path, "--quiet"), "MiB of blanks in a row")


def test_blanks_without_end_in_a_plain_file_are_one_line(command, here, refused):
    (here / "pairs.jsonl").write_bytes(ROW * 20 + b"\n" * (6 * 2**20) + ROW)
    refused(command("check", "pairs.jsonl", "--quiet"), "MiB of blanks in a row")


@pytest.mark.parametrize("piece", [b"\0" * 2**20, b"x" * 2**20], ids=["zeros", "letters"])
def test_an_archive_that_is_nearly_nothing_is_not_unpacked_for_ever(command, here, refused, piece):
    path = packed(here / "a.jsonl.gz", piece, 200)
    path.write_bytes(gzip.compress(ROW) + path.read_bytes())
    refused(command("check", path, "--quiet"), "times its size")


def test_a_table_of_nothing_but_rows_is_one_line(command, here, refused):
    batch = pa.record_batch([pa.nulls(2**30)] * 3, names=["prompt", "chosen", "rejected"])
    with pa.OSFile(str(here / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        file.write(batch)
    refused(command("check", "a.arrow", "--quiet"), "rows in")


def test_much_text_that_packs_well_is_read_as_ever(command, here):
    rows = b"".join(ROW.replace(b"a", b"question %d" % n).replace(b"c", b"no %d" % n) for n in range(3000))
    assert command("check", packed(here / "a.jsonl.gz", rows + b"\n" * 10_000, 1), "--quiet")[0] in (0, 1)


# ------------------------------------------------------------------------------------------------------------- settings


def _whole(annotation) -> bool:
    inner = getattr(annotation, "__args__", ())
    return annotation is int or any(_whole(one) for one in inner)


def test_every_whole_number_among_the_settings_has_an_upper_bound():
    fields = dict(tiebreak.config.leaves())
    for section in (MultipleChoice, ExactAnswer, Refusal, PlainText, ServerJudge):
        fields |= {f"{section.__name__}.{name}": field for name, field in section.model_fields.items()}
    numbers = {key: field for key, field in fields.items() if _whole(field.annotation)}
    numbers.pop("model.chat_template_arguments")  # told to a template, whose steps are counted
    assert len(numbers) > 25
    unbounded = [key for key, field in numbers.items() if not any(hasattr(one, "le") for one in field.metadata)]
    assert unbounded == []


@pytest.mark.parametrize(
    "key", ["evaluation.probes", "evaluation.max_new_tokens", "training.epochs", "training.seed", "adapter.rank",
            "data.max_length", "gate.min_prompts"],
)  # fmt: skip
@pytest.mark.parametrize("number", [10**12, 10**30])
def test_a_number_out_of_all_proportion_is_refused_by_its_name(here, key, number):
    (here / "my.yaml").write_text("loss: dpo\n")
    if (key, number) == ("training.seed", 10**12):
        assert load_config("my.yaml", [f"{key}={number}"]).training.seed == number
        return
    with pytest.raises(ConfigError, match=key):
        load_config("my.yaml", [f"{key}={number}"])


@pytest.mark.parametrize("mebibytes", [1600, 2200, 2500])
def test_too_little_memory_for_the_libraries_is_told_before_they_are_loaded(here, mebibytes):
    (here / "my.yaml").write_text("loss: dpo\n")
    limited = f"ulimit -v {mebibytes * 1024}; exec {shlex.quote(sys.executable)} -m tiebreak train my.yaml --quiet"
    ended = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert ended.returncode == 2, ended.stderr
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"error: this process may map {mebibytes} MiB of memory (ulimit -v)")


# -------------------------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def silent_hub(monkeypatch):
    """A Hub whose server takes every call and answers none."""
    import socket

    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "SECONDS", 0.5)
        yield address


def test_a_hub_that_does_not_answer_is_told_within_seconds(silent_hub, here, trained_on, command, pairs, refused):
    said = ["nobody/nothing: no folder of this name is here", "the Hub cannot be reached", "name a folder"]
    refused(trained_on("nobody/nothing", pairs), *said)
    refused(command("check", pairs, "--model", "nobody/nothing", "--quiet"), *said)
    assert not (here / "runs").exists()


def test_where_the_hub_is_switched_off_that_is_what_is_told(monkeypatch, here, trained_on, pairs, refused):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(trained_on("nobody/nothing", pairs), "HF_HUB_OFFLINE is set")


def test_a_data_set_of_a_hub_that_does_not_answer_is_told_within_seconds(silent_hub, here, command, refused):
    pytest.importorskip("datasets")
    refused(command("check", "hf:nobody/nothing", "--quiet"), "the Hub cannot be reached")


# ------------------------------------------------------------------------------------------------ a run that is deleted


POINTS = ["step:begin", "save:begin", "save:state", "save:rename", "policy", "evaluate", "generate", "report"]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_deleted_under_way_is_one_line_and_does_not_come_back(
    here, trained_on, tiny_model, pairs, refused, monkeypatch, point
):
    run = here / "runs" / "my"

    def deleted(name: str) -> None:
        if name == point and run.exists():
            shutil.rmtree(run)

    monkeypatch.setattr("tiebreak.faults.point", deleted)
    refused(trained_on(tiny_model, pairs), str(Path("runs/my")))
    assert not run.exists()


def test_a_folder_that_took_the_place_of_a_run_is_not_written_into(
    here, trained_on, tiny_model, pairs, refused, monkeypatch
):
    run = here / "runs" / "my"

    def replaced(name: str) -> None:
        if name == "save:state" and not (run / "theirs").exists():
            shutil.rmtree(run)
            run.mkdir()
            (run / "theirs").touch()

    monkeypatch.setattr("tiebreak.faults.point", replaced)
    refused(trained_on(tiny_model, pairs), "was deleted or moved")
    assert [path.name for path in run.iterdir()] == ["theirs"]


# --------------------------------------------------------------------------------------------------------------- models


def _with_number(folder: Path, **numbers: object) -> None:
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | numbers))


def _as_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


ENDLESS = {
    "a pipe as tokenizer settings": (
        lambda f: _as_pipe(f / "tokenizer_config.json"),
        "tokenizer_config.json is a pipe",
    ),
    "a pipe as adapter settings": (lambda f: _as_pipe(f / "adapter_config.json"), "adapter_config.json is a pipe"),
    "a pipe as generation settings": (
        lambda f: _as_pipe(f / "generation_config.json"),
        "generation_config.json is a p",
    ),
    "a pipe as settings": (lambda f: _as_pipe(f / "config.json"), "config.json is a pipe"),
    "a pipe that nobody asked for": (lambda f: _as_pipe(f / "notes.txt"), "notes.txt is a pipe"),
    "a device as weights": (
        lambda f: _as_device(f / "model.safetensors"),
        "model.safetensors is a pipe, a socket or a d",
    ),
    "a billion labels": (lambda f: _with_number(f, num_labels=10**9), "config.json: num_labels is 1000000000"),
    "a billion layers": (lambda f: _with_number(f, num_hidden_layers=10**9), "config.json: num_hidden_layers is"),
}


@pytest.mark.parametrize(("spoil", "told"), ENDLESS.values(), ids=ENDLESS)
def test_a_model_folder_without_end_is_one_line(spoil, told, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    spoil(folder)
    with pytest.raises(ModelError, match=re.escape(told)):
        resolve(ModelConfig(name=str(folder)), lambda _: None)


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", 0), ("rms_norm_eps", "x"), ("eos_token_id", "a")])
def test_a_fault_of_a_model_s_settings_is_told_as_theirs(key, value, tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    _with_number(folder, **{key: value})
    config = ModelConfig(name=str(folder))
    with pytest.raises(ModelError, match=r"model: config\.json: cannot be loaded"):
        load_tokenizer(config, resolve(config, lambda _: None))
