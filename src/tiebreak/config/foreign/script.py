"""The options of a shell script: of the one command in it that learns from pairs.

Owns what a command is, and which of several is meant. Nothing is run: a value with `$` is `COMPUTED`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tiebreak.config.foreign.found import COMPUTED, Foreign
from tiebreak.config.foreign.names import name_of
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.errors import ConfigError, one_line

_TASKS = ("stage", "rlhf_type", "rl")
_RUN = r"\$\((?:[^()]|\((?:[^()]|\([^()]{0,400}\)){0,400}\)){0,400}\)|`[^`]*`"
"""What a command in a command would print."""
_TOKEN = re.compile(
    rf"""(?P<space>(?:[ \t\r]|\\\r?\n)+)
      | (?P<comment>\#[^\n]*)
      | (?P<redirect>\d?(?:>>?|<<?<?)(?:&\d?)?|&>>?)
      | (?P<list>\w+\+?=\((?:[^()'"]|'[^']*'|"(?:\\.|[^"\\])*")*\))
      | (?P<end>[;|&()\n])
      | (?P<word>(?:\\.|\\\Z|'[^']*'|"(?:\\.|{_RUN}|[^"\\])*"|{_RUN}|[^\s;|&()<>'"\\`])+)""",
    re.VERBOSE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?[ \t]*(['\"]?)(\w+)\1")
_OPTION = re.compile(r"--\w")
_MORE = re.compile(r"\$[@*]|\$\{?(\w+)(?:\[[@*]\])?\}?")


@dataclass(frozen=True)
class _Command:
    line: int
    words: tuple[str, ...]
    hidden: tuple[str, ...]
    """Variables that may hold more options."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for at, word in enumerate(self.words):
            if not _OPTION.match(word):
                continue
            key, equals, said = word[2:].partition("=")
            values = [said] if equals else []
            for following in self.words[at + 1 :] if not equals else ():
                if _OPTION.match(following):
                    break
                values.append(following)
            read = [COMPUTED if "$" in value or "`" in value else _scalar(value) for value in values]
            settings[key] = True if not read else read[0] if len(read) == 1 else read
        return settings

    @property
    def title(self) -> str:
        """Its first words, such as 'swift rlhf', and where it stands."""
        first = next((at for at, word in enumerate(self.words) if _OPTION.match(word)), len(self.words))
        named = [word for word in self.words[:first] if re.fullmatch(r"[\w./-]+", word)]
        return f"{' '.join(named[:3]) or self.words[0]} in line {self.line}"

    @property
    def files(self) -> tuple[str, ...]:
        """Files of settings that it is given before its options."""
        first = next((at for at, word in enumerate(self.words) if _OPTION.match(word)), len(self.words))
        return tuple(word for word in self.words[:first] if word.endswith((".yaml", ".yml", ".json")))

    @property
    def is_for_pairs(self) -> bool:
        """Whether its task is dpo; where none is said, whether the program is called so."""
        keys = {key.replace("-", "_"): value for key, value in self.settings.items()}
        told = next((keys[key] for key in _TASKS if key in keys), None)
        if told is not None:
            return str(told).lower() == "dpo"
        first = next((at for at, word in enumerate(self.words) if _OPTION.match(word)), len(self.words))
        programs = [*self.words[:first], *(word for word in self.words[first:] if word.endswith(".py"))]
        return any(re.search("dpo|rlhf", word.rsplit("/", 1)[-1].lower()) for word in programs if "=" not in word)


def options_of(text: str, path: Path) -> Foreign:
    """Return the options of the command that learns from pairs, and the others by name.

    Raises ConfigError where it is no shell script, and where several commands do, or may.
    """
    try:
        commands = [command for command in _commands(text) if command.settings]
    except ValueError as error:
        raise ConfigError(f"{path}: not a shell script ({one_line(error)})") from None
    # What starts with an option is the rest of a command that a comment between its lines has ended.
    rests = [command for command in commands if _OPTION.match(command.words[0])]
    whole = [command for command in commands if command not in rests]
    meant = [command for command in whole if command.is_for_pairs]
    meant = meant or [command for command in whole if any(map(name_of, command.settings))] or whole or rests
    if len(meant) > 1:
        titles = "; ".join(command.title for command in meant)
        raise ConfigError(f"{path}: {len(meant)} commands may be the one meant ({titles}); keep one, in a copy")
    if not meant:
        return Foreign({}, frozenset())
    command = meant[0]
    unread = {other.title: "another command" for other in whole if other is not command}
    for rest in (one for one in rests if one is not command):
        for key in rest.settings:
            unread[f"--{key} in line {rest.line}"] = "in the shell the command ends before this line"
    settings, files = command.settings, command.files
    if isinstance(settings.get("config"), str):
        files = (*files, f"--config {settings.pop('config')}")
    unread |= {name: f"options by {name} are not read" for name in command.hidden}
    unread |= dict.fromkeys(files, "settings in this file are not read: say them as options, in a copy")
    words = frozenset(word for word in command.words if re.fullmatch(r"[\w./-]+", word))
    return Foreign(settings, words, unread, (*command.hidden, *files))


def _commands(text: str) -> Iterator[_Command]:
    """Yield each command with its words; a list that is bound once stands where it is named."""
    text = _without_documents(text)
    lists: dict[str, list[str] | None] = {}
    words: list[str] = []
    hidden: list[str] = []
    at, line, begun, is_target = 0, 1, 1, False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"line {line}: what is quoted does not end")
        kind, token = str(found.lastgroup), found[0]
        if kind == "word" and is_target:
            is_target = False
        elif kind == "word":
            begun = begun if words else line
            more = _MORE.fullmatch(token.strip('"'))
            name = more[1] if more else None
            if more and (name is None or "[" in token or _holds_options(name, text)):
                items = lists.get(name or "")
                words += items or []
                hidden += [] if items is not None else [token.strip('"')]
            else:
                words += [token] if re.search(_RUN, token) else shlex.split(token)
        elif kind == "list":
            name = token.partition("=")[0].rstrip("+")
            inside = re.sub(r"(^|\s)#.*", "", token.partition("(")[2][:-1]).replace("\\\n", " ")
            lists[name] = None if name in lists else shlex.split(inside)
        elif kind == "redirect":
            is_target = not re.search(r"&\d$", token)
        elif kind == "end" and words:
            yield _Command(begun, tuple(words), tuple(hidden))
            words, hidden = [], []
        is_target = is_target and kind != "end"
        line += token.count("\n")
        at = found.end()
    if words:
        yield _Command(begun, tuple(words), tuple(hidden))


def _without_documents(text: str) -> str:
    """Return a script whose here-documents are empty lines; what no later line ends is none."""
    lines = text.split("\n")
    last = {line.strip(" \t\r"): number for number, line in enumerate(lines)}
    ends: list[str] = []
    for number, line in enumerate(lines):
        if ends:
            lines[number] = ""
            ends = ends[1:] if line.strip(" \t\r") == ends[0] else ends
        else:
            ends = [found[2] for found in _HERE_DOCUMENT.finditer(line) if last.get(found[2], 0) > number]
            lines[number] = _HERE_DOCUMENT.sub("", line) if ends else line
    return "\n".join(lines)


def _holds_options(name: str, text: str) -> bool:
    """Whether a variable is given options somewhere in the script, and not a value."""
    return re.search(rf"(?:^|\s){re.escape(name)}\+?=['\"]?\s*--\w", text) is not None


def _scalar(text: str) -> Any:
    try:
        value = parse_yaml(text, "", as_pyyaml=True)
    except ConfigError:
        return text
    return value if isinstance(value, int | float | bool) else text
