"""What the first rows of a file say together: its form, what its text columns hold, how its first record is read.

Owns when a file is asked about, because its rows admit two readings, and what is told of a reading: which columns were
read, which were not, and why one side of the first record is chosen. It knows no container and no single form.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tiebreak.data.containers import blocks, rows
from tiebreak.data.formats import FORMATS, Format, Pairing, RowError, detect, read_row
from tiebreak.data.formats.annotations import columns_beside, names_that_are_texts
from tiebreak.data.formats.candidates import has_prompt
from tiebreak.data.formats.columns import columns_form
from tiebreak.data.formats.demonstrations import DEMONSTRATIONS, judged_columns
from tiebreak.data.formats.evidence import agreeing
from tiebreak.data.formats.form import Ambiguous, Reading, Row
from tiebreak.data.formats.guesses import plain_name, proposed_columns
from tiebreak.data.formats.messages import ROLE_KEYS
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairs import PREFIXES
from tiebreak.data.formats.ratings import COMPLETIONS
from tiebreak.data.formats.references import by_name
from tiebreak.data.unfolding import columns_to_unfold, readable
from tiebreak.errors import DataError, one_line
from tiebreak.records import Message, Source
from tiebreak.secrecy import masked

MAX_ROWS = 1024
"""Rows that are looked at together: what is in none of them is not known when a file is opened."""
_SHOWN = 160
"""Characters of each text that is shown of the first record."""


@dataclass(frozen=True)
class FirstRecord:
    """How the first usable record of a file is read, in texts that are not cut."""

    source: Source
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    """Of a completion that is judged on its own, the side that it is not stays empty."""
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return the record for reports: the last message of its prompt, texts cut short, without what is secret."""
        asked = self.prompt[-1].content
        texts = {"prompt": asked, "chosen": self.chosen, "rejected": self.rejected, "why": self.why}
        cut = {name: one_line(masked(text[: 4 * _SHOWN]), _SHOWN) for name, text in texts.items()}
        return {"line": self.source.line, "num_prompt_messages": len(self.prompt), **cut}


@dataclass(frozen=True)
class Look:
    """What a file's first rows showed: columns that were read and that were not, those among them that a prompt may
    need, and the first record.
    """

    read: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    first: FirstRecord | None = None
    proposed: tuple[tuple[str, str], ...] = ()
    """Where no record is read: a mapping of columns to start from."""
    remedy: tuple[tuple[str, str], ...] = ()
    """Where one is missed: a mapping, tried on the first record, by which its text stands in the prompt."""


@dataclass(frozen=True)
class Surveyed:
    """How a file is to be read: its form, None where no row is in a known one, and the columns to unfold first."""

    form: Format | None
    unfold: tuple[str, ...] = ()
    look: Look = Look()


def survey(path: Path, name: str, stated: Format | None, pairing: Pairing) -> Surveyed:
    """Look at the first rows of a file; `stated` is the form that the user named.

    The form is that of the first row that can be read, or else of the first that is recognised. Raises DataError where
    the rows admit two readings.
    """
    stream = (item for block in blocks(path, name) for item in rows(block))
    form: Format | None = None
    start: Row = {}
    sample: list[tuple[Source, Row]] = []
    while form is None and (window := list(islice(stream, MAX_ROWS))):
        found = [(source, row) for source, row in window if isinstance(row, Mapping)]
        start = start or next((row for _, row in found), {})
        unfold = columns_to_unfold([row for _, row in found], name, stated.lists if stated else None)
        sample = list(readable(found, unfold))
        form = stated or _form_of(sample, pairing)
    if form is None:
        judged = judged_columns([row for _, row in sample])
        return Surveyed(None, look=Look(proposed=tuple(judged.items()) or _proposed(start)))
    try:
        told = [row for _, row in sample]
        form = by_name(form.settle(form, told), told)
        # Who maps the columns has said which side is which, and not that ties are none.
        form = agreeing(form, told, are_named=stated is not None and stated.name not in FORMATS)
    except Ambiguous as question:
        raise DataError(f"{name}: {question}") from None
    look = _look(sample, form, pairing)
    return Surveyed(form, unfold, look if look.first else replace(look, proposed=_proposed(start)))


def _proposed(row: Row) -> tuple[tuple[str, str], ...]:
    return tuple(proposed_columns(row).items())


