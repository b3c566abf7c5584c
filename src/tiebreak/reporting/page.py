"""One self-contained HTML page about a run: verdict first, no network, everything from data escaped.

Owns the page, and what of a run that is not whole can be shown. It reads the run folder and nothing else. What stands
on the page is the table of `sections`; without scripts it is all there, with them curves zoom and answers are filtered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from tiebreak.files import write_json, write_text
from tiebreak.reporting.capability_card import capability_card
from tiebreak.reporting.contents import Contents
from tiebreak.reporting.curves import Figure, figures
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import alone, count, duration, effect, gibibytes, is_number, moment, shown
from tiebreak.reporting.scripts import data_block, drawing_library, own_script
from tiebreak.reporting.sections import SECTIONS
from tiebreak.reporting.visible import harmless, visible
from tiebreak.runs import Run, as_a_run_writes


def write_report(run: Run) -> str:
    """Write report.html into the run folder and return its path; the capability card beside it, once it is measured."""
    text = render_report(run)
    with as_a_run_writes(run.path):
        if run.evaluation_file.exists():
            write_json(run.capability_file, capability_card(run))
    write_text(run.report_file, text)
    return str(run.report_file)


def render_report(run: Run) -> str:
    """Return the page as text; of a run that is not whole, with what it lacks."""
    with as_a_run_writes(run.path):
        read = Contents.of(run)
        card = capability_card(run) if read.evaluation else None
        curves = figures(read.metrics, read.evidence, read.samples, read.ends)
        try:
            told = [(one, one.content(read, card, curves)) for one in SECTIONS]
            return _environment(curves).get_template("report.html.j2").render(
                name=run.path.resolve().name,
                read=read,
                manifest=read.manifest,
                evaluation=read.evaluation,
                rules=_rules(card) if card else [],
                sections=[{"key": one.key, "title": one.title, "files": one.files, **content}
                          for one, content in told if content is not None],
                loss=run.config.loss.name.upper(),
                speed=_speed(read.metrics),
            )  # fmt: skip
        except jinja2.TemplateError as error:  # what the template reads is not there
            raise ValueError(str(error)) from None


def _environment(curves: Sequence[Figure]) -> jinja2.Environment:
    scripts, blocks = [own_script("answers.js")], []
    if curves:
        scripts.append(own_script("curves.js"))
        blocks.append(data_block("curves-data", [curve.as_dict() for curve in curves]))
    # What is not text of ours to escape is Markup, drawn here.
    environment = page_environment(
        lambda value: harmless(value) if type(value) is str else value,
        scripts,
        blocks,
        drawing_library() if curves else None,
    )
    environment.filters |= {
        "shown": shown,
        "duration": duration,
        "gibibytes": gibibytes,
        "alone": alone,
        "count": count,
    }
    environment.filters |= {"effect": effect, "curve": _curve, "brief": lambda text: visible(text, 600)}
    environment.filters |= {"moment": moment}
    return environment


def _rules(card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every rule that the verdict is made of: those that do not hold first, then those that nobody knows of."""
    rules = [rule | {"unit": one["unit"], "of": one["name"]} for one in card["measures"] for rule in one["rules"]]
    rules += [rule | {"unit": "", "of": ""} for rule in card["unmeasured"]]
    order = ("fail", "inconclusive", "pass")
    return sorted(rules, key=lambda rule: order.index(rule["verdict"]) if rule["verdict"] in order else 1)


def _speed(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the median speed over the steps."""
    keys = ("pairs_per_second", "unique_tokens_per_second")
    columns = {key: sorted(row[key] for row in metrics if is_number(row.get(key))) for key in keys}
    return {key: values[len(values) // 2] for key, values in columns.items() if values}


def _curve(during: list[dict[str, float]]) -> list[tuple[float, float]]:
    """Return what was seen on the way as points of a drawing 96 wide and 28 high, the greatest value on top."""
    means, steps = ([seen[name] for seen in during] for name in ("mean", "step"))
    width, height = (max(values) - min(values) or 1.0 for values in (steps, means))
    return [
        (round(4 + 88 * (step - min(steps)) / width, 1), round(24 - 20 * (mean - min(means)) / height, 1))
        for mean, step in zip(means, steps, strict=True)
    ]
