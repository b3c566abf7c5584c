"""The library: each verb as a function of Python, as `tiebreak` gives them.

Loading this module loads no torch; the verbs do, when they are called.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tiebreak.config import Config, DataConfig, JudgeConfig, ModelConfig, Section, build_config, given, load_config
from tiebreak.config.commands import CHAT_TOKENS, KEPT_FORM, PLANNED_GPU
from tiebreak.config.foreign.translation import translated
from tiebreak.config.loading import load_judge
from tiebreak.config.stages import load_stages
from tiebreak.data.whole import PairFile, read_pairs
from tiebreak.errors import TiebreakError
from tiebreak.registry import REGISTRY, Event
from tiebreak.reporting.notebook import run_card
from tiebreak.runs import Run, open_run

if TYPE_CHECKING:
    from tiebreak.campaigns.rounds import Looped
    from tiebreak.campaigns.sweep import Swept
    from tiebreak.config import Rounds, Sweep
    from tiebreak.doctor.report import AuditReport
    from tiebreak.engine.cluster import ClusterPlan
    from tiebreak.engine.planner import Plan
    from tiebreak.evaluation.gate import Decision
    from tiebreak.maths.objectives.worked import WorkedObjective
    from tiebreak.verbs.chat import Conversation
    from tiebreak.verbs.clean import Cleaned
    from tiebreak.verbs.compare import Comparison
    from tiebreak.verbs.convert import Conversion
    from tiebreak.verbs.export import Artefact
    from tiebreak.verbs.history import History
    from tiebreak.verbs.judge import Judged
    from tiebreak.verbs.losses import Described
    from tiebreak.verbs.promote import Promotion
    from tiebreak.verbs.watch import Watched
    from tiebreak.verbs.why import Why

__all__ = [
    "Config", "DataConfig", "PairFile", "Run", "TiebreakError", "chat", "check", "clean", "compare",
    "convert", "evaluate", "export", "gate", "history", "init", "judge", "load_config", "losses", "objective",
    "open_run", "plan", "promote", "read_pairs", "report", "rollback", "rounds", "sweep", "train", "watch", "why",
]  # fmt: skip

__version__ = metadata.version("tiebreak")
QUICKSTART = given.BUNDLED_SETTINGS
Run._repr_html_ = run_card  # a run folder is known on every floor, how one looks on an upper one


def train(
    config: Config | str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = (), *,
    resume: Literal["auto", "never"] = "auto", accept: Collection[str] = (), quiet: bool = False,
) -> Run:  # fmt: skip
    """Align a model: data, training, evaluation, verdict, report. Returns the run folder.

    An attempt that was cut off goes on where it was; `accept` names what may have changed since (config, data,
    template, tokenizer, model), and `resume="never"` starts afresh beside it.

    `config` is a YAML file or a `Config`; none means the bundled quickstart. `overrides` are dotted keys with values,
    like `{"training.learning_rate": 5e-6}`. Of a file with stages, all are trained, and the last one's run is returned.
    """
    from tiebreak.campaigns.stages import train_stages
    from tiebreak.verbs import train as verb

    if isinstance(config, str | Path) and (stages := load_stages(config, overrides)):
        return [*train_stages(stages, _progress(quiet), resume=resume, accept=accept).values()][-1]
    return verb.train(given.settings(config, overrides), _progress(quiet), resume=resume, accept=accept)


def sweep(
    config: Sweep | str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = (), *,
    grid: Sequence[str] | Mapping[str, Any] = (), quiet: bool = False,
) -> Swept:  # fmt: skip
    """Try settings and return which is best on held-out prompts, at the same KL, and how much of it was luck.

    `config` is a YAML file with a key `sweep`; a `grid` like `{"loss.beta": [0.05, 0.1, 0.3]}` stands over it. A sweep
    that was cut off goes on where it was.
    """
    from tiebreak.campaigns.sweep import sweep, sweep_of

    return sweep(sweep_of(config or QUICKSTART, overrides, grid), _progress(quiet))


def rounds(
    config: Rounds | str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), *,
    until: Literal["sampled", "judged", "paired"] | None = None, quiet: bool = False,
) -> Looped:  # fmt: skip
    """Let the model answer, a judge decide and the pairs train it, round after round; return which round is best.

    `config` is a YAML file with a key `rounds`. A loop that was cut off goes on; `until` ends it after a station.
    """
    from tiebreak.campaigns.rounds import rounds, rounds_of

    return rounds(rounds_of(config, overrides), _progress(quiet), until=until)


def plan(
    config: Config | str | Path | None = None, overrides: Sequence[str] | Mapping[str, Any] = (), *,
    gpus: int | None = None, gpu: str = PLANNED_GPU, pair_tokens: int | None = None, quiet: bool = False,
) -> Plan | ClusterPlan:  # fmt: skip
    """Say what fits in memory and how micro-batches are cut, and train nothing; with `gpus`, on so many that are not
    here, by the shape of `model.name` alone (or llama-8b, llama-70b, llama-405b) and for pairs of `pair_tokens`.
    """
    from tiebreak.verbs import plan as verb

    chosen = given.settings(config, overrides)
    return verb.plan(chosen, _progress(quiet), gpus=gpus, gpu=gpu, pair_tokens=pair_tokens)


def why(run: Run | str | Path) -> Why:
    """Return what is wrong with a run, done, at work, cut off or damaged: each cause with evidence and what to do."""
    from tiebreak.verbs import why as verb

    return verb.why(run if isinstance(run, Run) else Run(run))


def evaluate(
    run: Run | str | Path, *, data: str | None = None, against: str | None = None, checkpoints: bool = False,
    overrides: Sequence[str] | Mapping[str, Any] = (), quiet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure a trained run again: on its own held-out pairs or on another file, against its reference or another
    run or model, at its end or at each of its checkpoints.

    `overrides` change settings of `evaluation` and `gate` for this time.
    """
    from tiebreak.verbs import evaluate as verb

    return verb.evaluate(
        _run(run), _progress(quiet), data=data, against=against, checkpoints=checkpoints, overrides=overrides
    )


