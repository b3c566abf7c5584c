"""Whether a launcher started several processes, and what this one of them has to do.

Owns that a run of one process loads nothing for it, and which commands are for one process alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, MutableMapping

from tiebreak.config import DistributedConfig
from tiebreak.errors import ConfigError
from tiebreak.training.company import Company


def num_launched(environment: MutableMapping[str, str] = os.environ) -> int:
    """Return how many processes a launcher (torchrun, accelerate launch, …) started for one job."""
    return int(environment.get("WORLD_SIZE", "1"))


def leads(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Say whether this process is the one that decides, writes and speaks."""
    return num_launched(environment) == 1 or environment.get("RANK", "0") == "0"


@contextlib.contextmanager
def launched(settings: DistributedConfig) -> Iterator[Company | None]:
    """Yield the company in which to train; None in a process that took part already, in all that there was to do.

    Raises ConfigError where there are several processes and the settings want one.
    """
    num = num_launched()
    if num == 1:
        yield Company()
        return
    if settings.strategy == "single":
        raise ConfigError(
            f"distributed.strategy single: the launcher started {num} processes; start one, or set it to auto"
        )
    from tiebreak.engine.together import joined  # noqa: PLC0415 - torch: a run of one process reads its pairs first

    with joined(settings.timeout_seconds) as ranks:
        yield Company(ranks=ranks) if ranks.writes else None


def refuse_several(command: str) -> None:
    """Raise ConfigError where a launcher started several processes for a command that is for one."""
    if (num := num_launched()) > 1:
        raise ConfigError(
            f"{command}: the launcher started {num} processes, and only tiebreak train is for several; start one "
            "process, or let a scheduler run its parts"
        )
