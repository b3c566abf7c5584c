"""Promise: code that comes with a model is never run."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import tiebreak
from tiebreak.config import ModelConfig
from tiebreak.engine.sources import resolve
from tiebreak.errors import ModelError
from tiebreak.runs import Run
from tiny import unsealed

SOURCES = sorted(Path(tiebreak.__file__).parent.rglob("*.py"))
LOADERS = {"AutoModelForCausalLM", "AutoTokenizer", "AutoConfig", "AutoModel", "AutoPeftModelForCausalLM", "kind"}


def _code(canary: Path) -> str:
    writes = f"from pathlib import Path\nPath({str(canary)!r}).touch()\n"
    return writes + "from transformers import LlamaConfig as C, LlamaForCausalLM as M, PreTrainedTokenizerFast as T\n"


@pytest.fixture(params=["config.json", "tokenizer_config.json"])
def booby_trap(request, model_copy, canary, edited):
    """A model folder whose own Python file would write a file; returns (folder, name of the file that names it)."""
    (model_copy / "own.py").write_text(_code(canary))
    names = {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}
    edited(
        model_copy / request.param,
        auto_map={"AutoTokenizer": ["own.T", "own.T"]} if "tokenizer" in request.param else names,
    )
    return model_copy, request.param


def test_a_model_with_modules_of_its_own_is_refused_in_one_line_and_they_never_run(
    booby_trap, trained_on, pairs, refused, here
):
    folder, file = booby_trap
    refused(trained_on(folder, pairs), f"{file} names Python files of its own (auto_map)", "never run")
    assert not (here / "runs").exists()


def test_an_unknown_kind_of_model_with_code_is_refused_too(model_copy, canary, edited, trained_on, pairs, refused):
    (model_copy / "own.py").write_text(_code(canary))
    edited(model_copy / "config.json", model_type="own", auto_map={"AutoConfig": "own.C"})
    refused(trained_on(model_copy, pairs), "auto_map")


def test_the_doctor_refuses_such_a_tokenizer_too(booby_trap, command, pairs, refused):
    refused(command("check", pairs, "--model", booby_trap[0], "--quiet"), "auto_map")


def test_a_run_folder_with_modules_of_its_own_is_refused(run_copy, canary, edited, command, refused):
    (run_copy / "policy" / "own.py").write_text(_code(canary))
    edited(run_copy / "policy" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.T", "own.T"]})
    for message in ("own.py: was not written by the run", "auto_map"):
        for words in (["evaluate", run_copy], ["chat", run_copy, "-p", "hi"], ["export", run_copy, "--out", "out"]):
            refused(command(*words), message)
        unsealed(Run(run_copy))


def test_an_adapter_that_names_a_library_to_import_is_refused(tiny_adapter, tmp_path, monkeypatch, canary, edited):
    import shutil

    folder = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    (tmp_path / "own.py").write_text(_code(canary))
    monkeypatch.syspath_prepend(str(tmp_path))
    edited(folder / "adapter_config.json", megatron_config={"a": 1}, megatron_core="own")
    with pytest.raises(ModelError, match="names a library to import"):
        resolve(ModelConfig(name=str(folder)))


@pytest.mark.parametrize("base", ["self", "each other", 3, ["a"], {"a": 1}, "https://me:secret@host/x"], ids=str)
def test_an_adapter_on_itself_or_on_nonsense_is_refused(tiny_adapter, tmp_path, edited, base):
    import shutil

    folders = [shutil.copytree(tiny_adapter, tmp_path / name) for name in ("one", "two")]
    for folder, other in zip(folders, reversed(folders), strict=True):
        named = {"self": str(folder), "each other": str(other)}
        edited(
            folder / "adapter_config.json", base_model_name_or_path=named.get(base, base) if str(base) == base else base
        )
    with pytest.raises(ModelError) as refusal:
        resolve(ModelConfig(name=str(folders[0])))
    assert "\n" not in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_every_call_that_could_run_foreign_code_says_that_it_must_not():
    """`None` would make transformers ask on the terminal, and a user who says yes has lost."""
    calls = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = ast.unparse(node.func.value).rpartition(".")[2]
            if node.func.attr in ("from_pretrained", "from_config") and owner in LOADERS:
                stated = {word.arg: word.value for word in node.keywords}
                off = isinstance(value := stated.get("trust_remote_code"), ast.Constant) and value.value is False
                calls.append((f"{path.name}:{node.lineno}", off or _is_off_in(path, stated)))
    assert len(calls) >= 5
    assert [where for where, off in calls if not off] == []
    everything = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert "trust_remote_code=True" not in everything
    assert "trust_remote_code" not in "".join(key for key, _ in tiebreak.config.leaves())


def _is_off_in(path: Path, stated) -> bool:
    """Whether the words of a call come from a table of the same file that says it."""
    return None in stated and '"trust_remote_code": False' in path.read_text(encoding="utf-8")


def test_damaged_settings_beside_the_weights_are_one_line(model_copy, trained_on, pairs, refused):
    texts = ("[]", "{", '{"eos_token_id": {"a": []}}', json.dumps({"model_type": 5}), "\x00", "null")
    for number, text in enumerate(texts):
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            path = model_copy / name
            before = path.read_text()
            path.write_text(text)
            code, out, err = trained_on(model_copy, pairs, f"output.dir=runs/{number}-{name}")
            path.write_text(before)
            assert "Traceback" not in out + err
            assert code == 0 or refused((code, out, err))


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_implementation": "evil/kernel"}, {"_attn_implementation": "evil/kernel@main:run"},
        {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}}, {"_attn_implementation": "kernels-x"},
        {"attn_implementation": "paged|evil/kernel"}, {"_attn_implementation_internal": "evil/kernel"},
        {"text_config": {"attn_implementation": "kernels-community/flash-attn2"}}, {"attn_implementation": ["a/b"]},
        {"experts_implementation": "sonicmoe"}, {"_experts_implementation": "deepgemm"},
    ],
    ids=str,
)  # fmt: skip
def test_a_model_that_asks_for_a_kernel_from_elsewhere_is_refused(
    model_copy, edited, trained_on, pairs, refused, asked
):
    edited(model_copy / "config.json", **asked)
    refused(trained_on(model_copy, pairs), "config.json asks for compiled code from elsewhere", "_implementation")


@pytest.mark.parametrize("method", ["mxfp4", "fp8", "eetq"])
def test_where_kernels_are_fetched_a_quantization_does_not_fetch_them(
    model_copy, edited, trained_on, pairs, refused, monkeypatch, method
):
    monkeypatch.setattr("tiebreak.engine.sources.importlib.util.find_spec", lambda name: name == "kernels" or None)
    edited(model_copy / "config.json", quantization_config={"quant_method": method})
    refused(trained_on(model_copy, pairs), f"quant_method: {method}")
    edited(model_copy / "config.json", quantization_config=None, attn_implementation="flash_attention_2")
    refused(trained_on(model_copy, pairs), "flash_attention_2")


def test_what_transformers_computes_by_itself_may_be_asked_for(model_copy, edited):
    for name in ("eager", "sdpa", None):
        edited(model_copy / "config.json", attn_implementation=name, experts_implementation="eager")
        resolve(ModelConfig(name=str(model_copy)))


def test_no_other_index_of_weights_names_a_pickle(model_copy, edited, trained_on, pairs, refused):
    edited(model_copy / "config.json", transformers_weights="other.safetensors.index.json")
    (model_copy / "other.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "evil.bin"}}))
    refused(trained_on(model_copy, pairs), "other.safetensors.index.json names 'evil.bin'")
