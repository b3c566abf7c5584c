"""What may run in a page: scripts that stand beside its template, each named by its digest, and nothing else.

Owns the content security policy, how data reaches a script, and how the drawing library travels in the page. No page
asks the network for anything, and none needs a script to be read.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Script:
    """A script of ours, as it stands in the page."""

    text: Markup
    digest: str


@dataclass(frozen=True)
class Block:
    """What a script reads and no browser runs."""

    id: str
    kind: str
    text: Markup


@dataclass(frozen=True)
class Library:
    """A library that travels packed: `digest` is of what a script unpacks, which runs by that alone."""

    block: Block
    digest: str


def own_script(name: str) -> Script:
    """Return a file of templates/ as a script."""
    text = resources.files("tiebreak.reporting").joinpath("templates", name).read_text(encoding="utf-8")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{name}: would end before its end")
    return Script(Markup(text), digest_of(text.encode()))  # noqa: S704 - it stands in the package


@functools.cache
def drawing_library() -> Library:
    """Return plotly.js, which draws curves with hover and zoom."""
    source = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    packed = base64.b64encode(gzip.compress(source, 9, mtime=0)).decode()
    block = Block("plotly", "application/gzip+base64", Markup(packed))  # noqa: S704 - letters and digits
    return Library(block, digest_of(source))


def data_block(name: str, value: Any) -> Block:
    """Return a value as JSON in which nothing can end its element, whatever texts it holds."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # beyond ASCII all is escaped, U+2028 too
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Block(name, "application/json", Markup(text))  # noqa: S704 - no mark is left that HTML reads


def policy(digests: Sequence[str] = ()) -> str:
    """Return the content security policy of a page on which these scripts run."""
    named = " ".join(f"'{digest}'" for digest in digests)
    scripts = [f"script-src {named}"] if digests else []
    return "; ".join(
        ["default-src 'none'", *scripts, "style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'"]
    )


def digest_of(source: bytes) -> str:
    """Return a digest as a content security policy spells it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(source).digest()).decode()}"
