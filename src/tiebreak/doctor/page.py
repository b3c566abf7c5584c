"""The doctor's report on one self-contained HTML page: no scripts, no network, everything from data escaped.

Owns the page. It takes the report as plain JSON, so that a saved one can be shown again; null and absent parts are left
out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from tiebreak.doctor import sentences as words
from tiebreak.doctor.figures import audit_plots
from tiebreak.doctor.rules import SEVERITIES
from tiebreak.files import write_text
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import NOTHING, amount, count, is_number, numbered, percent
from tiebreak.reporting.visible import visible

MAX_TEXT = 400
MAX_ROWS = 50


def write_audit_page(report: Mapping[str, Any], target: Path) -> Path:
    """Write the page whole or not at all and return where it is."""
    write_text(target, render_audit_page(report))
    return target


def render_audit_page(report: Mapping[str, Any]) -> str:
    """Return the page as text."""
    measured = words.measurements(report)
    files: Sequence[Mapping[str, Any]] = report.get("files") or ()
    template = _environment().get_template("audit.html.j2")
    return template.render(
        report=report,
        name=visible(files[0].get("path") or "", 120) if len(files) == 1 else numbered(len(files), "file"),
        clean=words.is_clean(report),
        verdict=words.verdict(report),
        steps=[(_whole(step.command), step.reason) for step in words.next_steps(report)],
        totals=words.totals(report),
        readings=[(file.get("path"), file.get("title"), words.reading_of(file)) for file in files[:MAX_ROWS]],
        tiles=_tiles(report),
        unit=words.unit_of(report),
        token_lengths=[(side, (report.get("tokens") or {}).get(side)) for side in (*words.TOKEN_SIDES, "row")],
        findings=[_finding(found, grade) for grade in SEVERITIES for found in words.of_severity(report, grade)],
        measurements=measured,
        intervals=any(" … " in one.text for one in measured),
        # The only markup that is trusted: drawn here, from numbers and cleaned names.
        plots=[{"caption": plot.caption, "svg": Markup(plot.svg)} for plot in audit_plots(report)],  # noqa: S704
        max_rows=MAX_ROWS,
    )


def _environment() -> jinja2.Environment:
    environment = page_environment(_harmless)
    environment.filters |= {
        "count": count,
        "percent": percent,
        "estimated": words.estimated,
        "columns": _columns,
        "first": lambda values, limit: list(islice(values or (), limit)),
    }
    return environment


def _harmless(value: Any) -> Any:
    """Make whatever the template prints visible; it is escaped after that."""
    return value if isinstance(value, Markup) else visible(NOTHING if value is None else value, MAX_TEXT)


def _whole(command: str) -> Markup:
    """Return a command that is not cut, so that it can be pasted."""
    return escape(visible(command, words.MAX_COMMAND))


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the key numbers and what they say; only what was measured."""
    shortcut, agreement, tokens = (report.get(name) or {} for name in ("shortcut", "agreement", "tokens"))
    limit, noise = tokens.get("max_length"), report.get("label_noise") or {}
    fit = next((row.get("share") for row in tokens.get("fits") or () if row.get("max_length") == limit), None)
    length, longer = (shortcut.get("length") or {}).get("accuracy"), report.get("chosen_longer_share")
    unit = words.unit_of(report)
    rows, dropped = report.get(f"num_{unit}"), report.get("num_dropped")
    alpha, wrong = agreement.get("krippendorff_alpha"), noise.get("high")
    tiles = [
        (rows, count(rows), f"usable {unit}, {numbered(report.get('num_prompts'), 'prompt')}"),
        (dropped, count(dropped), f"of {numbered(report.get('num_records'), 'record')} dropped"),
        (longer, percent(longer), "of pairs prefer the longer completion"),
        (length, percent(length), _LENGTH_SAYS[unit]),
        (alpha, f"{alpha:.2f}" if is_number(alpha) else "", "Krippendorff's alpha of the annotators"),
        (wrong, f"≤ {percent(wrong)}", "of labels are turned round (95 %)"),
        (fit, percent(fit), f"of {unit} fit in {count(limit)} tokens"),
    ]
    return [(shown, label) for value, shown, label in tiles if is_number(value)]


_LENGTH_SAYS = {
    "pairs": "held-out accuracy of length alone",
    "completions": "of liked completions are longer than a disliked one",
}


def _finding(found: Mapping[str, Any], grade: str) -> dict[str, Any]:
    """Return a finding in the words of a row of the table that all pages show."""
    return {
        **{key: found.get(key) for key in ("code", "title", "detail", "remedy")},
        "grade": grade,
        "examples": list(islice(found.get("examples") or (), 3)),
        "amount": amount(found),
        "width": _width(found.get("share")),
        "does": words.CLEANING.get(str(found.get("action")), ""),
    }


def _columns(spreads: Sequence[tuple[str, Mapping[str, Any] | None]]) -> list[str]:
    """Return what is known of lengths, in the order of a table's columns."""
    return [key for key in ("mean", "median", "p95", "p99", "max") if any(key in (one or {}) for _, one in spreads)]


def _width(share: Any) -> str:
    """Return a share as the width of a bar, never more than the whole."""
    return f"{100 * min(1.0, max(0.0, share)) if is_number(share) else 0:.1f}%"
