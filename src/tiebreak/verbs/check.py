"""The verb check: the doctor's look at preference data, before any model is trained on it."""

from __future__ import annotations

from tiebreak.config import DataConfig, ModelConfig
from tiebreak.config.data import MOST_TOKENS
from tiebreak.doctor.examination import Tokens, audit
from tiebreak.doctor.report import AuditReport
from tiebreak.progress import Progress


def check(data: DataConfig, model: ModelConfig | None = None, progress: Progress | None = None) -> AuditReport:
    """Return what the doctor finds in the pairs of `data`; with a `model`, tokens are counted, too, by its template.

    Raises DataError where nothing can be read at all.
    """
    return audit(data, None if model is None else tokens_of(model, data), progress).report


def tokens_of(model: ModelConfig, data: DataConfig) -> Tokens:
    """Return the tokenizer of a model for counting: nothing is cut or dropped for its length."""
    from tiebreak.engine.models import load_renderer  # noqa: PLC0415 - transformers loads slowly

    return Tokens(model, *load_renderer(model, data.model_copy(update={"max_length": MOST_TOKENS})))
