"""Whether parts of a run are whole: what its own counts, fingerprint and form say against what can be read.

Runs of before kept no seals: a file that was cut off, emptied or edited reads like one that never held more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tiebreak.config import names_a_moved_model
from tiebreak.config.loading import read_yaml
from tiebreak.diagnosis.signals import Row, Signals
from tiebreak.errors import RunError, one_line
from tiebreak.fingerprint import fingerprint
from tiebreak.reporting.numbers import is_number
from tiebreak.runs import SCHEMA, Run

_PLACED = ("loss", "heldout/loss", "sampled/repetition")
"""What makes a row of metrics one of a step, a probe or a look: such a row has a step."""


def refuse_other_schema(manifest: Mapping[str, Any]) -> None:
    """Raise RunError where run.json is of a form that this version cannot know; the first ones named none."""
    schema = manifest.get("schema", SCHEMA)
    if type(schema) is not int or not 0 < schema <= SCHEMA:
        raise RunError(
            f"run.json is of schema {schema!r:.20}, and this version knows none but 1 to {SCHEMA}: what it means may "
            "be something else; ask the version that wrote it"
        )


def refuse_other_settings(run: Run, settings: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Raise RunError where config.yaml is not what the run was made with: a setting that is gone would be a default.

    A run of an older version is held against its file alone: since then settings came to be that it does not have.
    """
    told = manifest.get("config_fingerprint")
    if told is None or told in (fingerprint(read_yaml(run.config_file)), fingerprint(settings)):
        return
    if names_a_moved_model(run.config_file, manifest):
        return
    raise RunError(f"{run.config_file.name} is not what the run was made with; put it back as it was")


def rows_of_numbers(rows: Sequence[Row]) -> list[Row]:
    """Return rows of metrics without what was not measured; raises RunError where one holds something else."""
    found: list[Row] = []
    for at, row in enumerate(rows, 1):
        kept = {key: value for key, value in row.items() if value is not None}
        wrong = next((key for key in kept if _is_read(key) and type(kept[key]) not in (int, float)), None)
        if any(key in kept for key in _PLACED) and not is_number(kept.get("step")):
            wrong = "step"
        if wrong:
            raise RunError(f"metrics.jsonl: row {at} has no number as its {wrong!r:.40}")
        found.append(kept)
    return found


def _is_read(key: str) -> bool:
    return key in ("step", "epoch", "loss", "grad_norm") or key.startswith(("heldout/", "sampled/", "rewards/"))


def lacking(signals: Signals, num_pairs: int, measured: Collection[str], data: Row, evaluation: Row) -> dict[str, str]:
    """Return which parts that causes are read from hold less than the run counted, each with what is not there.

    The number of completions on their own is that of data.json, the number of pairs made of them evaluation.json's.
    """
    told = data.get("num_heldout_pairs"), evaluation.get("num_heldout_pairs", data.get("num_heldout_pairs"))
    absent = [key for row in evaluation.get("table") or () if (key := str(row["key"])) not in measured]
    found = {
        "its steps and probes": _steps(signals) if signals.steps else _NOTHING,
        "its held-out pairs": _of(num_pairs, told[0]),
        "its evidence": _of(len(signals.evidence), told[1]),
        "what it measured at the end": _NOTHING if not signals.measures else _named(absent),
    }
    return {what: lack for what, lack in found.items() if lack}


_NOTHING = "the run holds nothing of it"


def _of(num: int, told: Any) -> str:
    """Say that there are fewer than were counted; where nobody counted, that there are none."""
    if not is_number(told):
        return "" if num else _NOTHING
    return "" if num >= told else f"the run holds {num} of {told:.0f} pairs"


def _named(keys: Sequence[str]) -> str:
    return f"the run holds nothing of {one_line(', '.join(keys), 100)}" if keys else ""


def _steps(signals: Signals) -> str:
    taken, last = signals.num_taken, max(int(row["step"]) for row in signals.steps)
    return f"the run holds steps up to {last}, and took {taken}" if taken and last < taken else ""
