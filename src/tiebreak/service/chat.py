"""Chats by the process that holds a model (`service.talk`), as the server has it.

Owns that process: it is started with the first request, answers one after the other, keys in turn, is let go when
nobody has asked for a while, and is started again where it died. What it says is kept until a client takes it, so that
no client holds up another by reading slowly. Loads no torch. For handlers in an event loop: every method is to be
awaited in one and the same loop, and a request whose task is cancelled, or whose stream is closed, is computed no
further.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, final

from tiebreak.service.choices import Choice, Head, completion, first_chunk, last_chunk, text_chunk, usage_chunk
from tiebreak.service.completions import ChatRequest
from tiebreak.service.refusals import Refusal
from tiebreak.service.turns import Turns

PROGRAM = (sys.executable, "-m", "tiebreak.service.talk")
MOST_WAITING = 8
IDLE_SECONDS = 600.0
TRY_AGAIN_SECONDS = 5
"""After which a client should ask again where too many wait."""
_MOST_BYTES = 2**30
"""Of a line: of a long answer with the log-probabilities of many tokens."""
MOST_KEPT = 64 * 2**20
"""Bytes of an answer that are kept for a client that does not take them yet."""
STALLED_SECONDS = 30.0
"""After which a client that takes nothing, and for which no more can be kept, is given up."""
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_LAST = b"data: [DONE]\n\n"

_LOG = logging.getLogger("uvicorn.error")

Line = dict[str, Any]
T = TypeVar("T")


@dataclass
class _Kept:
    """What the process said of a request and nobody took yet; None behind the last of it."""

    most: int
    lines: deque[tuple[Line | Refusal | None, int]] = field(default_factory=deque)
    num_bytes: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, line: Line | Refusal | None, size: int = 0) -> None:
        """Keep one thing more."""
        self.lines.append((line, size))
        self.num_bytes += size
        self._changed.set()

    async def room(self) -> None:
        """Wait until less is kept than the most; raises TimeoutError where nothing is taken for too long."""
        while self.num_bytes >= self.most:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), STALLED_SECONDS)

    async def take(self) -> Line | Refusal | None:
        """Return the next thing, once it is there."""
        while not self.lines:
            self._changed.clear()
            await self._changed.wait()
        line, size = self.lines.popleft()
        self.num_bytes -= size
        self._changed.set()
        return line


@final
class Chat:
    """Answers chats by one process, which holds one model."""

    def __init__(
        self,
        log: Path,
        *,
        most_waiting: int = MOST_WAITING,
        idle_seconds: float = IDLE_SECONDS,
        most_kept: int = MOST_KEPT,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`log` is written anew by each process, with what it says besides answers; `most_waiting` is of a key."""
        self._log: Final = log
        self._most_waiting: Final = most_waiting
        self._idle_seconds: Final = idle_seconds
        self._most_kept: Final = most_kept
        self._program: Final = tuple(program)
        self._turns: Final = Turns()
        self._asked: Final = Counter[str]()
        self._number = 0
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def complete(self, key: str, model: Mapping[str, Any], request: ChatRequest) -> dict[str, Any]:
        """Return the object that answers a request of a key, by a model as `service.talk` takes it; raises Refusal."""
        num_prompt, choices = 0, dict[int, Choice]()
        async with aclosing(self._lines(key, model, request.asked)) as lines:
            async for line in lines:
                num_prompt = line.get("begun", num_prompt)
                if "text" in line:
                    choices[line["index"]] = _choice(line)
        return completion(Head.of(request), [choices[index] for index in sorted(choices)], num_prompt)

    async def stream(
        self, key: str, model: Mapping[str, Any], request: ChatRequest, spent: Callable[[int], None] = lambda _: None
    ) -> AsyncGenerator[bytes, None]:
        """Return the server-sent events that answer a request, once it is being answered; raises Refusal before that.

        What goes wrong later is told as an event, which clients raise. `spent` hears in the end how many tokens were
        read and written; of answers that were left in the middle each piece counts as one.
        """
        lines = self._lines(key, model, request.asked)
        begun = await anext(lines)
        return self._events(begun["begun"], lines, request, spent)

    async def close(self) -> None:
        """End the process; whoever still waits is refused."""
        self._stay()
        self._let_go()
        await asyncio.gather(*self._ending)

    async def _events(
        self,
        num_prompt: int,
        lines: AsyncGenerator[Line, None],
        request: ChatRequest,
        spent: Callable[[int], None],
    ) -> AsyncGenerator[bytes, None]:
        head, choices, pieces = Head.of(request), dict[int, Choice](), Counter[int]()
        async with aclosing(lines):
            try:
                for index in range(request.asked["n"]):
                    yield _event(first_chunk(head, index))
                async for line in lines:
                    if "piece" in line:
                        pieces[line["index"]] += 1
                        yield _event(text_chunk(head, line["index"], line["piece"]))
                    elif "text" in line:
                        choices[line["index"]] = choice = _choice(line)
                        yield _event(last_chunk(head, line["index"], choice))
                if head.tells_usage:
                    yield _event(usage_chunk(head, num_prompt, [*choices.values()]))
                yield _LAST
            except Refusal as refusal:
                yield _event(refusal.body)
            finally:
                whole = sum(choice.num_tokens for choice in choices.values())
                spent(num_prompt + whole + sum(num for index, num in pieces.items() if index not in choices))

    async def _lines(self, key: str, model: Mapping[str, Any], asked: Mapping[str, Any]) -> AsyncGenerator[Line, None]:
        """Yield what the process says of a request, the first of it once it is its turn; raises Refusal."""
        if self._asked[key] > self._most_waiting:
            raise Refusal(
                429,
                f"{self._asked[key]} chats of this key wait already, and one is answered at a time; try again in "
                f"{TRY_AGAIN_SECONDS} seconds",
                code="queue_full",
                kind="rate_limit_error",
                retry_after=TRY_AGAIN_SECONDS,
            )
        self._asked[key] += 1
        self._stay()
        kept = _Kept(self._most_kept)
        asking = asyncio.create_task(self._ask(key, model, asked, kept))
        asking.add_done_callback(partial(self._answered, key))
        try:
            while (line := await kept.take()) is not None:
                if isinstance(line, Refusal):
                    raise line
                yield line
        finally:
            asking.cancel()
            await asyncio.wait({asking})

    async def _ask(self, key: str, model: Mapping[str, Any], asked: Mapping[str, Any], kept: _Kept) -> None:
        """Keep what the process says of a request; it is its turn no longer than the process answers."""
        try:
            async with self._turns.taken(key):
                process = await self._started()
                self._number += 1
                number, is_over = self._number, False
                try:
                    _put(process, {"id": number, "model": dict(model), "asked": dict(asked)})
                    while not is_over:
                        line, size = await self._read(process)
                        if line["id"] != number:  # of one that nobody waits for any more
                            continue
                        is_over = "done" in line or "error" in line
                        if error := line.get("error"):
                            kind = "invalid_request_error" if error["status"] < 500 else "server_error"
                            raise Refusal(**error, kind=kind)
                        kept.put(line, size)
                        await kept.room()
                finally:
                    if not is_over and process.returncode is None:
                        _put(process, {"cancel": number})
            kept.put(None)
        except Refusal as refusal:
            kept.put(refusal)
        except TimeoutError:
            kept.put(_unread())
        except Exception:  # a fault of ours ends the answer, too
            kept.put(_unanswered("the answer could not be read"))
            raise

    def _answered(self, key: str, asking: asyncio.Task[None]) -> None:
        self._asked[key] -= 1
        if not self._asked.total():
            self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._let_go)
        if not asking.cancelled() and (fault := asking.exception()) is not None:
            _LOG.error("a chat could not be answered", exc_info=fault)

    async def _started(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            try:
                with self._log.open("wb") as log:
                    self._process = await asyncio.create_subprocess_exec(
                        *self._program, stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True, limit=_MOST_BYTES
                    )
            except OSError as error:
                raise _unanswered(f"the process that answers cannot be started ({error.strerror})") from None
        return self._process

    async def _read(self, process: Process) -> tuple[Line, int]:
        """Return the next line of a process, and its bytes; raises Refusal where it has ended."""
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        raw = await process.stdout.readline()
        if raw.endswith(b"\n"):
            return json.loads(raw), len(raw)
        code = await process.wait()
        if code >= 0:
            raise _unanswered(f"the process that answers ended with {code}, and the server's {self._log.name} says why")
        name = signal.Signals(-code).name
        why = ", as a system does where memory runs out" if code == -signal.SIGKILL else ""
        raise _unanswered(f"the process that answers was ended by {name}{why}")

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _let_go(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            task = asyncio.get_running_loop().create_task(_end(process))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


async def while_there(is_gone: Callable[[], Awaitable[bool]], work: Coroutine[Any, Any, T]) -> T | None:
    """Return what comes of some work, or None where whoever asked is gone before: then it is cancelled."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK_SECONDS))[0]:
            if await is_gone():
                return None
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _put(process: Process, told: Mapping[str, Any]) -> None:
    """Tell a process a line; of one that has ended, nobody hears it."""
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    process.stdin.write(json.dumps(told).encode() + b"\n")


async def _end(process: Process) -> None:
    """End a process: without input it does so by itself."""
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _choice(line: Line) -> Choice:
    return Choice(line["text"], line["finish_reason"], line["num_tokens"], line["logprobs"])


def _event(told: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(told, ensure_ascii=False).encode() + b"\n\n"


def _unread() -> Refusal:
    return Refusal(408, "The answer was not read, and is computed no further.", code="answer_unread")


def _unanswered(why: str) -> Refusal:
    return Refusal(503, f"{why}; it is started again with the next chat", kind="server_error", code="chat_ended")
