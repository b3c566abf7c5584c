"""One self-contained HTML page about a run: no scripts, no network, everything from data escaped.

Owns the page. It reads the run folder and nothing else.
"""

from __future__ import annotations

import os
from typing import Any

import jinja2
from markupsafe import Markup

from tiebreak.config import dump_config, settings_of, train_with
from tiebreak.files import write_json, write_text
from tiebreak.reporting.capability_card import by_group, capability_card
from tiebreak.reporting.figures import plots
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import alone, amount, duration, effect, gibibytes, shown
from tiebreak.reporting.visible import harmless
from tiebreak.runs import Run, as_a_run_writes


def write_report(run: Run) -> str:
    """Write report.html into the run folder and return its path; the capability card beside it."""
    target = run.report_file
    run.verify(run.config_file, *run.given_files, *run.measured_files)
    with as_a_run_writes(run.path):
        write_json(run.capability_file, capability_card(run))
    write_text(target, render_report(run))
    return str(target)


def render_report(run: Run) -> str:
    """Return the page as text."""
    # What is not text of ours to escape is Markup, drawn here.
    environment = page_environment(lambda value: harmless(value) if type(value) is str else value)
    environment.filters |= {"shown": shown, "duration": duration, "gibibytes": gibibytes, "alone": alone}
    environment.filters |= {"effect": effect, "curve": _curve}
    template = environment.get_template("report.html.j2")
    with as_a_run_writes(run.path):
        card = capability_card(run)
        drawn = plots(run.metrics, run.rows(run.evidence_file))
        try:
            return template.render(
                name=run.path.resolve().name,
                manifest=run.manifest,
                data=run.data,
                dropped=run.rows(run.dropped_file)[:20],
                evaluation=run.evaluation,
                card=card,
                groups=by_group(card),
                samples=run.samples,
                rule=run.config.evaluation.rule,
                history=_history(run),
                findings=_findings(run),
                again=_again(run),
                config=dump_config(run.config),
                # The only markup that is trusted: drawn here, from numbers.
                plots=[{"name": p.name, "caption": p.caption, "svg": Markup(p.svg)} for p in drawn],  # noqa: S704
                loss=run.config.loss.name.upper(),
                speed=_speed(run.metrics),
            )
        except jinja2.TemplateError as error:  # what the template reads is not there
            raise ValueError(str(error)) from None


def _history(run: Run) -> dict[str, Any]:
    """Return what befell a run: attempts, accepted changes, rollbacks, what was set aside, warnings by attempt."""
    manifest, quarantine = run.manifest, run.quarantine_folder
    warnings: dict[str, list[str]] = {}
    for one in manifest.get("warnings") or ():
        warnings.setdefault(str(one["text"]), []).append(str(one["attempt"]))
    for text in run.evaluation.get("warnings") or ():
        warnings.setdefault(str(text), []).append("evaluate")
    return {
        "attempts": int(manifest.get("num_attempts", 1)),
        "accepted": [str(part) for part in manifest.get("accepted") or ()],
        "num_rollbacks": manifest.get("num_rollbacks") or 0,
        "rollbacks": [row for row in run.metrics if "rollback" in row],
        "quarantined": sorted(path.name for path in quarantine.iterdir()) if quarantine.is_dir() else [],
        "ended": manifest.get("error"),
        "warnings": [*warnings.items()] if "warnings" in manifest else None,
    }


def _findings(run: Run) -> list[dict[str, Any]] | None:
    """Return the doctor's findings as rows of their table; None where the run holds no audit."""
    if not run.audit_file.exists():
        return None
    grades = ("error", "warning", "info")
    return [
        {
            **{key: found.get(key) for key in ("code", "title", "detail", "remedy")},
            "grade": found["severity"],
            "examples": found["examples"][:3],
            "amount": amount(found),
            "width": f"{100 * min(1.0, max(0.0, found['share'])):.1f}%",
        }
        for found in sorted(run.audit["findings"], key=lambda found: grades.index(found["severity"]))
    ]


def _again(run: Run) -> dict[str, str]:
    """Return the commands that repeat a run into a folder beside it: with its own file of settings, and without."""
    place, config, day = run.path.absolute(), run.config, run.manifest.get("template_date")
    # The date that a template wrote is the run's, and not a setting of its file.
    told = {"model.chat_template_date": day} if day else {}
    told["output.dir"] = f"{place}-again"
    return {
        "short": train_with(str(place / run.config_file.name), told),
        "whole": train_with(os.devnull, settings_of(config) | told),
    }


def _speed(metrics: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median speed over the steps."""
    keys = ("pairs_per_second", "unique_tokens_per_second")
    columns = {key: sorted(row[key] for row in metrics if key in row) for key in keys}
    return {key: values[len(values) // 2] for key, values in columns.items() if values}


def _curve(during: list[dict[str, float]]) -> list[tuple[float, float]]:
    """Return what was seen on the way as points of a drawing 96 wide and 28 high, the greatest value on top."""
    means, steps = ([seen[name] for seen in during] for name in ("mean", "step"))
    width, height = (max(values) - min(values) or 1.0 for values in (steps, means))
    return [
        (round(4 + 88 * (step - min(steps)) / width, 1), round(24 - 20 * (mean - min(means)) / height, 1))
        for mean, step in zip(means, steps, strict=True)
    ]
