"""In which numbers a model computes: those that were asked for, or those that this machine is fast in.

Owns what `model.dtype` auto means. GPUs compute in bfloat16. CPUs compute in float32, unless they multiply bfloat16 and
a layer of the model, forward and back, is measured to take at most half the time in it: that differs from one processor
with such instructions to the next (docs/experiments.md). What is trained stays in float32 either way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers

from tiebreak.config import ModelConfig
from tiebreak.engine.attention import asking
from tiebreak.engine.bundled import Say
from tiebreak.engine.compatibility import refused_by_design
from tiebreak.engine.loading import quietly
from tiebreak.engine.probes import Way, is_faster
from tiebreak.engine.products import speed_up
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.engine.shapes import of_depth, shape_of
from tiebreak.engine.sources import Source
from tiebreak.errors import TiebreakError, one_line
from tiebreak.fingerprint import fingerprint
from tiebreak.records import TokenizedPair

NAMED = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FASTER_BY = 2.0
"""What bfloat16 has to gain on a CPU: its 8 bits of precision are a price, and speed is all that it is paid for."""
LAYER = (2**20, 2**28)
"""Weights of a layer that are worth the question: a smaller one is done at once, and two of a larger one take up the
memory of a machine to learn what a first step would tell."""
WORDS = 256
PROMPT, COMPLETION = 96, 40
"""Tokens of each of the three pairs that go through a layer."""
_CPU = torch.device("cpu")
_ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError, TiebreakError)
"""What comes of a shape that cannot be cut down to one layer and a few words."""


_ELSEWHERE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
"""What a configuration says that is not of the layer."""


def name_of(dtype: torch.dtype) -> str:
    """Return what a dtype is called in settings and files of a run."""
    return str(dtype).removeprefix("torch.")


def dtype_of(
    config: ModelConfig, device: torch.device, source: Source | None = None, say: Say = lambda _: None
) -> torch.dtype:
    """Return the dtype of the arithmetic on a device; on a CPU, auto is float32 for what has no `source`."""
    if config.dtype in NAMED:
        return NAMED[config.dtype]
    if device.type != "cpu":
        return torch.bfloat16
    if source is None or source.quantization or not _multiplies_bfloat16() or not _is_worth_it(source, say):
        return torch.float32
    say(
        f"model.dtype auto: bfloat16, in which a layer of {config.name} takes less than half the time on this "
        "processor; a merged export will be as narrow (model.dtype=float32 computes and exports as elsewhere)"
    )
    return torch.bfloat16


def _multiplies_bfloat16() -> bool:
    told: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # absent from older torch
    return any(name.endswith("bf16") and has for name, has in told.items())


def _is_worth_it(source: Source, say: Say) -> bool:
    shape = shape_of(source.base, source.revision)
    try:
        with quietly():
            layer = _one_layer(shape)
            with torch.device("meta"):
                network = transformers.AutoModelForCausalLM.from_config(layer, trust_remote_code=False)
            if not LAYER[0] <= sum(weight.numel() for weight in network.parameters()) <= LAYER[1]:
                return False
            told = {key: value for key, value in layer.to_dict().items() if key not in _ELSEWHERE}
            question = f"bfloat16, a layer of {layer.model_type}, {fingerprint(told)[:12]}"
            return is_faster(question, partial(_ways, layer), FASTER_BY)
    except _ODD as error:
        say(f"model.dtype auto: float32; a layer of it cannot be tried in bfloat16 ({one_line(error, 120)})")
        return False


def _one_layer(shape: Any) -> Any:
    cut = of_depth(shape, 1)
    text = cut.get_text_config()
    text.vocab_size, text.pad_token_id, text.tie_word_embeddings = WORDS, None, False
    return cut


def _ways(layer: Any) -> tuple[Way, Way]:
    """Return a pass over a model of one layer and back, in bfloat16 and in float32, each as training computes it."""

    draw = random.Random(0)  # noqa: S311 - not for secrets

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(WORDS) for _ in range(num))

    pairs = [TokenizedPair(name, name, ids(PROMPT), ids(COMPLETION), ids(COMPLETION)) for name in ("a", "b", "c")]

    def way(dtype: torch.dtype) -> Callable[[], None]:
        network = transformers.AutoModelForCausalLM.from_config(layer, dtype=dtype, trust_remote_code=False)
        network.requires_grad_(False).eval()
        network.get_input_embeddings().weight.requires_grad_(True)  # frozen layers, and a gradient through them
        speed_up(network, network.get_output_embeddings())
        packed = refused_by_design(network, trains=False) is None
        scorer = (
            PackedScorer(network, device=_CPU, dtype=dtype)
            if packed
            else PlainScorer(network, pad_id=0, device=_CPU, dtype=dtype)
        )

        with asking(), torch.no_grad():
            scorer.tokens(pairs)

        def taken() -> None:
            with torch.enable_grad():
                scorer.tokens(pairs).values.sum().backward()  # type: ignore[no-untyped-call]

        return taken

    return way(torch.bfloat16), way(torch.float32)
