"""The verb report: a run on one self-contained page, and in one model card."""

from tiebreak.reporting.page import write_report

__all__ = ["write_report"]
