"""One self-contained HTML page about a run: no scripts, no network, everything from data escaped.

Owns the page. It reads the run folder and nothing else.
"""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup

from tiebreak.config import dump_config
from tiebreak.files import read_jsonl, write_json, write_text
from tiebreak.reporting.capability_card import by_group, capability_card
from tiebreak.reporting.figures import plots
from tiebreak.reporting.numbers import alone, duration, effect, gibibytes, shown
from tiebreak.reporting.visible import harmless
from tiebreak.runs import Run, as_a_run_writes


def write_report(run: Run) -> str:
    """Write report.html into the run folder and return its path; the capability card beside it."""
    target = run.report_file
    with as_a_run_writes(run.path):
        write_json(run.capability_file, capability_card(run))
    write_text(target, render_report(run))
    return str(target)


def render_report(run: Run) -> str:
    """Return the page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tiebreak.reporting"),
        autoescape=True,
        trim_blocks=True,
        finalize=lambda value: harmless(value) if type(value) is str else value,  # not Markup, which is ours
    )
    environment.filters |= {"shown": shown, "duration": duration, "gibibytes": gibibytes, "alone": alone}
    environment.filters |= {"effect": effect, "curve": _curve}
    template = environment.get_template("report.html.j2")
    with as_a_run_writes(run.path):
        card = capability_card(run)
        drawn = plots(run.metrics, read_jsonl(run.evidence_file))
        try:
            return template.render(
                name=run.path.resolve().name,
                manifest=run.manifest,
                data=run.data,
                dropped=read_jsonl(run.dropped_file)[:20],
                evaluation=run.evaluation,
                card=card,
                groups=by_group(card),
                samples=run.samples,
                rule=run.config.evaluation.rule,
                config=dump_config(run.config),
                # The only markup that is trusted: drawn here, from numbers.
                plots=[{"name": p.name, "caption": p.caption, "svg": Markup(p.svg)} for p in drawn],  # noqa: S704
                speed=_speed(run.metrics),
            )
        except jinja2.TemplateError as error:  # what the template reads is not there
            raise ValueError(str(error)) from None


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
