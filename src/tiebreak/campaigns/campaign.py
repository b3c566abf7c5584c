"""Runs that were planned, one after the other; what is done stays done.

Owns that order and nothing else: each is what the verb train makes of its configuration, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from tiebreak.config import Config
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.training.company import Company
from tiebreak.training.resumption import Resume
from tiebreak.verbs import train


@dataclass(frozen=True)
class Planned:
    """A run that is to be made."""

    name: str
    config: Config


def carry_out(
    planned: Iterable[Planned],
    progress: Progress,
    *,
    resume: Resume = "auto",
    accept: Collection[str] = (),
    company: Company | None = None,
) -> Iterator[tuple[Planned, Run]]:
    """Make each run, or find it made, and yield it; the next one may be planned by what the last one is.

    `company` is what they share with each other.
    """
    for one in planned:
        progress.say(f"{one.name}: {one.config.output.dir}")
        yield one, train.train(one.config, progress, resume=resume, accept=accept, company=company)
