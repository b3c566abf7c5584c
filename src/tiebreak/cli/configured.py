"""What commands take that are given a configuration: the file, what is set over it, and what is refused of one.

Owns no command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tiebreak.cli.completion import settings
from tiebreak.runs import Run

ConfigPath = Annotated[
    str | None, typer.Argument(metavar="CONFIG", help="YAML file; without it, the bundled quickstart.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; may be repeated.", autocompletion=settings()),
]


def refuse_changed(config: str | Path | None) -> None:
    """Raise RunError where a file of settings is that of a run, and is not what the run wrote."""
    run = Run(Path(config).parent) if config is not None else None
    if run and Path(str(config)) == run.config_file and run.manifest_file.exists():
        run.verify(run.config_file)
