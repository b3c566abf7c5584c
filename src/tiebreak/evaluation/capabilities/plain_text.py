"""Tasks of the kind text: log-probability per token of plain texts, without a chat template.

Owns which tokens of a text are scored; how a file of plain text is cut is known to `taskfiles`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.config import DataConfig, PlainText
from tiebreak.data.render import Renderer
from tiebreak.engine.model import Model
from tiebreak.evaluation.capabilities.scoring import Passage, likelihoods, text_passage
from tiebreak.evaluation.capabilities.task import Desk, Item, Said
from tiebreak.evaluation.capabilities.templates import Template
from tiebreak.records import Source


class Reading:
    """The log-probability per token of a text (nats); exp of minus it is the perplexity."""

    name, metric, unit = "text", "log-probability per token", "nats"

    def __init__(self, config: PlainText) -> None:
        """Raise ValueError in words where a template is none."""
        self._text, self._num_given = Template(config.text), config.num_given
        if not self._text.has_fields:
            raise ValueError("text is the same for every row; name a field in braces, as '{text}'")
        self.settings: Mapping[str, Any] = {"num_given": self._num_given}

    def read(self, row: Mapping[str, Any], source: Source) -> Item:
        """Return a text."""
        text = self._text.text(row)
        if not text.strip():
            raise ValueError("the text is empty")
        return Item(text, source)

    def ready(self, item: Item, model: Model, renderer: Renderer) -> list[Passage]:
        """Return the text's tokens, cut where the model has no room; raises RenderError."""
        room = model.context.limit(DataConfig().max_length)
        return [text_passage(item.item_id, item.question, model, self._num_given, room)]

    def ask(self, model: Model, items: Sequence[tuple[Item, Sequence[Passage]]], desk: Desk) -> list[Said]:
        """Score all texts."""
        passages = [passage for _, some in items for passage in some]
        kept = desk.kept_in / "scores.jsonl" if desk.kept_in else None
        found = likelihoods(model, passages, desk.cut, desk.advance, kept)
        said = [found[passage.example_id][0] for passage in passages]
        return [Said(one.per_token, {"logps": one.logps, "num_tokens": one.num_tokens}) for one in said]
