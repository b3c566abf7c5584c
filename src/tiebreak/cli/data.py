"""The commands about data: check, clean, convert, init. Parse, call one verb, print, exit.

Owns their options. The other commands are in `cli`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import tiebreak
from tiebreak.cli.completion import run_folders, settings
from tiebreak.config import DataConfig, ModelConfig, load_data, load_reading, quoted
from tiebreak.config.commands import FLAGS, KEPT_FORM
from tiebreak.config.foreign.trainers import TRAINERS
from tiebreak.config.foreign.translation import translated
from tiebreak.data.writer import writing
from tiebreak.errors import EXIT_FAILURE, ConfigError, DataError, require_name
from tiebreak.reporting import console
from tiebreak.reporting.document import print_document

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no advice.")]
RunPath = Annotated[
    str, typer.Argument(metavar="RUN", help="Run folder that 'tiebreak train' made.", autocompletion=run_folders)
]
Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE...", help="Preference pairs: files, folders, globs, hf:OWNER/NAME@SPLIT, 'bundled'."),
]
RunConfig = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="YAML", help="Read the data as this configuration of a run does, by its model's template."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any setting of data, or of model in check and init; may be repeated.",
        autocompletion=settings("data.", "model."),
    ),
]


def _setting(name: str, more: str = "", metavar: str | None = None) -> Any:
    """Return the option of a setting of data: what it means, its choices and its default are the setting's own."""
    field = DataConfig.model_fields[name]
    choices = "|".join(map(str, get_args(field.annotation)))
    return typer.Option(
        FLAGS[name],
        metavar=metavar or (f"<{choices}>" if choices else None),
        help=" ".join((field.description or "", more)).strip(),
        show_default=str(field.default),
    )


# An option that is not given says nothing: the setting's default and range stand in the configuration.
Form = Annotated[str | None, _setting("format", metavar="FORM")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        FLAGS["columns"], "-c", metavar="OURS=THEIRS", help="Which column is what: prompt=question; repeatable."
    ),
]
Choose = Annotated[str | None, _setting("pairing")]
MinMargin = Annotated[float | None, _setting("min_margin")]
HeldoutShare = Annotated[float | None, _setting("heldout_share")]
Heldout = Annotated[
    str | None, typer.Option(FLAGS["heldout"], metavar="FILE", help="Held-out pairs: look for leaks between the two.")
]
Model = Annotated[
    str | None, typer.Option(FLAGS["model"], "-m", metavar="M", help="Also count tokens with this model's tokenizer.")
]
MaxLength = Annotated[int | None, _setting("max_length", "Counts with --model.")]


def examples(*lines: str) -> str:
    """Return the examples under a command's help."""
    return "Examples:\n\n" + "\n\n".join(f"  $ {line}" for line in lines)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(
        epilog=examples(
            "tiebreak check pairs.jsonl",
            "tiebreak check 'data/*.parquet' --model HuggingFaceTB/SmolLM2-135M-Instruct --html doctor.html",
            "tiebreak check odd.jsonl --column prompt=question --column chosen=good --column rejected=bad",
            "tiebreak check train.jsonl --heldout test.jsonl --json",
            "tiebreak check --config my.yaml",
        )
    )(check)
    app.command(
        epilog=examples(
            "tiebreak clean pairs.jsonl cleaned",
            "tiebreak clean pairs.jsonl cleaned --do contradiction=reject --do near_duplicate=warn",
        )
    )(clean)
    app.command(
        epilog=examples(
            "tiebreak convert pairs.jsonl openai.jsonl --to openai",
            "tiebreak convert ratings.parquet pairs.jsonl.gz --to trl --pairing all --min-margin 1",
        )
    )(convert)
    app.command(
        epilog=examples(
            "tiebreak init pairs.jsonl > my.yaml",
            "tiebreak init pairs.jsonl --model HuggingFaceTB/SmolLM2-135M-Instruct --out my.yaml",
            "tiebreak init --from dpo.yaml --out my.yaml",
        )
    )(init)


