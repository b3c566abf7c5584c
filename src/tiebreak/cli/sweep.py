"""The command sweep: parse, call, print."""

from __future__ import annotations

from typing import Annotated

import typer

import tiebreak
from tiebreak.cli.completion import settings
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.cli.process import prepare_to_compute
from tiebreak.config import load_sweep
from tiebreak.reporting import console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak sweep my.yaml --grid loss.beta=0.05,0.1,0.3",
            "tiebreak sweep my.yaml --grid loss.beta=0.1,0.3 --grid training.learning_rate=1e-5,3e-5 --dry-run",
            "tiebreak sweep search.yaml --set sweep.trials=20 --json",
        )
    )(sweep)


def sweep(
    config: Annotated[
        str | None, typer.Argument(metavar="CONFIG", help="YAML file; without it, the bundled quickstart.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="KEY=VALUE,VALUE",
            help="Try these values of a setting; repeatable, every combination is a trial.",
            autocompletion=settings(),
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of all trials, or one of sweep; may be repeated.",
            autocompletion=settings(),
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be tried, and what it takes.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try settings, and find the best of them by what held-out prompts show, with what of its lead was luck.

    What is tried stands as sweep.grid or sweep.search in the file. The same command goes on where it was cut off.
    """
    asked = load_sweep(tiebreak.QUICKSTART if config is None else config, overrides or (), grid or ())
    if dry_run:
        from tiebreak.campaigns.outlook import outlook

        seen = outlook(asked)
        console.print_json(seen.as_dict()) if as_json else console.print_text("\n".join(seen.lines()))
        return
    prepare_to_compute(quiet=True)  # training says it, after the pairs
    found = tiebreak.sweep(asked, quiet=quiet)
    if as_json:
        console.print_json(found.as_dict())
        return
    from tiebreak.reporting.sweep import print_sweep

    print_sweep(found.found)
    console.print_text(f"\npage: {found.page}\nnext: {found.found['command']}")
