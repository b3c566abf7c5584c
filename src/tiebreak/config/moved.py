"""A file of settings that says where the models of a run are now.

Owns what may be written there after the run: folders, whose weights are proven by their content.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiebreak.config.loading import load_config
from tiebreak.errors import ConfigError
from tiebreak.fingerprint import fingerprint


def names_a_moved_model(file: Path, told: Mapping[str, Any]) -> bool:
    """Say whether settings differ from what a manifest told by folders of models alone, whose weights are proven."""
    try:
        config = load_config(file)
    except ConfigError:
        return False
    was = {"name": told.get("model_name"), "base": told.get("model_base")}
    moved = {str(getattr(config.model, key)) for key in was if getattr(config.model, key) != was[key]}
    named = told.get("reference_model") or {}
    against = {"model": named.get("name"), "base": named.get("told_base")}
    moved |= {str(getattr(config.reference, key)) for key in against if getattr(config.reference, key) != against[key]}
    if not moved or not all(Path(place).is_dir() for place in moved):
        return False
    reference = config.reference.model_copy(update=against)
    before = config.model_copy(update={"model": config.model.model_copy(update=was), "reference": reference})
    return fingerprint(before.model_dump(mode="json")) == told.get("config_fingerprint")
