"""What a judge may be given besides its settings.

Owns these values. A judge takes from them what it needs and refuses, in one line, where that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.evaluation.judges.capped import Spent
from tiebreak.progress import Progress, Silent
from tiebreak.records import Tokenized

if TYPE_CHECKING:  # a rule and a server need no torch
    from tiebreak.engine.model import Model
    from tiebreak.engine.reference.kinds import Reference
    from tiebreak.engine.scorer import Cut

EVALUATION, ROUNDS = "evaluation.judge", "rounds.judge"
"""The keys that name a judge."""


@dataclass(frozen=True)
class Fitting:
    """What a judge is fitted on: the frozen reference, training pairs, and held-out pairs to be calibrated on."""

    reference: Reference
    train: Sequence[Tokenized]
    """Empty where they are no longer at hand: then only a judge that was fitted before can be had."""
    heldout: Sequence[Tokenized]
    data: DataConfig
    """How long prompt and answer may be."""
    cut: Cut
    seed: int
    file: Path
    """Where a fitted judge is kept."""


@dataclass(frozen=True)
class Given:
    """What a judge may need."""

    progress: Progress = field(default_factory=Silent)
    kept: Path | None = None
    """File in which raw answers of servers are kept; None: the one in the user's cache."""
    fitting: Fitting | None = None
    """Only where training data is at hand."""
    noted: Callable[[str], None] = lambda _: None
    """Is told what has to stand wherever a judge's preferences are shown."""
    spent: Callable[[Spent], None] = lambda _: None
    """Is told what was spent, when the judge is closed, also after an error."""
    paid: Spent | None = None
    """What earlier goes at the same questions spent: caps on calls and on the cost are of all of them together."""
    spending: Callable[[Spent], None] = lambda _: None
    """Is told what is spent by now, after each answer of a server, from whatever thread."""
    answered: Sequence[tuple[Chat, Sequence[Answer]]] | None = None
    """Prompts whose answers it is to stand over, each with those that are there by now: none, before any is drawn."""
    policy: Model | None = None
    """The policy that answered; its weights are there as long as the judge is asked."""
    folder: Path | None = None
    """Where people find what they are asked, and leave their votes."""
    setting: str = ""
    """The key of the configuration that names the judge; none: the one that `where` tells by what else is given."""

    @property
    def where(self) -> str:
        """The key that names the judge, as messages have it."""
        return self.setting or (EVALUATION if self.answered is None else ROUNDS)
