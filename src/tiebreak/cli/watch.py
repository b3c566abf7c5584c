"""The command watch: parse, follow, print, exit as the run did.

Owns what is shown while it goes on: a screen in a terminal, a line now and then elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

import tiebreak
from tiebreak.cli.data import Json, Quiet, RunPath, examples
from tiebreak.errors import ConfigError
from tiebreak.reporting import console

if TYPE_CHECKING:
    from tiebreak.verbs.watch import Watched

LINE_EVERY = 60.0
"""Seconds until a log hears of a run of which nothing is new."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak watch runs/my", "tiebreak watch runs/my --once --json", "tiebreak watch runs/tonight --wait"
        )
    )(watch)


def watch(
    run: RunPath,
    once: Annotated[bool, typer.Option("--once", help="Say where it stands, and end.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Where there is no such run yet, wait for it.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Follow a run from another terminal: how far it is, its held-out curve, its warnings, its end.

    Ends with the run: 0, 3, 4 for its verdict (pass, fail, inconclusive), 75 where it was stopped, 1 where it failed or
    its process died. Ctrl-C ends the watching alone.
    """
    from tiebreak.reporting.following import print_followed

    if once and wait:
        raise ConfigError("watch: --once says where a run stands now, and --wait waits for one; give one of them")
    try:
        found = tiebreak.watch(run) if once else _followed(run, wait=wait, quiet=quiet or as_json)
    except KeyboardInterrupt:
        return
    console.print_json(found.as_dict()) if as_json else print_followed(found.as_dict())
    raise typer.Exit(found.exit_code)


def _followed(run: str, *, wait: bool, quiet: bool) -> Watched:
    """Show where a run stands until it is over, and return its end; what was shown on a terminal is gone then."""
    from tiebreak.verbs.watch import follow

    shown = _nowhere if quiet else _on_screen if sys.stderr.isatty() else _in_lines
    with shown() as show:
        for found in follow(run, wait=wait):
            show(found, run)
            if found and found.is_over:
                return found
    raise AssertionError("a run is followed to its end")


Show = Callable[["Watched | None", str], None]


@contextlib.contextmanager
def _nowhere() -> Iterator[Show]:
    yield lambda _found, _run: None


@contextlib.contextmanager
def _on_screen() -> Iterator[Show]:
    from rich.live import Live
    from rich.text import Text

    from tiebreak.reporting.following import screen
    from tiebreak.reporting.terminal import terminal

    out = terminal(stderr=True)
    with Live(console=out, transient=True, auto_refresh=False) as live:
        yield lambda found, run: live.update(
            screen(found.as_dict(), out.encoding) if found else Text(_waiting(run)), refresh=True
        )


@contextlib.contextmanager
def _in_lines() -> Iterator[Show]:
    from tiebreak.reporting.console import Console
    from tiebreak.reporting.following import line

    progress, told, at = Console(), "", 0.0

    def show(found: Watched | None, run: str) -> None:
        nonlocal told, at
        new = f"{found.state} {sum(map(len, found.curves.values()))} {len(found.warnings)}" if found else "waiting"
        if new != told or time.monotonic() - at > LINE_EVERY:
            told, at = new, time.monotonic()
            if not (found and found.is_over):
                progress.say(line(found.as_dict()) if found else _waiting(run))

    yield show


def _waiting(run: str) -> str:
    return f"waiting for {console.printable(run)}"
