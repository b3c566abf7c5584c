"""Which columns hold a pair where no form is known: the names that people use.

Owns these names. A guess is always told to the user; a name that could as well mean the opposite is no guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from tiebreak.data.formats.candidates import STEMS, are_several, completions_of
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
FIRST_IS_BETTER = ("a_is_better", "is_a_better", "first_is_better", "is_first_better", "a_better", "prefer_a")
VERDICTS = ("is_correct", "correct", "is_good", "liked", "thumbs_up", "upvoted", "label")


def guessed_columns(row: Row) -> dict[str, str] | None:
    """Return which column is taken for which of our names, as a user's mapping would say it, or None.

    Two columns that could both be the prompt are no guess, but an instruction with its input is. Capitals, blanks and
    dashes in a name make no difference, unless two columns differ in these alone.
    """
    names = {plain_name(name): name for name in row}
    if len(names) < len(row):
        names = {name: name for name in row}
    plain = {known: row[name] for known, name in names.items()}
    guess = _guessed(plain)
    if guess is None or (plain.keys() == row.keys() and names == {name: name for name in row}):
        return guess
    return {ours: names[theirs] for ours, theirs in guess.items()}


def plain_name(name: str) -> str:
    """Return the name of a column as it is compared: small letters, `_` for blanks and dashes."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _guessed(row: Row) -> dict[str, str] | None:
    found = next((pair for pair in _PAIRS if all(_is_told(row.get(column)) for column in pair.values())), None)
    shp = {key: plain_name(name) for key, name in _SHP.items()}
    if found is None and has_all(row, tuple(shp.values())):
        found = shp
    told = next((name for name in FIRST_IS_BETTER if name in row and _is_yes_or_no(row[name])), None)
    if found is None and told is not None and len(sides := completions_of(row)) == 2:
        found = {"completion_a": sides[0], "completion_b": sides[1], "a_is_better": told}
    if found is None:
        completion = next((name for name in COMPLETIONS if isinstance(row.get(name), str)), None)
        label = next((name for name in VERDICTS if name in row and _is_yes_or_no(row[name])), None)
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


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().casefold() in ("true", "false"))


def proposed_columns(row: Row) -> dict[str, str]:
    """Return a mapping to start from for a row of no known form; `COLUMN` stands where its names do not tell.

    It is for the user to read and to correct, and never used unasked. Which of two texts is the better one is never
    taken from their order.
    """
    texts = [name for name, value in row.items() if _is_told(value) and value and not _is_beside(name, value)]
    prompts = [name for name in texts if plain_name(name) in PROMPTS or plain_name(name).startswith("question")]
    if has_all(row, ("chosen", "rejected")):
        asked = dict(zip(("prompt", "input"), [name for name in prompts if name != "rejected"][:2], strict=False))
        return {**(asked or {"prompt": UNKNOWN}), "chosen": "chosen", "rejected": "rejected"}
    lists = [name for name, value in row.items() if _OF_COMPLETIONS.fullmatch(plain_name(name)) and are_several(value)]
    sides = next((both for both in combinations(texts, 2) if _are_sides(*both)), None)
    sides = sides or next(((f"{name}.0", f"{name}.1") for name in lists if len(row[name]) == 2), None)
    verdict = next((name for name in row if plain_name(name) in _SAYS_WHO and row[name] is not None), None)
    others = [name for name in texts if name not in (sides or ()) and name != verdict]
    prompt = next((name for name in others if name in prompts), others[0] if len(others) == 1 else UNKNOWN)
    if sides is None:
        return {"prompt": prompt, "chosen": UNKNOWN, "rejected": UNKNOWN}
    key = "votes" if verdict is not None and isinstance(row[verdict], list | Mapping) else "winner"
    below = {"input": "input"} if prompt == "instruction" and "input" in texts and "input" not in sides else {}
    return {"prompt": prompt, **below, "completion_a": sides[0], "completion_b": sides[1], key: verdict or UNKNOWN}


UNKNOWN = "COLUMN"
"""Stands in a proposed mapping for a column that only the user knows."""
_BESIDE = re.compile(
    r"(?:.*_)?(?:id|uuid|model|models|name|source|lang|language|category|split|date|time|url|hash|type|score|scores|"
    r"rating|ratings|batch|status|version)(?:_.*)?|(?:is|has|num)_.*"
)


def _is_beside(name: str, value: Any) -> bool:
    """Whether a column says something about a row, and is no text of it: an id, a model's name, yes or no."""
    said = value.strip().casefold() if isinstance(value, str) else ""
    return _BESIDE.fullmatch(plain_name(name)) is not None or said in ("true", "false")


_SAYS_WHO = frozenset(
    ("votes", "vote", "winner", "label", "labels", "choice", "preference", "preferred", "better", "verdict",
     "judgement", "judgment", "annotation", "annotations", "selected", "best", "decision", "result", "rating")
)  # fmt: skip
_OF_COMPLETIONS = re.compile(rf"(?:.*_)?(?:{'|'.join(STEMS)}|replie|summarie)s?")
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
