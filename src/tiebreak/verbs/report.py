"""The verb report: a run on one self-contained page."""

from __future__ import annotations

from pathlib import Path

from tiebreak.reporting.page import write_report
from tiebreak.runs import Run


def report(run: Run) -> Path:
    """Write the page into the run folder and return its path."""
    return Path(write_report(run))
