"""Stages of one policy: what one learned is the next one's start, and the reference that it is compared with.

Owns where a stage starts, and that none holds out what one before it trains on. SFT before DPO: the reference of DPO is
the model that SFT made (Rafailov et al. 2023, 5).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.config import Stage
from tiebreak.data.prompts import Prompts, may_disagree, prompts_of
from tiebreak.errors import ConfigError
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.training.launched import launched
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
    with launched(stages[-1].config.distributed) as company:
        if company is None:  # this process took part in all of them
            return {one.name: Run(str(one.config.output.dir)) for one in planned(stages)}
        _refuse_leaks(stages, progress)
        made = carry_out(planned(stages), progress, resume=resume, accept=accept, company=company)
        return {one.name: run for one, run in made}


def _refuse_leaks(stages: Sequence[Stage], progress: Progress) -> None:
    """Held out is held out in every stage: refuse prompts that one trains on and a later one holds out.

    Each stage proves it again, of what its model left it. Data are read for it only where the hash of a prompt does not
    decide alone, and of stages that have begun no more.
    """
    by_name = {stage.name: stage for stage in stages}
    known: dict[str, Prompts] = {}

    def prompts(stage: Stage) -> Prompts:
        if stage.name not in known:
            progress.say(f"{stage.name}: reading which prompts are trained on and which are held out")
            known[stage.name] = prompts_of(stage.config.data, progress)
        return known[stage.name]

    for later in stages:
        if Run(str(later.config.output.dir)).manifest_file.exists():
            continue
        earlier = later
        while earlier.start is not None:
            earlier = by_name[earlier.start]
            if not may_disagree(earlier.config.data, later.config.data):
                continue
            held = prompts(later).heldout
            if learned := held & prompts(earlier).train:
                raise ConfigError(
                    f"stages: {later.name} holds out {len(held)} prompts, and {earlier.name}, before it, trains on "
                    f"{len(learned)} of them; give both the same data.heldout_share, or {later.name} other prompts as "
                    "data.heldout"
                )
