"""Demonstrations: answers to be imitated, with nothing said against them.

Owns the shapes of such rows: a prompt and a completion, or a dialogue of which the last answer, or every one, is meant.
Rows among which a column tells good answers from bad ones are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.annotations import origin_of
from tiebreak.data.formats.candidates import completion, has_prompt, is_paired, prompt_in, sides_of, system_in
from tiebreak.data.formats.cells import column_in
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.guesses import guessed_columns
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.opinions import opinion_in
from tiebreak.data.formats.pieces import prompt_of, with_system
from tiebreak.data.formats.thumbs import COMPLETION, DIALOGUE, LABELS, RATED_SCORE, answer_in
from tiebreak.records import Thumb


def _is_unjudged(row: Row) -> bool:
    """Whether nothing of a row says how good its completion is."""
    judged = any(row.get(name) is not None for name in (*LABELS, *RATED_SCORE))
    return not judged and not is_paired(row) and sides_of(row) is None and guessed_columns(row) is None


def _dialogue_in(row: Row) -> str | None:
    return next((name for name in DIALOGUE if isinstance(row.get(name), list)), None)


def _matches(row: Row) -> bool:
    told = _dialogue_in(row) is not None or (has_prompt(row) and answer_in(row) is not None)
    return told and _is_unjudged(row)


def _read(row: Row, pairing: Pairing) -> Reading:
    """OpenAI's fine-tuning form, TRL's language modelling and prompt-completion forms, and rows like them."""
    known: dict[str, Any] = {"tools": tools_of(row.get("tools")), "origin": origin_of(row)}
    dialogue = _dialogue_in(row)
    if dialogue is None:
        name, value = column_in(row, COMPLETION)
        return Reading(thumbs=(Thumb(prompt_in(row), completion(value, name), True, **known),))
    messages = with_system(system_in(row), messages_of(row[dialogue], dialogue))
    turns = [at for at, message in enumerate(messages) if message.role == "assistant" and at]
    if not turns:
        raise RowError("no_completion", f"'{dialogue}' holds no assistant turn that answers something")
    if pairing.turns == "last" and turns[-1] != len(messages) - 1:
        raise RowError("no_completion", f"'{dialogue}' does not end with an assistant turn")
    meant = turns if pairing.turns == "all" else turns[-1:]
    found = [Thumb(prompt_of(messages[:at]), messages[at], True, **known) for at in meant]
    opening = found[0].split_key if len(found) > 1 else None
    return Reading(thumbs=tuple(replace(one, opening_id=opening) for one in found))


def judged_columns(rows: Sequence[Row]) -> dict[str, str]:
    """Return the mapping that reads which of the completions of such rows are good ones, {} where none does."""
    found = opinion_in([row for row in rows if _matches(row)])
    return found[1] if found else {}


def _settled(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse rows of which a column says that some are not to be imitated."""
    found = opinion_in([row for row in rows if _matches(row)])
    if found is None:
        return form
    column, mapping = found
    by_it = f"map it: {as_options(mapping)}" if mapping else "write it as 'label', true or false, beside each"
    raise Ambiguous(
        f"'{column}' tells good completions from bad ones, and as demonstrations all of them would be imitated. To go "
        f"by it {by_it}; to imitate all of them, say that they are: --format {form.name} (data.format)"
    )


DEMONSTRATIONS = Format(
    "demonstrations",
    "demonstrations: answers to be imitated",
    '{"messages": […]} or {"prompt": …, "completion": …}',
    _matches,
    _read,
    _settled,
)
"""Read only where good completions alone are asked for: anywhere else a row that says nothing is none."""
STATED = replace(DEMONSTRATIONS, settle=lambda form, _: form)
"""The same where the user says that rows are such, whatever stands beside them."""
