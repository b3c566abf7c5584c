"""Whether a model may be scored packed: asked of its configuration first, then of the model itself.

Owns the choice between packed and plain. A model is packed only where nothing in it carries information along the row
other than attention, and where a short check, repeated at every start, finds the same numbers in both layouts. Anything
else is scored plainly, with one line that says why. Never silently wrong.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import peft
import torch
from torch import Tensor, nn

from tiebreak.engine.attention import asking, causal_model
from tiebreak.engine.head import head_of
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.scorer import PackedScorer, PlainScorer, Scorer
from tiebreak.engine.stretching import rope_settings
from tiebreak.errors import one_line
from tiebreak.records import Example, TokenizedPair

PACKABLE_LAYERS = {"full_attention", "sliding_attention", "attention"}
# Relative to the mean |log p| of a token: the rounding of two ways to add the same numbers.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}
LONGEST_PROBED_WINDOW = 128


@dataclass(frozen=True)
class Choice:
    """A scorer, and why it is not the packed one."""

    scorer: Scorer
    refusal: str | None


def choose_scorer(model: Any, plain: PlainScorer, packed: PackedScorer, dtype: torch.dtype) -> Choice:
    """Return the packed scorer where the model admits it, else the plain one with the reason in words."""
    refusal = refused_by_design(model) or refused_by_check(model, plain, packed, dtype)
    return Choice(plain if refusal else packed, refusal)


# ---------------------------------------------------------------------------------------------------- the configuration


def refused_by_design(model: Any, *, trains: bool = True) -> str | None:
    """Return what in the architecture forbids packing, or None; where nothing `trains`, dropout does not."""
    return next((reason for reason in _reasons(model, trains) if reason), None)


def _reasons(model: Any, trains: bool) -> Iterator[str | None]:
    causal = causal_model(model)
    config = causal.config.get_text_config().to_dict()
    kinds = (*(config.get("layer_types") or ()), *(config.get("layers_block_type") or ()))
    layers = set(map(str, kinds)) - PACKABLE_LAYERS
    yield f"its layers include {', '.join(sorted(layers))}" if layers else None
    yield "it convolves along the row" if any(isinstance(m, nn.Conv1d) for m in causal.modules()) else None
    yield "it has an encoder" if config.get("is_encoder_decoder") else None
    nested = config.get("attn_config")
    alibi = config.get("alibi") or (isinstance(nested, Mapping) and nested.get("alibi"))
    biased = alibi or config.get("position_embedding_type") == "alibi"
    yield "its attention is biased by distance (ALiBi)" if biased else None
    settings = list(rope_settings(config))
    yield "its positions have several axes (M-RoPE)" if any("mrope_section" in one for one in settings) else None
    longest = {str(setting.get("rope_type")) for setting in settings} & {"dynamic", "longrope"}
    yield f"its RoPE ({', '.join(sorted(longest))}) depends on the longest row" if longest else None
    yield _dropout_reason(model) if trains else None
    if isinstance(model, peft.PeftModel) and any(c.is_prompt_learning for c in model.peft_config.values()):
        yield "its adapter puts tokens before the prompt"
    can_switch = causal._supports_attention_backend and causal._can_set_attn_implementation()
    yield None if can_switch else "its attention cannot be exchanged in this version of transformers"
    yield "its output head is not a plain projection" if head_of(causal) is None else None


def _dropout_reason(model: Any) -> str | None:
    """Return where dropout is left: its masks depend on how a step is laid out."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            return f"dropout {module.p:g} is on in {name}; adapter.dropout 0 allows it"
        for key, value in vars(module).items():
            if "drop" in key and isinstance(value, float) and value > 0:
                return f"dropout {value:g} is on in {name}"
    return None


# ------------------------------------------------------------------------------------------------------- the self-check


def refused_by_check(model: Any, plain: PlainScorer, packed: PackedScorer, dtype: torch.dtype) -> str | None:
    """Score a few short pairs in both layouts and disturb one of them; return what went wrong, or None."""
    packed.windows.clear()
    try:
        with evaluation_mode(model), torch.no_grad(), asking():
            return next((finding for finding in _findings(model, plain, packed, dtype) if finding), None)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError) as error:
        return f"the packed forward pass failed: {one_line(error, 160)}"


