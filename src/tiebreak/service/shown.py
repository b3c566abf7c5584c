"""Jobs, events, checkpoints and lists as clients read them: of OpenAI's form, and of Azure's where that differs.

Owns the answers' fields. Pure.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiebreak.service import jobs
from tiebreak.service.jobs import Job


@dataclass(frozen=True)
class Dialect:
    """How one family of clients wants to be answered."""

    states: Mapping[str, str] = field(default_factory=dict)
    """Its own words for states."""
    pausing: str = jobs.RUNNING
    created: int = 200
    """Status of an answer to what was made; 201 comes with its Location."""

    def state(self, job: Job) -> str:
        """Return the word for where a job stands."""
        if job.state in (jobs.RUNNING, jobs.VALIDATING) and job.wanted == jobs.PAUSE:
            return self.pausing if job.state == jobs.RUNNING else self.states.get(job.state, job.state)
        return self.states.get(job.state, job.state)


OPENAI = Dialect()
AZURE = Dialect({jobs.VALIDATING: "pending", jobs.QUEUED: "pending"}, pausing="pausing", created=201)


def job(told: Job, organization: str, dialect: Dialect) -> dict[str, Any]:
    """Return a job; `paused` is a word of the specification's examples and not of its list, and is said where true."""
    method, numbers = told.resolved["method"], told.resolved["hyperparameters"]
    return {
        "id": told.id,
        "object": "fine_tuning.job",
        "created_at": told.created,
        "error": None if told.error is None else dict(told.error),
        "estimated_finish": told.estimated if told.state == jobs.RUNNING else None,
        "fine_tuned_model": told.model,
        "finished_at": told.finished,
        "hyperparameters": {name: value for name, value in numbers.items() if name != "beta"},
        "integrations": [],
        "metadata": told.body.get("metadata"),
        "method": {"type": method, method: {"hyperparameters": dict(numbers)}},
        "model": told.body["model"],
        "organization_id": organization,
        "result_files": list(told.results),
        "seed": told.resolved["seed"],
        "status": dialect.state(told),
        "trained_tokens": told.tokens,
        "training_file": told.body["training_file"],
        "validation_file": told.body.get("validation_file"),
    }


def event(row: sqlite3.Row) -> dict[str, Any]:
    """Return an event of a job."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.event",
        "created_at": row["at"],
        "level": row["level"],
        "message": row["message"],
        "type": row["type"],
        "data": None if row["data"] is None else json.loads(row["data"]),
    }


def checkpoint(row: sqlite3.Row, model: str) -> dict[str, Any]:
    """Return a checkpoint of a job; `model` is what its weights are called."""
    return {
        "id": row["id"],
        "object": "fine_tuning.job.checkpoint",
        "created_at": row["at"],
        "fine_tuned_model_checkpoint": model,
        "fine_tuning_job_id": row["job"],
        "metrics": json.loads(row["metrics"]),
        "step_number": row["step"],
    }


def listed(data: Sequence[Mapping[str, Any]], *, has_more: bool, ends: bool = False) -> dict[str, Any]:
    """Return a page of a list; with the ids of its first and last object where clients want its `ends`."""
    found: dict[str, Any] = {"object": "list", "data": [*data], "has_more": has_more}
    if ends:
        found |= {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return found
