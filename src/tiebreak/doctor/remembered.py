"""The doctor's report of an earlier start, where files and settings are the same: nothing is looked at twice.

Owns how a report is kept and read again. When one is believed is known to `data.cache`, what is found to
`examination`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig, reading
from tiebreak.data.cache import Cache, Entry, Form, made_of
from tiebreak.data.reader import DataFile, open_data
from tiebreak.doctor.examination import audit
from tiebreak.doctor.report import AuditReport, Example, Finding
from tiebreak.progress import Progress, Silent

_OF_TOKENS = ("allow", "max_length", "max_pairs", "truncation")
"""Settings that a look at pairs without a tokenizer does not read: who accepts a finding is not examined again."""


def remembered(data: DataConfig, progress: Progress | None = None, num_workers: int | None = None) -> AuditReport:
    """Return the report of `audit`, and raise what it raises; where `data.store` knows it, without reading a record."""
    progress, files = progress or Silent(), open_data(data)
    form = Form("findings", "findings of the doctor", _write, lambda entry: _read(entry, data, files))
    return Cache(data.store, progress).once(
        files,
        form,
        lambda: made_of(data, files, unread=_OF_TOKENS),
        lambda: audit(data, None, progress, num_workers, files).report,
    )


def _write(report: AuditReport, folder: Path) -> dict[str, Any]:
    del folder  # a report is small: all of it is said
    return {"files": report.files, "counts": report.counts, "measurements": report.measurements} | {
        "findings": [asdict(finding) for finding in report.findings]
    }


def _read(entry: Entry, data: DataConfig, files: Sequence[DataFile]) -> AuditReport:
    """Return the report that was written, with the files called as they are now."""
    said = entry.said
    findings = [
        Finding(**told | {"examples": tuple(Example(**example) for example in told["examples"])})
        for told in said["findings"]
    ]
    called = [told | {"path": file.spec} for told, file in zip(said["files"], files, strict=True)]
    return AuditReport(tuple(called), reading(data), said["counts"], tuple(findings), said["measurements"])
