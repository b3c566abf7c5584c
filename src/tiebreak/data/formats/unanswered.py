"""Prompts alone: rows that ask something, of which no answer is looked at.

Owns the shapes of such rows and what of one is its prompt; everything else is handed on, for functions that rate
answers. Rows of every form of judged completions hold prompts, too; of them the form itself reads what the prompt is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.annotations import origin_of
from tiebreak.data.formats.candidates import PROMPTS, SYSTEMS, is_paired, prompt_in, sides_of, system_in
from tiebreak.data.formats.cells import column_in, keys_of, value_in
from tiebreak.data.formats.checks import check_asked, check_media
from tiebreak.data.formats.form import Reading, Row, RowError
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.pieces import prompt_of, with_system
from tiebreak.data.formats.ratings import COMPLETIONS
from tiebreak.data.formats.thumbs import COMPLETION, DIALOGUE
from tiebreak.records import Asked, Message, Source

COLUMNS = (*PROMPTS, "problem")
"""Columns that a prompt stands in; NuminaMath and its like have problems."""
_BESIDE = frozenset((*SYSTEMS, "history", "tools"))
_ABOUT_ANSWERS = frozenset({"tie", "unpaired", "not_good", "identical", "empty_completion", "no_completion"})


def is_about_answers(error: RowError) -> bool:
    """Whether a row is refused for its answers alone, so that its prompt may be a sound one."""
    return error.reason in _ABOUT_ANSWERS


def read_asked(row: Any, source: Source) -> Asked:
    """Return the prompt of a row: TRL's prompt-only rows and rows like them, or a dialogue that is to go on.

    An answer at the end of the messages is not part of it. Raises RowError.
    """
    if not isinstance(row, Mapping):
        raise RowError("not_an_object", "a row is a JSON object")
    check_media(row)
    name, value = column_in(row, COLUMNS)
    dialogue = next((column for column in DIALOGUE if isinstance(row.get(column), list)), None)
    wrapped = row.get("input")
    tools, used = row.get("tools"), {*_BESIDE, name}
    if value is not None:
        messages = list(prompt_in(row, COLUMNS))
        used |= {"input"} if name == "instruction" else set()
    elif dialogue is not None:
        messages = with_system(system_in(row), messages_of(row[dialogue], dialogue))
        used.add(dialogue)
    elif isinstance(wrapped, Mapping) and "messages" in wrapped:  # OpenAI's form, before anybody answered
        messages = with_system(system_in(row), messages_of(wrapped["messages"], "input.messages"))
        tools = wrapped.get("tools")
        used.add("input")
    else:
        raise RowError("no_prompt", f"found the keys {keys_of(row)}; wanted a prompt, as 'prompt' or 'messages'")
    told = value_in(row, (*COMPLETION, *COMPLETIONS)) is not None or is_paired(row) or sides_of(row) is not None
    goes_on = bool(messages) and messages[-1].role == "assistant"
    prompt = prompt_of(messages[:-1] if goes_on else messages)
    asked = Asked(
        prompt,
        tools_of(tools),
        {column: item for column, item in row.items() if column not in used and item is not None},
        _is_text(row, prompt),
        goes_on or told,
        source,
        origin_of(row),
    )
    check_asked(asked)
    return asked


def prompts_in(reading: Reading, row: Row, columns: Mapping[str, Any], source: Source) -> list[Asked]:
    """Return the prompts of a row whose judged completions were read, each once, with columns that its form left."""
    judged = {one.prompt_id: one for one in (*reading.pairs, *reading.alone)}
    found = [
        Asked(one.prompt, one.tools, columns, _is_text(row, one.prompt), True, source, one.origin)
        for one in judged.values()
    ]
    for asked in found:
        check_asked(asked)
    return found


def _is_text(row: Row, prompt: tuple[Message, ...]) -> bool:
    """Whether a prompt is one message, and begins with a text of the row: an instruction may have its input behind."""
    texts = [row[name] for name in COLUMNS if isinstance(row.get(name), str)]
    return len(prompt) == 1 and any(prompt[0].content.startswith(text) for text in texts)
