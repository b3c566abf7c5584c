"""What a run writes while it grows, told as events and checkpoints, each once.

Owns which rows become what, and how far was read. A run that goes on after a crash takes steps again, with the same
numbers: what was told of them stands.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.fingerprint import fingerprint
from tiebreak.service import jobs
from tiebreak.service.examining import shown_line
from tiebreak.service.jobs import Job
from tiebreak.service.store import Store, new_id, now

TRAINED = {
    "loss": "train_loss",
    "rewards/accuracies": "train_accuracy",
    "rewards/margins": "train_margin",
    "learning_rate": "learning_rate",
}
MEASURED = {
    "heldout/loss": "valid_loss",
    "heldout/rewards/accuracies": "valid_accuracy",
    "heldout/rewards/margins": "valid_margin",
}
COLUMNS = ("step", *TRAINED.values(), *MEASURED.values())
"""Of the result file of numbers."""
_RECENT = 20
"""Steps that the time left is told by."""
_MARK = 64
"""Bytes before the place read to that have to be there again: a file that was cut and grew is read from its start."""


@dataclass(frozen=True)
class Read:
    """Rows that were not read before, and how far the file is read with them."""

    rows: tuple[Mapping[str, Any], ...]
    to: int
    mark: str


def read_on(path: Path, to: int, mark: str) -> Read:
    """Return the whole rows behind the byte `to`, or all of them where the file is not the one that `mark` is of.

    A last line without its end waits; what is no row of numbers is passed over.
    """
    try:
        with path.open("rb") as file:
            begin = max(0, to - _MARK)
            file.seek(begin)
            if file.read(to - begin).hex() != mark:
                to = 0
            file.seek(to)
            content = file.read()
            content = content[: content.rfind(b"\n") + 1]
            file.seek(max(0, to + len(content) - _MARK))
            mark = file.read(min(_MARK, to + len(content))).hex()
    except OSError:
        return Read((), to, mark)
    return Read(tuple(_rows(content.split(b"\n"))), to + len(content), mark)


def _rows(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] >= 0:
                yield row


def follow(store: Store, job: Job) -> None:
    """Tell what a job's run has written since it was last looked at: all of it and the place read to, or nothing."""
    run, seen = store.job_folder(job.id) / "run", dict(job.read_to)
    read = read_on(run / "metrics.jsonl", int(seen.get("bytes", 0)), str(seen.get("mark", "")))
    if not read.rows:
        return
    total = seen.get("total") or total_of(run, job)
    with store.writing():
        for row in read.rows:
            _tell(store, job, row, total)
        tell_warnings(store, job, run)
        there = {row["step"] for row in store.rows("select step from checkpoints where job = ?", job.id)}
        for step in {*kept_steps(run)} - there:
            if store.row("select 1 from events where job = ? and once = ?", job.id, f"step-{step}"):
                add_checkpoint(store, job, step, {})
        took = [row["step_seconds"] for row in read.rows if isinstance(row.get("step_seconds"), float)]
        paces = [*seen.get("paces", ()), *took][-_RECENT:]
        step = max(int(row["step"]) for row in read.rows)
        left = sum(paces) / len(paces) * max(0, total - step) if total and paces else None
        told = {"bytes": read.to, "mark": read.mark, "total": total, "paces": paces}
        estimated = None if left is None else int(time.time() + left) + 1
        current = jobs.find(store, job.id).read_to
        jobs.amend(store, job.id, (jobs.RUNNING,), read_to={**current, **told}, estimated=estimated)


def _tell(store: Store, job: Job, row: Mapping[str, Any], total: int | None) -> None:
    step = int(row["step"])
    of = f"{step}/{total}" if total else f"{step}"
    if "loss" in row:
        told = {"step": step, "total_steps": total, **numbers(row, TRAINED)}
        if total and isinstance(row.get("step_seconds"), float):
            told["seconds_left"] = round(row["step_seconds"] * max(0, total - step), 1)
        message = f"Step {of}: training loss={row['loss']:.4g}"
        jobs.note(store, job.id, message, once=f"step-{step}", data=told)
    if "heldout/loss" in row:
        told = {"step": step, "total_steps": total, **numbers(row, MEASURED)}
        message = f"Step {of}: validation loss={row['heldout/loss']:.4g}"
        jobs.note(store, job.id, message, once=f"measured-{step}", data=told)
        if step > 0:
            add_checkpoint(store, job, step, numbers(row, MEASURED))


