"""The name of a loop's ledger, and which of its runs stands for the loop.

Owns both: whoever takes a run takes a loop of rounds, too, and means its best round.
"""

from __future__ import annotations

from pathlib import Path

from tiebreak.errors import RunError
from tiebreak.files import read_json_object

LEDGER = "rounds.json"


def best_run(path: Path) -> Path:
    """Return the run of a loop's best round; of what is no loop, the path itself.

    Raises RunError where no round is measured yet, or the ledger names none of its own folder.
    """
    ledger = path / LEDGER
    if not ledger.is_file():
        return path
    told = read_json_object(ledger)
    best, rounds = told.get("best"), told.get("rounds")
    found = best.get("run") if isinstance(best, dict) else None
    if found is None:
        raise RunError(f"{path}: no round of this loop is measured yet; name the run of one, as {path}/round-01/train")
    known = [one.get("train") for one in rounds if isinstance(one, dict)] if isinstance(rounds, list) else []
    if not isinstance(found, str) or found not in known or Path(found).parts[-1:] != ("train",) or ".." in found:
        raise RunError(f"{ledger}: names a best round that is none of its own; bring it back from a copy")
    return path / found
