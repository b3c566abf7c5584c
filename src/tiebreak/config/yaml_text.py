"""YAML in and out: safe, with the numbers of YAML 1.2, no key twice, and texts that come back as they were.

Owns the dialect. Knows nothing of settings.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from tiebreak.errors import ConfigError, one_line

_MOST_KEYS = 10_000


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raises ConfigError that begins with `where`."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader subclass
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last two for dates like 2001-99-99
        raise ConfigError(f"{where}: not valid YAML ({one_line(error)})") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML (nested too deeply)") from None


def line_of(text: str, path: Sequence[str | int]) -> int:
    """Return the line, from 1, on which a value of a YAML text stands that `parse_yaml` takes.

    `path` is of keys and places; where it leads nowhere, the line of the last that is there.
    """
    return int(_node(text, path).start_mark.line) + 1


def lines_of(text: str, path: Sequence[str | int]) -> list[int]:
    """Return the line, from 1, of each member of a list in a YAML text that `parse_yaml` takes."""
    return [int(member.start_mark.line) + 1 for member in _node(text, path).value]


def _node(text: str, path: Sequence[str | int]) -> Any:
    node: Any = yaml.compose(text, Loader=_Loader)
    for step in path:
        if isinstance(node, yaml.MappingNode):
            inside = next((value for key, value in node.value if key.value == step), None)
        else:
            listed = node.value if isinstance(node, yaml.SequenceNode) and isinstance(step, int) else []
            inside = listed[step] if isinstance(step, int) and step < len(listed) else None
        if inside is None:
            break
        node = inside
    return node


class _Loader(yaml.SafeLoader):
    """Safe YAML with 1.2 numbers (5e-7 is a float) that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = (self.construct_object(key, deep=True) for key, _ in node.value)
        for key, count in Counter(key for key in keys if isinstance(key, str)).items():
            if count > 1:
                raise yaml.YAMLError(f"key '{key}' is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # A mapping that merges (<<) one that merges others grows without end.
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise yaml.YAMLError(f"more than {_MOST_KEYS} keys in one mapping")


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would change: the text '5e-7', and line breaks other than \\n."""


def _quoted(to: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return to.represent_scalar("tag:yaml.org,2002:str", text, '"' if re.search("[\x85\u2028\u2029]", text) else None)


_Dumper.add_representer(str, _quoted)

for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def write_yaml(value: Any, *, inline: bool = False) -> str:
    """Return YAML that `parse_yaml` reads back to the same value; `inline` is for a value on one line."""
    width = sys.maxsize if inline else None
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=inline, width=width)
    return text.removesuffix("...\n").strip() if inline else text
