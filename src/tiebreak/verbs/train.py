"""The verb train: from a configuration to a judged and reported model.

Owns the order of its stations: settings and pairs have proven usable before anything heavy is loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection

from tiebreak import faults
from tiebreak.config import Config, in_quotes, quoted, with_output_dir, with_whole_paths
from tiebreak.doctor.remembered import remembered
from tiebreak.doctor.triage import heed, heed_loss
from tiebreak.evaluation import leave
from tiebreak.progress import LOADING, Noting, Progress, Silent
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run
from tiebreak.training.company import Company
from tiebreak.training.interpreter import uncollected
from tiebreak.training.launched import in_company
from tiebreak.training.preemption import listening
from tiebreak.training.resumption import Resume, already_done, asked_for
from tiebreak.training.settled import check_settings
from tiebreak.verbs.why import write_diagnoses


def train(
    config: Config,
    progress: Progress | None = None,
    *,
    resume: Resume = "auto",
    accept: Collection[str] = (),
    company: Company | None = None,
) -> Run:
    """Run the whole job and return its folder; a run that is already done is returned as it is.

    An attempt that was cut off goes on where it was, unless `resume` is never; `accept` names what may have changed
    since; `company` is what the run shares with others of its process, None: nothing, and it is trained with the other
    processes that a launcher started. Raises a TiebreakError before anything is
    written where configuration, data or model cannot be used, and Preempted where a signal ended it.
    """
    config = with_output_dir(config)
    if company is None:
        make = lambda found: train(config, progress, resume=resume, accept=accept, company=found)  # noqa: E731
        return in_company(config.distributed, str(config.output.dir), make)
    progress, accept = Noting(progress or Silent()), asked_for(resume, accept)
    config = with_whole_paths(config)
    run = Run(str(config.output.dir))
    if already_done(run, config):
        progress.say(f"{run.path} is already done with this configuration; nothing to do")
        if run.config.gate != config.gate:
            again = in_quotes(f"tiebreak gate {quoted(str(run.path))} --set gate.…")
            progress.warn(
                f"the rules of gate have changed since; the verdict is by those of the run, {again} by others"
            )
        if not run.report_file.exists():
            write_report(run)
        return run
    with listening() as stop:
        began = time.perf_counter()
        check_settings(config, progress)
        leave.give(config.evaluation)
        faults.point("audit")
        progress.say("reading the pairs, and looking for what would ruin a run")
        of = ["examined", config.data.model_dump(mode="json")]
        examined = company.once(of, lambda: remembered(config.data, progress))
        heed(examined, config.data, progress)
        heed_loss(examined, config.loss)
        if "torch" not in sys.modules:
            progress.say(LOADING)
        with uncollected():
            from tiebreak.training.attempt import attempt  # noqa: PLC0415 - torch, transformers: the pairs come first

        attempt(run, config, examined, stop, progress, began, resume=resume, accept=accept, company=company)
        faults.point("report")
        write_diagnoses(run)
        write_report(run)
    return run