def add_checkpoint(store: Store, job: Job, step: int, measured: Mapping[str, float]) -> None:
    """Add a checkpoint, once: what was learned in the step, and what was measured after it.

    Whether its weights are still kept is seen when somebody asks.
    """
    rows = store.rows("select data from events where job = ? and once = ?", job.id, f"step-{step}")
    trained = json.loads(rows[0]["data"]) if rows else {}
    told = {"step": step, **{key: trained[key] for key in TRAINED.values() if key in trained}, **measured}
    values = {"id": new_id("ftckpt_"), "job": job.id, "step": step, "metrics": json.dumps(told), "at": now()}
    if not store.insert("checkpoints", values, otherwise="or ignore") and measured:
        sql = "update checkpoints set metrics = ? where job = ? and step = ?"
        store.change(sql, values["metrics"], job.id, step)


def settle_checkpoints(store: Store, job: Job, run: Path) -> None:
    """Leave the checkpoints that were measured or are kept: which others were seen hung on when somebody looked."""
    kept = kept_steps(run)
    for step in kept:
        add_checkpoint(store, job, step, {})
    measured = {step for step, told in steps_of(run).items() if "valid_loss" in told}
    for row in store.rows("select step from checkpoints where job = ?", job.id):
        if row["step"] not in measured | {*kept}:
            store.change("delete from checkpoints where job = ? and step = ?", job.id, row["step"])


def numbers(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Return the numbers of a row that have one of these names, by what clients call them."""
    found = {own: row.get(name) for name, own in names.items()}
    return {own: value for own, value in found.items() if isinstance(value, int | float)}


def total_of(run: Path, job: Job) -> int | None:
    """Return the steps of a run, by the pairs that it has counted and the settings of its job; None before."""
    asked = job.resolved.get("hyperparameters", {})
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError, ZeroDivisionError):
        pairs = json.loads((run / "data.json").read_text(encoding="utf-8"))["num_train_pairs"]
        return int(asked["n_epochs"]) * -(-int(pairs) // int(asked["batch_size"]))
    return None


def steps_of(run: Path) -> dict[int, dict[str, float]]:
    """Return what a run recorded of each step, by what clients call it."""
    found: dict[int, dict[str, float]] = {}
    for row in read_on(run / "metrics.jsonl", 0, "").rows:
        told = numbers(row, TRAINED) if "loss" in row else {}
        told |= numbers(row, MEASURED)
        if told:
            found.setdefault(int(row["step"]), {}).update(told)
    return found


def trained_tokens(run: Path) -> int:
    """Return the tokens that were trained on: over all steps, those of each pair's completions and, once, its prompt.

    A pair counts anew in each epoch, as OpenAI counts; a step that was taken again after a crash counts once.
    """
    seen: dict[int, int] = {}
    for row in read_on(run / "metrics.jsonl", 0, "").rows:
        with contextlib.suppress(LookupError, TypeError, ValueError):
            seen[int(row["step"])] = round(row["unique_tokens_per_second"] * row["step_seconds"])
    return sum(seen.values())


def tell_warnings(store: Store, job: Job, run: Path) -> None:
    """Tell what a run warned of, as it stands in its run.json."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        for one in json.loads((run / "run.json").read_text(encoding="utf-8"))["warnings"]:
            line = shown_line(str(one["text"]), store.job_folder(job.id), {})
            jobs.note(store, job.id, line, level="warn", once=f"warned-{fingerprint(line)[:16]}")


def kept_steps(run: Path) -> list[int]:
    """Return the steps whose weights a run keeps."""
    names = (path.name.removeprefix("step-") for path in (run / "checkpoints").glob("step-*"))
    return sorted(int(name) for name in names if name.isdigit())


def as_csv(rows: Mapping[int, Mapping[str, float]]) -> str:
    """Return a table of numbers alone, with a line for each step: no text of anybody's stands in it."""
    lines = [",".join(COLUMNS)]
    for step in sorted(rows):
        values = (rows[step].get(key) for key in COLUMNS[1:])
        lines.append(",".join([str(step), *("" if value is None else repr(value) for value in values)]))
    return "\n".join(lines) + "\n"
