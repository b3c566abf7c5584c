"""What a notebook shows of a value: a few lines and a small table, as HTML that needs nothing else.

Owns that look. Text has the notebook's own colours, so that it reads in a light and in a dark scheme; only the badge
brings its own. Everything is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from tiebreak.errors import TiebreakError
from tiebreak.reporting.numbers import duration, shown
from tiebreak.reporting.visible import harmless
from tiebreak.runs import Run, as_a_run_writes

GOOD, BAD, UNKNOWN = "#17735a", "#b3261e", "#8d5b00"
"""Colours of badges: white on them has a contrast of at least 5.4."""
_VERDICTS = {"pass": GOOD, "fail": BAD, "inconclusive": UNKNOWN}
_MOST_ROWS = 24

_CARD = Markup('<div style="font:14px/1.5 system-ui,sans-serif;overflow-x:auto">{}{}{}</div>')
_TITLE = Markup("<div><b>{}</b> {}</div>")
_BADGE = Markup('<span style="background:{};color:#fff;border-radius:8px;padding:1px 8px;font-size:12px">{}</span>')
_LINE = Markup('<div style="overflow-wrap:anywhere;max-width:75ch">{}</div>')
_TABLE = Markup('<table style="border-collapse:collapse;margin:6px 0"><tr>{}</tr>{}</table>')
_HEADING = Markup('<th style="text-align:left;padding:2px 14px 2px 0;opacity:.75">{}</th>')
_CELL = Markup('<td style="text-align:left;vertical-align:top;padding:2px 14px 2px 0">{}</td>')
_ROW = Markup("<tr>{}</tr>")


def card(
    title: str,
    badge: tuple[str, str] | None,
    lines: Iterable[str],
    headings: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> str:
    """Return HTML of a title with a badge (text, colour), lines and a table; a long one is cut, which it says."""
    told = [*lines, *([f"{len(rows) - _MOST_ROWS} more rows are not shown"] if len(rows) > _MOST_ROWS else [])]
    table = _TABLE.format(_each(_HEADING, headings), _each(_ROW, (_each(_CELL, row) for row in rows[:_MOST_ROWS])))
    shown_badge = _BADGE.format(badge[1], _text(badge[0])) if badge else ""
    return str(_CARD.format(_TITLE.format(_text(title), shown_badge), _each(_LINE, told), table if rows else ""))


def run_card(run: Run) -> str:
    """Return what a notebook shows of a run: verdict, before and after, where the report is; or why it has none."""
    title = f"run {run.path}"
    try:
        with as_a_run_writes(run.path):
            manifest, evaluation = run.manifest, run.evaluation
            verdict = str(evaluation["verdict"])
            rows = [
                (row["name"], shown(row["before"], row["unit"]), shown(row["after"], row["unit"]))
                for row in evaluation["table"]
            ]
            lines = [evaluation["reason"]]
            if "training_seconds" in manifest:
                lines += [f"{manifest['num_steps_done']} steps in {duration(manifest['training_seconds'])}"]
            lines += [f"report: {run.report_file}"] if run.report_file.exists() else []
            return card(title, (verdict, _VERDICTS[verdict]), lines, ("on held-out prompts", "before", "after"), rows)
    except TiebreakError as error:
        return card(title, ("no verdict", UNKNOWN), [str(error)])


def _text(value: object) -> Markup:
    return escape(harmless(str(value)))


def _each(form: Markup, values: Iterable[object]) -> Markup:
    return Markup("").join(form.format(value if isinstance(value, Markup) else _text(value)) for value in values)