def gate(
    run: Run | str | Path, overrides: Sequence[str] | Mapping[str, Any] = (), *,
    record: bool = False, accept: Collection[str] = (),
) -> Decision:  # fmt: skip
    """Hold what a run measured against the rules of its configuration, with `overrides` of `gate.…` on top.

    With `record` the decision becomes the run's own; otherwise nothing is written. Rules that were changed in the run's
    config.yaml are its own once they are accepted: `record=True, accept=["config"]`.
    """
    from tiebreak.verbs import gate as verb

    return verb.gate(_run(run), overrides, record=record, accept=accept)


def judge(
    path: str | Path, judge: JudgeConfig | Mapping[str, Any] | str, *,
    format: str = "auto", columns: Mapping[str, str] | None = None, out: str | Path | None = None,
    kept: str | Path | None = None, calibrate: bool = False, dry_run: bool = False, quiet: bool = False,
) -> Judged:  # fmt: skip
    """Ask a judge about each pair of a file, or about each answer of a run before and after; return the win rate.

    `judge` is KIND:NAME, like "rule:repetition", a mapping of its settings, or these. `out` gets a row a question and
    is gone on with; `kept` holds raw answers of servers. With `calibrate`, it is held against what people chose.
    """
    from tiebreak.verbs import judge as verb

    settings = judge if isinstance(judge, Section) else load_judge(judge)
    return verb.judge(
        path, settings, _progress(quiet),
        format=format, columns=columns, out=out, kept=kept, calibrate=calibrate, dry_run=dry_run,
    )  # fmt: skip


def compare(*runs: Run | str | Path) -> Comparison:
    """Set runs side by side, the first as the baseline: what differs, paired differences of scores, drift."""
    from tiebreak.verbs import compare as verb

    return verb.compare(*(run.path if isinstance(run, Run) else run for run in runs))


def watch(run: Run | str | Path) -> Watched:
    """Return where a run stands now: how far it is, its curves, its last warnings, and whether anybody is at work."""
    from tiebreak.verbs import watch as verb

    return verb.watch(run)


def report(run: Run | str | Path) -> Path:
    """Write the run's HTML report and return its path; of a folder of runs, a page over all of them."""
    from tiebreak.verbs import report as verb

    return verb.report(run.path if isinstance(run, Run) else run)


def export(
    run: Run | str | Path, out: str | Path, form: Literal["merged", "adapter"] | None = None, *,
    onto: Literal["trained", "original"] = "trained", accept: Collection[str] = (), quiet: bool = False,
) -> Artefact:  # fmt: skip
    """Write the trained model to a new folder, reload it and prove that it is the same; `onto` original: how near."""
    from tiebreak.verbs import export as verb

    trained, progress = _run(run), _progress(quiet)
    verb.checked_target(out)  # before a model is loaded for nothing
    from tiebreak.training.trained import load_trained

    trained.verify()
    return verb.export(trained, load_trained(trained, progress), out, form, progress, onto=onto, accept=accept)


def promote(
    run: Run | str | Path, to: str | Path = REGISTRY, *, name: str | None = None,
    overrides: Mapping[str, str] | None = None, form: Literal["merged", "adapter"] | None = None, quiet: bool = False,
) -> Promotion:  # fmt: skip
    """Export a run that passes into the registry folder `to`, and make it current.

    `overrides` are rules of its gate that may fail, each with the reason, which the run and the registry then show.
    """
    from tiebreak.verbs import promote as verb

    return verb.promote(_run(run), to, name=name, overrides=overrides, form=form, progress=_progress(quiet))


