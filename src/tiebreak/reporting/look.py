"""How every page looks.

Owns the colours in a light and a dark scheme, which plots and style sheet share. What all pages have in common stands
in page.html.j2 and page.css beside the templates that extend it; what may run in a page is known to `scripts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jinja2

from tiebreak.reporting.scripts import Block, Library, Script, policy

COLOURS = {
    # what is written, and on what
    "ink": ("#1f2933", "#e4e7eb"),
    "muted": ("#5a6875", "#9fabb7"),
    "blue": ("#2251a3", "#8ab4f8"),
    "green": ("#126048", "#5fd3ac"),
    "red": ("#b3261e", "#ff9a8f"),
    "amber": ("#7d5000", "#f2c265"),
    "page": ("#ffffff", "#12181f"),
    "soft": ("#f5f7fa", "#1b242d"),
    "yes": ("#dff3ec", "#123a2f"),
    "no": ("#fbe9e7", "#4a1f1b"),
    "unknown": ("#fdf1d8", "#42340f"),
    "plain": ("#e9edf1", "#2a3540"),
    # what is drawn
    "line": ("#e4e7eb", "#323f4b"),
    "track": ("#808d9a", "#77838f"),
    "train": ("#6f8bab", "#7f99b5"),
    "chosen": ("#17805f", "#3fbf94"),
    "rejected": ("#c2500a", "#ff8f4d"),
}
"""Each colour in the light scheme and in the dark one; the style sheet calls it var(--NAME)."""


def page_environment(
    finalize: Callable[[Any], Any],
    scripts: Sequence[Script] = (),
    blocks: Sequence[Block] = (),
    library: Library | None = None,
) -> jinja2.Environment:
    """Return the environment of a page's template; `finalize` makes what it prints visible before it is escaped.

    `scripts` run in it, in their order; they read `blocks`, and unpack the `library`. A page without them runs nothing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tiebreak.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    digests = [*(script.digest for script in scripts), *([library.digest] if library else [])]
    environment.globals |= {
        "colours": COLOURS,
        "policy": policy(digests),
        "scripts": scripts,
        "blocks": [*blocks, *([library.block] if library else [])],
    }
    return environment
