"""Which settings a search tries next, and which trial is not worth its end: both by Optuna.

Owns how Optuna is asked. It is told of the trials that ended, in their order, each time anew: nothing of it is kept, so
that a sweep that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tiebreak.campaigns.trials import DONE, STOPPED, Ended, Probed
from tiebreak.config import Between, SweepConfig
from tiebreak.fingerprint import derive_seed

if TYPE_CHECKING:
    import optuna

DIGITS = 3
"""Significant digits of a drawn value: more are told by nothing, and read by nobody."""


def proposed(
    settings: SweepConfig, ended: Sequence[Ended], values: Mapping[str, float], attempt: int
) -> dict[str, Any]:
    """Return the settings of a search's next trial, by what `values` the trials had that ended.

    `attempt` draws others where what was drawn is known already. The Tree-structured Parzen Estimator (Bergstra et al.
    2011) models which settings were good, after some that are drawn blindly.
    """
    with _optuna() as optuna:
        space = {key: _distribution(told) for key, told in settings.search.items()}
        seed = derive_seed(settings.seed, "sweep", len(ended), attempt) % 2**32
        blind = max(3, min(10, settings.trials // 3))
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=blind)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for one in ended:
            told = {key: _written(value, settings.search[key]) for key, value in one.settings.items()}
            is_done = one.state == DONE and one.name in values
            study.add_trial(
                optuna.trial.create_trial(
                    params=told,
                    distributions={key: space[key] for key in told},
                    value=values[one.name] if is_done else None,
                    state=optuna.trial.TrialState["COMPLETE" if is_done else "PRUNED"],
                    intermediate_values={at: score for at, (_, score) in enumerate(one.probes, 1)},
                )
            )
        drawn = study.ask(space).params
    return {key: _read(drawn[key], told) for key, told in settings.search.items()}


def falls_behind(
    settings: SweepConfig, ended: Sequence[Ended], probes: Sequence[Probed], num_probes: int
) -> str | None:
    """Return why a trial with these probes should end before its last step; None where it goes on.

    It is compared with what others had at the same shares of their steps, on straight lines between their probes: a
    probe more, where one ended by a rule of its own, or other numbers of steps move nothing.

    By the median of trials that ended (Golovin et al. 2017, 3.2.2), or by successive halving (Li et al. 2018).
    """
    known = [one for one in ended if one.probes and one.state in (DONE, STOPPED)]
    num_whole = sum(one.state == DONE for one in known)
    if settings.stop_early == "off" or not probes or num_whole < settings.whole_first:
        return None
    shares, scores = [share for share, _ in probes], [score for _, score in probes]
    if shares[-1] >= 1:
        return None
    near = 0.5 / num_probes
    with _optuna() as optuna:
        study = optuna.create_study(direction="maximize", pruner=_pruner(optuna, settings))
        for one in known:
            _pruned(trial := study.ask(), _at(shares, one.probes, near))
            study.tell(trial, one.probes[-1][1]) if one.state == DONE else study.tell(
                trial, state=optuna.trial.TrialState.PRUNED
            )
        if not _pruned(study.ask(), scores):
            return None
    rule = "the median of the others" if settings.stop_early == "median" else "the better half"
    return f"held-out accuracy {scores[-1]:.1%} after {shares[-1]:.0%} of its steps is below {rule}"


def _at(shares: Sequence[float], probes: Sequence[Probed], near: float) -> list[float]:
    """Return what a trial scored at each of these shares of its steps, as far as it went, or `near`ly."""
    known, scores = [share for share, _ in probes], [score for _, score in probes]
    within = [share for share in shares if share <= known[-1] + near]
    return [float(score) for score in np.interp(within, known, scores)]


def _pruned(trial: optuna.Trial, scores: Sequence[float]) -> bool:
    """Tell of a trial's scores, and return whether it should end at the last of them."""
    verdict = False
    for probe, score in enumerate(scores, 1):
        trial.report(score, probe)
        verdict = trial.should_prune()
    return verdict


def _pruner(optuna: Any, settings: SweepConfig) -> Any:
    if settings.stop_early == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.whole_first)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)


def _distribution(told: Between | tuple[Any, ...]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415

    if isinstance(told, tuple):  # Optuna takes no lists
        return CategoricalDistribution([json.dumps(one) for one in told])
    whole = isinstance(told.low, int) and isinstance(told.high, int)
    if whole:
        return IntDistribution(int(told.low), int(told.high), log=told.log)
    return FloatDistribution(told.low, told.high, log=told.log)


def _written(value: Any, told: Between | tuple[Any, ...]) -> Any:
    return json.dumps(value) if isinstance(told, tuple) else value


def _read(value: Any, told: Between | tuple[Any, ...]) -> Any:
    """Return a drawn value as a setting takes it."""
    if isinstance(told, tuple):
        return json.loads(value)
    return value if isinstance(value, int) else min(max(float(f"{value:.{DIGITS}g}"), told.low), told.high)


@contextlib.contextmanager
def _optuna() -> Iterator[Any]:
    """Give Optuna, which says nothing meanwhile; how much it says to others stays as it was."""
    import optuna  # noqa: PLC0415 - half a second, for those who sweep

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
