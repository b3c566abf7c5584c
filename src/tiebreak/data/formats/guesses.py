"""Which columns hold a pair where no form is known: the names that people use.

Owns these names. A guess is always told to the user; a name that could as well mean the opposite is no guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.form import Row

PROMPTS = (
    "prompt", "question", "query", "instruction", "document", "context", "history", "input", "problem", "article",
    "post", "user_prompt", "user_input",
)  # fmt: skip
SYSTEMS = ("system", "system_prompt", "system_message")
CHOSEN_REJECTED = (
    ("chosen", "rejected"), ("chosen_response", "rejected_response"), ("response_chosen", "response_rejected"),
    ("chosen_completion", "rejected_completion"), ("chosen_answer", "rejected_answer"),
    ("chosen_text", "rejected_text"),
    ("accepted", "rejected"), ("preferred", "rejected"), ("preferred", "dispreferred"), ("preferred", "non_preferred"),
    ("preferred_response", "rejected_response"), ("preferred_response", "dispreferred_response"), ("better", "worse"),
    ("better_response", "worse_response"), ("best", "worst"), ("positive", "negative"), ("pos", "neg"),
    ("good", "bad"), ("good_response", "bad_response"), ("win", "lose"), ("y_w", "y_l"),
    ("correct_answer", "incorrect_answer"), ("correct", "incorrect"),
)  # fmt: skip
COMPLETIONS = ("completion", "solution", "response", "answer", "output", "generation")
VERDICTS = ("is_correct", "correct", "is_good", "liked", "thumbs_up", "upvoted", "label")


def guessed_columns(row: Row) -> dict[str, str] | None:
    """Return which column is taken for which of our names, as a user's mapping would say it, or None.

    Two columns that could both be the prompt are no guess, but an instruction with its input is.
    """
    found = _pair(row) or _first_better(row) or _verdict(row)
    if found is None:
        return None
    prompts = [name for name in PROMPTS if name not in found.values() and _may_be_prompt(row, name)]
    if prompts == ["instruction", "input"]:
        stated = {"prompt": "instruction", "input": "input"}
    elif len(prompts) == 1 and _is_told(row[prompts[0]]):
        stated = {"prompt": prompts[0]}
    else:
        return None
    system = next((name for name in SYSTEMS if isinstance(row.get(name), str)), None)
    return stated | ({"system": system} if system else {}) | found


def _may_be_prompt(row: Row, name: str) -> bool:
    return name in row and (row[name] is None or isinstance(row[name], str | list))


def _is_told(value: Any) -> bool:
    """Text or messages; a list of texts is something else."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, Mapping) for item in value))


def _pair(row: Row) -> dict[str, str] | None:
    for chosen, rejected in CHOSEN_REJECTED:
        if chosen in row and rejected in row and _is_told(row[chosen]) and _is_told(row[rejected]):
            return {"chosen": chosen, "rejected": rejected}
    return None


def _first_better(row: Row) -> dict[str, str] | None:
    """Stanford Human Preferences (SHP): `labels` is 1 where the first of two comments is the better one, else 0."""
    names = {"completion_a": "human_ref_A", "completion_b": "human_ref_B", "a_is_better": "labels"}
    return names if all(column in row for column in names.values()) else None


def _verdict(row: Row) -> dict[str, str] | None:
    completion = next((name for name in COMPLETIONS if isinstance(row.get(name), str)), None)
    label = next((name for name in VERDICTS if isinstance(row.get(name), bool)), None)
    return {"completion": completion, "label": label} if completion and label else None
