"""The command compare: parse, call the verb, print, exit."""

from __future__ import annotations

from typing import Annotated

import typer

import tiebreak
from tiebreak.cli.completion import run_folders
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.reporting import console
from tiebreak.reporting.comparison import print_comparison


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak compare runs/january runs/may", "tiebreak compare runs/beta-0.1 runs/beta-0.3 runs/ipo --json"
        )
    )(compare)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Run folders; the first is the baseline.", autocompletion=run_folders
        ),
    ],
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Set runs side by side: settings, data, versions, paired differences of scores, drift; the first is the baseline.

    A run of an older version, of other held-out prompts or without an evaluation is compared in what can be; what
    cannot is named.
    """
    found = tiebreak.compare(*runs).as_dict()
    console.print_json(found) if as_json else print_comparison(found)
