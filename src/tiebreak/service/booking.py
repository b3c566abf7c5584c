"""How a job ends: its model, its result files and its last words, all of them or none.

Owns what follows from a worker's end, and what is made of it. All is written in one transaction, so that it can be done
again at any moment, and is done once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiebreak.config.service import ServeConfig
from tiebreak.errors import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE
from tiebreak.files import write_text
from tiebreak.runs import Run
from tiebreak.service import catalog, jobs, shelf, telling
from tiebreak.service.jobs import PAUSE, Job
from tiebreak.service.store import Store

TABLE, PAGE = "step_metrics.csv", "report.html"
_PLACES = ("run_folder", "model_folder", "model_name", "model_base", "base_model", "reference_model")
"""What in a run's run.json may be a folder of this machine."""


@dataclass(frozen=True)
class Next:
    """What becomes of a job whose worker is gone."""

    to: Literal["succeeded", "failed", "paused", "queued"]
    attempts: int = 0
    message: str = ""


def after(job: Job, ended: Mapping[str, Any] | None, most: int, *, progress: bool) -> Next:
    """Return what becomes of a job whose worker is gone, and left word how it `ended`, or did not.

    One that was asked to end has not failed. One that died is started again `most` times, counted anew where it got
    further than when it last died: each time it comes nearer to its end.
    """
    code = None if ended is None else int(ended["exit"])
    if code == 0:
        return Next("succeeded")
    if ended is not None and code not in (EXIT_PREEMPTED, EXIT_INTERRUPTED):
        return Next("failed", job.attempts, str(ended["message"]))
    if job.wanted == PAUSE:
        return Next("paused", job.attempts)
    if job.worker is not None and job.worker.get("asked") is not None:  # and the client has thought better of it
        return Next("queued", job.attempts)
    attempts = 1 if progress else job.attempts + 1
    said = "its worker died" if ended is None else str(ended["message"])
    return Next("failed" if attempts > most else "queued", attempts, said)


def code_of(ended: Mapping[str, Any] | None) -> str:
    """Return the code of the error of a job whose worker `ended` so, or died."""
    if ended is None or ended["exit"] in (EXIT_PREEMPTED, EXIT_INTERRUPTED):
        return "worker_lost"
    return "invalid_settings" if ended["exit"] == EXIT_USAGE else "training_failed"


def succeed(store: Store, settings: ServeConfig, job: Job) -> None:
    """Book a job whose artefact is there: its name, results, verdict and end; nothing where it has ended otherwise."""
    folder = store.job_folder(job.id)
    run, artefact = folder / "run", folder / "artefact"
    rows = telling.steps_of(run)
    write_text(folder / TABLE, telling.as_csv(rows))
    write_text(folder / PAGE, without_places((run / PAGE).read_text(encoding="utf-8"), run))
    told = Run(run).evaluation
    verdict, reason = str(told["verdict"]), str(told["reason"])
    named = settings.promote == "always" or verdict == "pass"
    kept: list[shelf.File] = []
    try:
        with store.writing():
            if jobs.find(store, job.id).state != jobs.RUNNING:
                return
            telling.follow(store, jobs.find(store, job.id))  # what was written since it was last looked at
            telling.tell_warnings(store, job, run)
            telling.settle_checkpoints(store, job, run)
            said = f"The verdict is {verdict}: {reason}"
            jobs.note(store, job.id, said, level="info" if verdict == "pass" else "warn", once="verdict")
            model = catalog.add(store, settings, job, artefact) if named else None
            if model is not None:
                jobs.note(store, job.id, f"New fine-tuned model created: {model}", once="model")
            else:
                withheld = "The model got no name, since only those that pass get one here; its results are there."
                jobs.note(store, job.id, withheld, level="warn", once="model")
            for path in (folder / TABLE, folder / PAGE, run / "evaluation.json"):
                kept.append(shelf.keep(store, job.key, shelf.RESULTS, path.name, path))
            results, tokens = [file.id for file in kept], telling.trained_tokens(run)
            jobs.move(
                store, job.id, (jobs.RUNNING,), jobs.SUCCEEDED, worker=None, model=model, results=results, tokens=tokens
            )
            jobs.note(store, job.id, "The job has successfully completed", once="completed")
    except BaseException:  # their rows are not there: what they hold would be a leftover of each try
        for file in kept:
            shelf.path_of(store, file).unlink(missing_ok=True)
        raise


def without_places(page: str, run: Path) -> str:
    """Return a run's page without the folders of this machine that the run and its models are in."""
    told = Run(run).manifest
    places = {str(run), *(str(told.get(name) or "") for name in _PLACES)}
    for place in sorted(places, key=len, reverse=True):
        if place.startswith("/"):
            page = page.replace(place, Path(place).name)
    return page.replace(f"{run.parent}/", "")


def fail(store: Store, job: Job, error: Mapping[str, Any], *states: str) -> None:
    """End a job that is in one of these states with an error, and say so."""
    with store.writing():
        if jobs.move(store, job.id, states, jobs.FAILED, worker=None, error=dict(error)):
            said = f"The job failed: {error['message']}"
            jobs.note(store, job.id, said, level="error", once="failed")
