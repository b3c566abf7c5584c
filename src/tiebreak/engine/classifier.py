"""A sequence classifier of one label: a reward model with its tokenizer.

Owns how a conversation becomes the tokens of a classifier, and that each row gets the number that it gets alone. A row
is read off where its last token stands, which a classifier tells by the padding id: without one, rows go through one by
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import torch

from tiebreak.config import DataConfig, ModelConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.arithmetic import dtype_of
from tiebreak.engine.building import device_of
from tiebreak.engine.bundled import Say
from tiebreak.engine.loading import check_sequence_classifier, load_sequence_classifier
from tiebreak.engine.positions import context_of
from tiebreak.engine.sources import Source, resolve
from tiebreak.engine.stretching import stretching_of
from tiebreak.engine.tokenizer import load_tokenizer, now_for
from tiebreak.engine.weights import weights_digest
from tiebreak.errors import ModelError
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Ids

TOKENS_OF_A_BATCH = 4096


@dataclass(frozen=True)
class Classifier:
    """Weights with their tokenizer."""

    network: Any
    """Of transformers, in evaluation mode, with one label."""
    tokenizer: Any
    source: Source
    now: datetime | None = None
    """What a chat template that reads the clock is told."""

    @cached_property
    def renderer(self) -> Renderer:
        """What writes a conversation as its chat template does."""
        return Renderer(self.tokenizer, (self.tokenizer.eos_token_id,), DataConfig(), self.now)

    @cached_property
    def most_tokens(self) -> int | None:
        """How long a row may be; None where nothing is stated."""
        context = context_of(self.network.config, self.tokenizer)
        return context.made_for or context.most

    @cached_property
    def identity(self) -> str:
        """What ratings depend on besides the conversation: weights, template and its date."""
        dated = [self.now.isoformat()] if self.now else []
        return fingerprint([weights_digest(self.network, self.network.config), self.tokenizer.chat_template, *dated])

    def framed(self, ids: Ids) -> Ids:
        """Return ids with what the tokenizer puts before and behind every text, where they have it not already.

        So a row begins with exactly one BOS, whether the chat template writes it or the tokenizer adds it.
        """
        head, tail = self._frame
        return (
            *(() if ids[: len(head)] == head else head),
            *ids,
            *(() if tail == ids[len(ids) - len(tail) :] else tail),
        )

    def rate(self, rows: Sequence[Ids]) -> list[float]:
        """Return the number of each row, in order, whatever stands beside it; each fits into the model's positions."""
        pad_id = self.network.config.get_text_config().pad_token_id
        stretching = stretching_of(self.network)
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        batches: list[list[int]] = []
        for place in order:
            size = len(rows[batches[-1][0]]) if batches else 0
            fits = batches and (len(batches[-1]) + 1) * size <= TOKENS_OF_A_BATCH and pad_id is not None
            if fits and stretching.company(size) == stretching.company(1) == stretching.company(len(rows[place])):
                batches[-1].append(place)
            else:
                batches.append([place])
        found: dict[int, float] = {}
        for batch in batches:
            found |= zip(batch, self._together([rows[place] for place in batch], pad_id or 0), strict=True)
        return [found[place] for place in range(len(rows))]

    def _together(self, rows: Sequence[Ids], pad_id: int) -> list[float]:
        """Return the numbers of rows in one forward pass, padded on the right."""
        width = max(map(len, rows))
        device = next(self.network.parameters()).device
        ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        with torch.inference_mode():
            logits = self.network(input_ids=ids, attention_mask=mask).logits
        return [float(one) for one in logits.float().reshape(len(rows), -1)[:, 0]]

    @cached_property
    def _frame(self) -> tuple[Ids, Ids]:
        """What the tokenizer itself puts before and behind a text."""
        bare, whole = (tuple(self.tokenizer.encode("a", add_special_tokens=special)) for special in (False, True))
        starts = range(len(whole) - len(bare) + 1)
        start = next((start for start in starts if whole[start : start + len(bare)] == bare), 0)
        return whole[:start], whole[start + len(bare) :]


def load_classifier(config: ModelConfig, say: Say = lambda _: None) -> Classifier:
    """Return a sequence classifier of one label, with the chat template that conversations are shown to it in."""
    source, tokenizer = look_at_classifier(config, say)
    device = device_of(config)
    network = load_sequence_classifier(source.base, source.revision, dtype_of(config, device), say)
    network = network.requires_grad_(False).to(device).eval()
    return Classifier(network, tokenizer, source, now_for(config, tokenizer))


def look_at_classifier(config: ModelConfig, say: Say = lambda _: None) -> tuple[Source, Any]:
    """Return where a sequence classifier comes from, and its tokenizer, without its weights.

    Raises ModelError where it is none of one label, or has no chat template.
    """
    source = resolve(config, say)
    if source.adapter:
        raise ModelError(
            f"{config.name}: is an adapter; merge it into its base model (peft's merge_and_unload) and name that"
        )
    check_sequence_classifier(source.base, source.revision)
    return source, load_tokenizer(config, source, template_advice="save its tokenizer again with one")
