"""Small models that can judge, and pairs that one can be fitted on."""

from __future__ import annotations

import random
import shutil

import torch

from tiebreak.records import Message, Pair

GOOD = ["cat", "dog", "park", "mat", "the", "ran", "sat", "on", "to", "and"]


def leaning(tiny_model, folder, tokenizer, **towards: float):
    """A model whose head says the same whatever it is asked: these texts with these logits, the rest at 0."""
    shutil.copytree(tiny_model, folder)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = 4096
    with torch.no_grad():
        # Every state becomes the same vector: the last norm's scale is 0 but for one channel, fed from the embedding.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.norm.weight.fill_(1.0)
        model.lm_head.weight.zero_()
        for text, logit in towards.items():
            [token] = tokenizer.encode(text.replace("_", " "), add_special_tokens=False)
            model.lm_head.weight[token, 0] = logit / 32**0.5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def saved(folder, tokenizer, **changes):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    settings = {
        "num_labels": 1,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 64,
        "num_hidden_layers": 2,
    }
    settings |= changes
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.2,
        **settings,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text(draw: random.Random, special: str) -> str:
    words = [draw.choice(GOOD) for _ in range(draw.randint(6, 12))]
    for _ in range(6):
        words.insert(draw.randrange(len(words)), special)
    return " ".join(words) + "."


def make_pairs(num: int, seed: int = 0) -> list[Pair]:
    draw = random.Random(seed)
    return [
        Pair(
            (Message("user", f"the {draw.choice(GOOD)} {place} {seed}"),),
            Message("assistant", text(draw, "yes")),
            Message("assistant", text(draw, "no")),
        )
        for place in range(num)
    ]
