"""The command why: parse, call the verb, print, exit with a code that says whether anything is wrong."""

from __future__ import annotations

import typer

import tiebreak
from tiebreak.cli.data import Json, Quiet, RunPath, examples
from tiebreak.errors import EXIT_FAILED, EXIT_INCONCLUSIVE
from tiebreak.reporting import console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=examples("tiebreak why runs/quickstart", "tiebreak why runs/quickstart --json"))(why)


def why(run: RunPath, as_json: Json = False, _quiet: Quiet = False) -> None:
    """Say what is wrong with a run, with its evidence and what to do: done, at work, interrupted or dead.

    Exit code 0 where nothing is wrong, 3 where a cause is named, 4 where none is and a part of the run cannot be read.
    """
    found = tiebreak.why(run)
    console.print_json(found.as_dict()) if as_json else console.print_text("\n".join(found.lines()))
    if not found.is_well:
        raise typer.Exit(EXIT_FAILED if found.diagnoses else EXIT_INCONCLUSIVE)
