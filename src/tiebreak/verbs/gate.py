"""The verb gate: decide again on what a run measured, and say beforehand how much evidence a gain needs.

Owns which settings may be changed for that, and what of a run is written anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiebreak import files, folders
from tiebreak.config import GateConfig, in_quotes, load_config, quoted
from tiebreak.errors import ConfigError, RunError, one_line
from tiebreak.evaluation.gate import Decision, decide, not_heard
from tiebreak.evaluation.rows import Row
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.power import items_for_change, pairs_for_win_rate
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.resumption import governing

GAINS, POWERS, DISCORDANT = (0.01, 0.02, 0.05, 0.1), (0.8, 0.9), 0.1


def gate(
    run: Run,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    record: bool = False,
    accept: Collection[str] = (),
) -> Decision:
    """Hold what a run measured against the rules of its configuration, with `overrides` on top; no model is loaded.

    Overrides of rules that were recorded before count, until `gate.overrides` is set as a whole: {} drops them. With
    `record`, the decision becomes the run's: evaluation.json, run.json and the report are written anew. With it,
    `accept` may name config: rules that were changed in the run's config.yaml are its own from then on. Raises
    ConfigError for a setting of another section, RunError where the run holds no measures, or a file that is read is
    not what was written.
    """
    if {*accept} - {"config"} or (accept and not record):
        raise ConfigError("gate --accept: wanted config, with --record: rules changed in config.yaml become the run's")
    named = overrides if isinstance(overrides, Mapping) else [text.partition("=")[0] for text in overrides]
    keys = [key.strip() for key in named]
    _require_known(keys, run if record else None)
    # What is recorded is decided on what nobody changes meanwhile.
    with folders.locked(run.path) if record else contextlib.nullcontext():
        if record:
            run.verify(*run.given_files, *run.measured_files)  # the report reads them when it is too late
        if accept:
            _accept_rules(run)
        config = run.config_with(overrides)
        stored = run.rows(run.measures_file)
        if not stored:
            evaluate = in_quotes(f"tiebreak evaluate {quoted(str(run.path))}")
            raise RunError(f"{run.path}: holds no {run.measures_file.name}; {evaluate} makes it")
        settings, dropped = _with_recorded(run, config.gate, keys, record=record)
        with as_a_run_writes(run.path):
            rows = {row.key: row for row in map(Row.from_dict, stored)}
            told = [str(fact) for fact in run.evaluation.get("told", ())]
            unheard = not_heard(run.evaluation.get("judge"))
            decision = decide(rows, settings, told, unheard=unheard, seed=config.training.seed)
        if dropped:
            said = ", ".join(f"{rule} ({reason})" for rule, reason in dropped.items())
            decision = replace(decision, reason=one_line(f"{decision.reason}; no longer overridden: {said}"))
        if record:
            write_down(run, decision)
    return decision


_ALL_OVERRIDES = "gate.overrides"


def _require_known(keys: Collection[str], recorded: Run | None) -> None:
    """Raise ConfigError for a setting that is not the gate's, or one that is no override where it is `recorded`."""
    for key in keys:
        if not key.startswith("gate."):
            raise ConfigError(
                f"--set {key}: only settings of the gate are read here, like gate.rules.repetition.margin"
            )
        if recorded and key != _ALL_OVERRIDES and not key.startswith(f"{_ALL_OVERRIDES}."):
            raise ConfigError(
                f"--set {key} --record: a run keeps its own rules; write others into {recorded.config_file} and let "
                "--record --accept config decide by them, or override a rule by its name with a reason, like "
                "gate.overrides.repetition=…"
            )


def _with_recorded(
    run: Run, gate: GateConfig, keys: Collection[str], *, record: bool
) -> tuple[GateConfig, dict[str, str]]:
    """Return the settings with the overrides that were recorded before, and those of them that are dropped here.

    Raises ConfigError where one of the configuration would be dropped for good, and come back unasked.
    """
    own, recorded = run.config.gate.overrides, recorded_overrides(run, gate)
    if _ALL_OVERRIDES not in keys:
        given = {key.removeprefix(f"{_ALL_OVERRIDES}.") for key in keys}
        now = own | recorded | {rule: reason for rule, reason in gate.overrides.items() if rule in given}
        return gate.model_copy(update={"overrides": now}), {}
    if record and (kept := [rule for rule in own if rule not in gate.overrides]):
        raise ConfigError(
            f"--set {_ALL_OVERRIDES} --record: {', '.join(kept)} stands in {run.config_file}; take it out there, and "
            "let --record --accept config decide without it"
        )
    return gate, {rule: reason for rule, reason in (own | recorded).items() if rule not in gate.overrides}


def recorded_overrides(run: Run, gate: GateConfig) -> dict[str, str]:
    """Return the overrides that were recorded for a run beside its configuration, of rules that are still there."""
    with as_a_run_writes(run.path):
        evaluation = run.evaluation
        told = dict(evaluation.get("recorded_overrides", evaluation.get("overridden", {})))
        found = {rule: one_line(reason) for rule, reason in told.items() if gate.rules.get(rule) is not None}
    return {rule: reason for rule, reason in found.items() if gate.overrides.get(rule) != reason}


def _accept_rules(run: Run) -> None:
    """Make config.yaml as it is now the run's own; raises RunError where more than rules of the gate was changed."""
    config, content = load_config(run.config_file), run.config_file.read_bytes()
    with as_a_run_writes(run.path):
        before = dict(run.manifest.get("identity", {})).get("config")
    if before != fingerprint(governing(config)):
        raise RunError(f"{run.config_file}: settings that weights depend on were changed, too; put those back")
    run.keep({run.config_file: content})
    run.update_manifest(config_fingerprint=fingerprint(config.model_dump(mode="json")), model_name=config.model.name)


def write_down(run: Run, decision: Decision) -> None:
    """Make a decision the run's own; its lock is held."""
    own = run.config.gate.overrides
    recorded = {rule: reason for rule, reason in decision.overridden.items() if own.get(rule) != reason}
    told = run.evaluation | decision.as_dict() | {"recorded_overrides": recorded}
    run.keep({run.evaluation_file: files.as_json(told)})
    run.update_manifest(verdict=decision.verdict, overridden=dict(decision.overridden))
    write_report(run)


def pairs_needed() -> list[dict[str, Any]]:
    """Return how many judged pairs show a gain of win rate, and how many questions a change of a task, by power.

    Two-sided at 5 %. Pairs are without ties, which make fewer do: `num_pairs` where a rule decides, `num_pairs_judge`
    where a judge does, whose win rate has to hold at equal length, too. Of questions one in ten changes sides.
    """
    return [
        {
            "gain": gain,
            "power": power,
            "num_pairs": pairs_for_win_rate(gain, power),
            "num_pairs_judge": pairs_for_win_rate(gain, power, twice=True),
            "num_questions": items_for_change(gain, DISCORDANT, power),
        }
        for gain in GAINS
        for power in POWERS
    ]
