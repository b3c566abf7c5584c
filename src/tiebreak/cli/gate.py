"""The command gate: parse, call the verb, print, exit with the verdict's code.

Owns which code each verdict has at the command line.
"""

from __future__ import annotations

from typing import Annotated

import typer

import tiebreak
from tiebreak.cli.completion import run_folders, settings
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.errors import EXIT_FAILED, EXIT_INCONCLUSIVE, ConfigError
from tiebreak.reporting import console

EXIT_CODES = {"pass": 0, "fail": EXIT_FAILED, "inconclusive": EXIT_INCONCLUSIVE}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak gate --plan",
            "tiebreak gate runs/quickstart",
            "tiebreak gate runs/quickstart --set gate.rules.repetition.margin=0.1 --json",
            "tiebreak gate runs/quickstart --record --accept config",
            "tiebreak gate runs/quickstart --set 'gate.overrides.longer=long answers are wanted' --record",
        )
    )(gate)


def gate(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="Run folder that 'tiebreak train' made.", autocompletion=run_folders),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many pairs a gain needs; no run is read.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any setting of gate; may be repeated.",
            autocompletion=settings("gate."),
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Make this decision the run's own, and write it down.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="PART", help="config: with --record, take rules changed in its config.yaml."),
    ] = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Decide again on what a run measured: exit code 0 for pass, 3 for fail, 4 for inconclusive."""
    if plan == (run is not None):
        raise ConfigError("gate: wanted either a run folder, or --plan")
    if run is None:
        if unread := [name for name, one in (("--set", overrides), ("--record", record), ("--accept", accept)) if one]:
            raise ConfigError(f"gate: --plan reads no run and no setting; leave out {' and '.join(unread)}")
        _print_plan(as_json)
        return
    decision = tiebreak.gate(run, overrides or (), record=record, accept=accept or ())
    if as_json:
        console.print_json(decision.as_dict())
    else:
        console.print_decision(decision.as_dict())
    raise typer.Exit(EXIT_CODES[decision.verdict])


def _print_plan(as_json: bool) -> None:
    from tiebreak.verbs.gate import DISCORDANT, pairs_needed

    rows = pairs_needed()
    if as_json:
        console.print_json({"pairs_needed": rows})
        return
    console.print_text("two-sided at 5 %      pairs by a rule   by a judge   questions of a task")
    for row in rows:
        console.print_text(
            f"+{100 * row['gain']:<2.0f} points, {100 * row['power']:.0f} % power"
            f"{row['num_pairs']:>17,}{row['num_pairs_judge']:>13,}{row['num_questions']:>22,}"
        )
    console.print_text(
        "pairs without ties; a judge's win rate holds at equal length, too; "
        f"of the questions {DISCORDANT:.0%} change sides; a prompt counts once"
    )
