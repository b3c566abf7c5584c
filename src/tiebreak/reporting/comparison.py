"""Runs side by side, in a terminal.

Owns the look. What differs, by how much and how surely is computed elsewhere; here it is a dictionary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
from rich.table import Table
from rich.text import Text

from tiebreak.config.gate import MEASURES
from tiebreak.errors import one_line
from tiebreak.reporting.capability_card import GROUPS, group_of
from tiebreak.reporting.console import VERDICT_STYLES, printable
from tiebreak.reporting.numbers import NOTHING, alone, count
from tiebreak.reporting.terminal import terminal

_SAYS = {"better": "green", "worse": "red", "moved": "yellow"}
_SHORT = {"not told apart": "unclear", "the same": "same"}
_LONGEST, _WIDE = 60, 76


def print_comparison(found: Mapping[str, Any]) -> None:
    """Print runs, what differs, scores, drift, advice, and what is not known."""
    out = terminal()
    _print_runs(out, found["runs"])
    _print_differences(out, found)
    for other in found["others"]:
        _print_scores(out, found["runs"][0]["letter"], other, sum(len(one["scores"]) for one in found["others"]))
        _print_drift(out, found["runs"][0]["letter"], other)
    for title, lines, style in (("What to do", found["advice"], "yellow"), ("Not known", found["unknown"], "dim")):
        if lines:
            out.print(Text(f"\n{title}", style="italic"))
            for line in lines:
                out.print(_listed(line, style))


def _listed(line: str, style: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(Text("·", style=style), Text(_lined(line)))
    return row


def _lined(value: Any, longest: int | None = None) -> str:
    text = printable(one_line(value))
    return text if longest is None or len(text) <= longest else f"{text[: longest - 1]}…"


def _print_runs(out: rich.console.Console, runs: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for one in runs:
        verdict = str(one["verdict"] or one["status"])
        steps = f"{one['num_steps_done']} steps" if one["num_steps_done"] is not None else ""
        cells = (_lined(one["run"]), str(one["started"] or "")[:10], steps)
        verdict_text = Text(
            _lined(verdict.upper() if one["verdict"] else verdict), style=VERDICT_STYLES.get(verdict, "")
        )
        table.add_row(Text(one["letter"], style="bold"), *(Text(_lined(cell)) for cell in cells), verdict_text)
    out.print(table)


def _print_differences(out: rich.console.Console, found: Mapping[str, Any]) -> None:
    letters = [one["letter"] for one in found["runs"]]
    equal = ", ".join(f"{part} {num:,}" for part, num in found["num_equal"].items() if num)
    if found["differences"]:
        table = Table(box=rich.box.SIMPLE_HEAD, title="\nWhat differs", title_justify="left")
        for heading in ("", *letters):
            table.add_column(heading, overflow="fold")
        for one in found["differences"]:
            key = one["key"] if one["part"] == "settings" else f"{one['part']}: {one['key'].replace('_', ' ')}"
            table.add_row(Text(_lined(key)), *(Text(_value(value)) for value in one["values"]))
        out.print(table)
    if equal:
        out.print(Text(f"the same in all, and left out: {equal}", style="dim"))


def _value(value: Any) -> str:
    if value is None:
        return NOTHING
    return count(value) if isinstance(value, int) and not isinstance(value, bool) else _lined(value, _LONGEST)


def _print_scores(out: rich.console.Console, first: str, other: Mapping[str, Any], num_made: int) -> None:
    letter, scores = other["letter"], other["scores"]
    if scores:
        out.print(_scores(first, letter, scores, wide=out.width >= _WIDE))
        many = f"; told apart by Holm over {num_made} differences" if num_made > 1 else ""
        out.print(Text(f"95 % intervals over prompts, paired{many}; another seed moves a run, too", style="dim"))
        _print_left_out(out, first, letter, scores)
    reasons: dict[str, list[str]] = {}
    for key, why in other["apart"].items():
        reasons.setdefault(why, []).append(MEASURES[key].name if key in MEASURES else key)
    if reasons:
        out.print(Text(f"\n{letter} against {first}: not compared", style="italic"))
    for why, names in reasons.items():
        out.print(_listed(f"{', '.join(names)}: {why}", "dim"))
    if not scores and not reasons:
        out.print(Text(f"\n{letter} against {first}: neither measured anything"))


def _scores(first: str, letter: str, scores: Sequence[Mapping[str, Any]], *, wide: bool) -> Table:
    """Return the table of differences, in the groups of the capability card; the means only where there is room."""
    title = f"\n{letter} against {first}, after training, on what both measured"
    table = Table(box=rich.box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1), pad_edge=False)
    table.add_column("", overflow="fold")
    for heading in (*((first, letter) if wide else ()), f"{letter} − {first}", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for group, heading in GROUPS.items():
        some = [one for one in scores if group_of(one["key"]) == group]
        for place, one in enumerate(some):
            size = one["num"], one["num_prompts"]
            if place == 0 or size != (some[place - 1]["num"], some[place - 1]["num_prompts"]):
                told = f"{size[0]:,}" + ("" if size[0] == size[1] else f" on {size[1]:,} prompts")
                table.add_row(Text(f"{heading} ({told})" if place == 0 else f"({told})", style="bold"))
            means = [alone(one[side], one["unit"]).replace(" %", "%") for side in ("first", "other")] if wide else []
            says = Text(_SHORT.get(one["says"], one["says"]), style=_SAYS.get(one["says"], "dim"))
            cells = (Text(cell) for cell in (*means, *_difference(one["difference"], one["unit"])))
            table.add_row(Text(f"  {_lined(one['name'])}"), *cells, says)
    return table


def _print_left_out(out: rich.console.Console, first: str, letter: str, scores: Sequence[Mapping[str, Any]]) -> None:
    """Say how much one run measured alone, by the numbers that several measures share."""
    told: dict[tuple[int, int], list[str]] = {}
    for one in scores:
        if any(one["num_alone"]):
            told.setdefault(tuple(one["num_alone"]), []).append(one["name"])
    for (here, there), names in told.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        line = f"left out, measured by one alone: {here:,} items of {first}, {there:,} of {letter} ({names[0]}{more})"
        out.print(Text(_lined(line), style="dim"))


def _difference(estimate: Mapping[str, Any], unit: str) -> tuple[str, str]:
    """Return a difference, and its interval, where it has one."""
    told = [float(estimate[key]) for key in ("mean", "low", "high") if estimate[key] is not None]
    if unit == "tokens":
        middle, *ends = (f"{math.exp(one):.2f}" for one in told)
        return f"× {middle}", " … ".join(ends) or "all alike"
    factor, digits = (100, 1) if unit in ("share", "rate") else (1, 3)
    middle, *ends = (f"{round(factor * one, digits) + 0.0:+.{digits}f}" for one in told)
    return middle, " … ".join(ends) or "all alike"


def _print_drift(out: rich.console.Console, first: str, other: Mapping[str, Any]) -> None:
    letter, prompts = other["letter"], other["prompts"]
    if other["drift"]:
        table = Table(box=rich.box.SIMPLE_HEAD, title=f"\nThe data of {letter} and of {first}", title_justify="left")
        table.add_column("")
        for heading in (first, letter, "p"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("")
        for row in other["drift"]:
            shown = (alone(row[side], row["unit"]).replace(" %", "%") for side in ("first", "other"))
            told = (count(float(row[side])) for side in ("first", "other")) if row["unit"] == "words" else shown
            p = f"{row['p']:.3f}" if row["p"] >= 0.001 else "< 0.001"
            says = Text("moved", style="yellow") if row["moved"] else Text("as before", style="dim")
            table.add_row(Text(_lined(row["name"])), *(Text(one) for one in told), Text(p), says)
        out.print(table)
    if prompts and (prompts[first] or prompts[letter]):
        line = f"training prompts: {prompts['common']:,} in both, {prompts[first]:,} in {first} alone, "
        out.print(Text(f"{line}{prompts[letter]:,} in {letter} alone", style="dim"))
