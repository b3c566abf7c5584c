"""What a file holds beside its completions that its prompts may need and do not hold, and how to bring it there.

Owns the names of such columns, when one counts as missed, and the mapping that is proposed. It knows no container.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiebreak.data.formats.annotations import names_that_are_texts
from tiebreak.data.formats.candidates import has_prompt, side_scores, sides_of
from tiebreak.data.formats.columns import columns_form
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.guesses import plain_name
from tiebreak.data.formats.messages import ROLE_KEYS
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairs import PREFIXES
from tiebreak.data.formats.ratings import COMPLETIONS
from tiebreak.data.formats.votes import STRENGTHS, VERDICTS
from tiebreak.records import Message

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


def missed_in(row: Row, reading: Reading, documents: frozenset[str]) -> Iterator[str]:
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


# ---------------------------------------------------------------------------------------------- what is proposed


def remedy_for(
    rows: Sequence[Row], missed: Sequence[str], row: Row, prompt: Sequence[Message], form: Format
) -> tuple[tuple[str, str], ...]:
    """Return a mapping that puts what is missed into the `prompt` of a row, () where none was found.

    It names all that was read, so that nothing else goes missing, and as many columns as our names of a prompt's parts
    have room for. What may be of one side, or the answer, is never put there.
    """
    documents = names_that_are_texts(rows)
    mapping = dict(form.mapping) or _as_mapping(rows, row, form)
    before = [message.content for message in prompt]
    lost, found = set(missed), False
    for column in missed:
        begins = plain_name(column).startswith(("sys", "preprompt", "persona", "developer"))
        keys = ("prefix",) if column in PREFIXES else ("system",) if begins else ("history", "input")
        for key in keys if mapping and not _OF_ANSWERS.fullmatch(plain_name(column)) else ():
            with contextlib.suppress(RowError, ValueError):
                trial = columns_form(mapping | {key: column})
                reading = trial.read(row, Pairing())
                said = "\n".join(message.content for message in (*reading.pairs, *reading.alone)[0].prompt)
                left = set(missed_in(row, reading, documents))
                if key not in mapping and left < lost and column not in left and all(text in said for text in before):
                    mapping, lost, found = dict(trial.mapping), left, True
                    break
    return tuple(mapping.items()) if found else ()


def _as_mapping(rows: Sequence[Row], row: Row, form: Format) -> dict[str, str]:
    """Return a mapping by which a row is read as a form reads it, {} where none of those that are known does.

    The other rows, a few of them, must be read alike, too: a column may say the same of one by chance.
    """
    prompt = mapping_of_prompt([row])
    if {"chosen", "rejected"} <= row.keys():
        prompt = prompt if has_prompt(row) else {}
        begun = next((name for name in PREFIXES if isinstance(row.get(name), str)), None)
        return prompt | ({"prefix": begun} if begun else {}) | {"chosen": "chosen", "rejected": "rejected"}
    for judged in _judgements(row):
        with contextlib.suppress(ValueError):
            trial = columns_form(prompt | judged)
            if all(_read(trial, one) == _read(form, one) for one in (row, *rows[:_A_FEW])):
                return prompt | judged
    return {}


_A_FEW = 32


def _read(form: Format, row: Row) -> Reading | None:
    with contextlib.suppress(RowError):
        return form.read(row, Pairing()) if form.matches(row) else None
    return None


def _judgements(row: Row) -> Iterator[dict[str, str]]:
    """Yield the mappings by which completions and what is said of them may be read, the prompt left out."""
    messages = {"prompt": "input.messages", "chosen": "preferred_output", "rejected": "non_preferred_output"}
    yield from (messages, messages | {"tools": "input.tools"})
    yield {"completions": "completions", "scores": "scores"}
    yield {"completion": "completion", "label": "label"}
    first, second = sides_of(row) or ("", "")
    sides = {"completion_a": first, "completion_b": second}
    held = [name for name in (*STRENGTHS, *VERDICTS) if row.get(name) is not None] if first else []
    for name in held:
        yield from (sides | {key: name} for key in ("strength", "winner", "votes"))
    if names := side_scores(row):
        yield sides | {"score_a": names[0], "score_b": names[1]}


_OF_ANSWERS = re.compile(
    r"(?:chosen|rejected|preferred|dispreferred|response|completion|answer|output)(?:_.*)?|"
    r"(?:.*_)?(?:references?|solution|expected|gold|golden|ground_?truth|target)(?:_(?:answer|response|output|text))?"
)
"""Names of what belongs to one side, or tells the right answer: no prompt may hold it."""
