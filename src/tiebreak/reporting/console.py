"""What people see in a terminal: progress bars, warnings, tables.

Owns the look. Everything that comes from data is cleaned of control characters and never read as markup.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import rich.box
import rich.console
from rich.columns import Columns
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tiebreak.config.gate import told_loosened
from tiebreak.errors import one_line
from tiebreak.progress import Advance
from tiebreak.reporting.lenient import Lenient
from tiebreak.reporting.numbers import INTERVALS, duration, shown
from tiebreak.reporting.sparkline import HeldOutCurve
from tiebreak.reporting.terminal import terminal
from tiebreak.secrecy import masked

# Terminal escapes, NUL and other controls, and marks that reorder or hide text.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)
VERDICT_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
_SHOWN_NUMBERS = {
    "loss": "loss {:.3f}",
    "rewards/accuracies": "acc {:.0%}",
    "rewards/margins": "margin {:+.2f}",
    "tokens": "{:,.0f} tokens",
}


def take_any_text() -> None:
    """Let standard output and error take every character, escaped where their encoding lacks it, or nothing at all.

    A stream that the caller closed is None in Python; what is written there then vanishes.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - for as long as the process lives
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(text: str) -> str:
    """Return text that can do nothing to a terminal but be read."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _lined(text: str) -> str:
    return printable(masked(one_line(text)))


class Console:
    """Progress on standard error; implements `tiebreak.progress.Progress`.

    A terminal shows bars. Elsewhere (a log, CI, nohup, a pipe) each stage leaves a line, and another one every minute.
    """

    def __init__(self) -> None:
        stream = io.StringIO() if sys.stderr is None else sys.stderr  # None in programs without a terminal
        # A bar needs a terminal that overwrites lines: no log whose colours FORCE_COLOR switched on, as notebooks do,
        # and no widgets, which rich would ask for there.
        self._console = terminal(cast(IO[str], Lenient(stream)), force_terminal=stream.isatty())
        # In a terminal words wrap whole; elsewhere a sentence is a line, however long.
        self._one_line = not self._console.is_terminal

    def say(self, text: str) -> None:
        """Print one sentence."""
        self._console.print(Text(_lined(text)), soft_wrap=self._one_line)

    def warn(self, text: str) -> None:
        """Print one sentence that stands out."""
        line = Text("warning: ", style="yellow").append(_lined(text), style="default")
        self._console.print(line, soft_wrap=self._one_line)

    @contextlib.contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show how far a stage is, and how long it will take."""
        name = _lined(name)
        if not self._console.is_terminal:
            with telling_lines(name, total, self.say) as tell:
                yield tell
            return
        # A stage of unknown length is short: it leaves nothing behind.
        count, left = f"{total or 0:,}/{total or 0:,}", TimeRemainingColumn(compact=True, elapsed_when_finished=True)
        room = self._console.width - _BAR - len(count) - len(" 0:00:00 ")
        # A name may come from a file's name: without markup=False its brackets would be styles and links.
        columns = (TextColumn("{task.description}", markup=False), BarColumn(_BAR), MofNCompleteColumn(), left)
        bars = Progress(*columns, TextColumn("{task.fields[numbers]}"), console=self._console)
        title, curve, told = f"{_shortened(name, max(8, room)):<14}", HeldOutCurve(), ""
        task = bars.add_task(title, total=total, numbers="")

        def both() -> rich.console.RenderableType:
            line = curve.within(self._console.width - 1, self._console.encoding)
            return rich.console.Group(bars, Text(line, no_wrap=True)) if line else bars

        def advance(amount: int = 1, numbers: Mapping[str, float] | None = None) -> None:
            nonlocal told
            if not curve.takes(numbers or {}):
                told = _fitting(numbers or {}, room - len(title) - 2)
            bars.update(task, advance=amount, numbers=told)

        with Live(get_renderable=both, console=self._console, transient=total is None, refresh_per_second=10):
            yield advance


_BAR = 10


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _fitting(numbers: Mapping[str, float], room: int = 200) -> str:
    """Return what is shown of some numbers, whole ones and as many as there is room for."""
    fitting = ""
    for key, form in _SHOWN_NUMBERS.items():
        longer = " · ".join([fitting] * bool(fitting) + [form.format(numbers[key])]) if key in numbers else fitting
        if len(longer) > room:
            break
        fitting = longer
    return fitting


