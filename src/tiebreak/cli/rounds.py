"""The command rounds: parse, call, print."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import tiebreak
from tiebreak.cli.completion import settings
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.cli.process import prepare_to_compute
from tiebreak.config import load_rounds
from tiebreak.progress import Silent
from tiebreak.reporting import console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak rounds my.yaml",
            "tiebreak rounds my.yaml --dry-run",
            "tiebreak rounds my.yaml --until judged",
            "tiebreak rounds my.yaml --set rounds.count=5 --json",
        )
    )(rounds)


def rounds(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file with a key rounds.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of all rounds, or one of rounds; may be repeated.",
            autocompletion=settings(),
        ),
    ] = None,
    until: Annotated[
        Literal["sampled", "judged", "paired"] | None,
        typer.Option("--until", help="End after this station of the round that is under way, to look at its file."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked of whom, and what it costs; nothing is asked.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let the model answer, a judge decide, and the pairs train it; then the same again.

    Each round is sampled, judged, paired, trained and measured on held-out prompts. The same command goes on where it
    was cut off; what was sampled, judged or paid for is not asked again.
    """
    asked = load_rounds(config, overrides or ())
    if dry_run:
        from tiebreak.campaigns.foresight import foresight

        seen = foresight(asked, Silent() if quiet else console.Console())
        console.print_json(seen.as_dict()) if as_json else console.print_text("\n".join(seen.lines()))
        return
    prepare_to_compute(quiet=quiet)
    found = tiebreak.rounds(asked, until=until, quiet=quiet)
    if as_json:
        console.print_json(found.as_dict())
        return
    from tiebreak.reporting.rounds import print_rounds

    print_rounds(found.found)
    console.print_text(f"\npage: {found.page}" + (f"\nnext: {found.next}" if found.next else ""))