def _form_of(sample: Sequence[tuple[Source, Row]], pairing: Pairing) -> Format | None:
    recognised: Format | None = None
    for source, row in sample:
        imitated = pairing.choose == "good" and DEMONSTRATIONS.matches(row)
        form = DEMONSTRATIONS if imitated else detect(row)
        if form is None:
            continue
        recognised = recognised or form
        try:
            read_row(row, form, source)
        except RowError as error:
            if error.reason not in ("tie", "unpaired"):
                continue
        return form
    return recognised


# ----------------------------------------------------------------------------------------------- what is told of a file


class Noted(dict[str, Any]):
    """A row that notes which of its columns are read; who goes through all of them reads all."""

    def __init__(self, row: Row) -> None:
        super().__init__(row)
        self.noted: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.noted.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a column, or the default."""
        self.noted.add(key)
        return super().get(key, default)

    def items(self) -> Any:
        """Return all columns."""
        self.noted.update(self)
        return super().items()

    def values(self) -> Any:
        """Return what all columns hold."""
        self.noted.update(self)
        return super().values()


def _look(sample: Sequence[tuple[Source, Row]], form: Format, pairing: Pairing) -> Look:
    read: dict[str, None] = {}
    held: dict[str, None] = {}
    missed: dict[str, None] = {}
    first: FirstRecord | None = None
    documents = names_that_are_texts([row for _, row in sample])
    for source, row in sample:
        held |= dict.fromkeys(name for name, value in row.items() if value not in (None, "", [], {}))
        noted = Noted(row)
        try:
            reading = read_row(row, form, source, pairing, noted)
        except RowError:
            continue
        beside = columns_beside(row)
        read |= dict.fromkeys(name for name in row if name in noted.noted or name in beside)
        missed |= dict.fromkeys(_missed_in(row, reading, documents))
        first = first or _first(source, row, reading, form)
    lost = {path.partition(".")[0] for path in missed if "." not in path}
    known = tuple(name for name in held if name in read and name not in lost)
    unread = tuple(name for name in held if name not in known)
    remedy = _remedy(sample, tuple(missed), first, form) if missed and first else ()
    return Look(known, unread, tuple(missed), first, remedy=remedy)


def _remedy(
    sample: Sequence[tuple[Source, Row]], missed: Sequence[str], first: FirstRecord, form: Format
) -> tuple[tuple[str, str], ...]:
    """Return a mapping that puts what is missed into the prompt of the first record, () where none was found.

    It names all that was read, so that nothing else goes missing, and as many columns as our names of a prompt's parts
    have room for. What may be of one side, or the answer, is never put there.
    """
    row = next(row for source, row in sample if source == first.source)
    documents = names_that_are_texts([row for _, row in sample])
    mapping = dict(form.mapping) or _as_mapping(row)
    before = [message.content for message in first.prompt]
    lost, found = set(missed), False
    for column in missed:
        begins = plain_name(column).startswith(("sys", "preprompt", "persona", "developer"))
        keys = ("prefix",) if column in PREFIXES else ("system",) if begins else ("history", "input")
        for key in keys if mapping and not _OF_ANSWERS.fullmatch(plain_name(column)) else ():
            with contextlib.suppress(RowError, ValueError):
                trial = columns_form(mapping | {key: column})
                reading = trial.read(row, Pairing())
                said = "\n".join(message.content for message in (*reading.pairs, *reading.alone)[0].prompt)
                left = set(_missed_in(row, reading, documents))
                if key not in mapping and left < lost and column not in left and all(text in said for text in before):
                    mapping, lost, found = dict(trial.mapping), left, True
                    break
    return tuple(mapping.items()) if found else ()


def _as_mapping(row: Row) -> dict[str, str]:
    """Return how a prompt with a chosen and a rejected side is read, as a mapping; {} of other rows."""
    if not {"chosen", "rejected"} <= row.keys():
        return {}
    prompt = mapping_of_prompt([row]) if has_prompt(row) else {}
    begun = next((name for name in PREFIXES if isinstance(row.get(name), str)), None)
    return prompt | ({"prefix": begun} if begun else {}) | {"chosen": "chosen", "rejected": "rejected"}


_OF_ANSWERS = re.compile(
    r"(?:chosen|rejected|preferred|dispreferred|response|completion|answer|output)(?:_.*)?|"
    r"(?:.*_)?(?:references?|solution|expected|gold|golden|ground_?truth|target)(?:_(?:answer|response|output|text))?"
)
"""Names of what belongs to one side, or tells the right answer: no prompt may hold it."""


def _first(source: Source, row: Row, reading: Reading, form: Format) -> FirstRecord:
    why = form.why(row)
    if reading.pairs:
        pair = reading.pairs[0]
        if pair.preference.chosen_score is not None and pair.preference.rejected_score is not None:
            why = f"score {pair.preference.chosen_score:g} over {pair.preference.rejected_score:g}"
        return FirstRecord(source, pair.prompt, _said(pair.chosen), _said(pair.rejected), why)
    if reading.thumbs:
        thumb = reading.thumbs[0]
        sides = (_said(thumb.completion), "") if thumb.liked else ("", _said(thumb.completion))
        return FirstRecord(source, thumb.prompt, *sides, why)
    return FirstRecord(source, reading.rated[0].prompt, _said(reading.rated[0].completion), "", why)


def _said(message: Message) -> str:
    """Return what a message says: reasoning, content, the names of the tools that it calls."""
    calls = [f"calls {(call.get('function') or call).get('name')}" for call in message.tool_calls]
    return "\n".join(text for text in (message.reasoning, message.content, *calls) if text.strip())


# Names that say: what stands here comes before the completions, or explains them.
_CONTEXT = re.compile(
    r"(?:.*_)?(?:system\w*|sys|preprompt|instructions?|contexts?|ctx|history|background|passages?|paragraphs?|documents?|"
    r"docs?|articles?|inputs?|persona|character|role_description|dialog(?:ue)?s?|conversations?|messages|turns|few_?shot|"
    r"demonstrations?|knowledge(?:_base)?|evidence|story|scenario|post|schema|premise|prefix|steps|preamble|excerpt|"
    r"snippets?|chunks|search_results|references?|sources?_text|question|query|body|facts?|rubric|constraints?|abstract|"
    r"functions|available_tools|tool_definitions|developer(?:_message)?|(?:chosen|rejected)_prompt)",
    re.IGNORECASE,
)
# Names that say it less surely: there it takes a text of some length.
_MAYBE_CONTEXT = re.compile(
    r"(?:.*_)?(?:task|task_description|email|review|code|tables?|options|choices|transcript|memory|profile|hint|"
    r"guidelines|reasoning|cot|title|description)",
    re.IGNORECASE,
)
_NOTHING = frozenset({"n/a", "none", "null", "nan", "-", "[]", "{}"})
_LONG = 24
# What holds messages, or fields of a prompt, inside.
_INSIDE = frozenset(
    ("prompt", "input", "data", "fields", "question", "messages", "conversations", "conversation", "chosen", "rejected",
     *COMPLETIONS)
)  # fmt: skip
_DEEPEST = 4


def _missed_in(row: Row, reading: Reading, documents: frozenset[str]) -> Iterator[str]:
    """Yield the places that the prompt may need and that left no text in it, like `context` and `data.context`.

    `documents` are columns that hold texts, whatever their names say.
    """
    prompts = [one.prompt for one in reading.pairs] + [one.prompt for one in reading.alone]
    messages = [message for prompt in prompts[:1] for message in prompt]
    messages += [side for pair in reading.pairs for side in (pair.chosen, pair.rejected)]
    messages += [one.completion for one in reading.alone]
    tools = [tool for one in (*reading.pairs, *reading.alone)[:1] for tool in one.tools]
    texts = [text for message in messages for text in (message.content, message.reasoning)]
    said = _plain("\n".join([*texts, *_texts([*tools, *(call for one in messages for call in one.tool_calls)])]))
    for path, name, value in _places(row, "", 0):
        is_context = _CONTEXT.fullmatch(name) or path in documents
        least = 2 if is_context else _LONG if _MAYBE_CONTEXT.fullmatch(name) else None
        if least is None:
            continue
        told = [plain for text in _texts(value) if (plain := _plain(text)) and plain.casefold() not in _NOTHING]
        if sum(map(len, told)) >= least and not any(text in said for text in told):
            yield path


def _places(value: Any, path: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """Yield each named place: where it is, its name, what it holds; inside, only where prompts may lie."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping):
                yield from _places(item, path, depth)
        return
    for name, inner in value.items():
        at = f"{path}.{name}" if path else name
        yield at, name, inner
        if isinstance(inner, Mapping | list) and depth < _DEEPEST and (path or name in _INSIDE):
            yield from _places(inner, at if isinstance(inner, Mapping) else f"{at}.*", depth + 1)


def _plain(text: str) -> str:
    return " ".join(text.split())


def _texts(value: Any) -> list[str]:
    """Return the texts in a cell: itself, those of a list, those that messages and objects hold."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for name, item in value.items() if name not in _LABELS for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else []


_LABELS = frozenset((*ROLE_KEYS, "type", "id", "name", "lang", "language"))
"""Keys inside an object whose text says what the object is."""
