"""Settings that could not be carried out, refused before anything is read or loaded.

What only some settings ask for is loaded only for these: with the others, the pairs are read within a second.
"""

from __future__ import annotations

from tiebreak.config import (
    HELDOUT,
    KL_SIGNALS,
    SAMPLED,
    Config,
    EvaluationConfig,
    SignalsConfig,
    StoppingConfig,
    warnings_of,
)
from tiebreak.config.losses import SECTIONS
from tiebreak.config.losses.loss import PAIRINGS
from tiebreak.errors import ConfigError
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.progress import Progress

_COMES_ALONG = "tensorboard"


def check_settings(config: Config, progress: Progress) -> None:
    """Refuse settings that could not be carried out, and tell of those that are rarely meant."""
    pairing, kind = config.data.pairing, config.loss.learns_from
    if config.loss.learns_apart and pairing != PAIRINGS[kind]:
        raise ConfigError(
            f"data.pairing {pairing}: {config.loss.name} learns from {kind}, each on its own; leave data.pairing out, "
            "or take another loss"
        )
    if config.data.keeps_apart and not config.loss.learns_apart:
        kinds = [name for name, one in SECTIONS.items() if PAIRINGS.get(one.learns_from) == pairing]
        raise ConfigError(
            f"data.pairing {pairing}: {config.loss.name} learns from pairs; of losses, {', '.join(kinds)} learn so"
        )
    if config.data.turns != "last" and pairing != "good":
        raise ConfigError(f"data.turns {config.data.turns}: is read where demonstrations are (loss sft_unpaired) alone")
    if config.loss.wants_prompts_in_a_step and config.training.pairs_per_step == 1:
        name = config.loss.name
        raise ConfigError(f"training.pairs_per_step 1: {name} compares with completions of other prompts of the step")
    if config.loss.compares_distributions and config.reference.store not in ("auto", "off"):
        raise ConfigError(
            f"reference.store {config.reference.store}: {config.loss.name} compares whole distributions, which no "
            "store holds: the reference is asked in every step; take reference.store out, or take another loss"
        )
    if trackers := [name for name in config.output.trackers if name != _COMES_ALONG]:
        from tiebreak.training.recorder import check_trackers  # noqa: PLC0415 - accelerate and torch

        check_trackers(trackers)
    check_evaluation(config.evaluation)
    check_stopping(config.stopping, config.signals, config.evaluation)
    if config.reference.moves:
        from tiebreak.maths.objectives import Objective  # noqa: PLC0415 - torch

        objective = Objective.of(config.loss)
        if not objective.asks_reference:
            raise ConfigError(
                f"reference.moves: {objective.name} compares with no reference, so that none could move; take "
                "reference.moves out, or take a loss that reads one ('tiebreak losses')"
            )
    for warning in warnings_of(config):
        progress.warn(warning)


def check_stopping(stopping: StoppingConfig, signals: SignalsConfig, evaluation: EvaluationConfig) -> None:
    """Refuse bounds on what is never measured: a run that nothing can stop would look like one that nothing had to."""
    if stopping.patience and not evaluation.probes:
        raise ConfigError(f"stopping.patience {stopping.patience}: counts probes, and evaluation.probes is 0; raise it")
    for rule in stopping.rules:
        signal = f"stopping.rules: {rule.signal}"
        if rule.signal.startswith(HELDOUT) and not evaluation.probes:
            raise ConfigError(f"{signal} is measured by probes, and evaluation.probes is 0; raise it")
        if rule.signal.startswith(SAMPLED) and not signals.looks:
            raise ConfigError(f"{signal} is measured by looks, and signals.looks is 0; raise it")
        if rule.signal in KL_SIGNALS and not signals.knows_kl:
            raise ConfigError(f"{signal} is known at signals.temperature 1 and with signals.kl auto or on alone")


def check_evaluation(settings: EvaluationConfig) -> None:
    """Refuse what could not be measured at the end, before anything is spent: tasks, and judges, without weights."""
    if settings.tasks or settings.lm_eval:
        from tiebreak.evaluation.capabilities.harness import check_lm_eval  # noqa: PLC0415 - torch and transformers
        from tiebreak.evaluation.capabilities.taskfiles import load_tasks  # noqa: PLC0415

        tasks = load_tasks(settings.tasks)
        if settings.lm_eval:
            check_lm_eval(settings.lm_eval, tasks)
    if settings.judge:
        JUDGES[settings.judge.kind].check(settings.judge, Given())
