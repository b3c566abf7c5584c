"""A model that is trained or was trained, with all that is needed to use it.

Owns what goes together: weights, tokenizer, reference, scorer, and how much of a step fits in memory at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from tiebreak.config import DataConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.answers.local import Sampling
from tiebreak.engine.loading import quietly
from tiebreak.engine.reference.kinds import OtherAdapter
from tiebreak.engine.reference.stored import StoredReference
from tiebreak.engine.scorer import Scorer
from tiebreak.engine.sources import Source
from tiebreak.records import TokenizedPair

POLICY_ADAPTER = "default"


@dataclass
class TokenBudget:
    """Most tokens in one micro-batch; the one thing about a policy that changes when memory turns out to be short."""

    tokens: int


@dataclass(frozen=True)
class Policy:
    """The model that is trained or was trained, with all that is needed to use it."""

    model: Any
    tokenizer: Any
    reference: StoredReference
    scorer: Scorer
    plain_because: str | None
    """Why pairs are not packed; None where they are."""
    device: torch.device
    eos_ids: tuple[int, ...]
    pad_id: int
    source: Source
    dtype: torch.dtype
    """Of the arithmetic; weights may be wider."""
    budget: TokenBudget

    @property
    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Names and parameters that the optimizer moves."""
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter was trained, and not all weights."""
        return isinstance(self.model, peft.PeftModel)

    @property
    def continues_adapter(self) -> bool:
        """Whether training goes on with an adapter that the model came with."""
        return isinstance(self.reference.live, OtherAdapter)

    def renderer(self, data: DataConfig) -> Renderer:
        """Return the renderer that matches this tokenizer."""
        return Renderer(self.tokenizer, self.eos_ids, data)

    def sampling(self, max_new_tokens: int, temperature: float = 0.0) -> Sampling:
        """Return settings for generation that match this tokenizer."""
        return Sampling(max_new_tokens, self.eos_ids, self.pad_id, temperature)

    def micro_batches(self, pairs: Sequence[TokenizedPair]) -> list[list[TokenizedPair]]:
        """Group pairs so that each group fits in memory."""
        return self.scorer.micro_batches(pairs, self.budget.tokens)

    def checkpoint_activations(self) -> None:
        """Keep only the inputs of layers for the backward pass, and compute the rest again."""
        with warnings.catch_warnings():
            # transformers 5.23 warns of a new name that 5.0 lacks; remove when every supported version has it.
            warnings.simplefilter("ignore", FutureWarning)
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def save(self, folder: Path, adapter: str = POLICY_ADAPTER) -> None:
        """Write the adapter, or all weights where there is none, and the tokenizer, as transformers loads them."""
        with quietly():
            if self.is_adapter:
                self.model.save_pretrained(folder, selected_adapters=[adapter])
                _flatten(folder, adapter)
            else:
                self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


def _flatten(folder: Path, adapter: str) -> None:
    """Peft writes every adapter but `default` into a folder of its own; lift it."""
    nested = folder / adapter
    if nested.is_dir():
        for file in nested.iterdir():
            file.replace(folder / file.name)
        nested.rmdir()