def rollback(to: str | Path = REGISTRY, *, quiet: bool = False) -> Event:
    """Make the version before current again, once its files are proven to be those that were promoted."""
    from tiebreak.verbs import rollback as verb

    return verb.rollback(to, _progress(quiet))


def history(to: str | Path = REGISTRY) -> History:
    """Return what became current in a registry, when, and by which verdict."""
    from tiebreak.verbs import history as verb

    return verb.history(to)


def chat(
    run: Run | str | Path, *, max_new_tokens: int = CHAT_TOKENS, temperature: float = 0.0, quiet: bool = False
) -> Conversation:
    """Return a conversation with the trained model: `chat(run).ask("…")`."""
    from tiebreak.verbs.chat import Conversation, check_temperature

    trained = _run(run)
    check_temperature(temperature)  # before a model is loaded for nothing
    from tiebreak.training.trained import load_trained

    return Conversation(load_trained(trained, _progress(quiet)), max_new_tokens=max_new_tokens, temperature=temperature)


def check(
    data: DataConfig | str | Path | Sequence[str | Path], *, model: str | ModelConfig | None = None, quiet: bool = False
) -> AuditReport:
    """Return what the doctor finds in preference data: findings with examples, and the numbers behind them.

    `data` is a file, a folder, a glob, several of them, or a `DataConfig`. With `model`, a name or a `ModelConfig` that
    says more, tokens are counted, too.
    """
    from tiebreak.verbs import check as verb

    return verb.check(given.data(data), given.model(model), _progress(quiet))


def clean(
    data: DataConfig | str | Path | Sequence[str | Path], out: str | Path, *,
    actions: Mapping[str, str] | None = None, to: str = KEPT_FORM, quiet: bool = False,
) -> Cleaned:  # fmt: skip
    """Write the sound pairs to a new folder, the others beside them with their reasons, and a report of both."""
    from tiebreak.verbs import clean as verb

    return verb.clean(given.data(data), out, actions, to, _progress(quiet))


def convert(data: DataConfig | str | Path | Sequence[str | Path], out: str | Path, *, to: str) -> Conversion:
    """Write pairs of any form to a file of the form `to`: openai, trl, …"""
    from tiebreak.verbs import convert as verb

    return verb.convert(given.data(data), to, out)


def init(
    data: DataConfig | str | Path | Sequence[str | Path] | None = None, *,
    model: str | ModelConfig | None = None, out: str | Path | None = None, origin: str | Path | None = None,
    trainer: str | None = None, quiet: bool = False,
) -> str:  # fmt: skip
    """Return a commented configuration to start from, and write it to `out` where that is given.

    It is made of what the doctor sees in `data`; or of `origin`, a configuration of another `trainer` (trl,
    llama-factory, axolotl, ms-swift; recognised unless named), in which `data` then takes the place of its own.
    """
    from tiebreak.verbs import init as verb

    if origin is not None:
        own = None if data is None else given.data(data)
        if model is not None or (own is not None and own.model_fields_set - {"train"}):
            raise TypeError("with the origin of a configuration, data is files alone and no model is named")
        text = translated(origin, trainer, None if own is None else own.train_specs).text
        verb.write(text, out)
        return text
    if data is None or trainer is not None:
        raise TypeError("init needs data, or the origin of a configuration, of which trainer says whose it is")
    settings, found = verb.best_read(given.data(data), lambda read: check(read, model=model, quiet=quiet).as_dict())
    return verb.init(found, settings, given.model(model), out)


def losses(name: str | None = None) -> list[Described]:
    """Return every objective that `loss` may name, or one: formula, source, settings, needs, and when to take it."""
    from tiebreak.verbs import losses as verb

    return verb.losses(name)


def objective(name: str = "dpo", **settings: Any) -> WorkedObjective:
    """Return an objective to be called with log-probabilities: `objective("dpo", beta=0.2)([-3.0], [-4.0], [-3.5],
    [-3.9])` gives losses, rewards, and the mean that training goes down.

    Names and settings are those of `loss` in a configuration; what is returned says shapes and units at its call.
    """
    from tiebreak.maths.objectives import Objective
    from tiebreak.maths.objectives.worked import WorkedObjective

    return WorkedObjective(Objective.of(build_config({"loss": {"name": name, **settings}}).loss))


def _run(run: Run | str | Path) -> Run:
    return open_run(run.path if isinstance(run, Run) else run)


def _progress(quiet: bool) -> Any:
    from tiebreak.progress import Silent
    from tiebreak.reporting.console import Console

    return Silent() if quiet else Console()
