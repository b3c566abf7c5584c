"""A model on paper: its weights counted and its activations measured, without a byte of either.

Owns what is known of a model by its shape alone: a config.json, or a name of a published one. Weights lie on the meta
device; a pass over fake tensors tells what it would keep for its backward pass. Layers are taken to be alike, two by
two: a pass over four tells what two more keep.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, LlamaConfig

from tiebreak.config import AdapterConfig, ModelConfig
from tiebreak.engine.adapters import with_new_adapter
from tiebreak.engine.attention import causal_model, layers_of
from tiebreak.engine.bundled import BUNDLED, bundled_folder
from tiebreak.engine.loading import quietly
from tiebreak.engine.shapes import of_depth, shape_of
from tiebreak.engine.sources import explained, refuse_code
from tiebreak.errors import ModelError
from tiebreak.maths.scale import Anatomy, Part

PAPER = "tiebreak_paper"
_LENGTHS = (64, 128)
_DEPTHS = (2, 4)


def _llama(layers: int, hidden: int, inner: int, heads: int) -> LlamaConfig:
    return LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        num_key_value_heads=8,
        vocab_size=128_256,
        tie_word_embeddings=False,
        max_position_embeddings=131_072,
    )


SHAPES: dict[str, Callable[[], LlamaConfig]] = {
    "llama-8b": lambda: _llama(32, 4096, 14_336, 32),
    "llama-70b": lambda: _llama(80, 8192, 28_672, 64),
    "llama-405b": lambda: _llama(126, 16_384, 53_248, 128),
}
"""Llama 3.1 (2407.21783, Table 3; the vocabulary of its tokenizer)."""


@dataclass(frozen=True)
class Outline:
    """A model as it would be trained."""

    name: str
    anatomy: Anatomy
    vocabulary: int
    _kept: Callable[[bool], int]

    def token_bytes(self, *, checkpointed: bool) -> int:
        """Return the bytes of activations that one token keeps until its backward pass.

        Of activations computed twice, one layer's are there at a time. Weights in shares keep as much as whole ones.
        """
        return self._kept(True) + self._kept(False) // self.anatomy.layers if checkpointed else self._kept(False)


def outline_of(config: ModelConfig, adapter: AdapterConfig) -> Outline:
    """Return the outline of what a configuration trains on GPUs; `config.name` may be one of SHAPES.

    Raises ModelError where there is no shape to read, or it is of a kind that cannot be laid out on paper.
    """
    shape = _shape(config)
    wide = config.dtype == "float32"
    dtype = torch.float32 if wide else torch.bfloat16
    stored = torch.float32 if wide or adapter.trains_all else torch.bfloat16
    with explained(config.name), quietly():
        network = _laid_out(shape, adapter, stored)
        anatomy = _anatomy(network, stored.itemsize, dtype.itemsize)
    told = shape.get_text_config()

    @cache
    def kept(checkpointed: bool) -> int:
        with explained(config.name), quietly():
            cut = (_laid_out(of_depth(shape, depth), adapter, stored) for depth in _DEPTHS)
            few, many = (_slope(network, dtype, checkpointed) for network in cut)
        per_layer = (many - few) / (_DEPTHS[1] - _DEPTHS[0])
        # Beside layers: the states that are scored, and what the head says of their gradient.
        return round(few + per_layer * (anatomy.layers - _DEPTHS[0])) + 2 * int(told.hidden_size) * dtype.itemsize

    return Outline(config.name, anatomy, int(told.vocab_size), kept)


def _shape(config: ModelConfig) -> Any:
    if config.name in SHAPES:
        return SHAPES[config.name]()
    name = str(bundled_folder(config.name, lambda _: None)) if config.name in BUNDLED else config.name
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{name}: holds no config.json; wanted the folder of a base model, or {', '.join(SHAPES)}")
    refuse_code(name, config.revision)
    with quietly():
        return shape_of(name, config.revision)


def _laid_out(shape: Any, adapter: AdapterConfig, dtype: torch.dtype) -> Any:
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(
            shape, dtype=dtype, attn_implementation=PAPER, trust_remote_code=False
        )
        if adapter.trains_all:
            return network
        return with_new_adapter(network.requires_grad_(False), adapter, None, lambda _: None)


def _layers_of(causal: Any) -> list[torch.nn.Module]:
    """Return the decoder layers, each of which is gathered on its own where weights are shared."""
    if (found := layers_of(causal)) is None:
        num = causal.config.get_text_config().num_hidden_layers
        raise ModelError(f"a model of the kind {causal.config.model_type} has no list of its {num} layers")
    return found


def _part(parameters: Iterable[torch.nn.Parameter]) -> Part:
    found = [*parameters]
    trained = sum(p.numel() for p in found if p.requires_grad)
    return Part(sum(p.numel() for p in found) - trained, trained)


def _anatomy(network: Any, stored: int, computed: int) -> Anatomy:
    causal = causal_model(network)
    told, layers = causal.config.get_text_config(), _layers_of(causal)
    whole, parts = _part(network.parameters()), [_part(layer.parameters()) for layer in layers]
    rest = Part(whole.frozen - sum(p.frozen for p in parts), whole.trainable - sum(p.trainable for p in parts))
    base = sum(p.frozen for p in parts) or sum(p.trainable for p in parts)
    experts = sum(p.numel() for layer in layers for name, p in layer.named_parameters() if _is_expert(name))
    num_experts = getattr(told, "num_local_experts", None) or getattr(told, "num_experts", None) or 1
    idle = experts - experts * int(getattr(told, "num_experts_per_tok", None) or num_experts) // int(num_experts)
    heads = int(told.num_attention_heads)
    width = heads * int(getattr(told, "head_dim", None) or told.hidden_size // heads)
    return Anatomy(
        whole=whole,
        layer=max(parts, key=lambda part: part.total),
        rest=rest,
        layers=len(layers),
        stored=stored,
        computed=computed,
        multiplied=base - idle,
        head=int(told.hidden_size) * int(told.vocab_size),
        attended=len(layers) * width,
    )


def _is_expert(name: str) -> bool:
    return ".experts." in f".{name}" and "lora_" not in name


def _slope(network: Any, dtype: torch.dtype, checkpointed: bool) -> float:
    """Return the bytes that a token more keeps: what does not grow with tokens cancels."""
    with _silent(), FakeTensorMode(allow_non_fake_inputs=True):
        network.to_empty(device="cpu").train()
        if checkpointed:
            with warnings.catch_warnings():
                # As `Model.checkpoint_activations`.
                warnings.simplefilter("ignore", FutureWarning)
                network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        few, many = (_kept_bytes(network, length, dtype) for length in _LENGTHS)
    return (many - few) / (_LENGTHS[1] - _LENGTHS[0])


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep a traceback off the screen that torch writes there before it raises."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _kept_bytes(network: Any, length: int, dtype: torch.dtype) -> int:
    def of(tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    weights = {of(parameter) for parameter in network.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        found.setdefault(of(tensor), tensor)
        return tensor

    narrow = torch.autocast("cpu", dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), narrow:
        ids = torch.zeros(1, length, dtype=torch.long)
        states = causal_model(network).base_model(input_ids=ids, use_cache=False).last_hidden_state
    total = sum(t.untyped_storage().nbytes() for storage, t in found.items() if storage not in weights)
    del states
    return total


class _Paper(torch.autograd.Function):
    """Attention as fast kernels keep it: what came in, what went out, and one number for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, found, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return found

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("on paper nothing is learned")


def _paper(_module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    return _Paper.apply(query, key, value).transpose(1, 2), None  # type: ignore[no-untyped-call]


AttentionInterface.register(PAPER, _paper)
