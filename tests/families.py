"""Tiny random models of many families, with weights so wide that every token feels its context; what scores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tiebreak.engine.compatibility import Choice, choose_scorer
from tiebreak.engine.noise import without_noise
from tiebreak.engine.scorer import PackedScorer, PlainScorer
from tiebreak.records import Ids
from tiny import EOS, PAD

CPU = torch.device("cpu")

SMALL: dict[str, Any] = {
    "vocab_size": 250,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
    "initializer_range": 0.2,
}
DECODER = SMALL | {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
HEADS_OF_8 = DECODER | {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT = SMALL | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SLIDING = {"sliding_window": 6}
BOTH = SLIDING | {"layer_types": ["sliding_attention", "full_attention"]}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
}

PACKABLE: dict[str, dict[str, Any]] = {
    "llama": DECODER,
    "qwen2": DECODER | SLIDING | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": HEADS_OF_8 | {"tie_word_embeddings": True},
    "qwen3_moe": HEADS_OF_8 | EXPERTS,
    "mistral": DECODER | SLIDING,
    "ministral3": HEADS_OF_8
    | {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 4.0,
            "original_max_position_embeddings": 4,  # rows are longer: the scale of queries by position bites
            "llama_4_scaling_beta": 0.5,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        }
    },
    "mixtral": DECODER | EXPERTS | SLIDING,
    "gemma": HEADS_OF_8,
    # Both kinds of softcapping bite: scores of some ± 10 against caps of 2 and 5.
    "gemma2": HEADS_OF_8
    | BOTH
    | {"query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
    "gemma3_text": HEADS_OF_8 | BOTH | {"query_pre_attn_scalar": 8},
    "phi": DECODER,
    "phi3": DECODER | SLIDING,
    "gpt2": GPT,
    "gpt_neox": DECODER,
    "gpt_bigcode": GPT,
    "gpt_oss": HEADS_OF_8 | EXPERTS | BOTH,
    "olmo2": DECODER,
    "olmo3": DECODER | BOTH,
    "granite": DECODER | {"logits_scaling": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5},
    "cohere": DECODER | {"logit_scale": 0.25},
    "cohere2": DECODER | BOTH | {"logit_scale": 0.25},
    "smollm3": DECODER | {"no_rope_layers": [1, 0]},
    "opt": SMALL
    | {
        "hidden_size": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
    },
    "starcoder2": DECODER | SLIDING,
    "glm4": HEADS_OF_8,
    "helium": HEADS_OF_8,
    "exaone4": DECODER | BOTH,
    "deepseek_v3": DECODER | LATENT | ROUTED,
    "phimoe": DECODER | {"num_local_experts": 4},
}


def build(kind: str, **settings: Any) -> Any:
    """A model as a policy would hold it: without dropout, in evaluation mode."""
    return without_noise(raw(kind, **settings)).eval()


def raw(kind: str, **settings: Any) -> Any:
    """A model as transformers makes it from a configuration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))


def plain(network: Any, dtype: torch.dtype = torch.float32) -> PlainScorer:
    """The plain scorer of a network."""
    return PlainScorer(network, pad_id=PAD, device=CPU, dtype=dtype)


def packed(network: Any, dtype: torch.dtype = torch.float32) -> PackedScorer:
    """The packed scorer of a network."""
    return PackedScorer(network, device=CPU, dtype=dtype)


def chosen_scorer(network: Any, dtype: torch.dtype = torch.float32) -> Choice:
    """The scorer that a network gets, and why it is not the packed one."""
    return choose_scorer(network, plain(network, dtype), packed(network, dtype), dtype)


@dataclass(frozen=True)
class Bare:
    """An example of as many completions as it is given, without sides."""

    example_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    prompt_id: str = "prompt"
    weight: float = 1.0
