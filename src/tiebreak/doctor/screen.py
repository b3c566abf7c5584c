"""What the doctor found, on a terminal: findings by how grave they are, measurements, what to type next, the verdict.

Owns this screen. The words are `sentences`; everything from data is one cleaned line and never markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from tiebreak.doctor import sentences as words
from tiebreak.doctor.sentences import MAX_COMMAND
from tiebreak.reporting.console import printable
from tiebreak.reporting.numbers import amount, numbered
from tiebreak.reporting.terminal import terminal
from tiebreak.reporting.visible import visible

STYLES = {"error": "bold red", "warning": "bold yellow", "info": "dim"}
MAX_FILES = 8
MAX_EXAMPLES = 3
MAX_EXCERPT_LINES = 2
INDENT = 4


@dataclass(frozen=True)
class Line:
    """Text that goes on under its own beginning where the terminal is too narrow for it."""

    text: Text
    indent: int = 0
    label: str = ""
    """What stands left of the text, in the space that is left free by `indent`."""
    whole: bool = False
    """Never broken, so that it can be copied."""


def print_audit(report: Mapping[str, Any]) -> None:
    """Print the report on standard output; without colour where that is no terminal."""
    out = terminal()
    for line in _screen(report, out.width):
        width = max(20, out.width - line.indent)
        rows = [line.text] if line.whole else line.text.wrap(out, width, overflow="fold") or [Text()]
        for number, row in enumerate(rows):
            row.rstrip()
            left = Text.assemble((f"  {line.label}" if line.label and not number else "", "dim"))
            left.pad_right(line.indent - left.cell_len)
            out.print(left.append_text(row), soft_wrap=True)


def _screen(report: Mapping[str, Any], width: int) -> Iterator[Line]:
    files = report.get("files") or ()
    for file in files[:MAX_FILES]:
        form = file.get("title") or file.get("format") or "form unknown"
        side = " · held out by its name" if file.get("held_out_by_name") else ""
        yield Line(Text.assemble(_text(file.get("path"), "bold"), " · ", _text(form), side))
        read = words.reading_of(file)
        indent = 4 + max((len(one.name) for one in read), default=0)
        yield from (Line(_text(one.text, "dim", limit=400), indent, label=one.name) for one in read)
    if len(files) > MAX_FILES:
        yield Line(_text(f"and {len(files) - MAX_FILES:,} more files"))
    yield Line(_text(" · ".join(words.totals(report)), limit=1000))
    for severity in words.NOUNS:
        found = words.of_severity(report, severity)
        if found:
            yield Line(Text())
            yield Line(_text(numbered(len(found), words.NOUNS[severity]), STYLES[severity]))
        for finding in found:
            yield from _finding(finding, severity, width)
    if measured := words.measurements(report):
        yield Line(Text())
        yield Line(_text("measured", "bold"))
        indent = 4 + max(len(one.name) for one in measured)
        for one in measured:
            yield Line(_text(one.text, limit=600), indent, label=one.name)
    yield Line(Text())
    for step in words.next_steps(report):
        yield Line(_text(step.command, "bold", limit=MAX_COMMAND), whole=True)
        yield Line(_text(step.reason, "dim"), INDENT)
    style = "bold green" if words.is_clean(report) else "bold red"
    yield Line(_text(words.verdict(report), style, limit=1000))


def _finding(found: Mapping[str, Any], severity: str, width: int) -> Iterator[Line]:
    style = "dim" if severity == "info" else ""
    title = _text(f"{amount(found)}: {found.get('title') or ''}", style)
    yield Line(Text.assemble(_text(found.get("code"), STYLES[severity]), "  ", title), 2)
    if found.get("detail"):
        yield Line(_text(found["detail"], style, limit=400), INDENT)
    for example in (found.get("examples") or ())[:MAX_EXAMPLES]:
        where = _text(f"{example.get('file')}:{example.get('line')}", f"{style} cyan")
        text = Text.assemble(where, "  ", _text(example.get("excerpt") or "", style, limit=600))
        text.truncate(max(20, MAX_EXCERPT_LINES * (width - INDENT - 2)), overflow="ellipsis")
        yield Line(text, INDENT)
    if found.get("remedy"):
        mends = words.CLEANING.get(str(found.get("action"))) if found.get("action") != "warn" else None
        yield Line(_text(f"→ {found['remedy']}{f' ({mends})' if mends else ''}", style, limit=400), INDENT)


def _text(value: object, style: str = "", limit: int = 300) -> Text:
    """Return one cleaned line of what came from data."""
    return Text(printable(visible(value, limit)), style=style)
