"""The commands of a registry of models: promote, rollback, history. Parse, call one verb, print, exit.

Owns their options.
"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import tiebreak
from tiebreak.cli.data import Json, Quiet, RunPath, examples, require_once
from tiebreak.config.gate import told_loosened
from tiebreak.errors import ConfigError
from tiebreak.registry import REGISTRY
from tiebreak.reporting import console

Folder = Annotated[str, typer.Option("--to", metavar="DIR", help="The registry: a folder that promote makes.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog=examples(
            "tiebreak promote runs/my",
            "tiebreak promote runs/my --to models --name support-bot --form adapter",
            "tiebreak promote runs/my --override 'longer=long answers are what these pairs teach'",
        )
    )(promote)
    app.command(epilog=examples("tiebreak rollback", "tiebreak rollback --to models --json"))(rollback)
    app.command(epilog=examples("tiebreak history", "tiebreak history --to models --json"))(history)


def promote(
    run: RunPath,
    to: Folder = REGISTRY,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Instead of the run folder's.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--override", metavar="RULE=REASON", help="A rule that may fail, and why; repeatable."),
    ] = None,
    form: Annotated[
        Literal["merged", "adapter"] | None,
        typer.Option("--form", help="All weights in one (default), or the adapter."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a run that passes into a registry, and make it current. Exit 3 where it fails, 4 where nobody knows."""
    reasons: dict[str, str] = {}
    for item in overrides or ():
        rule, equals, reason = item.partition("=")
        if not (equals and rule.strip() and reason.strip()):
            raise ConfigError(f"--override {item}: wanted RULE=REASON, like 'longer=long answers are wanted'")
        require_once("--override", rule.strip(), reasons)
        reasons[rule.strip()] = reason.strip()
    made = tiebreak.promote(run, to, name=name, overrides=reasons, form=form, quiet=quiet)
    if as_json:
        console.print_json(made.as_dict())
        return
    instead = f", in place of {made.replaced}" if made.replaced and not made.already else ""
    console.print_text(f"{made.current} {'is already' if made.already else 'is now'} {made.version}{instead}")
    for rule, reason in made.overridden.items():
        console.print_text(f"overridden: {rule} ({reason})")
    for said in told_loosened(made.loosened):
        console.print_text(said)


def rollback(to: Folder = REGISTRY, as_json: Json = False, quiet: Quiet = False) -> None:
    """Make the version before current again, once its files are proven to be those that were promoted."""
    event = tiebreak.rollback(to, quiet=quiet)
    if as_json:
        console.print_json(event.model_dump())
    else:
        console.print_text(f"{to}/current is now {event.version}, in place of {event.replaced}")


def history(to: Folder = REGISTRY, as_json: Json = False, _quiet: Quiet = False) -> None:
    """Say what became current, when, and by which verdict."""
    found = tiebreak.history(to)
    console.print_json(found.as_dict()) if as_json else console.print_history(found.as_dict())
