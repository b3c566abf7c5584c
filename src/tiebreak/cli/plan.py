"""The command plan: parse, call, print."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import tiebreak
from tiebreak.cli.configured import ConfigPath, Overrides, refuse_changed
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.cli.process import prepare_to_compute
from tiebreak.config import load_config
from tiebreak.config.commands import PLANNED_GPU
from tiebreak.config.yaml_text import write_yaml
from tiebreak.errors import ConfigError, require_name
from tiebreak.reporting import console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak plan my.yaml",
            "tiebreak plan my.yaml --set data.max_length=4096 --json",
            "tiebreak plan my.yaml --gpus 64 --gpu h200 --model llama-70b --strategy fsdp",
        )
    )(plan)


def plan(
    config: ConfigPath = None,
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, max=10**6, help="Reckon for so many GPUs that are not here.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="KIND", help="Their kind: h200 (default), h100, b200, a100, …")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="Of this model: llama-8b, llama-70b, llama-405b, or any name."),
    ] = None,
    strategy: Annotated[
        Literal["auto", "single", "ddp", "fsdp", "hsdp"] | None,
        typer.Option("--strategy", help="In place of distributed.strategy."),
    ] = None,
    pair_tokens: Annotated[
        int | None, typer.Option("--pair-tokens", min=2, max=10**9, help="Tokens of a mean pair, its prompt once.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what fits in memory and how steps would be cut into micro-batches, without training.

    With --gpus: what so many GPUs of a kind would hold, send and take a step, and what breaks first; of the model,
    config.json alone is read, and no data.
    """
    if gpus is None and (gpu, pair_tokens) != (None, None):
        raise ConfigError("--gpu and --pair-tokens are of GPUs that are not here: say how many with --gpus")
    changes = [*(overrides or ())]
    if model is not None:
        require_name(model, "the model")
        changes.append(f"model.name={write_yaml(model, inline=True)}")
    changes += [f"distributed.strategy={strategy}"] if strategy is not None else []
    chosen = load_config(tiebreak.QUICKSTART if config is None else config, changes)
    refuse_changed(config)
    prepare_to_compute(quiet=quiet or as_json)
    found = tiebreak.plan(chosen, gpus=gpus, gpu=gpu or PLANNED_GPU, pair_tokens=pair_tokens, quiet=quiet or as_json)
    console.print_json(found.as_dict()) if as_json else console.print_text("\n".join(found.lines()))