FIRST_LINE, LINE_EVERY = 10.0, 60.0
"""Seconds until a stage says where it is, the first time and then again and again, where no terminal shows a bar."""


@contextlib.contextmanager
def telling_lines(name: str, total: int | None, say: Callable[[str], None]) -> Iterator[Advance]:
    """Say in a line now and then how far a stage is, whether it moves or not, and in one at its end how long it took.

    A stage of unknown length that is over before its first line says nothing.
    """
    began, over = time.monotonic(), threading.Event()
    done, told, first, curve = 0, "", (began, 0), HeldOutCurve()

    def advance(amount: int = 1, numbers: Mapping[str, float] | None = None) -> None:
        nonlocal done, told, first
        done += amount
        if not curve.takes(numbers or {}):
            told = _fitting(numbers or {})
        elif line := curve.within(200, getattr(sys.stderr, "encoding", None)):
            say(f"{name}: {line}")
        if not first[1]:  # what an earlier attempt has done, or a first unit that is slower than the others
            first = time.monotonic(), done

    def line(end: str) -> str:
        of = f"/{total:,}" if total is not None else ""
        return f"{name}: {done:,}{of}, {end}" + (f" · {told}" if told else "")

    def tell() -> None:
        wait = FIRST_LINE
        while not over.wait(wait):
            now, (since, before) = time.monotonic(), first
            left = "time left not known yet"
            if total is not None and before < done:
                left = f"about {duration((now - since) / (done - before) * (total - done))} left"
            say(line(f"{duration(now - began)} so far, {left}" if total is not None else duration(now - began)))
            wait = LINE_EVERY

    teller = threading.Thread(target=tell, name=f"telling of {name}", daemon=True)
    teller.start()
    try:
        yield advance
    finally:
        over.set()
        teller.join()
        if total is not None or time.monotonic() - began > FIRST_LINE:
            say(line(f"{'' if total in (None, done) else 'not all, '}in {duration(time.monotonic() - began)}"))


def print_json(value: Any) -> None:
    """Print a result for machines: one JSON document on standard output, with escapes where its encoding is narrow."""
    wide = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(value, indent=2, ensure_ascii=not wide)
    sys.stdout.write(_UNPRINTABLE.sub(_json_escape, text) + "\n")


def _json_escape(found: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in memoryview(found[0].encode("utf-16", "surrogatepass")).cast("H")[1:])


def print_text(text: str) -> None:
    """Print a result for people, cleaned."""
    sys.stdout.write(printable(text) + "\n")


def print_piece(text: str) -> None:
    """Print a part of a result at once, cleaned; nothing that a terminal obeys is longer than a character here."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def print_evaluation(evaluation: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], num_samples: int = 3) -> None:
    """Print the verdict, the before/after table and some answers side by side."""
    from tiebreak.runs import as_a_run_writes  # noqa: PLC0415 - loads pydantic's models; --help must not

    out = terminal()
    with as_a_run_writes("this run"):  # both may come from its files
        table = Table(box=rich.box.SIMPLE_HEAD, title="Before and after, on held-out prompts", title_justify="left")
        for heading in ("", "before", "after"):
            table.add_column(heading)
        for row in evaluation["table"]:
            cells = (row["name"], shown(row["before"], row["unit"]), shown(row["after"], row["unit"]))
            table.add_row(*(Text(printable(cell)) for cell in cells))
        out.print(table)
        out.print(Text(INTERVALS, style="dim"))
        if evaluation.get("judge"):
            out.print(Text(printable(_judged(evaluation["judge"]))), soft_wrap=True)
        # Answers whose rule changed come first, in their order.
        telling = sorted(samples, key=lambda s: s["before"].get("matches_rule") == s["after"].get("matches_rule"))
        for sample in telling[:num_samples]:
            _print_sample(out, sample)
        _print_verdict(out, evaluation)


def _judged(judge: Mapping[str, Any]) -> str:
    """Say who judged the answers, and what of it has to be known."""
    if judge["refusal"]:
        return f"answers judged by {judge['by']}: not heard, {judge['refusal']}"
    unsaid = "".join(f"; {num} not judged ({reason})" for reason, num in judge["not_judged"].items())
    if not judge["num_judged"]:
        return f"answers judged by {judge['by']}: none{unsaid}"
    shares = f"{judge['ties']:.0%} ties, {judge['flip_rate']:.0%} changed by the order of the answers"
    return f"answers judged by {judge['by']}: {judge['num_judged']}, {shares}{unsaid}" + (
        f"; {judge['note']}" if judge["note"] else ""
    )


def print_checkpoints(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Print each measure before training and at each checkpoint, and the verdict on each."""

    out = terminal()
    table = Table(box=rich.box.SIMPLE_HEAD, title="On the way", title_justify="left")
    for heading in ("", "before", *(one["checkpoint"] for one in evaluations)):
        table.add_column(printable(heading))
    by_key = [{row["key"]: row for row in one["table"]} for one in evaluations]
    for key, row in by_key[-1].items():
        sides = [row["before"], *(rows[key]["after"] if key in rows else None for rows in by_key)]
        cells = (row["name"], *("" if side is None else shown(side, row["unit"]) for side in sides))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    verdicts = (Text(one["verdict"].upper(), style=VERDICT_STYLES[one["verdict"]]) for one in evaluations)
    table.add_row(Text("verdict"), Text(""), *verdicts)
    out.print(table)


