"""What the GPU benchmark measures on, and whether it is right: pairs, models of known shapes, packed against plain.

Owns the shapes and the lengths. Lengths are lognormal, completions of a pair alike to a degree, redrawn where a row
would be longer than the cap, and scaled so that the means after that are those of the data that they stand for (the
spread is that of the characters in UltraFeedback and HH, rounded down: 1.0 to 1.7 there). Fixed seeds throughout.

Parity: every family has a tiny random model with an adapter that is not zero. Per-token log-probabilities and the
gradient of the mean DPO loss by every LoRA weight are had from `PlainScorer` and `PackedScorer`. In fp32 (TF32 off)
they have to agree up to rounding. In bf16 two right answers differ by the rounding of bf16, so both are compared with
the fp32 answer of the same weights too: packed may be at most twice as far from it as plain. Whether the engine itself
would choose the packed layout for the model is asked as well.
"""

from __future__ import annotations

import gc
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import peft
import torch
import transformers
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from tiebreak.engine.compatibility import choose_scorer
from tiebreak.engine.scorer import PackedScorer, PlainScorer, Scorer
from tiebreak.records import TokenizedPair

Found = dict[str, Any]
Case = Callable[[float], Found]
BETA = 0.1
BF16, FP32 = torch.bfloat16, torch.float32


class UnmeasurableError(Exception):
    """This device or this installation lacks what a case needs; the message is the reason."""


@dataclass(frozen=True)
class Setting:
    """Where to measure; `tiny` shrinks everything to a trial of the scripts."""

    device: torch.device
    tiny: bool

    @classmethod
    def of(cls, device: str, *, tiny: bool) -> Setting:
        """Return the setting; products of fp32 are exact from here on."""
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        return cls(torch.device(device), tiny)

    def wait(self) -> None:
        """Return when the device has done what it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget_peak(self) -> None:
        """Let `peak` start anew; what nobody holds any more is given back before."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> Found:
        """Return the most bytes of the GPU that tensors took since `forget_peak`."""
        if self.device.type != "cuda":
            return {"peak_bytes": None, "peak_bytes_reason": "not a CUDA device"}
        return {"peak_bytes": torch.cuda.max_memory_allocated(self.device), "peak_bytes_reason": None}


# ---------------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of prompt, chosen and rejected, and the most tokens of prompt with one completion."""

    prompt: float
    chosen: float
    rejected: float
    cap: int


LENGTHS = {"ultrafeedback": Lengths(161, 259, 237, 1024), "hh": Lengths(125, 42, 53, 512)}
SPREAD = 1.0
"""Standard deviation of the logarithm of a length."""
ALIKE = 0.4
"""Correlation of the logarithms of both completions."""
SHRINK = 16


def drawn_lengths(name: str, num: int, setting: Setting, seed: int = 0) -> list[tuple[int, int, int]]:
    """Return tokens of prompt, chosen and rejected of `num` pairs."""
    wanted = LENGTHS[name]
    means, cap = (wanted.prompt, wanted.chosen, wanted.rejected), wanted.cap
    if setting.tiny:
        means, cap = (means[0] / SHRINK, means[1] / SHRINK, means[2] / SHRINK), cap // SHRINK
    asked = list(means)
    for _ in range(6):
        trial = _capped(asked, cap, 2000, seed)
        asked = [
            a * m * len(trial) / sum(row[i] for row in trial) for i, (a, m) in enumerate(zip(asked, means, strict=True))
        ]
    return _capped(asked, cap, num, seed)


def _capped(means: Sequence[float], cap: int, num: int, seed: int) -> list[tuple[int, int, int]]:
    draw = random.Random(seed)
    found: list[tuple[int, int, int]] = []
    while len(found) < num:
        both = draw.gauss(0, 1) * math.sqrt(ALIKE)
        normals = [draw.gauss(0, 1), *(both + draw.gauss(0, 1) * math.sqrt(1 - ALIKE) for _ in range(2))]
        row = [max(2, round(m * math.exp(SPREAD * z - SPREAD**2 / 2))) for m, z in zip(means, normals, strict=True)]
        if row[0] + max(row[1:]) <= cap:
            found.append((row[0], row[1], row[2]))
    return found


def pairs_of(lengths: Sequence[tuple[int, int, int]], vocabulary: int, seed: int = 0) -> list[TokenizedPair]:
    """Return pairs of random tokens; every prompt is its own."""
    draw, tokens = random.Random(seed), range(4, vocabulary)
    found = []
    for index, (prompt, chosen, rejected) in enumerate(lengths):
        ids, one, two = (tuple(draw.choices(tokens, k=num)) for num in (prompt, chosen, rejected))
        found.append(TokenizedPair(f"pair{index:06}", f"prompt{index:06}", ids, one, (one[0] ^ 1, *two[1:])))
    return found


# --------------------------------------------------------------------------------------------------------------- models

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
}
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 250}
TINY |= {"num_key_value_heads": 2}
FAMILY = TINY | {"hidden_size": 64, "head_dim": 16, "initializer_range": 0.1, "max_position_embeddings": 256}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {}),
    "gemma2": ("Gemma2Config", {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0, "sliding_window": 8}),
    "mistral_sliding": ("MistralConfig", {"sliding_window": 8}),
}