def _findings(model: Any, plain: PlainScorer, packed: PackedScorer, dtype: torch.dtype) -> Iterator[str | None]:
    """Yield what each check finds, one after the other; the last one leaves the model in training mode."""
    pairs = probe_pairs(model)
    still = packed.tokens(pairs).values
    apart = _apart(plain.tokens(pairs).values, still)
    # Not "apart > …": a NaN is refused as well.
    yield (
        None if apart <= TOLERANCE[dtype] else f"packed and plain log-probabilities differ by {apart:.2g} of their size"
    )
    # A model may slide its window by a mask alone, which packing does without (Qwen2-MoE).
    config = causal_model(model).config.get_text_config().to_dict()
    window, kinds = config.get("sliding_window"), config.get("layer_types") or ("sliding_attention",)
    slides = window and config.get("use_sliding_window", True) and "sliding_attention" in kinds
    yield f"its sliding window of {window} does not reach the attention" if slides and not packed.windows else None
    yield _leak(pairs, still, packed, config, dtype)
    yield _other_gradient(model, pairs, plain, packed, dtype)
    model.train()  # noisy routers compute other numbers then
    yield None if torch.equal(still, packed.tokens(pairs).values) else "its forward pass is random in training"


def _leak(
    pairs: Sequence[TokenizedPair], before: Tensor, packed: Scorer, config: Mapping[str, Any], dtype: torch.dtype
) -> str | None:
    """Return a finding unless other completions stay as they are, to the bit, when one completion changes."""
    first, *others = pairs
    ids = first.chosen_ids
    moved = replace(first, chosen_ids=(ids[0] ^ 1, *ids[1:]))
    one, two = before[len(ids) :], packed.tokens([moved, *others]).values[len(ids) :]
    # Experts get other numbers of tokens when one token changes, and matrix products of other shapes round differently.
    experts = any(config.get(key) for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    same = torch.equal(one, two) or (experts and _apart(one, two) <= TOLERANCE[dtype])
    return None if same else "changing one completion changes another"


def _other_gradient(
    model: Any, pairs: Sequence[Example], plain: Scorer, packed: Scorer, dtype: torch.dtype
) -> str | None:
    """Return a finding where the gradients of the two layouts differ at the deepest weights that are trained.

    Where those learn nothing from short pairs (experts that get no token), all that is trained is compared.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for some in filter(None, (trained[:4], trained[4:])):
        wanted, found = _gradients(some, pairs, (plain, packed))
        size = wanted.norm()
        apart = float((wanted - found).norm() / size.clamp(min=torch.finfo(torch.float32).tiny))
        if not apart <= GRADIENT_TOLERANCE[dtype]:
            return f"packed and plain gradients differ by {apart:.2g} of their size"
        if size > 0:
            return None
    return "no gradient reaches what is trained, so that none can be compared" if trained else None


def _gradients(of: Sequence[Tensor], pairs: Sequence[Example], scorers: Sequence[Scorer]) -> list[Tensor]:
    gradients = []
    # One after the other: with activations checkpointed, the backward pass runs the layers as the last pass left them.
    for scorer in scorers:
        with torch.enable_grad():
            gaps = scorer.tokens(pairs).summed().paired().gap
            found = torch.autograd.grad(gaps.sum(), of, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([gradient.float().flatten() for gradient in found]))
    return gradients


def probe_pairs(model: Any) -> list[TokenizedPair]:
    """Return short pairs of random tokens: two with a shared prompt, one with another, one completion of one token."""
    config = causal_model(model).config.get_text_config()
    draw = random.Random(0)  # noqa: S311 - not for secrets

    def ids(num: int) -> tuple[int, ...]:
        return tuple(draw.randrange(4, config.vocab_size - 4) for _ in range(num))

    window = config.to_dict().get("sliding_window") or 0
    shared, other = ids(9 + (window if window <= LONGEST_PROBED_WINDOW else 0)), ids(5)
    lengths = [(shared, 7, 4), (shared, 3, 6), (other, 6, 1)]
    return [
        TokenizedPair(f"probe{index}", "probe", prompt, ids(chosen), ids(rejected))
        for index, (prompt, chosen, rejected) in enumerate(lengths)
    ]


def _apart(one: torch.Tensor, two: torch.Tensor) -> float:
    """Return the mean difference relative to the mean size."""
    return float((one - two).abs().mean() / one.abs().mean().clamp(min=1))
