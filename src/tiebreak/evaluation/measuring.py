"""All that is measured on one set of held-out pairs, and the files it is kept in.

Owns the order: evidence on pairs, answers, summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import Config
from tiebreak.engine.model import Policy
from tiebreak.evaluation.heldout import Evidence, HeldoutPairs
from tiebreak.evaluation.measures import summarise
from tiebreak.evaluation.samples import sample
from tiebreak.progress import Progress
from tiebreak.records import Pair
from tiebreak.runs import Run


@dataclass(frozen=True)
class Measured:
    """Before and after: the summary with its verdict, one row a pair, one row an answered prompt."""

    evaluation: dict[str, Any]
    evidence: Sequence[Evidence]
    samples: Sequence[dict[str, Any]]

    def write(self, run: Run) -> None:
        """Keep everything in the run folder."""
        files.write_jsonl(run.evidence_file, (row.as_dict() for row in self.evidence))
        files.write_jsonl(run.samples_file, self.samples)
        files.write_json(run.evaluation_file, self.evaluation)


def measure(
    policy: Policy,
    heldout: HeldoutPairs,
    pairs: Sequence[Pair],
    config: Config,
    progress: Progress,
    answers: Path | None = None,
) -> Measured:
    """Measure policy against reference; `pairs` are the texts of the held-out pairs.

    `answers` is a file in which generated answers survive a crash.
    """
    evidence = heldout.evidence(progress=progress)
    samples = sample(policy, pairs, config, progress, answers)
    return Measured(summarise(evidence, samples, config), evidence, samples)
