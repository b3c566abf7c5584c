"""One page over all runs of a folder: a table that sorts and filters, with the verdicts.

Owns what is said of a run in one row. A run that is running, dead, of an older version or damaged is a row that says
so; none keeps the others from being shown.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tiebreak.errors import RunError, TiebreakError, one_line
from tiebreak.files import write_text
from tiebreak.reporting.contents import diagnosed, state_of
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import is_number, moment, shown
from tiebreak.reporting.scripts import own_script
from tiebreak.reporting.visible import visible
from tiebreak.runs import SCHEMA, Run, as_a_run_writes

INDEX = "index.html"
MOST_RUNS, MOST_DEEP = 2000, 4
_OURS = '<meta name="generator" content="tiebreak">'


@dataclass(frozen=True)
class Listed:
    """A run in one row; `fault` is why it can be judged by nobody, and `link` leads to its report, where it has one."""

    name: str
    link: str | None
    verdict: str
    fault: str
    accuracy: Mapping[str, Any] | None
    better: Mapping[str, Any] | None
    """Share of answers that are better than before, where somebody judged."""
    objective: str
    scale: str
    """What its loss is measured in: settings of the objective, and the run itself where these remember its steps."""
    beta: float | None
    loss: float | None
    model: str
    date: str
    diagnosis: str


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders in a folder and the folders in it; links are not followed, and no run is looked into."""
    return list(_found(folder, MOST_DEEP))


def _found(folder: Path, deep: int) -> Iterator[Path]:
    try:
        inner = sorted(Path(one.path) for one in os.scandir(folder) if one.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in inner:
        if Run(path).manifest_file.is_file():
            yield path
        elif deep > 1 and not path.name.startswith("."):
            yield from _found(path, deep - 1)


def write_overview(folder: Path) -> Path:
    """Write index.html over the runs of a folder and return its path; a page that is not ours is not written over."""
    target = folder / INDEX
    if target.exists() and _OURS not in target.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise RunError(f"{target}: is no page of tiebreak, and is not written over; move it away")
    write_text(target, render_overview(folder))
    return target


def render_overview(folder: Path) -> str:
    """Return the page as text."""
    found = runs_in(folder)
    environment = page_environment(
        lambda value: visible(value, 400) if type(value) is str else value, [own_script("table.js")]
    )
    environment.filters |= {"shown": shown}
    runs = [listed(folder, path) for path in found[:MOST_RUNS]]
    verdicts = [*dict.fromkeys(one.verdict for one in runs)]
    return environment.get_template("overview.html.j2").render(
        name=folder.resolve().name,
        runs=sorted(runs, key=lambda one: one.date, reverse=True),
        has_losses=len({one.scale for one in runs if one.loss is not None}) == 1,
        verdicts=[(verdict, sum(one.verdict == verdict for one in runs)) for verdict in sorted(verdicts)],
        num_left_out=len(found) - len(runs),
    )


def listed(folder: Path, path: Path) -> Listed:
    """Return the row of a run, whatever state it is in."""
    run = Run(path)
    name = path.relative_to(folder).as_posix()
    link = f"./{quote(f'{name}/{run.report_file.name}')}" if run.report_file.is_file() else None
    try:
        with as_a_run_writes(path):
            return _read(run, name, link)
    except (TiebreakError, OSError) as error:
        fault = one_line(error, 300).removeprefix(f"{path}")
        return Listed(name, link, "damaged", fault.lstrip("/: "), None, None, "", "", None, None, "", "", "")


def _read(run: Run, name: str, link: str | None) -> Listed:
    manifest = run.manifest
    run.verify(run.config_file, *run.measured_files)  # a verdict stands on all that was measured
    state = state_of(run, manifest)
    schema = manifest.get("schema")
    evaluation = run.evaluation if run.evaluation_file.is_file() else None
    loss = run.config.loss if run.config_file.is_file() else None
    table = {str(row.get("key", row["name"])): row for row in (evaluation or {}).get("table", ())}
    held_out = table.get("loss", {}).get("after", {}).get("mean")
    beta = getattr(loss, "beta", None)
    named = [str(one["title"]) for one in diagnosed(run) or ()]
    old = f"made by an older version (schema {schema})" if is_number(schema) and schema < SCHEMA else ""
    return Listed(
        name=name,
        link=link,
        verdict=str(evaluation["verdict"]) if evaluation else state.partition(":")[0] or "not measured",
        fault="; ".join(filter(None, (old, state, "" if evaluation else "holds no evaluation"))),
        accuracy=dict(evaluation["accuracy"]) if evaluation else None,
        better=table.get("answers/preferred", {}).get("after"),
        objective=loss.name if loss else "",
        scale=loss.model_dump_json() + (name if loss.remembers else "") if loss else "",
        beta=float(beta) if is_number(beta) else None,
        loss=float(held_out) if is_number(held_out) else None,
        model=str(manifest.get("model") or ""),
        date=moment(manifest.get("started") or ""),
        diagnosis=", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else ""),
    )
