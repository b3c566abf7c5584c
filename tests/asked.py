"""Questions that are asked about files, as tests answer them."""

from __future__ import annotations

import re
import shlex


def answers(question: object) -> list[dict[str, str]]:
    """Return each mapping that a message prints to be pasted."""
    found = re.findall(r"-c (?:'[^']*'|[^\s;,)]+)(?: -c (?:'[^']*'|[^\s;,)]+))*", str(question))
    return [dict(word.split("=", 1) for word in shlex.split(options)[1::2]) for options in found]
