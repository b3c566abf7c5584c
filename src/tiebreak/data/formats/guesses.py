"""Which columns hold a pair where no form is known: the names that people use.

Owns these names. A guess is always told to the user; a name that could as well mean the opposite is no guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.form import Row
from tiebreak.data.formats.pieces import has_all

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
_PAIRS = tuple({"chosen": chosen, "rejected": rejected} for chosen, rejected in CHOSEN_REJECTED)
# Stanford Human Preferences (SHP): `labels` is 1 where the first of two comments is the better one, else 0.
_SHP = {"completion_a": "human_ref_A", "completion_b": "human_ref_B", "a_is_better": "labels"}
COMPLETIONS = ("completion", "solution", "response", "answer", "output", "generation")
VERDICTS = ("is_correct", "correct", "is_good", "liked", "thumbs_up", "upvoted", "label")


def guessed_columns(row: Row) -> dict[str, str] | None:
    """Return which column is taken for which of our names, as a user's mapping would say it, or None.

    Two columns that could both be the prompt are no guess, but an instruction with its input is.
    """
    found = next((pair for pair in _PAIRS if all(_is_told(row.get(column)) for column in pair.values())), None)
    if found is None and has_all(row, tuple(_SHP.values())):
        found = _SHP
    if found is None:
        completion = next((name for name in COMPLETIONS if isinstance(row.get(name), str)), None)
        label = next((name for name in VERDICTS if isinstance(row.get(name), bool)), None)
        if completion is None or label is None:
            return None
        found = {"completion": completion, "label": label}
    free = [name for name in PROMPTS if name in row and name not in found.values()]
    prompts = [name for name in free if row[name] is None or isinstance(row[name], str | list)]
    if prompts == ["instruction", "input"]:
        stated = {"prompt": "instruction", "input": "input"}
    elif len(prompts) == 1 and _is_told(row[prompts[0]]):
        stated = {"prompt": prompts[0]}
    else:
        return None
    system = next((name for name in SYSTEMS if isinstance(row.get(name), str)), None)
    return stated | ({"system": system} if system else {}) | found


def _is_told(value: Any) -> bool:
    """Text or messages; a list of texts is something else."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, Mapping) for item in value))
