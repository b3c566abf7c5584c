"""What a process of the command line is set to before a library is loaded; what the user has set stands.

Owns that no bar or advice of a library comes between our own lines.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path

from tiebreak.training.waiting import wait_asleep

_SILENCE = {
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "RUST_BACKTRACE": "0",
}


def prepare(environment: MutableMapping[str, str]) -> None:
    """Set the environment that libraries read once, when they are loaded, and those of processes started from here."""
    wait_asleep(environment)
    for name, value in _SILENCE.items():
        environment.setdefault(name, value)
    if not sys.warnoptions:  # python -W shows them
        warnings.simplefilter("ignore")


def keep_results_apart() -> None:
    """Let standard output be the one document: what a program that is started, or code in C, writes there is prose.

    What Python code of others prints is sent aside where it is called (`progress.aside`).
    """
    own, prose = sys.stdout, sys.stderr
    if own is not sys.__stdout__ or own is None or prose is None:  # who calls this has an output of their own, or none
        return
    with contextlib.suppress(OSError):  # one of them is closed
        document = os.dup(own.fileno())
        os.dup2(prose.fileno(), own.fileno())
        sys.stdout = os.fdopen(document, "w", encoding=own.encoding, errors=own.errors)


def prepare_to_compute(*, quiet: bool = False) -> None:
    """Say what takes the next seconds, and keep the memory that tensors free in the process."""
    from tiebreak.engine.allocation import keep_freed_memory
    from tiebreak.progress import LOADING
    from tiebreak.reporting.console import Console

    if not quiet:
        Console().say(LOADING)
    Path.cwd()  # in a folder that is gone MKL ends the process in words of its own
    keep_freed_memory()
