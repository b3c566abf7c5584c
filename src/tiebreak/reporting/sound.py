"""Files of a run that are not as a run writes them: one line instead of a stack trace.

Owns what counts as such. A run folder may be cut off, edited by hand, or come from somebody else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jinja2

from tiebreak.errors import RunError, TiebreakError, one_line

# What reading a JSON value of another shape, type or size than expected can raise.
_MISFITS = (
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    AttributeError,
    RecursionError,
    MemoryError,
    jinja2.TemplateError,
)


@contextlib.contextmanager
def as_a_run_writes(where: object) -> Iterator[None]:
    """Turn what goes wrong with the content of a run's files into a RunError that names the run."""
    try:
        yield
    except TiebreakError:
        raise
    except _MISFITS as error:
        cause = f"{type(error).__name__}: {one_line(error, 120)}"
        raise RunError(
            f"{where}: its files are not as a run writes them ({cause}); 'tiebreak evaluate' makes evaluation and "
            "report anew, 'tiebreak train' all of it"
        ) from None
