"""The command line: parse, call one verb, print, exit.

Results go to standard output, prose and progress to standard error. Torch is loaded only by the commands that compute.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from os.path import expanduser
from typing import Annotated, Any, Literal

import typer
import typer.main
from typer.core import TyperGroup

import tiebreak
from tiebreak import faults
from tiebreak.cli import compare, data, gate, judge, losses, plan, registry, review, rounds, serve, sweep, watch, why
from tiebreak.cli.completion import run_folders, settings
from tiebreak.cli.configured import ConfigPath, Overrides, refuse_changed
from tiebreak.cli.conversation import Session
from tiebreak.cli.data import Json, Quiet, RunPath, examples
from tiebreak.cli.process import prepare_to_compute
from tiebreak.config import describe_config, dump_config, load_config, load_stages, quoted
from tiebreak.config.commands import CHAT_TOKENS
from tiebreak.errors import EXIT_INTERRUPTED, DataError
from tiebreak.reporting import console
from tiebreak.reporting.document import print_document
from tiebreak.runs import Run, open_run
from tiebreak.training.launched import leads

app = typer.Typer(
    name="tiebreak",
    help="Direct Preference Optimization: from a file of preference pairs to a model that is proven better.",
    epilog="Start with:  tiebreak train   (aligns the bundled 135M model on the bundled pairs, a few minutes on a CPU)",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.print_text(tiebreak.__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    faults.arm(os.environ.get(faults.VARIABLE))


@app.command(
    epilog=examples(
        "tiebreak train",
        "tiebreak train my.yaml",
        "tiebreak train my.yaml --set training.learning_rate=5e-6 --set output.dir=runs/slower",
        "tiebreak train my.yaml --set adapter=none --json",
        "tiebreak train my.yaml --resume never",
    )
)
def train(
    config: ConfigPath = None,
    overrides: Overrides = None,
    resume: Annotated[
        Literal["auto", "never"], typer.Option("--resume", help="auto: go on with an attempt that was cut off.")
    ] = "auto",
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", metavar="PART", help="Go on although config, data, template, … changed; repeatable."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Align a model on preference pairs, measure it, judge it, and write a report.

    The same command starts, resumes after a crash or a signal (exit 75), and says so when all is done.
    """
    changes: Sequence[str] = overrides or ()
    stages = [] if config is None else load_stages(config, changes)
    chosen = config if stages else load_config(tiebreak.QUICKSTART if config is None else config, changes)
    prepare_to_compute(quiet=True)  # training says it, after the pairs
    run = tiebreak.train(chosen, changes if stages else (), resume=resume, accept=accept or (), quiet=quiet)
    if not leads():
        return
    runs = {stage.name: tiebreak.open_run(str(stage.config.output.dir)) for stage in stages}
    told = [{"stage": name, "run": str(one.path), "verdict": one.verdict} for name, one in runs.items()]
    if as_json:
        more = {"stages": told} if told else {}
        console.print_json({"run": str(run.path), **run.manifest, "evaluation": run.evaluation, **more})
    else:
        for name, one in [*runs.items()][:-1]:
            console.print_text(f"{name} ({one.path}): {str(one.verdict).upper()}: {one.evaluation['reason']}\n")
        console.print_evaluation(run.evaluation, run.samples)
        for cause in tiebreak.why(run).diagnoses:
            console.print_text("\n" + "\n".join(cause.lines()))
        console.print_text(
            f"\nreport: {quoted(str(run.report_file))}\nnext:   tiebreak export {quoted(str(run.path))} --out my-model"
        )


compare.register(app)
data.register(app)
gate.register(app)
judge.register(app)
losses.register(app)
plan.register(app)
registry.register(app)
review.register(app)
rounds.register(app)
serve.register(app)
sweep.register(app)
watch.register(app)
why.register(app)


@app.command(
    epilog=examples(
        "tiebreak evaluate runs/quickstart",
        "tiebreak evaluate runs/quickstart --data other.jsonl --json",
        "tiebreak evaluate runs/quickstart --against runs/slower",
        "tiebreak evaluate runs/quickstart --checkpoints --set evaluation.num_samples=32",
    )
)
def evaluate(
    run: RunPath,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Measure on these pairs instead.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_MODEL",
            help="Measure against this in place of the reference.",
            autocompletion=run_folders,
        ),
    ] = None,
    checkpoints: Annotated[bool, typer.Option("--checkpoints", help="Measure each checkpoint of the run.")] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set any setting of evaluation or gate; may be repeated.",
            autocompletion=settings("evaluation.", "gate."),
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a trained run again and judge it.

    On its held-out pairs or another file, against its reference or another model, at its end or on the way.
    """
    trained = open_run(run)
    prepare_to_compute(quiet=quiet)
    found = tiebreak.evaluate(
        trained, data=data, against=against, checkpoints=checkpoints, overrides=overrides or (), quiet=quiet
    )
    if as_json:
        console.print_json(found)
    elif checkpoints:
        console.print_checkpoints(found["checkpoints"])
    else:
        console.print_evaluation(found, Run(found.get("folder", trained.path)).samples)


@app.command(epilog=examples("tiebreak report runs/quickstart", "tiebreak report runs"))
def report(run: RunPath, as_json: Json = False, _quiet: Quiet = False) -> None:
    """Write the run's report: one self-contained HTML page. Of a folder of runs: a page over all of them."""
    path = str(tiebreak.report(run))
    console.print_json({"report": path}) if as_json else console.print_text(path)


