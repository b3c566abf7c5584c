"""The command chat between two people at a terminal, or with a pipe: lines in, answers out while they come.

Owns the commands within a conversation, and what Ctrl-C and a fault do there: at a terminal they end an answer, in a
pipe the program.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from os.path import expanduser
from typing import TYPE_CHECKING

from tiebreak.errors import ConfigError, DataError, TiebreakError, nearest
from tiebreak.reporting import console

if TYPE_CHECKING:
    from tiebreak.verbs.chat import Conversation

PROMPT = "you> "


@dataclass
class Session:
    """A conversation, and what is shown of it."""

    talk: Conversation
    compare: bool = False
    """Whether each question is also answered by the reference."""
    quiet: bool = False

    def go_on(self) -> None:
        """Answer line after line until there is none. Raises what ends a conversation where nobody types it."""
        at_terminal = sys.stdin.isatty()
        if at_terminal:
            with contextlib.suppress(ImportError):
                # Arrow keys, and what was typed before, for as long as the process lives: nothing is kept in a file.
                import readline  # noqa: F401
            self._say("/help lists what may be said, Ctrl-C stops an answer, Ctrl-D ends")
        while True:
            try:
                self.take(_line(at_terminal))
            except EOFError:
                return
            except KeyboardInterrupt:
                if not at_terminal:
                    raise
                console.print_piece("\n")
                self._say("stopped; Ctrl-D or /quit ends")
            except (TiebreakError, OSError) as error:
                if not at_terminal:
                    raise
                console.Console().warn(str(error))

    def take(self, line: str) -> None:
        """Do what a line says: a command, where it begins with /, else a question. EOFError where it ends all."""
        if line.startswith("/"):
            name, _, rest = line.rstrip().partition(" ")
            if name not in COMMANDS:
                raise ConfigError(
                    f"{name}: no such command;{nearest(name, COMMANDS)} /help lists them, and a blank before / asks it"
                )
            COMMANDS[name][1](self, rest.strip())
        elif line.strip():
            self.answer(line.strip())

    def answer(self, text: str) -> None:
        """Show the answer to a text while it comes, after that of the reference where both are wanted."""
        if self.compare:
            console.print_piece("[before]\n")
            self.talk.before(text, console.print_piece)
            console.print_piece("\n\n[after]\n")
        self.talk.ask(text, console.print_piece)
        console.print_piece("\n\n")

    def help(self, _: str) -> None:
        """Show the commands."""
        console.print_text("\n".join(f"{name:<12}{told}" for name, (told, _) in COMMANDS.items()))

    def reset(self, _: str) -> None:
        """Forget what was said."""
        self.talk.reset()
        self._say("forgotten; the next question begins a new conversation")

    def toggle(self, _: str) -> None:
        """Show the reference's answers, or no longer."""
        self.compare = not self.compare
        self._say(f"answers before training are {'shown, too' if self.compare else 'no longer shown'}")

    def save(self, path: str) -> None:
        """Write the conversation to a new file."""
        if not path:
            raise ConfigError("/save: wanted the name of a new file, like /save talk.jsonl")
        target = expanduser(path)  # noqa: PTH111 - Path's own raises for a user who is not known
        self._say(f"{self.talk.save(target)}: written, {len(self.talk.messages)} messages")

    def end(self, _: str) -> None:
        """End the conversation."""
        raise EOFError

    def _say(self, text: str) -> None:
        if not self.quiet:
            console.Console().say(text)


COMMANDS: dict[str, tuple[str, Callable[[Session, str], None]]] = {
    "/help": ("this list", Session.help),
    "/reset": ("forget what was said", Session.reset),
    "/compare": ("also show what the model answered before training, or no longer", Session.toggle),
    "/save": ("FILE: write the conversation to a new file, as one line of JSON with its messages", Session.save),
    "/quit": ("end, like Ctrl-D", Session.end),
}


def _line(at_terminal: bool) -> str:
    """Return the next line; raises EOFError where there is none."""
    try:
        if at_terminal and sys.stdout.isatty():
            return input(PROMPT)
        if at_terminal:  # answers go elsewhere, and nothing but they
            print(PROMPT, end="", file=sys.stderr, flush=True)  # noqa: T201 - a prompt
        return input()
    except EOFError:
        if at_terminal:
            print(file=sys.stderr)  # noqa: T201 - the shell's prompt begins a line
        raise
    except UnicodeDecodeError:
        raise DataError("standard input: a line is not in UTF-8; nothing was asked") from None