def print_decision(decision: Mapping[str, Any]) -> None:
    """Print what each rule says, and the verdict."""
    out = terminal()
    table = Table(box=rich.box.SIMPLE_HEAD, title="Rules", title_justify="left")
    for heading in ("", "rule", "what was found"):
        table.add_column(heading)
    for check in decision["checks"]:
        verdict = check["verdict"]
        more = f"; overridden: {check['override']}" if check["override"] else ""
        cells = (Text(printable(text)) for text in (check["name"], check["says"] + more))
        table.add_row(Text(verdict, style=VERDICT_STYLES[verdict]), *cells)
    out.print(table)
    _print_verdict(out, decision)


def print_history(history: Mapping[str, Any]) -> None:
    """Print what became current in a registry, oldest first."""
    out = terminal()
    table = Table(box=rich.box.SIMPLE_HEAD, title=Text(printable(history["registry"])), title_justify="left")
    for heading in ("", "when", "what", "version", "verdict"):
        table.add_column(heading)
    excuses: dict[str, list[str]] = {}
    for event in history["events"]:
        is_current = event["event"] == len(history["events"])
        excuses[event["version"]] = [
            *(f"{rule} is overridden ({reason})" for rule, reason in event["overridden"].items()),
            *told_loosened(event["loosened"]),
        ]
        texts = (event["time"][:16].replace("T", " "), event["what"], event["version"])
        but = f", {len(event['overridden'])} overridden" if event["overridden"] else ""
        but += f", {len(event['loosened'])} gone or looser" if event["loosened"] else ""
        table.add_row(
            "→" if is_current else "",
            *(Text(_lined(text), style="bold" if is_current else "") for text in texts),
            Text(event["verdict"], style=VERDICT_STYLES[event["verdict"]]).append(but, style="default"),
        )
    out.print(table)
    for version, said in excuses.items():
        for one in said:
            out.print(Text(_lined(f"{version}: {one}")))
    if history["unswitched"]:
        out.print(Text(_lined(f"{history['unswitched']}; the next promote or rollback puts it right")))


def _print_verdict(out: rich.console.Console, decision: Mapping[str, Any]) -> None:
    verdict = decision["verdict"]
    reason = printable(f": {decision['reason']}")
    out.print(Text(verdict.upper(), style=VERDICT_STYLES[verdict]).append(reason, style="default"))


def _print_sample(out: rich.console.Console, sample: Mapping[str, Any]) -> None:
    out.print(Text(printable(sample["prompt"][-1]["content"]), style="bold"))
    width = max(20, (out.width - 4) // 2)
    sides = [
        Panel(Text(printable(sample[side]["text"])), title=side, width=width, title_align="left", box=rich.box.ROUNDED)
        for side in ("before", "after")
    ]
    out.print(Columns(sides, padding=(0, 1)))
