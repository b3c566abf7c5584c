"""Every error that tiebreak raises on purpose, and the exit code of each.

    TiebreakError
    ├── ConfigError      a setting is unknown, of the wrong type or out of range        exit 2
    ├── DataError        a file of pairs cannot be used                                 exit 2
    │   └── RenderError  a pair cannot be turned into tokens                            exit 2
    ├── ModelError       a model, tokenizer or adapter cannot be used                   exit 2
    ├── RunError         a run folder is missing, unfinished or of another run          exit 2
    │   └── InUse        another process has the folder                                 exit 2
    ├── TrainingError    training stopped before it could do harm                       exit 1
    │   └── Diverged     the weights are broken: other settings are needed              exit 1
    │       └── NotFinite    a loss or gradient is NaN or infinite                      exit 1
    ├── JudgeError       a judge stopped before all was judged; what it said is kept    exit 1
    │   └── CapReached   the next request could go beyond a cap                         exit 1
    ├── Waiting          people have votes to give; the same command goes on then       exit 75
    ├── ExportError      the written artefact differs from the trained model            exit 1
    ├── RegistryError    a registry of promoted models is missing, damaged or in use    exit 2
    └── NotPassing       a run may not be promoted: it fails, or it is not known        exit 3, 4

Preempted (exit 75) stands beside the tree: a signal asked the run to end. Nor is a verdict an error: `tiebreak gate`
exits with 3 where a run fails, and with 4 where it is not known.
A message is one line: where, what was found, what was wanted, what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_FAILED = 3
EXIT_INCONCLUSIVE = 4
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141


class TiebreakError(Exception):
    """Base of every error raised on purpose; `str(error)` is one line for the user."""

    exit_code = EXIT_FAILURE


class Preempted(BaseException):
    """The run was asked to end by a signal, and has saved what it had; no error, so no handler of errors takes it."""

    exit_code = EXIT_PREEMPTED

    def __init__(self, asked_by: str) -> None:
        super().__init__(f"stopped by {asked_by}; run the same command again to resume")


class ConfigError(TiebreakError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = EXIT_USAGE


class DataError(TiebreakError):
    """A file of preference pairs cannot be read or used."""

    exit_code = EXIT_USAGE


class RenderError(DataError):
    """One pair cannot be turned into tokens; `reason` is the short code that reports count."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[RenderError], tuple[str, str]]:
        return RenderError, (self.reason, str(self))


class ModelError(TiebreakError):
    """A model, tokenizer or adapter cannot be loaded or used."""

    exit_code = EXIT_USAGE


class RunError(TiebreakError):
    """A run folder is missing, unfinished or belongs to another configuration."""

    exit_code = EXIT_USAGE


class InUse(RunError):  # noqa: N818 - named for what was found
    """Another process has the folder; once that one has ended, the same command goes on."""


class TrainingError(TiebreakError):
    """Training was stopped before the weights could take harm."""


class Diverged(TrainingError):  # noqa: N818 - named for what was found
    """What the weights say is NaN or infinite: the same settings come to the same end, whatever the machine."""


class NotFinite(Diverged):
    """A loss or a gradient is NaN or infinite; the optimizer has not moved."""


class JudgeError(TiebreakError):
    """A judge stopped before all was judged: a cap is reached, nobody answers; what it said is kept."""


class CapReached(JudgeError):  # noqa: N818 - named for what was found
    """The next request could go beyond a cap of calls or cost, and was not sent."""


class Waiting(TiebreakError):  # noqa: N818 - named for what is done
    """People have votes to give; once they are there, the same command goes on."""

    exit_code = EXIT_PREEMPTED


class ExportError(TiebreakError):
    """The written artefact does not reproduce the trained model."""


class RegistryError(TiebreakError):
    """A registry of promoted models is missing, or is not as promotions left it."""

    exit_code = EXIT_USAGE


class NotPassing(TiebreakError):  # noqa: N818 - named for what was found
    """A run may not be promoted: its verdict is no pass; the exit code is that of the verdict."""

    def __init__(self, message: str, *, failed: bool) -> None:
        super().__init__(message)
        self.exit_code = EXIT_FAILED if failed else EXIT_INCONCLUSIVE


def require_name(given: object, what: str) -> None:
    """Raise ConfigError where the name of a file or folder is empty: libraries take it for the current folder."""
    if not str(given).strip():
        raise ConfigError(f"{what} has no name, but an empty one; the current folder is called .")


def one_line(message: object, limit: int | None = None) -> str:
    """Return a message without line breaks, cut to `limit` characters."""
    return " ".join(str(message).split())[:limit]


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return ' Did you mean …?' for the candidate closest to `word`, or '' where none is close."""
    found = difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.5)
    return f" Did you mean '{found[0]}'?" if found else ""
