"""Which models there are: those that the operator offers, and those that jobs made.

Owns the names of models.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import Config
from tiebreak.config.service import ServeConfig
from tiebreak.service import jobs
from tiebreak.service.jobs import Job
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import Store, now

CHECKPOINT = ":ckpt-step-"


@dataclass(frozen=True)
class Offered:
    """A model that may be asked for by its name."""

    name: str
    base: str
    """The operator's name of what it was trained from; its own, where it is one of the operator's."""
    owner: str
    created: int
    folder: Path | None = None
    """Where its artefact is; None for a model of the operator's."""
    job: str | None = None
    step: int | None = None
    """Of a checkpoint: the step that its weights are of."""

    def shown(self) -> dict[str, Any]:
        """Return the model as clients read it."""
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": self.owner}


def name_of(settings: ServeConfig, job: Job) -> str:
    """Return the name of what a job makes: ft:base:organization:suffix:id, like OpenAI's."""
    return f"ft:{base_of(job.body['model'])}:{settings.organization}:{job.body.get('suffix') or ''}:{job.id[-8:]}"


def base_of(model: str) -> str:
    """Return the operator's name in the name of a model."""
    return model.split(":")[1] if model.startswith("ft:") and model.count(":") > 1 else model


def add(store: Store, settings: ServeConfig, job: Job, folder: Path) -> str:
    """Give the artefact of a job its name, and return that; one that has it already keeps it."""
    name = name_of(settings, job)
    row = {"name": name, "job": job.id, "key": job.key, "folder": str(folder), "created": now()}
    store.insert("models", row, otherwise="or ignore")
    return name


def listed(store: Store, models: Mapping[str, Config], settings: ServeConfig, key: str) -> list[Offered]:
    """Return the operator's models, and what jobs of a key made of them, newest first."""
    rows = store.rows("select * from models where key = ? and deleted is null order by seq desc", key)
    made = [_made(store, row, settings) for row in rows if _is_offered(models, row["name"])]
    return [*made, *(_of_operator(name, settings) for name in models)]


def find(
    store: Store,
    models: Mapping[str, Config],
    settings: ServeConfig,
    key: str,
    name: str,
    *,
    also_deleted: bool = False,
) -> Offered:
    """Return a model by its name: an operator's, one that a job of this key made, or a checkpoint of such a job.

    One that was deleted, or whose base is not offered any more, is found by a job that was begun with it, and by nobody
    else.

    Raises Refusal where there is none, or it is another's: whoever asks cannot tell.
    """
    if name in models:
        return _of_operator(name, settings)
    row = store.row("select * from models where name = ? and key = ?", name, key)
    if row is not None and (also_deleted or (row["deleted"] is None and _is_offered(models, name))):
        return _made(store, row, settings)
    start, mark, step = name.rpartition(CHECKPOINT)
    if mark and step.isascii() and step.isdigit():
        for seen in store.rows(
            "select c.*, j.id as of from checkpoints c join jobs j on j.id = c.job where j.key = ? and c.step = ?",
            key,
            int(step[:9]),
        ):
            job = jobs.find(store, seen["of"])
            if name_of(settings, job) != start or not may_be_asked(store, models, settings, job):
                continue
            if (folder := weights_at(store, job.id, int(step[:9]))).is_dir():
                owner = settings.organization
                return Offered(name, base_of(start), owner, seen["at"], folder, job.id, int(step[:9]))
    raise Refusal(
        404, f"The model {name[:200]!r} does not exist; GET /v1/models lists those that do.", param="model",
        code="model_not_found",
    )  # fmt: skip


def may_be_asked(store: Store, models: Mapping[str, Config], settings: ServeConfig, job: Job) -> bool:
    """Return whether checkpoints of a job answer.

    Not where what it was trained from is not offered any more, its model was deleted, or is withheld by its verdict.
    """
    if not _is_offered(models, job.body["model"]):
        return False
    row = store.row("select deleted from models where job = ?", job.id)
    return settings.promote == "always" if row is None else row["deleted"] is None


def artefact_at(store: Store, job: str, folder: str) -> Path:
    """Return a folder of a job, wherever the service's folder was when it was written down."""
    told = Path(folder).parts
    return store.job_folder(job).joinpath(*told[told.index(job) + 1 :]) if job in told else Path(folder).absolute()


def weights_at(store: Store, job: str, step: int) -> Path:
    """Return where a job's run keeps its weights after a step, as long as it does."""
    return store.job_folder(job) / "run" / "checkpoints" / f"step-{step:08d}"


def checkpoint_name(settings: ServeConfig, job: Job, step: int) -> str:
    """Return the name of a job's model as it was after a step."""
    return f"{name_of(settings, job)}{CHECKPOINT}{step}"


def delete(store: Store, models: Mapping[str, Config], settings: ServeConfig, key: str, name: str) -> None:
    """Take a model that a job made out of the list, also one whose base is not offered any more.

    Raises Refusal for one of the operator's, for a checkpoint, and where there is none.
    """
    sql = "update models set deleted = ? where name = ? and key = ? and deleted is null"
    if not store.change(sql, now(), name, key):
        model = find(store, models, settings, key, name)
        what = "is a checkpoint, and goes with its job" if model.step is not None else "is the operator's"
        raise Refusal(403, f"The model {model.name} {what}; it cannot be deleted.", param="model", code="forbidden")


def _is_offered(models: Mapping[str, Config], name: str) -> bool:
    return base_of(name) in models


def _made(store: Store, row: sqlite3.Row, settings: ServeConfig) -> Offered:
    name, folder = row["name"], artefact_at(store, row["job"], row["folder"])
    return Offered(name, base_of(name), settings.organization, row["created"], folder, row["job"])


def _of_operator(name: str, settings: ServeConfig) -> Offered:
    return Offered(name, name, settings.organization, 0)