def built(config: Any, setting: Setting, dtype: torch.dtype, seed: int = 0) -> Any:
    """Return a model with random weights, made where it will run."""
    torch.manual_seed(seed)
    with setting.device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def shaped(shape: str, setting: Setting) -> Any:
    """Return a Llama of a known shape in bf16, without an adapter."""
    sizes = SHAPES[shape] | (TINY if setting.tiny else {})
    return built(transformers.LlamaConfig(**sizes, max_position_embeddings=2048), setting, BF16)


def adapted(model: Any, setting: Setting) -> Any:
    """Return the model with the adapter that tiebreak trains by default: LoRA of rank 16 on all linear layers."""
    lora = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    return peft.get_peft_model(model, lora).to(setting.device)


def trained_weights(model: Any) -> list[Tensor]:
    """Return what the optimizer would move."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# --------------------------------------------------------------------------------------------------------------- parity

MEAN_LOGPS = {FP32: 2e-5, BF16: 2e-2}
"""Most mean difference of a token's log-probability, relative to its mean size: the engine's own bounds."""
GRADIENT = {FP32: 1e-4, BF16: 5e-2}
"""Most distance of the gradients, relative to the gradient's norm."""
FARTHER = 2.0
"""In bf16, packed may be this many times as far from the fp32 answer as plain."""
ALLOWANCE = 1e-3


def cases(part: str, setting: Setting) -> dict[str, Case]:
    """Return the parity of every family in every dtype, by name."""
    assert part == "parity"
    return {
        f"{family}/{str(dtype).removeprefix('torch.')}": partial(_parity, family, dtype, setting)
        for dtype in (BF16, FP32)
        for family in FAMILIES
    }


@dataclass(frozen=True)
class Answer:
    """Log-probabilities of all scored tokens, and the gradient by all LoRA weights, both fp32 and flat."""

    logps: Tensor
    gradient: Tensor


def _parity(family: str, dtype: torch.dtype, setting: Setting, _: float) -> Found:
    model, pairs = _tiny_policy(family, dtype, setting), _odd_pairs()
    plain = PlainScorer(model, pad_id=0, device=setting.device, dtype=dtype)
    packed = PackedScorer(model, device=setting.device, dtype=dtype)
    choice = choose_scorer(model, plain, packed, dtype)
    one, two = _answer(model, plain, pairs), _answer(model, packed, pairs)
    apart = {"logps_max_difference_nats": float((one.logps - two.logps).abs().max())} | _distances(two, one)
    passed = (
        apart["logps_mean_relative_difference"] <= MEAN_LOGPS[dtype]
        and apart["gradient_relative_difference"] <= GRADIENT[dtype]
        and choice.refusal is None
    )
    figures: Found = {"num_scored_tokens": one.logps.numel(), "num_lora_weights": one.gradient.numel(), **apart}
    if dtype != FP32:
        wide = _tiny_policy(family, dtype, setting).float()
        exact = _answer(wide, PlainScorer(wide, pad_id=0, device=setting.device, dtype=FP32), pairs)
        to_fp32 = {"plain": _distances(one, exact), "packed": _distances(two, exact)}
        passed = passed and all(
            to_fp32["packed"][key] <= FARTHER * value + ALLOWANCE for key, value in to_fp32["plain"].items()
        )
        figures["distance_to_fp32"] = to_fp32 | {"most_times_farther_ratio": FARTHER}
    bounds = {"logps_mean_relative": MEAN_LOGPS[dtype], "gradient_relative": GRADIENT[dtype]}
    layout = {"engine_layout": choice.scorer.layout, "engine_refusal": choice.refusal}
    return figures | layout | {"bounds": bounds, "passed": passed}


def _tiny_policy(family: str, dtype: torch.dtype, setting: Setting) -> Any:
    """Return a model in evaluation mode whose adapter does something; its base weights fit into bf16."""
    name, more = FAMILIES[family]
    config = getattr(transformers, name)(**FAMILY, **more)
    model = adapted(built(config, setting, BF16).to(dtype), setting)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in trained_weights(model):
            weight.copy_(0.1 * torch.randn(weight.shape))
    return model.eval()


def _odd_pairs() -> list[TokenizedPair]:
    """Return pairs of uneven lengths: longer than the windows, a completion of one token, two with one prompt."""
    pairs = pairs_of([(5, 7, 3), (40, 1, 33), (1, 12, 9), (17, 21, 2)], TINY["vocab_size"])
    shared = pairs[0]
    other = TokenizedPair("shares", shared.prompt_id, shared.prompt_ids, (9, 8, 7, 6), (5, 6, 7))
    return [*pairs, other]


def _answer(model: Any, scorer: Scorer, pairs: list[TokenizedPair]) -> Answer:
    weights = trained_weights(model)
    tokens = scorer.tokens(pairs)
    gaps = tokens.summed().paired().gap
    gradients = torch.autograd.grad(-logsigmoid(BETA * gaps).mean(), weights)
    return Answer(tokens.values.detach().float(), torch.cat([gradient.flatten().float() for gradient in gradients]))


def _distances(one: Answer, other: Answer) -> Found:
    """Return how far `one` is from `other`, relative to the size of `other`."""
    mean = (one.logps - other.logps).abs().mean() / other.logps.abs().mean()
    gradient = (one.gradient - other.gradient).norm() / other.gradient.norm()
    return {"logps_mean_relative_difference": float(mean), "gradient_relative_difference": float(gradient)}
