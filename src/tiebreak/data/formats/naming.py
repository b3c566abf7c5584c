"""How what a form reads of its own accord is said as a mapping of columns: the answers to paste that questions print.

Owns that such an answer forgets nothing of the prompt. It knows no form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiebreak.data.formats.candidates import PROMPTS, SYSTEMS, has_prompt
from tiebreak.data.formats.cells import column_in
from tiebreak.data.formats.form import Format, Row
from tiebreak.data.formats.guesses import proposed_columns


def mapping_of_prompt(rows: Sequence[Row], names: Sequence[str] = PROMPTS) -> dict[str, str]:
    """Return the mapping by which a prompt is the one that `prompt_in` reads of these rows, all that comes before it,
    too; `names` are those that a prompt's column may have.
    """
    name = column_in(rows[0], names)[0]
    asked = [row.get("input") for row in rows if name == "instruction"]
    system = next((column for column in SYSTEMS if any(row.get(column) for row in rows)), None)
    stated = {
        "prompt": name,
        "input": "input" if any(isinstance(text, str) and text.strip() for text in asked) else None,
        "system": system,
        "history": "history" if any(row.get("history") and isinstance(row["history"], list) for row in rows) else None,
        "tools": "tools" if any(row.get("tools") for row in rows) else None,
    }
    return {ours: theirs for ours, theirs in stated.items() if theirs is not None}


def prompt_named(form: Format, rows: Sequence[Row]) -> dict[str, str]:
    """Return the part of a mapping that names the prompt of some rows and all that comes before it, as a form reads it.

    Where it has no column that is known, the one that its name tells.
    """
    if form.mapping:
        return {ours: theirs for ours, theirs in form.mapping if ours in _KEYS}
    if isinstance(rows[0].get("input"), Mapping):
        return {"prompt": "input.messages"} | {
            ours: theirs for ours, theirs in mapping_of_prompt(rows).items() if ours in ("system", "history")
        }
    found = next((row for row in rows if has_prompt(row)), None)
    start = proposed_columns(rows[0]) if found is None else mapping_of_prompt([found, *rows])
    return {ours: theirs for ours, theirs in start.items() if ours in _KEYS}


_KEYS = ("prompt", "input", "system", "history", "tools", "prefix")
