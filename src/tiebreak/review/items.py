"""What is compared: the answers of a run before and after, the rows of a file, a round's queue.

Owns what an item is and where items come from. `b` is the completion whose wins are counted: what the trained policy
answered, or what the file prefers. Items are named by their content, as those of a round's queue are.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import in_quotes, quoted
from tiebreak.data.containers import blocks, rows
from tiebreak.data.formats import RowError, detect
from tiebreak.data.formats.candidates import SYSTEMS, completion
from tiebreak.data.formats.unanswered import COLUMNS, read_asked
from tiebreak.data.formats.verdicts import side_of
from tiebreak.data.whole import read_pairs
from tiebreak.errors import DataError, RunError
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.records import Message, prompt_id_of
from tiebreak.runs import Run, as_a_run_writes, open_run

EQUAL, TWICE, NOT_DRAWN = "equal texts", "twice there", "not drawn"
SAMPLES, PAIRS, FIRST_SECOND = ("before", "after"), ("rejected", "chosen"), ("completion_a", "completion_b")
"""What `a` and `b` are called where they come from."""


@dataclass(frozen=True)
class Item:
    """A prompt and two completions, of which nobody is told which is which."""

    id: str
    prompt: tuple[Message, ...]
    a: str
    b: str
    tools: tuple[Mapping[str, Any], ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where its file says that the prompt comes from."""

    def __post_init__(self) -> None:
        if not self.prompt or self.a == self.b:
            raise ValueError("an item has a prompt and two different completions")

    @property
    def prompt_id(self) -> str:
        """Content hash of the prompt: items of one prompt are no independent evidence."""
        return prompt_id_of(self.prompt, self.tools)

    def as_dict(self) -> dict[str, Any]:
        """Return the row of items.jsonl."""
        told: dict[str, Any] = {"item": self.id, "prompt": [message.as_dict() for message in self.prompt]}
        more = {"tools": list(self.tools), "origin": dict(self.origin)}
        sides = {"completion_a": self.a, "completion_b": self.b}
        return told | sides | {name: value for name, value in more.items() if value}

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Item:
        """Return the item of a row; raises KeyError, TypeError or ValueError where it is none."""
        prompt = tuple(Message.from_dict(one) for one in row["prompt"])
        a, b, tools = row["completion_a"], row["completion_b"], tuple(row.get("tools") or ())
        if not (isinstance(a, str) and isinstance(b, str)):
            raise TypeError
        return Item(str(row["item"]), prompt, a, b, tools, dict(row.get("origin") or {}))


@dataclass(frozen=True)
class Gathered:
    """The items of a source."""

    items: Sequence[Item]
    left_out: Mapping[str, int]
    """How many are not asked, by reason."""
    source: Mapping[str, Any]
    """What it was: kind (run, samples, queue, pairs, rows), path, what a and b are called there, digest."""


def gather(path: str | Path, num: int | None = None, seed: int = 0) -> Gathered:
    """Return what is to be compared of a run folder, of its samples, of a round's queue, or of a file of rows.

    Equal texts, and what is there a second time, are left out and counted. With `num` at most so many of the rest are
    asked, drawn by chance: by the seed and an item's name, so that the same are drawn again. Raises RunError or
    DataError, with what to do, where there is nothing to compare.
    """
    found = _all_of(Path(path))
    if num is None:
        return found
    first = sorted(found.items, key=lambda item: fingerprint([seed, "drawn", item.id]))[:num]
    names = {item.id for item in first}
    items = [item for item in found.items if item.id in names]
    more = {NOT_DRAWN: len(found.items) - num} if num < len(found.items) else {}
    return Gathered(items, {**found.left_out, **more}, found.source)


def _all_of(place: Path) -> Gathered:
    if place.is_dir() and Run(place).manifest_file.exists():
        run = open_run(place)
        if not (rows := run.samples):
            again = in_quotes(f"tiebreak evaluate {quoted(str(run.path))} --set evaluation.num_samples=64")
            raise RunError(
                f"{run.path}: the run holds no answers to compare; {again} writes some into a folder that it names, "
                "whose samples.jsonl can be reviewed"
            )
        return _of_samples("run", run.path, run.samples_file, rows)
    begin = _first_rows(place)
    first = begin[0].keys() if begin else set()
    if {"prompt", "before", "after"} <= first:
        if (run := Run(place.parent)).manifest_file.exists():
            run.verify(run.path / place.name)
        return _of_samples("samples", place, place, files.read_jsonl(place))
    if {"item", "prompt", "completion_a", "completion_b"} <= first:
        return _of_queue(place)
    if first >= set(FIRST_SECOND) and not any(map(detect, begin)):
        return _of_rows(place)
    return _of_pairs(place)


def item_id(prompt: Sequence[Message], tools: Sequence[Mapping[str, Any]], first: str, second: str) -> str:
    """Return the name of an item, which is that of the same two answers in a round's queue."""
    chat = {"messages": [message.as_dict() for message in prompt], "tools": list(tools)}
    return f"i-{fingerprint([chat, first, second])[:16]}"


