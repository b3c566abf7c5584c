"""Runs whose verdict is known, because their measures are written here."""

from __future__ import annotations

import tiebreak
from tiebreak.evaluation.rows import Row
from tiebreak.files import as_json, as_jsonl
from tiebreak.runs import Run

NUM = 100
"""Prompts."""


def decided(run: Run, won: int = NUM, **changed) -> Run:
    """Give a run measures that are written here, and the verdict that follows from them."""

    def row(key, after, before=0.5):
        values = after if isinstance(after, list) else [after] * NUM
        return Row.of(key, [f"prompt{index}" for index in range(NUM)], [before] * NUM, values)

    rows = {
        "accuracy": row("accuracy", 1.0),
        "margin": row("margin", 0.8, 0.0),
        "answers/preferred": row("answers/preferred", [1.0] * won + [0.0] * (NUM - won)),
        "answers/length": row("answers/length", 50.0, 50.0),
        "answers/unfinished": row("answers/unfinished", 0.0, 0.0),
        "answers/repetition": row("answers/repetition", 0.1, 0.1),
        "answers/unchanged": row("answers/unchanged", 0.0, 1.0),
        "chosen_logps": row("chosen_logps", -2.0, -2.0),
    } | {key: row(key, *said) for key, said in changed.items()}
    run.keep({run.measures_file: as_jsonl(one.as_dict() for one in rows.values())})
    decision = tiebreak.gate(run)
    # As gate --record does, but for the page with its plots.
    run.keep({run.evaluation_file: as_json(run.evaluation | decision.as_dict())})
    run.update_manifest(verdict=decision.verdict, overridden=dict(decision.overridden))
    return run
