"""Settings as YAML: those of a run, and all of them with what they mean.

Owns what `tiebreak config` prints.
"""

from __future__ import annotations

from tiebreak.config.losses.loss import MODIFIERS
from tiebreak.config.section import sections_of
from tiebreak.config.settings import Config
from tiebreak.config.yaml_text import write_yaml


def dump_config(config: Config) -> str:
    """Return the settings as YAML that `load_config` reads back to the same value."""
    return write_yaml(config.model_dump(mode="json"))


def describe_config() -> str:
    """Return a complete, commented YAML file of all defaults."""
    lines: list[str] = []
    for section, field in Config.model_fields.items():
        if field.default is None:
            lines.append(f"{section}: null  # {field.description}")
            continue
        nested = sections_of(field.annotation)[0]  # of a union, the one that is the default
        lines.append(f"{section}:  # {(nested.__doc__ or '').strip()}")
        for name, leaf in sorted(nested.model_fields.items(), key=lambda one: one[0] in MODIFIERS):
            default = list(leaf.default) if isinstance(leaf.default, tuple) else leaf.default
            if isinstance(default, dict) and default:  # a table: a line for each of its rows
                rows = {key: row.model_dump(mode="json") for key, row in default.items()}
                lines.append(f"  {name}:  # {leaf.description}")
                lines += [f"    {key}: {write_yaml(row, inline=True)}" for key, row in rows.items()]
                continue
            lines.append(f"  {name}: {write_yaml(default, inline=True)}  # {leaf.description}")
    return "\n".join(lines) + "\n"