def _first_rows(place: Path) -> list[Mapping[str, Any]]:
    """Return the first rows of a file, packed as it may be; none where there is none."""
    with contextlib.suppress(DataError):  # whoever reads the file says what is wrong with it
        for block in blocks(place, str(place)) if place.is_file() else ():
            return [row for _, row in rows(block) if isinstance(row, Mapping)]
    return []


def _of_samples(kind: str, path: Path, file: Path, rows: Sequence[Mapping[str, Any]]) -> Gathered:
    def read() -> Iterator[_Read]:
        for row in rows:
            prompt = tuple(Message.from_dict(one) for one in row["prompt"])
            tools = tuple(row.get("tools") or ())
            yield None, prompt, tools, str(row["before"]["text"]), str(row["after"]["text"]), {}

    with as_a_run_writes(path):
        return _gathered(read(), path, {}, _source(kind, path, SAMPLES, file))


def _of_queue(path: Path) -> Gathered:
    """Return the items of a round's queue, as the judge of rounds writes it; they keep their names."""

    def read() -> Iterator[_Read]:
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                item = Item.from_dict(json.loads(line.decode("utf-8")))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                raise DataError(f"{path}:{number}: is no row of a round's queue; run the round again") from None
            yield item.id, item.prompt, item.tools, item.a, item.b, item.origin

    return _gathered(read(), path, {}, _source("queue", path, FIRST_SECOND, path))


def _of_rows(path: Path) -> Gathered:
    """Return items of rows with two completions that nobody judged; their prompts are read as all prompts are."""

    def read() -> Iterator[_Read]:
        for block in blocks(path, str(path)):
            for source, row in rows(block):
                try:
                    if isinstance(row, RowError):
                        raise row
                    asked = read_asked(row, source)
                    a, b = (_text_of(row.get(name), name) for name in FIRST_SECOND)
                    _refuse_judged(row)
                except RowError as error:
                    raise DataError(
                        f'{source}: is no row of two completions ({error.detail}); wanted {{"prompt": "…" or '
                        '[messages], "completion_a": "…", "completion_b": "…"}'
                    ) from None
                yield None, asked.prompt, asked.tools, a, b, asked.origin.as_dict()

    return _gathered(read(), path, {}, _source("rows", path, FIRST_SECOND, path))


def _refuse_judged(row: Mapping[str, Any]) -> None:
    """Raise RowError where a row says, or may say, which completion is the better one."""
    if detect(row):
        raise RowError("wrong_type", "says which one is better, as the first rows do not")
    known = (*FIRST_SECOND, *COLUMNS, *SYSTEMS)
    beside = [(name, value) for name, value in row.items() if isinstance(value, str) and name not in known]
    # A number of a row's own is no verdict.
    if told := next((name for name, value in beside if side_of(value) and not value.strip().isdecimal()), None):
        doubt = f"'{told}' may say which one is better: call it 'winner' if it does, and leave it out if it does not"
        raise RowError("wrong_type", doubt)


def _text_of(value: Any, name: str) -> str:
    told = completion(value, name)
    if told.tool_calls:
        raise RowError("wrong_type", f"'{name}' calls a tool, and what people vote on is text")
    return told.content


def _of_pairs(path: Path) -> Gathered:
    found = read_pairs(path)
    read = (
        (None, pair.prompt, pair.tools, pair.rejected.content, pair.chosen.content, pair.origin.as_dict())
        for pair in found.pairs
        if not (pair.chosen.tool_calls or pair.rejected.tool_calls)
    )
    # What people vote on becomes the text of a pair, and a call of a tool is none.
    num_calls = sum(bool(pair.chosen.tool_calls or pair.rejected.tool_calls) for pair in found.pairs)
    reasons = found.reasons | ({"tool_calls": num_calls} if num_calls else {})
    source = {"kind": "pairs", "path": str(path), "sides": dict(zip("ab", PAIRS, strict=True)), "digest": found.digest}
    return _gathered(read, path, reasons, source)


_Read = tuple[str | None, tuple[Message, ...], tuple[Mapping[str, Any], ...], str, str, Mapping[str, Any]]


def _source(kind: str, path: Path, sides: tuple[str, str], file: Path) -> dict[str, Any]:
    called = dict(zip("ab", sides, strict=True))
    return {"kind": kind, "path": str(path.resolve()), "sides": called, "digest": file_digest(file)}


def _gathered(read: Iterable[_Read], path: Path, left_out: Mapping[str, int], source: dict[str, Any]) -> Gathered:
    items: dict[str, Item] = {}
    more: Counter[str] = Counter()
    for given, prompt, tools, a, b, origin in read:
        name = given or item_id(prompt, tools, a, b)
        if a == b:
            more[EQUAL] += 1
        elif name in items:
            more[TWICE] += 1
        else:
            items[name] = Item(name, prompt, a, b, tools, origin)
    reasons = {**left_out, **more}
    if not items:
        told = ", ".join(f"{num} {reason}" for reason, num in reasons.items())
        raise DataError(
            f"{path}: holds nothing to compare{f' ({told})' if told else ''}; give two different texts a row"
        )
    return Gathered(list(items.values()), reasons, source)
