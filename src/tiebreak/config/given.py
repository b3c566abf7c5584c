"""What callers of the library may give in place of settings: names, files, or the settings themselves.

Owns these readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiebreak.config.data import DataConfig
from tiebreak.config.loading import build_config, load_config
from tiebreak.config.settings import Config, ModelConfig

BUNDLED_SETTINGS = Path(__file__).parents[1] / "bundled" / "quickstart.yaml"


def settings(config: Config | str | Path | None, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
    """Return settings with overrides; a file's, the bundled quickstart's where there is none, or a Config as it is."""
    if not isinstance(config, Config):
        return load_config(BUNDLED_SETTINGS if config is None else config, overrides)
    if overrides:
        raise TypeError("overrides go with a YAML file; give a changed Config instead")
    return config


def model(model: str | ModelConfig | None) -> ModelConfig | None:
    """Return the settings of a model, given by its name or as they are."""
    return build_config({"model": {"name": model}}).model if isinstance(model, str) else model


def data(data: DataConfig | str | Path | Sequence[str | Path]) -> DataConfig:
    """Return the settings of data, given by files or as they are."""
    if isinstance(data, DataConfig):
        return data
    named = [str(path) for path in ([data] if isinstance(data, str | Path) else data)]
    return build_config({"data": {"train": named[0] if len(named) == 1 else named}}).data
