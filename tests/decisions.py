"""Runs whose verdict is known, because their measures are written here."""

from __future__ import annotations

import tiebreak
from tiebreak.evaluation.rows import Row
from tiebreak.files import as_json, as_jsonl
from tiebreak.runs import Run

NUM = 100
"""Prompts."""


def measured(key: str, after: float | list[float], before: float = 0.5) -> Row:
    """A measure of every prompt."""
    values = after if isinstance(after, list) else [after] * NUM
    return Row.of(key, [f"prompt{index}" for index in range(NUM)], [before] * NUM, values)


def rows_of(won: int) -> dict[str, Row]:
    """What the gate reads of a run that breaks no guard, and whose answers to so many prompts got better."""
    return {
        "accuracy": measured("accuracy", 1.0),
        "margin": measured("margin", 0.8, 0.0),
        "logratio_gap": measured("logratio_gap", 8.0, 0.0),
        "answers/preferred": measured("answers/preferred", [1.0] * won + [0.0] * (NUM - won)),
        "answers/length": measured("answers/length", 50.0, 50.0),
        "answers/unfinished": measured("answers/unfinished", 0.0, 0.0),
        "answers/repetition": measured("answers/repetition", 0.1, 0.1),
        "answers/unchanged": measured("answers/unchanged", 0.0, 1.0),
        "chosen_logps": measured("chosen_logps", -2.0, -2.0),
    }


def decided(run: Run, won: int = NUM, **changed) -> Run:
    """Give a run measures that are written here, and the verdict that follows from them."""
    rows = rows_of(won) | {key: measured(key, *said) for key, said in changed.items()}
    run.keep({run.measures_file: as_jsonl(one.as_dict() for one in rows.values())})
    decision = tiebreak.gate(run)
    # As gate --record does, but for the page with its plots.
    run.keep({run.evaluation_file: as_json(run.evaluation | decision.as_dict())})
    run.update_manifest(verdict=decision.verdict, overridden=dict(decision.overridden))
    return run
