"""How many tokens a model can see is known before its weights are read, and is what its forward pass then shows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from families import DECODER, GPT, HEADS_OF_8, PACKABLE, SMALL, build
from tiebreak.engine.positions import Context, context_of

UNSTATED = SimpleNamespace(model_max_length=10**30)
BARTLIKE = {"d_model": 32, "decoder_layers": 2, "decoder_ffn_dim": 48, "decoder_attention_heads": 4}
TABLES = {
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gptj": GPT | {"rotary_dim": 4},
    "codegen": GPT | {"rotary_dim": 4},
    "openai-gpt": GPT,
    "ctrl": GPT | {"dff": 48},
    "opt": PACKABLE["opt"],
    "biogpt": DECODER,
    "bart": SMALL | BARTLIKE | {"max_position_embeddings": 64},
    "gpt_neo": SMALL
    | {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
    | {"max_position_embeddings": 64},
    "mpt": SMALL | {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "roberta": DECODER | {"is_decoder": True, "pad_token_id": 1, "max_position_embeddings": 66},
}
ANGLES = {
    **{kind: PACKABLE[kind] for kind in ("llama", "qwen3", "gemma3_text", "phi", "gpt_neox", "smollm3", "deepseek_v3")},
    "bloom": SMALL | {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": DECODER | {"alibi": True},
}


def _forward(network, num):
    with torch.no_grad():
        return network(input_ids=torch.full((1, num), 5)).logits


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_positions_ends_where_it_is_said_to(kind):
    network = build(kind, **TABLES[kind])
    assert context_of(network.config, UNSTATED) == Context(64, 64)
    assert _forward(network, 64).shape[1] == 64
    with pytest.raises((IndexError, RuntimeError)):
        _forward(network, 65)


@pytest.mark.parametrize("kind", ANGLES)
def test_angles_and_distances_have_no_end_but_what_the_model_was_made_for(kind):
    network = build(kind, **ANGLES[kind])
    found = context_of(network.config, UNSTATED)
    assert found == Context(None, None if kind in ("bloom", "falcon") else 64)
    assert _forward(network, 90).isfinite().all()
    assert found.limit(1000) == 1000


@pytest.mark.parametrize(
    ("rope", "tokens"),
    [
        ({"rope_type": "default"}, 64),
        ({"rope_type": "linear", "factor": 2.0}, 128),
        ({"rope_type": "dynamic", "factor": 2.0}, 128),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),  # stated with its scaling
        (
            {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 16}
            | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
            64,
        ),
    ],
)
def test_a_scaling_that_stretches_the_positions_counts_once(rope, tokens):
    config = AutoConfig.for_model("llama", **(DECODER | {"rope_parameters": {"rope_theta": 1e4} | rope}))
    assert context_of(config, UNSTATED) == Context(None, tokens)


def test_what_the_tokenizer_states_is_no_more_than_the_model_has():
    shorter, longer = SimpleNamespace(model_max_length=32), SimpleNamespace(model_max_length=4096)
    llama, gpt = AutoConfig.for_model("llama", **HEADS_OF_8), AutoConfig.for_model("gpt2", **GPT)
    assert [context_of(llama, one).made_for for one in (shorter, longer)] == [32, 64]
    assert [context_of(gpt, one) for one in (shorter, longer)] == [Context(64, 32), Context(64, 64)]
    bloom = AutoConfig.for_model("bloom", **ANGLES["bloom"])
    assert context_of(bloom, shorter) == Context(None, 32)
