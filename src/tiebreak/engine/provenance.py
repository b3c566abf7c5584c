"""What a base model says of itself to whoever passes on what was made of it: its name on a hub, and its licence.

Owns where that is looked for. What nothing says is not known: neither is guessed from a folder's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiebreak.config.yaml_text import parse_yaml
from tiebreak.engine.bundled import bundled_from
from tiebreak.engine.sources import Source, fetched
from tiebreak.errors import ConfigError

MAX_BYTES = 2**18
"""Of a model card that is read."""
_NAME, _LINK = re.compile(r"[\w.+-]{1,96}"), re.compile(r"https?://[^\s<>\"]{1,300}")
_TERMS = {"license": _NAME, "license_name": _NAME, "license_link": _LINK}


@dataclass(frozen=True)
class Provenance:
    """What is known of a base model."""

    hub_id: str | None = None
    terms: dict[str, str | list[str]] = field(default_factory=dict)
    """`license`, `license_name` and `license_link` as model hubs spell them; only those that are stated."""


def provenance(source: Source) -> Provenance:
    """Return what the base model of some weights says of itself: as bundled, in its folder's card, or on its hub."""
    folder = Path(source.base)
    if bundled := bundled_from(folder):
        return Provenance(bundled.hub_id, {"license": bundled.license} if bundled.license else {})
    if folder.is_dir():
        return Provenance(None, _terms(folder / "README.md"))
    return Provenance(source.base, _terms(fetched(source.base, "README.md", source.revision)))


def _terms(card: Path | None) -> dict[str, str | list[str]]:
    said = _front_matter(card) if card and card.is_file() else {}
    found: dict[str, str | list[str]] = {}
    for key, form in _TERMS.items():
        values = said.get(key) if isinstance(said.get(key), list) else [said.get(key)]
        if values and all(isinstance(value, str) and form.fullmatch(value) for value in values):
            found[key] = said[key]
    return found


def _front_matter(card: Path) -> dict[Any, Any]:
    """Return what stands between the first two lines of three dashes; nothing where that cannot be read."""
    try:
        with card.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8-sig", "replace")
        block = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", text, re.DOTALL)
        said = parse_yaml(block[1], str(card)) if block else {}
    except (OSError, ConfigError):
        return {}
    return said if isinstance(said, dict) else {}
