"""A document on standard output, such as a configuration: what is piped into a file is what is meant.

Owns that it is UTF-8 and unchanged wherever it goes but a terminal, save for what its comments could do to one later.
"""

from __future__ import annotations

import re
import sys

from tiebreak.reporting.console import printable

_COMMENT = re.compile(r"^ *#.*$", re.MULTILINE)


def print_document(text: str) -> None:
    """Print a text that a file is made of: as it is and in UTF-8, cleaned where it goes to a terminal, and comments."""
    line = _COMMENT.sub(lambda found: printable(found[0]), text.rstrip("\n") + "\n")
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None or sys.stdout.isatty():
        sys.stdout.write(printable(line) if sys.stdout.isatty() else line)
        return
    sys.stdout.flush()
    buffer.write(line.encode("utf-8", "backslashreplace"))
    buffer.flush()
