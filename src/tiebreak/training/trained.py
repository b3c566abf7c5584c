"""Policy and reference: at their start, or as a run left them.

Owns which sections of a configuration they are made of, and the date that a run keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tiebreak.config import Config
from tiebreak.engine import models
from tiebreak.engine.model import Model
from tiebreak.engine.reference.stored import Stored
from tiebreak.errors import RunError
from tiebreak.progress import Progress, Silent
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.budget import Budget


@dataclass(frozen=True)
class Loaded:
    """A policy, what it is measured against, and how much of a step fits in memory."""

    policy: Model
    reference: Stored
    budget: Budget


def load(
    config: Config,
    *,
    trained: Path | None = None,
    start: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Loaded:
    """Return the policy at its start, or as trained in a folder, with its reference.

    `trained` holds what `Model.save` wrote. `start` holds the adapter that training started from, where it was one.
    """
    policy, reference = models.load(
        config.model,
        config.adapter,
        config.reference,
        seed=config.training.seed,
        trained=trained,
        start=start,
        say=say,
    )
    if config.training.gradient_checkpointing and trained is None:
        policy.checkpoint_activations()
    return Loaded(policy, reference, Budget(policy, config.training.token_budget))


def dated(config: Config, run: Run) -> Config:
    """Return settings with the date that a run's chat template wrote when it began, where none is set."""
    kept = run.manifest.get("template_date") if run.manifest_file.exists() else None
    if config.model.chat_template_date or not kept:
        return config
    with as_a_run_writes(run.path):
        day = date.fromisoformat(kept).isoformat()
    return config.model_copy(update={"model": config.model.model_copy(update={"chat_template_date": day})})


def load_trained(run: Run, progress: Progress | None = None) -> Loaded:
    """Return the policy that a run trained, with the reference that it was trained against.

    Raises RunError where the base model's weights are no longer those of the training.
    """
    start = run.start_folder
    say = (progress or Silent()).say
    loaded = load(dated(run.config, run), trained=run.policy_folder, start=start if start.is_dir() else None, say=say)
    trained_on, source = run.manifest.get("base_identity"), loaded.policy.source
    if source.base_identity != trained_on:
        raise RunError(
            f"{run.path}: was trained on the base model {trained_on}, but {source.base} now holds "
            f"{source.base_identity}; bring back the weights it was trained on"
        )
    return loaded
