"""The command losses: parse, call the verb, print."""

from __future__ import annotations

from typing import Annotated

import typer

import tiebreak
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.reporting import console
from tiebreak.reporting.losses import print_loss, print_losses


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=examples("tiebreak losses", "tiebreak losses simpo", "tiebreak train my.yaml --set loss=ipo"))(
        losses
    )


def losses(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One objective, with its settings.")] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """List the objectives, or say of one what it computes, what it reads, and when to take it."""
    found = [one.as_dict() for one in tiebreak.losses(name)]
    if as_json:
        console.print_json(found[0] if name else {"losses": found})
    elif name:
        print_loss(found[0])
    else:
        print_losses(found)
