"""The verb gate: decide again on what a run measured, and say beforehand how much evidence a gain needs.

Owns which settings may be changed for that, and what of a run is written anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak import files
from tiebreak.config import in_quotes, load_config, quoted
from tiebreak.errors import ConfigError, RunError
from tiebreak.evaluation.gate import Decision, decide
from tiebreak.evaluation.rows import Row
from tiebreak.maths.power import items_for_change, pairs_for_win_rate
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run, as_a_run_writes

GAINS, POWERS, DISCORDANT = (0.01, 0.02, 0.05, 0.1), (0.8, 0.9), 0.1


def gate(run: Run, overrides: Sequence[str] | Mapping[str, Any] = (), *, record: bool = False) -> Decision:
    """Hold what a run measured against the rules of its configuration, with `overrides` on top; no model is loaded.

    With `record`, the decision becomes the run's: evaluation.json, run.json and the report are written anew. Raises
    ConfigError for a setting of another section, RunError where the run holds no measures.
    """
    for key in overrides if isinstance(overrides, Mapping) else [text.partition("=")[0] for text in overrides]:
        if not key.strip().startswith("gate."):
            raise ConfigError(
                f"--set {key}: only settings of the gate are read here, like gate.rules.repetition.margin"
            )
        if record and not key.strip().startswith("gate.overrides."):
            raise ConfigError(
                f"--set {key} --record: a run keeps its own rules; write others into {run.config_file}, or override a "
                "rule by its name with a reason, like gate.overrides.repetition=…"
            )
    config = load_config(run.config_file, overrides)
    # What is recorded is decided on what nobody changes meanwhile.
    with files.locked(run.path) if record else contextlib.nullcontext():
        stored = files.read_jsonl(run.measures_file)
        if not stored:
            evaluate = in_quotes(f"tiebreak evaluate {quoted(str(run.path))}")
            raise RunError(f"{run.path}: holds no {run.measures_file.name}; {evaluate} makes it")
        with as_a_run_writes(run.path):
            rows = {row.key: row for row in map(Row.from_dict, stored)}
            told = [str(fact) for fact in run.evaluation.get("told", ())]
            decision = decide(rows, config.gate, told, seed=config.training.seed)
        if record:
            write_down(run, decision)
    return decision


def write_down(run: Run, decision: Decision) -> None:
    """Make a decision the run's own; its lock is held."""
    files.write_json(run.evaluation_file, run.evaluation | decision.as_dict())
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
