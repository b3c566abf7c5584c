"""The verb plan: what fits in memory and how steps would be cut, without training."""

from __future__ import annotations

from tiebreak.config import Config, with_output_dir
from tiebreak.doctor.examination import audit
from tiebreak.doctor.triage import heed, heed_loss
from tiebreak.engine.planner import Plan
from tiebreak.progress import Progress, Silent
from tiebreak.runs import Run
from tiebreak.training.opening import made_ready
from tiebreak.training.settled import check_settings


def plan(config: Config, progress: Progress | None = None) -> Plan:
    """Load data and model as `train` does, decide what fits in memory, and train nothing."""
    config, progress = with_output_dir(config), progress or Silent()
    check_settings(config, progress)
    examined = audit(config.data, progress=progress).report
    heed(examined, config.data, progress)
    heed_loss(examined, config.loss)
    return made_ready(config, Run(str(config.output.dir)), examined, progress).memory
