"""The verb report: a run on one self-contained page, or all runs of a folder on one."""

from __future__ import annotations

from pathlib import Path

from tiebreak.files import refuse_links
from tiebreak.reporting.overview import runs_in, write_overview
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run, open_run


def report(path: str | Path) -> Path:
    """Write the page into the run folder, or index.html into a folder of runs, and return its path.

    A run that is not trained yet has a page of what is there: settings, data, the steps so far.
    """
    run = Run(path)
    if run.path.is_dir() and not run.manifest_file.exists() and runs_in(run.path):
        return write_overview(run.path)
    if run.policy_folder.is_dir() or not (run.manifest_file.exists() and run.config_file.exists()):
        run = open_run(run.path)
    refuse_links(run.path)
    return Path(write_report(run))
