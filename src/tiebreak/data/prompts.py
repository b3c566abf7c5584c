"""Which prompts data train on and which they hold out, before there is a tokenizer: no model is asked.

Owns when two data can disagree about a prompt. What a model then leaves out (too long, nothing to score) is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from tiebreak.config import DataConfig
from tiebreak.data.reader import HELDOUT, DataFile, open_data, records
from tiebreak.progress import Progress

_LOOKED_AT = 100
"""Records of a file by which it is told whether its rows state groups."""


@dataclass(frozen=True)
class Prompts:
    """Hashes of prompts on both sides of a split."""

    train: frozenset[str]
    heldout: frozenset[str]


def prompts_of(data: DataConfig, progress: Progress) -> Prompts:
    """Return the prompts of both sides; reads all of the data once, and keeps no text."""
    train: set[str] = set()
    heldout: set[str] = set()
    groups: set[str] = set()
    left = data.max_pairs
    # Held-out files first, as in a run: training pairs of their groups are left out.
    for file in sorted(open_data(data), key=lambda file: file.side != HELDOUT):
        with progress.stage(f"prompts of {file.name}", None) as advance:
            for record in records(file):
                advance(1)
                if file.side != HELDOUT and left is not None:
                    if left <= 0:
                        break
                    left -= len(record.judged)
                for one in record.judged:
                    group = one.origin.group
                    if file.holds_out(one, data.heldout_share):
                        heldout.add(one.prompt_id)
                        groups |= {group} if group is not None and file.side is not None else set()
                    elif group not in groups and file.times(one):
                        train.add(one.prompt_id)
    return Prompts(frozenset(train - heldout), frozenset(heldout))


def may_disagree(earlier: DataConfig, later: DataConfig) -> bool:
    """Whether `later` may hold out what `earlier` trains on.

    Not where the hash of a prompt alone decides, and the later share is not the larger one.
    """
    if earlier == later:
        return False
    files = [*open_data(earlier), *open_data(later)]
    if earlier.heldout_share < later.heldout_share or any(file.side is not None for file in files):
        return True
    return earlier.sources != later.sources and _state_groups(files)


def _state_groups(files: Iterable[DataFile]) -> bool:
    first = (record for file in files for record in islice(records(file), _LOOKED_AT))
    return any(one.origin.group is not None for record in first for one in record.judged)