@app.command(
    epilog=examples(
        "tiebreak export runs/quickstart --out my-model",
        "tiebreak export runs/quickstart --out my-adapter --form adapter --json",
    )
)
def export(
    run: RunPath,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="New folder for the model.")],
    form: Annotated[
        Literal["merged", "adapter"] | None,
        typer.Option(
            "--form", help="All weights in one, or the adapter, which is the default where its base is quantised."
        ),
    ] = None,
    onto: Annotated[
        Literal["trained", "original"],
        typer.Option("--onto", help="Of a quantised base: the numbers trained on, or its files' own, which differ."),
    ] = "trained",
    accept: Annotated[
        list[str] | None, typer.Option("--accept", help="difference: write it also where --onto original differs much.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the trained model, load it again, and compare log-probabilities before saying done."""
    trained = open_run(run)
    prepare_to_compute(quiet=quiet)
    made = tiebreak.export(trained, out, form, onto=onto, accept=accept or (), quiet=quiet)
    if as_json:
        console.print_json(made.as_dict())
        return
    same = "not the trained model: other" if made.onto == "original" else "the same"
    as_trained = "than" if made.onto == "original" else "as"
    console.print_text(
        f"{made.path}: {made.form} model in {made.dtype}, {same} log-probabilities {as_trained} the trained one "
        f"(largest difference {made.max_logps_difference:.2g} nats over {made.num_checked_pairs} "
        f"{'completions' if trained.config.data.keeps_apart else 'pairs'})"
    )
    if made.form == "adapter":
        console.print_text(f"its base model, which whoever loads it needs: {trained.manifest.get('base_model')}")
        if made.quantization:
            console.print_text(
                f"trained on it in four bits ({made.quantization}), as quantization_config.json beside it says: on the "
                "base model as it is it says other things; --form merged writes weights that need no quantization"
            )


@app.command(
    epilog=examples(
        "tiebreak chat runs/quickstart",
        'tiebreak chat runs/quickstart --compare --prompt "How do I fix a leaking tap?"',
    )
)
def chat(
    run: RunPath,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="Ask this and exit.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also show what the reference answers.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=2**20, help="Most tokens of an answer.")] = CHAT_TOKENS,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Talk to the trained model: a line is a question, and /help lists what else may be said.

    Answers come word by word; Ctrl-C stops one, Ctrl-D ends. Where standard input is a file or a pipe, each line of it
    is asked. What is said is kept nowhere but by /save.
    """
    trained = open_run(run)
    if as_json and prompt is None:
        raise DataError("chat --json: needs --prompt TEXT")
    prepare_to_compute(quiet=quiet or as_json)
    talk = tiebreak.chat(trained, max_new_tokens=max_new_tokens, temperature=temperature, quiet=quiet)
    session = Session(talk, compare=compare, quiet=quiet)
    if prompt is None:
        session.go_on()
    elif as_json:
        before = {"before": talk.before(prompt)} if compare else {}
        console.print_json({"prompt": prompt, **before, "answer": talk.ask(prompt)})
    else:
        session.answer(prompt)


@app.command(
    name="config", epilog=examples("tiebreak config > my.yaml", "tiebreak config my.yaml --set training.epochs=2")
)
def show_config(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="YAML file to check and resolve.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
    _quiet: Quiet = False,
) -> None:
    """Print every setting with its meaning and default, or the settings that a file resolves to."""
    resolved = load_config(config, overrides or ())
    refuse_changed(config)
    if as_json:
        console.print_json(resolved.model_dump(mode="json"))
    else:
        print_document(dump_config(resolved) if config or overrides else describe_config())


def call(words: Sequence[str]) -> int:
    """Carry out a command and return its exit code; whatever ends it otherwise is raised.

    Of several processes that a launcher started, all train, and the first one alone does anything else.
    """
    if not leads() and "train" not in words[:1]:
        return 0
    console.take_any_text()
    code = int(_command()([_at_home(word) for word in words], prog_name="tiebreak", standalone_mode=False) or 0)
    if code == EXIT_INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    sys.stdout.flush()  # here it can still be told that there is no reader, or no room
    return code


def _at_home(word: str) -> str:
    """Return --out=~/runs with the home in it, as no shell does: a folder of the name ~ is one that nobody removes."""
    name, _, value = word.partition("=")
    known = name.startswith("--") and value.startswith("~")
    return f"{name}={expanduser(value)}" if known else word  # noqa: PTH111 - Path's own raises for an unknown user


@functools.cache  # the signatures of all commands are read, which takes a twentieth of a second
def _command() -> Any:
    command, debug = typer.main.get_command(app), _debug()
    for one in _all_of(command):
        one.params.append(debug)
    return command


def _all_of(command: Any) -> Iterator[Any]:
    """Yield a command, and those that stand below it."""
    yield command
    for one in command.commands.values() if isinstance(command, TyperGroup) else ():
        yield from _all_of(one)


def _debug() -> Any:
    """Return the option of every command that `ends` looks for: no command has to take it."""
    lone = typer.Typer(add_completion=False)

    @lone.command()
    def _(
        debug: Annotated[bool, typer.Option("--debug", help="On an error, show where it comes from.")] = False,
    ) -> None:
        pass

    [option] = typer.main.get_command(lone).params
    option.expose_value = False
    return option
