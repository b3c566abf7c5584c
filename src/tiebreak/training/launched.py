"""Whether a launcher started several processes, and what this one of them has to do.

Owns that a run of one process loads nothing for it, and which commands are for one process alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, MutableMapping

from tiebreak.config import DistributedConfig
from tiebreak.errors import ConfigError
from tiebreak.runs import Run
from tiebreak.training.company import Company
from tiebreak.training.preemption import STOP_SIGNALS


def num_launched(environment: MutableMapping[str, str] = os.environ) -> int:
    """Return how many processes a launcher (torchrun, accelerate launch, …) started for one job.

    Raises ConfigError where what a launcher sets is not there, or is no number.
    """
    size = environment.get("WORLD_SIZE") or "1"
    if size == "1":
        return 1
    for name in ("WORLD_SIZE", "RANK"):
        if not (told := environment.get(name) or "").isdecimal():
            raise ConfigError(
                f"environment: WORLD_SIZE is {size} and {name} is {told or None}: wanted numbers, as torchrun or "
                "another launcher sets them; unset them to start one process"
            )
    return int(size)


def leads(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Say whether this process is the one that decides, writes and speaks."""
    return environment.get("WORLD_SIZE", "1") == "1" or environment.get("RANK", "0") == "0"


def is_beside_the_first(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Say whether this process does not lead, and the one that does is on the same machine, or nearer to it."""
    at = environment.get("RANK", "0"), environment.get("LOCAL_RANK", "0")
    return not leads(environment) and (at[0] == at[1] or at[1] != "0")


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

    with joined(settings.timeout_seconds, STOP_SIGNALS) as ranks:
        yield Company(ranks=ranks) if ranks.writes else None


def in_company(settings: DistributedConfig, folder: str, work: Callable[[Company], Run]) -> Run:
    """Return the run that some work makes in a folder, here or, where this process takes part alone, in the first one.

    Raises ConfigError as `launched` does.
    """
    with launched(settings) as company:
        return Run(folder) if company is None else work(company)


def refuse_several(command: str) -> None:
    """Raise ConfigError where a launcher started several processes for a command that is for one."""
    if (num := num_launched()) > 1:
        raise ConfigError(
            f"{command}: the launcher started {num} processes, and only training one run is for several; start one "
            "process, or let a scheduler run its parts"
        )
