"""Stages of one policy: what one learned is the next one's start, and the reference that it is compared with.

Owns where a stage starts. SFT before DPO: the reference of DPO is the model that SFT made (Rafailov et al. 2023, 5).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.config import Stage
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.training.resumption import Resume


def planned(stages: Sequence[Stage]) -> list[Planned]:
    """Return the run of each stage, in their order; a stage that starts from another one names its policy as model.

    An adapter that a stage trained is trained on by the next, its start being the reference.
    """
    folders = {stage.name: Run(str(stage.config.output.dir)) for stage in stages}
    found = []
    for stage in stages:
        config = stage.config
        if stage.start is not None:
            start = {"name": str(folders[stage.start].policy_folder), "revision": None, "base": None}
            config = config.model_copy(update={"model": config.model.model_copy(update=start)})
        found.append(Planned(stage.name, config))
    return found


def train_stages(
    stages: Sequence[Stage], progress: Progress, *, resume: Resume = "auto", accept: Collection[str] = ()
) -> dict[str, Run]:
    """Train every stage, or go on with the first that is not done; return their runs by name."""
    return {one.name: run for one, run in carry_out(planned(stages), progress, resume=resume, accept=accept)}
