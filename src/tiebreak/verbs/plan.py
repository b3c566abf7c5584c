"""The verb plan: what fits in memory and how steps would be cut, without training; here, or on GPUs of elsewhere."""

from __future__ import annotations

from tiebreak.config import Config, with_output_dir
from tiebreak.config.commands import PLANNED_GPU
from tiebreak.doctor.remembered import remembered
from tiebreak.doctor.triage import heed, heed_loss
from tiebreak.engine.cluster import ClusterPlan, plan_cluster
from tiebreak.engine.outline import outline_of
from tiebreak.engine.planner import Plan
from tiebreak.progress import Progress, Silent
from tiebreak.runs import Run
from tiebreak.training.opening import made_ready
from tiebreak.training.settled import check_settings


def plan(
    config: Config,
    progress: Progress | None = None,
    *,
    gpus: int | None = None,
    gpu: str = PLANNED_GPU,
    pair_tokens: int | None = None,
) -> Plan | ClusterPlan:
    """Load data and model as `train` does, decide what fits in memory, and train nothing.

    With a number of `gpus` of a kind, reckon what it takes of them by the shape of the model alone: config.json is read
    of its files, and no data. `config.model.name` is then a folder, a hub id, or the name of a published shape.
    """
    if gpus is not None:
        outline, loss, full = outline_of(config.model, config.adapter), config.loss, config.adapter.trains_all
        asks = loss.wants_prompts_in_a_step or loss.compares_distributions or config.signals.looks_at_start
        return plan_cluster(
            outline,
            config.training,
            config.distributed,
            gpus=gpus,
            gpu=gpu,
            max_length=config.data.max_length,
            pair_tokens=pair_tokens,
            keeps_reference=config.reference.moves is not None or (full and asks),
        )
    config, progress = with_output_dir(config), progress or Silent()
    check_settings(config, progress)
    examined = remembered(config.data, progress)
    heed(examined, config.data, progress)
    heed_loss(examined, config.loss)
    return made_ready(config, Run(str(config.output.dir)), examined, progress).memory
