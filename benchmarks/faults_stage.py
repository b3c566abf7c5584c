"""What the runs of `faults_beside_trl.py` are made of: a tiny random model, a file of pairs, caches of their own."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

RARE = "Z"  # stands in one pair alone, for the model whose embedding of it is NaN


@dataclass(frozen=True)
class Stage:
    """A temporary folder with the model and the pairs."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def poisoned(self) -> Path:
        return self.folder / "poisoned"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        """The caller's, with caches of its own, one thread, and no network."""
        own = {
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HF_HOME": str(self.folder / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        return {key: value for key, value in os.environ.items() if key != "TIEBREAK_FAULT"} | own

    def set_up(self) -> None:
        """Write the model, the one with a NaN, and the pairs."""
        write_model(self.model)
        shutil.copytree(self.model, self.poisoned)
        poison(self.poisoned)
        self.write_pairs()

    def write_pairs(self, changed: bool = False) -> None:
        """Write the training pairs, and 6 held-out ones for tiebreak; `changed` replaces one completion."""
        rows = make_rows(30)
        rows[12]["chosen"] += f" {RARE}"
        if changed:
            rows[3]["chosen"] = "yes, and now it is another text"
        for path, part in ((self.pairs, rows[:24]), (self.folder / "heldout.jsonl", rows[24:])):
            path.write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")


def make_rows(num: int) -> list[dict[str, str]]:
    """Pairs whose chosen side says yes and whose rejected side says no, of odd lengths."""
    draw = random.Random(0)
    words = ["cat", "dog", "mat", "park", "sun", "tree", "road", "lake", "bird", "fish", "stone", "cloud"]
    some = lambda most: " ".join(draw.choices(words, k=draw.randint(1, most)))  # noqa: E731
    return [
        {"prompt": f"{index} is the {some(4)} here", "chosen": f"yes the {some(5)}", "rejected": f"no the {some(5)}"}
        for index in range(num)
    ]


def write_model(folder: Path) -> None:
    """Write a random two-layer Llama and its byte-level tokenizer, as the tests make them."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(["the cat sat on the mat and the dog ran to the park", "user assistant yes no"], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token=special[0], bos_token=special[1], eos_token=special[2]
    )
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        initializer_range=0.2,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def poison(folder: Path) -> None:
    """Make one weight NaN: the first of the embedding of a token that stands in one pair."""
    weights = load_file(folder / "model.safetensors")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    token = tokenizer.convert_tokens_to_ids(RARE)
    weights["model.embed_tokens.weight"][token, 0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
