"""YAML in and out: safe, values as in YAML 1.2, no key twice, and texts that come back as they were.

Owns the dialect. In YAML 1.1, which PyYAML reads, 010 is 8, 1:20 is 80, 1_000 is a number, and yes, no, on and off are
true or false; here only true and false are, the others are texts, and a number that begins with 0 is refused.
Knows nothing of settings.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

from tiebreak.errors import ConfigError, one_line

_MOST_KEYS = 10_000
_MERGE = "tag:yaml.org,2002:merge"


def parse_yaml(text: str, where: str, *, as_pyyaml: bool = False) -> Any:
    """Return the value of a YAML text; raises ConfigError that begins with `where`.

    `as_pyyaml` is for files of programs that read them with PyYAML: values as in YAML 1.1, as those programs see them.
    """
    try:
        return deepcopy(_loaded(text, _Old if as_pyyaml else _Loader))
    except (yaml.YAMLError, ValueError, AttributeError) as error:  # the last two for dates like 2001-99-99
        raise ConfigError(f"{where}: not valid YAML ({one_line(error)})") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML (nested too deeply)") from None


@lru_cache(maxsize=16)  # a run asks for its own configuration nine times and more, and each took 30 ms
def _loaded(text: str, dialect: type[yaml.SafeLoader]) -> Any:
    return yaml.load(text, Loader=dialect)  # noqa: S506 - both are SafeLoaders


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


class _Old(yaml.SafeLoader):
    """Safe YAML 1.1 in which 5e-7 is a float, that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A key that merges is no value, and several mappings may be merged.
        keys = (self.construct_object(key, deep=True) for key, _ in node.value if key.tag != _MERGE)
        for key, count in Counter(key for key in keys if isinstance(key, str)).items():
            if count > 1:
                raise yaml.YAMLError(f"key '{key}' is given twice{node.start_mark}")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # A mapping that merges (<<) one that merges others grows without end.
        super().flatten_mapping(node)
        if len(node.value) > _MOST_KEYS:
            raise yaml.YAMLError(f"more than {_MOST_KEYS} keys in one mapping")


class _Loader(_Old):
    """The same with the values of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}  # its own, not those of YAML 1.1 that it inherits


class _Dumper(yaml.SafeDumper):
    """Quotes what the loader would change: the text '5e-7', and line breaks other than \\n; and what turns a line."""


_TURNING = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\U000e0000-\U000e007f]")
"""What shows a text otherwise than it is: directions of writing, and what is not seen and joins nothing. Always quoted,
where it can stand as an escape."""


def _quoted(to: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_odd = _TURNING.search(text) or re.search("[\x85\u2028\u2029]", text)
    return to.represent_scalar("tag:yaml.org,2002:str", text, '"' if is_odd else None)


_Dumper.add_representer(str, _quoted)

_AMBIGUOUS = "!begins-with-0"


def _refuse(_: yaml.SafeLoader, node: yaml.ScalarNode) -> None:
    decimal = node.value.replace("_", "").lstrip("+-0") or "0"
    raise yaml.YAMLError(
        f"{node.value} is octal to some readers of YAML and decimal to others; write {decimal}, or '{node.value}' for "
        f"a text{node.start_mark}"
    )


_Loader.add_constructor(_AMBIGUOUS, _refuse)
_EXPONENT = ("float", r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+", "-+.0123456789")
_BEGINS_WITH_0 = (_AMBIGUOUS, r"[-+]?0[\d_]+", "-+0")
_CORE = (  # yaml.org/spec/1.2.2, core schema; and << of YAML 1.1
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9]\d*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\d+\.\d*|\.\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ("merge", r"<<", "<"),
)
_NEW = (*_CORE, _EXPONENT, _BEGINS_WITH_0)
# What is written is quoted where either dialect would change it: any reader of YAML gets the same texts.
for _side, _rows in ((_Loader, _NEW), (_Old, (_EXPONENT,)), (_Dumper, _NEW)):
    for _tag, _pattern, _first in _rows:
        _name = _tag if _tag.startswith("!") else f"tag:yaml.org,2002:{_tag}"
        _side.add_implicit_resolver(_name, re.compile(f"(?:{_pattern})$", re.ASCII), list(_first))


def write_yaml(value: Any, *, inline: bool = False) -> str:
    """Return YAML that `parse_yaml` reads back to the same value; `inline` is for a value on one line."""
    width = sys.maxsize if inline else None
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=inline, width=width)
    text = _TURNING.sub(lambda found: f"\\U{ord(found[0]):08X}", text)
    return text.removesuffix("...\n").strip("\n") if inline else text
