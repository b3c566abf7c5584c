"""Which columns hold a pair where no form is known: the names that people use.

Owns these names. A guess is always told to the user; a name that could as well mean the opposite is no guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from tiebreak.data.formats.cells import has_all
from tiebreak.data.formats.form import Row

PROMPTS = (
    "prompt", "question", "query", "instruction", "document", "context", "history", "input", "problem", "article",
    "post", "user_prompt", "user_input", "trajectory",
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
    rounds = [name for name in free if name == "history" and isinstance(row[name], list) and len(free) > 1]
    free = [name for name in free if name not in rounds]
    prompts = [name for name in free if row[name] is None or isinstance(row[name], str | list)]
    if prompts == ["instruction", "input"]:
        stated = {"prompt": "instruction", "input": "input"}
    elif len(prompts) == 1 and _is_told(row[prompts[0]]):
        stated = {"prompt": prompts[0]}
    else:
        return None
    system = next((name for name in SYSTEMS if isinstance(row.get(name), str)), None)
    before = ({"system": system} if system else {}) | ({"history": rounds[0]} if rounds else {})
    return stated | before | found


def proposed_columns(row: Row) -> dict[str, str]:
    """Return a mapping to start from for a row of no known form; `COLUMN` stands where the row does not tell.

    It is for the user to read and to correct, and never used unasked.
    """
    if has_all(row, ("chosen", "rejected")):
        found = [name for name in PROMPTS if row.get(name) and _is_told(row[name])][:2]
        asked = dict(zip(("prompt", "input"), found, strict=False)) or {"prompt": "COLUMN"}
        return {**asked, "chosen": "chosen", "rejected": "rejected"}
    texts = [name for name, value in row.items() if _is_told(value) and value]
    couples = [(one, other) for one, other in combinations(texts, 2) if _are_sides(one, other)]
    sides = couples[0] if couples else None
    free = [name for name in texts if not sides or name not in sides]
    words = {*_SAYS_WHO, *(sides or ())}
    verdict = next((name for name in row if name.casefold() in _SAYS_WHO), None)
    named = (name for name, value in row.items() if isinstance(value, str) and value in words)
    verdict = verdict or next(named, None)
    others = [name for name in free if name != verdict]
    prompt = next((name for name in others if name in PROMPTS), next(iter(others), "COLUMN"))
    if sides is None:
        others = [name for name in others if name != prompt]
        lists = next((name for name, value in row.items() if isinstance(value, list) and len(value) > 1), None)
        if lists is not None and len(others) < 2:
            return {"prompt": prompt, "completions": lists, "scores": "COLUMN"}
        chosen, rejected = (others + ["COLUMN"] * 2)[:2] if len(others) == 2 else ("COLUMN", "COLUMN")
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    key = "votes" if verdict is not None and isinstance(row[verdict], list | Mapping) else "winner"
    return {"prompt": prompt, "completion_a": sides[0], "completion_b": sides[1], key: verdict or "COLUMN"}


_SAYS_WHO = frozenset(
    ("votes", "vote", "winner", "label", "labels", "choice", "preference", "preferred", "better", "verdict",
     "judgement", "judgment", "annotation", "annotations", "selected", "best", "decision", "result", "rating")
)  # fmt: skip
_COUNTERPARTS = (("1", "2"), ("a", "b"), ("0", "1"), ("left", "right"), ("first", "second"), ("one", "two"), ("x", "y"))


def _are_sides(one: str, other: str) -> bool:
    """Whether two names differ in one counter alone, at their end or their beginning, as a1 and a2 do."""
    one, other = one.casefold(), other.casefold()
    for first, second in _COUNTERPARTS:
        at_end = one.endswith(first) and other.endswith(second)
        if at_end and one.removesuffix(first) == other.removesuffix(second):
            return True
        at_begin = one.startswith(first) and other.startswith(second)
        if at_begin and one.removeprefix(first) == other.removeprefix(second):
            return True
    return False


def _is_told(value: Any) -> bool:
    """Text or messages; a list of texts is something else."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, Mapping) for item in value))
