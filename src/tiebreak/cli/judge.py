"""The command judge: parse, call the verb, print, exit.

Owns its two forms: judging a file, and holding a judge against what people chose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import tiebreak
from tiebreak.cli.completion import run_folders, settings
from tiebreak.cli.data import Columns, Form, Json, Quiet, assignments, examples
from tiebreak.cli.ends import say_last
from tiebreak.cli.gate import EXIT_CODES
from tiebreak.config import load_judge
from tiebreak.errors import EXIT_FAILURE, ConfigError
from tiebreak.reporting import console

if TYPE_CHECKING:  # for --help, a verb need not be loaded
    from tiebreak.verbs.judge import Judged

CALIBRATE = "calibrate"

JudgeOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any setting of judge, like judge.max_calls; repeatable.",
        autocompletion=settings("judge."),
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak judge runs/quickstart --judge rule:repetition",
            "tiebreak judge pairs.jsonl --judge server:big --set judge.base_url=http://127.0.0.1:8000/v1 --dry-run",
            "tiebreak judge pairs.jsonl --judge server:gpt-5 --set judge.max_calls=500 --out judged.jsonl",
            "tiebreak judge runs/quickstart --judge mine.py:polite --set judge.arguments.word=please --json",
            "tiebreak judge calibrate votes.jsonl --judge rule:length_band --set judge.arguments.least=100",
        )
    )(judge)


def judge(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[calibrate] FILE",
            help="Pairs in any form, samples.jsonl, or a run folder. With calibrate: pairs that people judged.",
            autocompletion=run_folders,
        ),
    ],
    named: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="KIND:NAME",
            help="FILE.py:FUNCTION; or rule:, server:, model: or reward_model: and a name; or data.",
        ),
    ] = None,
    overrides: JudgeOverrides = None,
    form: Form = None,
    columns: Columns = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="JSONL", help="A row a question; gone on with if cut off.")
    ] = None,
    kept: Annotated[
        str | None, typer.Option("--kept", metavar="FILE", help="Where raw answers are kept; else the user's cache.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked, and ask nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a judge say which of two answers is better, or hold a judge against what people chose.

    Exit code 1 where it stopped half-way (the same command goes on there), or where no question has a verdict.
    With calibrate: 0 where it agrees with people better than chance, 3 where it certainly hardly does, 4 where that is
    not known.
    """
    calibrate, files = words[0] == CALIBRATE, words[words[0] == CALIBRATE :]
    if len(files) != 1:
        raise ConfigError(f"judge: wanted one file, found {len(files)}; a file named {CALIBRATE} is ./{CALIBRATE}")
    found = tiebreak.judge(
        files[0],
        load_judge(named, overrides or ()),
        format=form or "auto",
        columns=assignments("--column", columns) or None,
        out=out,
        kept=kept,
        calibrate=calibrate,
        dry_run=dry_run,
        quiet=quiet,
    )
    _tell(found, as_json, quiet)


def _tell(found: Judged, as_json: bool, quiet: bool) -> None:
    """Print what was found, say in a last line what was not, and exit as both deserve."""
    calibrated, told = found.agreement, found.as_dict()
    has_nothing = calibrated is None and found.win_rate is None and found.lacks is not None
    if has_nothing:
        told |= {"error": "NoVerdict", "message": found.lacks, "exit_code": EXIT_FAILURE}
    console.print_json(told) if as_json else console.print_text("\n".join(found.lines()))
    if found.lacks and (has_nothing or not quiet):
        say_last("error" if has_nothing else "warning", found.lacks)
    if calibrated or has_nothing:
        raise typer.Exit(EXIT_CODES[calibrated.verdict] if calibrated else EXIT_FAILURE)