def check(
    files: Files = None,
    form: Form = None,
    columns: Columns = None,
    pairing: Choose = None,
    min_margin: MinMargin = None,
    heldout: Heldout = None,
    heldout_share: HeldoutShare = None,
    model: Model = None,
    max_length: MaxLength = None,
    config: RunConfig = None,
    overrides: Overrides = None,
    html: Annotated[
        str | None, typer.Option("--html", metavar="PAGE", help="Also write the findings as a page with plots.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find what would ruin a run: contradictions, leaks, shortcuts, noise, broken records. Exit 1 on errors."""
    if html is not None:
        require_name(html, "--html")
    data, counted = _reading(
        files,
        config,
        overrides,
        columns,
        model,
        format=form,
        pairing=pairing,
        min_margin=min_margin,
        heldout=heldout,
        heldout_share=heldout_share,
        max_length=max_length,
    )
    report = tiebreak.check(data, model=counted, quiet=quiet or as_json)
    if not as_json:
        from tiebreak.doctor.screen import print_audit

        print_audit(report.as_dict())
    if html is not None:  # after the findings, which stay where no page can be written; --json prints one document
        from tiebreak.doctor.page import write_audit_page

        with writing(Path(html)):
            write_audit_page(report.as_dict(), Path(html))
    if as_json:
        console.print_json(report.as_dict())
    elif html is not None:
        console.print_text(f"page: {html}")
    if report.errors:
        raise typer.Exit(EXIT_FAILURE)


def clean(
    files: Files = None,
    *,
    out: Annotated[str, typer.Argument(metavar="OUT", help="New folder, or the name of the file of kept pairs.")],
    do: Annotated[
        list[str] | None,
        typer.Option("--do", metavar="CODE=ACTION", help="reject, quarantine, fix or warn; repeatable."),
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="Form of the kept pairs.")] = KEPT_FORM,
    form: Form = None,
    columns: Columns = None,
    pairing: Choose = None,
    min_margin: MinMargin = None,
    heldout: Heldout = None,
    config: RunConfig = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Keep what is sound, set the rest aside with its reasons, and account for every pair."""
    data = _data(
        files, config, overrides, columns, format=form, pairing=pairing, min_margin=min_margin, heldout=heldout
    )
    made = tiebreak.clean(data, out, actions=assignments("--do", do), to=to, quiet=quiet or as_json)
    console.print_json(made.as_dict()) if as_json else console.print_text("\n".join(made.lines()))


def convert(
    files: Files = None,
    *,
    out: Annotated[str, typer.Argument(metavar="OUT", help="New .jsonl, .jsonl.gz, .jsonl.zst, .json or .parquet.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="openai, trl, …; docs/data.md shows them all.")],
    form: Form = None,
    columns: Columns = None,
    pairing: Choose = None,
    min_margin: MinMargin = None,
    config: RunConfig = None,
    overrides: Overrides = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Write pairs of any form in another one."""
    data = _data(files, config, overrides, columns, format=form, pairing=pairing, min_margin=min_margin)
    made = tiebreak.convert(data, out, to=to)
    console.print_json(made.as_dict()) if as_json else console.print_text("\n".join(made.lines()))


def init(
    files: Files = None,
    model: Model = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="CONFIG", help="New file; without it, standard output.")
    ] = None,
    form: Form = None,
    columns: Columns = None,
    pairing: Choose = None,
    min_margin: MinMargin = None,
    heldout: Heldout = None,
    config: RunConfig = None,
    overrides: Overrides = None,
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="THEIRS", help="Take over a configuration of another trainer: YAML, JSON, .py, .sh."
        ),
    ] = None,
    trainer: Annotated[
        str | None, typer.Option("--trainer", metavar=f"<{'|'.join(TRAINERS)}>", help="Whose it is; else recognised.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented configuration out of what the doctor sees in the data, ready to train."""
    if origin is not None:
        given = {"format": form, "columns": columns, "pairing": pairing, "min_margin": min_margin, "heldout": heldout}
        _require_unsaid({"model": model, "config": config, "set": overrides, **given})
        _take_over(files, origin, trainer, out, as_json)
        return
    if trainer is not None:
        raise ConfigError("--trainer: says whose configuration --from names; give --from, or leave it out")
    data, counted = _reading(
        files, config, overrides, columns, model, format=form, pairing=pairing, min_margin=min_margin, heldout=heldout
    )
    text = tiebreak.init(data, model=counted, out=out, quiet=quiet or as_json)
    if as_json:
        console.print_json({"config": text, "path": None if out is None else str(out)})
    elif out is None:
        print_document(text)
    else:
        console.print_text(f"{out}: written; next: tiebreak train {quoted(str(out))}")


def _require_unsaid(given: Mapping[str, Any]) -> None:
    """Refuse options that a configuration of another trainer is not read by."""
    for name, value in given.items():
        if value is not None:
            option = FLAGS.get(name, f"--{name}")
            raise ConfigError(f"{option}: is not read beside --from, which reads no other; set it afterwards")


def _take_over(files: list[str] | None, origin: str, trainer: str | None, out: str | None, as_json: bool) -> None:
    text = tiebreak.init(files or None, origin=origin, trainer=trainer, out=out)
    account = translated(origin, trainer, files or None)
    if as_json:
        console.print_json({"config": text, "path": None if out is None else str(out), **account.as_dict()})
    elif out is None:
        print_document(text)
    else:
        console.print_text("\n".join(account.told()))
        then = "next" if account.has_data else "name your pairs in it (data.train), then"
        console.print_text(f"{out}: written; {then}: tiebreak check --config {quoted(str(out))}")


def _reading(
    files: list[str] | None,
    config: str | None,
    overrides: list[str] | None,
    columns: list[str] | None,
    model: str | None,
    **given: Any,
) -> tuple[DataConfig, ModelConfig | None]:
    """Return the settings of data, as `_data` does, and those of the model whose tokens are counted, if any is."""
    return load_reading(config, overrides or (), _said(files, columns, given), model)


def _data(
    files: list[str] | None, config: str | None, overrides: list[str] | None, columns: list[str] | None, **given: Any
) -> DataConfig:
    """Return the settings of data: those of a configuration, what --set says, and above all what has its own option."""
    return load_data(config, overrides or (), _said(files, columns, given))


def _said(files: list[str] | None, columns: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    train = files[0] if files and len(files) == 1 else files
    said = {"train": train or None, "columns": assignments("--column", columns) or None, **given}
    return {name: value for name, value in said.items() if value is not None}


def require_once(option: str, name: str, found: Mapping[str, str]) -> None:
    """Refuse a name that an option gives twice: which of its values is meant cannot be told."""
    if name in found:
        raise DataError(f"{option} {name}: is given twice; keep the one that is meant")


def assignments(option: str, items: list[str] | None) -> dict[str, str]:
    """Return what NAME=VALUE words of an option say. Raises DataError for one that is no such word."""
    found: dict[str, str] = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise DataError(f"{option} {item}: wanted NAME=VALUE")
        require_once(option, key.strip(), found)
        found[key.strip()] = value.strip()
    return found
