"""A run at work, in a terminal: how it ended or how far it is, its curves, its last numbers, what it warned of.

Owns the look. Where a run stands is read elsewhere; here it is a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tiebreak.errors import one_line
from tiebreak.reporting.console import VERDICT_STYLES, printable
from tiebreak.reporting.numbers import duration, is_number
from tiebreak.reporting.sparkline import sparkline
from tiebreak.reporting.terminal import terminal

_CURVES = {
    "heldout/rewards/accuracies": ("held-out accuracy", "{:.1%}"),
    "heldout/rewards/margins": ("held-out margin", "{:+.3f}"),
    "heldout/loss": ("held-out loss", "{:.4f}"),
    "heldout/displaced": ("displaced pairs", "{:.0%}"),
    "sampled/kl": ("KL of own answers", "{:.2f}"),
    "sampled/num_tokens": ("tokens in an answer", "{:.0f}"),
    "sampled/repetition": ("repetition", "{:.1%}"),
    "sampled/eos_rate": ("answers that end", "{:.0%}"),
    "sampled/entropy": ("entropy of a token", "{:.2f}"),
}
_NUMBERS = {
    "loss": "loss {:.4f}",
    "rewards/accuracies": "accuracy {:.0%}",
    "rewards/margins": "margin {:+.3f}",
    "grad_norm": "gradient {:.2g}",
    "learning_rate": "rate {:.2g}",
    "step_seconds": "{:.2g} s a step",
}
_STATES = {"dead": "bold red", "failed": "bold red", "interrupted": "bold yellow", "done": "bold"}
_WARNINGS, _BAR = 3, 20
_QUIET = 120.0
"""Seconds without a word after which that is worth one."""


def screen(found: Mapping[str, Any], encoding: str = "utf-8") -> Group:
    """Return all of it, to be printed or shown again and again."""
    return Group(*_parts(found, encoding))


def _parts(found: Mapping[str, Any], encoding: str) -> Iterator[Any]:
    head = Text(_lined(found["run"]), style="bold").append(f"  {found['state']}", style=_STATES.get(found["state"], ""))
    if found["holder"] and found["state"] != "done":
        head.append(f"  ({_lined(found['holder'])})", style="dim")
    yield head
    yield from _end(found)
    if found["total"]:
        yield _progress(found)
    if found["state"] in ("running", "measuring") and (found["seconds_quiet"] or 0) > _QUIET:
        yield Text(f"nothing was written for {duration(found['seconds_quiet'])}", style="yellow")
    if found["diagnosis"]:
        yield Text("diagnosis: ", style="bold yellow").append(_lined(found["diagnosis"]), style="default")
    if found["curves"]:
        yield _curves(found["curves"], encoding)
    if found["last"]:
        known = (form.format(found["last"][key]) for key, form in _NUMBERS.items() if is_number(found["last"].get(key)))
        yield Text(f"last step: {' · '.join(known)}")
    for text in found["warnings"][-_WARNINGS:] if found["state"] != "done" else ():
        yield Text("warning: ", style="yellow").append(_lined(text), style="default")
    if len(found["warnings"]) > _WARNINGS and found["state"] != "done":
        yield Text(f"{len(found['warnings']) - _WARNINGS} more warnings before these", style="dim")


def _end(found: Mapping[str, Any]) -> Iterator[Text]:
    """Yield how it ended, and what goes on with it."""
    if found["error"] and found["state"] in ("failed", "interrupted"):
        yield Text(_lined(found["error"]))
    if found["state"] == "dead":
        yield Text("its process died without a word; what its last checkpoint holds is kept")
    if found["next"]:
        yield Text(f"go on with: {_lined(found['next'])}")
    if found["verdict"]:
        verdict = Text(_lined(found["verdict"]).upper(), style=VERDICT_STYLES.get(found["verdict"], "bold"))
        yield verdict.append(f": {_lined(found['reason'])}", style="default")
    elif found["state"] == "done":
        yield Text("its evaluation cannot be read; 'tiebreak evaluate' makes it anew", style="yellow")


def _progress(found: Mapping[str, Any]) -> Text:
    step, total, left = min(found["step"], found["total"]), found["total"], found["seconds_left"]
    done = round(_BAR * step / total)
    told = Text("=" * done, style="green").append("-" * (_BAR - done), style="dim").append(" ")
    told.append(f"step {step:,} of {total:,}", style="default")
    return told.append(f", about {duration(left)} of training left" if left is not None else "", style="default")


def _curves(curves: Mapping[str, Sequence[Sequence[float]]], encoding: str) -> Table:
    table = Table.grid(padding=(0, 1))
    for key, (name, form) in _CURVES.items():
        if points := curves.get(key):
            values = [value for _, value in points]
            first, last = form.format(values[0]), form.format(values[-1])
            told = f"{first} → {last}" if len(values) > 1 else first
            table.add_row(Text(name), Text(sparkline(values, 20, encoding), style="cyan"), Text(told))
    return table


def line(found: Mapping[str, Any]) -> str:
    """Return the whole of it in one line, for a log."""
    of = f", step {found['step']:,} of {found['total']:,}" if found["total"] else ""
    left = found["seconds_left"]
    told = [f"{_lined(found['run'])}: {found['state']}{of}"]
    told += [f"about {duration(left)} of training left"] if left is not None else []
    for key, (name, form) in _CURVES.items():
        if points := found["curves"].get(key):
            told.append(f"{name} {form.format(points[-1][1])} (step {points[-1][0]:,})")
    return " · ".join(told)


def print_followed(found: Mapping[str, Any]) -> None:
    """Print where a run stands."""
    out = terminal()
    out.print(screen(found, out.encoding))


def _lined(text: Any) -> str:
    return printable(one_line(text))
