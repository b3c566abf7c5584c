"""How a trained policy is loaded from a run folder."""

from __future__ import annotations

from tiebreak.engine.model import Policy
from tiebreak.engine.models import load_policy
from tiebreak.errors import RunError
from tiebreak.progress import Progress, Silent
from tiebreak.runs import Run


def load_trained(run: Run, progress: Progress | None = None) -> Policy:
    """Return the policy that a run trained, with the reference that it was trained against.

    Raises RunError where the base model's weights are no longer those of the training.
    """
    start = run.start_folder
    say = (progress or Silent()).say
    policy = load_policy(run.config, trained=run.policy_folder, start=start if start.is_dir() else None, say=say)
    trained_on = run.manifest.get("base_identity")
    if policy.source.base_identity != trained_on:
        raise RunError(
            f"{run.path}: was trained on the base model {trained_on}, but {policy.source.base} now holds "
            f"{policy.source.base_identity}; bring back the weights it was trained on"
        )
    return policy
