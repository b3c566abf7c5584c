"""What a page reads of a run folder, whole or not: a finished run, one that is running, one whose process died.

Owns what may be missing and in which words that is said. Files are read through `Run`, so that damage is one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.config import quoted
from tiebreak.files import read_json_object
from tiebreak.folders import by_step, is_at_work
from tiebreak.reporting.numbers import is_number
from tiebreak.runs import DONE, RUNNING, SCHEMA, Run

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Contents:
    """A run as it lies there; a document that it does not hold is None, rows that it does not hold are none."""

    run: Run
    manifest: Mapping[str, Any]
    data: Mapping[str, Any] | None
    evaluation: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    diagnoses: Sequence[Mapping[str, Any]] | None
    metrics: Rows
    evidence: Rows
    samples: Rows
    judgements: Rows
    dropped: Rows
    looks: Sequence[tuple[int, Rows]]
    """Steps, and what was answered there."""

    @classmethod
    def of(cls, run: Run) -> Contents:
        """Read a run; raises RunError where a file is not what was written."""
        run.verify(run.config_file, *run.given_files, *run.measured_files)
        evaluation = run.evaluation if run.evaluation_file.exists() or _is_measured(run.manifest) else None
        return cls(
            run=run,
            manifest=run.manifest,
            data=run.data if run.data_file.exists() or evaluation else None,
            evaluation=evaluation,
            audit=run.audit if run.audit_file.exists() else None,
            diagnoses=diagnosed(run),
            metrics=run.metrics,
            evidence=run.rows(run.evidence_file),
            samples=run.samples,
            judgements=run.rows(run.judgements_file),
            dropped=run.rows(run.dropped_file),
            looks=_looks(run),
        )

    @property
    def ends(self) -> dict[str, float]:
        """What measures were after training, by key."""
        rows = (self.evaluation or {}).get("table") or ()
        return {str(row["key"]): float(row["after"]["mean"]) for row in rows if is_number(row["after"].get("mean"))}

    @property
    def state(self) -> str:
        """How it stands, in words; empty where it is done."""
        return state_of(self.run, self.manifest)

    @property
    def missing(self) -> list[str]:
        """What a finished run of this version would hold and this one does not, a sentence each."""
        lacks = {
            f"{self.run.evaluation_file.name}: nothing was measured, so there is no verdict": self.evaluation is None,
            f"{self.run.data_file.name}: nobody knows which data it was": self.data is None,
            f"{self.run.metrics_file.name}: no step was recorded": not self.metrics,
            f"{self.run.samples_file.name}: no answers before and after": not self.samples,
        }
        found = [said for said, is_lacking in lacks.items() if is_lacking]
        schema = self.manifest.get("schema")
        old = is_number(schema) and schema < SCHEMA
        return [f"it was made by an older version (schema {schema})", *found] if old else found

    @property
    def next_step(self) -> str:
        """Return the command that goes on from here; empty where nothing is to be done."""
        run, name = self.run, quoted(str(self.run.path))
        if self.evaluation or (self.manifest.get("status") == RUNNING and is_at_work(run.path)):
            return ""
        verb = f"evaluate {name}" if run.policy_folder.is_dir() else f"train {quoted(str(run.config_file))}"
        return f"tiebreak {verb}"


def state_of(run: Run, manifest: Mapping[str, Any]) -> str:
    """Return how a run stands, in words; empty where it is done."""
    status = str(manifest.get("status"))
    if status == DONE:
        return ""
    if status != RUNNING:
        return status
    return "still running" if is_at_work(run.path) else "dead: its process is gone"


def _is_measured(manifest: Mapping[str, Any]) -> bool:
    """Whether a run says that it was measured: then what is not there is damage, and not a lack."""
    return manifest.get("status") == DONE


def diagnosed(run: Run) -> Sequence[Mapping[str, Any]] | None:
    """Return what was named as wrong with a run; None where nobody looked."""
    file = run.diagnoses_file
    run.verify(file)
    return [dict(one) for one in read_json_object(file)["diagnoses"]] if file.exists() else None


def _looks(run: Run) -> list[tuple[int, Rows]]:
    return [(step, run.rows(path)) for step, path in by_step(run.looks_folder, 6, ".jsonl")]
