"""Try foreign chat templates where they can do no harm: a process with little time and little memory.

Run as a script by `templates`; imports nothing of tiebreak, so that it starts in a blink. Owns how a trial is held:
JSON {"templates", "tokens"} comes on standard input, and what is wrong goes to standard output, nothing where all is
well. The environment is like that of transformers, which does the real rendering. A template that merely refuses the
conversations here is none of our business.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import resource
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 5
MEMORY_BYTES = 2**30
OUTPUT_CHARACTERS = 2**24

_TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {"type": "object"}}}
_CALL = {"type": "function", "id": "call0", "function": {"name": "look", "arguments": {"at": "it"}}}
_CHATS: tuple[list[dict[str, Any]], ...] = (
    [{"role": "user", "content": "a"}],
    [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
    [{"role": role, "content": "text " * 40} for role in ("user", "assistant") * 3],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "b", "name": "look", "tool_call_id": "call0"},
    ],
)


class Generation(Extension):
    """The block with which transformers' templates mark what the model writes; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own type

    def parse(self, parser: Parser) -> nodes.Node:
        """Return a call that gives what stands inside the block, a scope of its own as in transformers."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = nodes.Call(nodes.ImportedName(f"{__name__}.content_of"), [], [], None, None, lineno=line)
        return nodes.CallBlock(call, [], [], body, lineno=line)


def content_of(caller: Callable[[], str]) -> str:
    """Return what stands inside a block."""
    return caller()


def fault(source: str, tokens: dict[str, str]) -> str | None:
    """Return what is wrong with a template; None where it is not known to do harm."""
    try:
        if sandbox().parse(source).find(nodes.Pow):  # 9**9**9 cannot be interrupted once it has begun
            return "computes powers (**), and one of them can keep a machine busy for hours; write the number out"
        template = sandbox().from_string(source)
        for chat, generation, tools in itertools.product(_CHATS, (True, False), (None, [_TOOL])):
            length = 0
            for piece in template.generate(
                messages=chat, tools=tools, documents=None, add_generation_prompt=generation, **tokens
            ):
                length += len(piece)
                if length > OUTPUT_CHARACTERS:
                    return f"writes more than {OUTPUT_CHARACTERS:,} characters for a chat of a few words"
    except (MemoryError, RecursionError) as error:
        return f"runs out of {'memory' if isinstance(error, MemoryError) else 'stack'} on a chat of a few words"
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, AssertionError):
        pass  # it wants another kind of chat; rendering will say so of the real ones
    return None


@functools.cache
def sandbox() -> ImmutableSandboxedEnvironment:
    """Return the environment in which templates are parsed and tried."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit; who began this process looks after it
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    given = json.load(sys.stdin)
    faults = (fault(source, given["tokens"]) for source in given["templates"])
    sys.stdout.write(next((found for found in faults if found), ""))


if __name__ == "__main__":
    _main()
