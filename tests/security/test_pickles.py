"""Promise: nothing pickled is ever opened; only safetensors and JSON are."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch

import tiebreak
from tiebreak.runs import Run
from tiny import unsealed

SOURCES = sorted(Path(tiebreak.__file__).parent.rglob("*.py"))


class Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return Path.touch, (self._path,)


def _spoil(folder: Path, name: str, canary: Path) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({"lm_head.weight": Canary(canary)}, folder / name)


def test_the_canary_works(tmp_path):
    torch.save(Canary(tmp_path / "x"), tmp_path / "pickle")
    torch.load(tmp_path / "pickle", weights_only=False)
    assert (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "model.pt", "model.ckpt"])
def test_a_pickled_model_is_refused_with_the_way_out(model_copy, canary, trained_on, pairs, refused, name, kind):
    _spoil(model_copy, name, canary)
    refused(trained_on(model_copy, pairs, f"adapter={kind}"), name, "unpickling runs code", "convert it to safetensors")


def test_an_index_that_calls_a_pickle_safetensors_is_refused(model_copy, canary, trained_on, pairs, refused):
    for name in ("pytorch_model.bin", "../pytorch_model.safetensors", "/tmp/x.safetensors", 5):
        _spoil(model_copy, "pytorch_model.bin", canary)
        shutil.copy(model_copy / "pytorch_model.bin", model_copy / "other.safetensors")
        index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
        (model_copy / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(trained_on(model_copy, pairs), "model.safetensors.index.json names")


def test_a_pickle_that_is_called_safetensors_is_refused(model_copy, canary, trained_on, pairs, refused):
    _spoil(model_copy, "model.safetensors", canary)
    refused(trained_on(model_copy, pairs), "cannot be loaded")


def test_pickles_beside_safetensors_are_left_alone(model_copy, canary, trained_on, pairs):
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state.pth"):
        torch.save(Canary(canary), model_copy / name)
    code, _, err = trained_on(model_copy, pairs)
    assert code == 0, err


@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_pickled_adapter_is_refused_with_the_way_out(
    tiny_adapter, tmp_path, canary, trained_on, pairs, refused, kind
):
    folder = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    _spoil(folder, "adapter_model.bin", canary)
    refused(trained_on(folder, pairs, f"adapter={kind}"), "adapter_model.safetensors", "convert them to safetensors")


def test_a_pickled_policy_in_a_run_folder_is_refused(run_copy, canary, command, refused):
    _spoil(run_copy / "policy", "adapter_model.bin", canary)
    for message in ("adapter_model.bin: was not written by the run", "pickled weights are never loaded"):
        for words in (["evaluate", run_copy], ["chat", run_copy, "-p", "hi"], ["export", run_copy, "--out", "out"]):
            refused(command(*words), message)
        unsealed(Run(run_copy))


def test_no_module_opens_a_pickle_from_a_file():
    """Worker processes talk to each other in pickles, through pipes of our own; nothing else does."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "np.load", "joblib.load", "dill.load",
                "marshal.loads", "shelve.open", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load",
            ):  # fmt: skip
                found.add((path.name, ast.unparse(node)))
    assert found <= {("workers.py", "pickle.load"), ("workers.py", "pickle.loads")}, found
