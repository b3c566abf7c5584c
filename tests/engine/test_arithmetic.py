"""What model.dtype auto means on a CPU: bfloat16 only where a layer takes half the time in it."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, MixtralConfig

from tiebreak.config import ModelConfig, QuantizationConfig
from tiebreak.engine import arithmetic
from tiebreak.engine.arithmetic import FASTER_BY, dtype_of
from tiebreak.engine.sources import Source

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def asked(monkeypatch):
    """A processor that multiplies bfloat16, and the questions that it answers with yes."""
    questions = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "avx2": True}, raising=False)
    monkeypatch.setattr(arithmetic, "LAYER", (0, 2**28))
    monkeypatch.setattr(arithmetic, "is_faster", lambda *told: questions.append(told) or True)
    return questions


@pytest.fixture
def source(tmp_path):
    def made(shape, **more):
        shape.save_pretrained(tmp_path)
        return Source(str(tmp_path), None, None, "x", "x", **more)

    return made


def _tiny(kind=LlamaConfig, **more):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return kind(**sizes, num_key_value_heads=1, vocab_size=900, pad_token_id=899, **more)


def test_it_is_taken_where_a_layer_of_the_model_takes_half_the_time_and_it_is_told(asked, source):
    said = []
    assert dtype_of(ModelConfig(name="m"), CPU, source(_tiny()), said.append) == torch.bfloat16
    [(question, _, by)] = asked
    assert question.startswith("bfloat16, a layer of llama, ")
    assert by == FASTER_BY == 2.0
    [line] = said
    assert "bfloat16" in line
    assert "model.dtype=float32" in line


@pytest.mark.parametrize("named", ["float32", "bfloat16"])
def test_what_is_named_is_taken_and_nothing_asked(asked, source, named):
    assert dtype_of(ModelConfig(dtype=named), CPU, source(_tiny())) == getattr(torch, named)
    assert not asked


def test_gpus_compute_in_bfloat16(asked, source):
    assert dtype_of(ModelConfig(), CUDA, source(_tiny())) == torch.bfloat16
    assert not asked


def test_processors_without_such_products_are_not_asked(asked, source, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False, "avx2": True})
    assert dtype_of(ModelConfig(), CPU, source(_tiny())) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert dtype_of(ModelConfig(), CPU, source(_tiny())) == torch.float32
    assert not asked


def test_models_in_four_bits_and_models_of_no_source_stay_in_float32(asked, source):
    quantized = source(_tiny(), quantization=QuantizationConfig())
    assert dtype_of(ModelConfig(), CPU, quantized) == torch.float32
    assert dtype_of(ModelConfig(), CPU) == torch.float32
    assert not asked


def test_small_and_huge_layers_are_not_asked(asked, source, monkeypatch):
    monkeypatch.setattr(arithmetic, "LAYER", (2**20, 2**28))
    assert dtype_of(ModelConfig(), CPU, source(_tiny())) == torch.float32
    huge = LlamaConfig(hidden_size=16_384, intermediate_size=53_248, num_attention_heads=128, vocab_size=128_256)
    assert dtype_of(ModelConfig(), CPU, source(huge)) == torch.float32
    assert not asked


def test_the_number_of_layers_and_the_vocabulary_are_no_part_of_the_question_but_sizes_are(asked, source):
    deeper = _tiny()
    deeper.num_hidden_layers, deeper.vocab_size = 7, 1000
    wider = _tiny()
    wider.intermediate_size = 32
    for shape in (_tiny(), deeper, wider):
        dtype_of(ModelConfig(), CPU, source(shape))
    first, second, third = (question for question, *_ in asked)
    assert first == second != third


@pytest.mark.parametrize("shape", [_tiny(), _tiny(MixtralConfig), AutoConfig.for_model("gpt2", n_embd=16, n_head=2)])
def test_both_ways_pass_a_layer_and_come_back(asked, source, shape):
    dtype_of(ModelConfig(), CPU, source(shape))
    [(_, ways, _)] = asked
    torch.manual_seed(0)
    for way in ways():
        way()


def test_a_shape_that_cannot_be_cut_down_stays_in_float32(asked, source, monkeypatch):
    def fails(*_):
        raise AttributeError("no such layer")

    monkeypatch.setattr(arithmetic, "of_depth", fails)
    said = []
    assert dtype_of(ModelConfig(), CPU, source(_tiny()), said.append) == torch.float32
    [line] = said
    assert "float32; a layer of it cannot be tried" in line
