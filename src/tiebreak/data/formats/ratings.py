"""Rows whose completions each have a score: UltraFeedback's raw form, lists of completions and scores, distilabel's.

Owns these shapes. A completion without text or without a score takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.candidates import completion, has_prompt, has_text, is_paired, prompt_in, score_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.pieces import column_in, kind_of, tools_of, value_in
from tiebreak.records import Message

COMPLETIONS = ("completions", "responses", "candidates", "answers", "outputs", "generations")
SCORES = ("scores", "ratings", "rewards")
_SCORE = ("score", "rating", "reward", "overall_score")


def judged_lists(row: Row, names: Sequence[str]) -> tuple[list[Any], list[Any], str]:
    """Return the list of completions, the list beside it that judges them, and the name of the former."""
    name, verdicts = column_in(row, names)
    column, items = column_in(row, COMPLETIONS)
    for field, value in ((column, items), (name, verdicts)):
        if not isinstance(value, list):
            raise RowError("wrong_type", f"'{field}' is a list, found {kind_of(value)}")
    if len(items) != len(verdicts):
        raise RowError("wrong_type", f"'{name}' has {len(verdicts)} entries for {len(items)} completions")
    return items, verdicts, column


def usable(items: Sequence[Any], scores: Sequence[float | None], column: str) -> tuple[list[Message], list[float]]:
    """Return the completions that have text and a score, and these scores."""
    found = [
        (message, score)
        for index, (item, score) in enumerate(zip(items, scores, strict=True))
        if item is not None and has_text(message := completion(item, f"{column}[{index}]")) and score is not None
    ]
    return [message for message, _ in found], [score for _, score in found]


def _reading(row: Row, items: Sequence[Any], scores: Sequence[float | None], column: str, pairing: Pairing) -> Reading:
    completions, kept = usable(items, scores, column)
    ballots = (Ballot(tuple(kept)),)
    judged = Judged(prompt_in(row), tuple(completions), ballots, tools_of(row.get("tools")), is_scored=True)
    return pairs_of(judged, pairing)


def _has_objects(row: Row, *names: str) -> bool:
    lists = [row.get(column) for column in COMPLETIONS]
    items = next((items for items in lists if isinstance(items, list) and items), [])
    return bool(items) and all(isinstance(item, Mapping) and any(name in item for name in names) for item in items)


def _is_ultrafeedback(row: Row) -> bool:
    is_raw = isinstance(row.get("completions"), list) and _has_objects(row, "response")
    return is_raw and has_prompt(row) and not is_paired(row) and _has_objects(row, *_ULTRAFEEDBACK)


_ULTRAFEEDBACK = ("overall_score", "fine-grained_score", "annotations")


def _read_ultrafeedback(row: Row, pairing: Pairing) -> Reading:
    """UltraFeedback (Cui et al. 2024): the overall score, else the fine-grained one, else the mean of the aspects."""
    scores: list[float | None] = []
    for item in row["completions"]:
        stated = [score_of(item.get(name)) for name in ("overall_score", "fine-grained_score")]
        aspects = item["annotations"].values() if isinstance(item.get("annotations"), Mapping) else ()
        ratings = [score_of(aspect.get("Rating")) for aspect in aspects if isinstance(aspect, Mapping)]
        known = [rating for rating in ratings if rating is not None]
        mean = sum(known) / len(known) if known else None
        scores.append(next((score for score in (*stated, mean) if score is not None), None))
    return _reading(row, row["completions"], scores, "completions", pairing)


def _is_distilabel(row: Row) -> bool:
    return all(isinstance(row.get(name), list) for name in ("generations", "ratings")) and _is_judged(row)


def _is_ratings(row: Row) -> bool:
    has_scores = value_in(row, SCORES) is not None or _has_objects(row, *_SCORE)
    is_list = isinstance(value_in(row, COMPLETIONS), list)
    return is_list and has_scores and _is_judged(row) and not _is_distilabel(row)


def _is_judged(row: Row) -> bool:
    return has_prompt(row) and not is_paired(row)


def _read_ratings(row: Row, pairing: Pairing) -> Reading:
    if value_in(row, SCORES) is None and _has_objects(row, *_SCORE):
        column, items = column_in(row, COMPLETIONS)
        scores = [value_in(item, _SCORE) for item in items]
    else:
        items, scores, column = judged_lists(row, SCORES)
    return _reading(row, items, [score_of(score) for score in scores], column, pairing)


ULTRAFEEDBACK = Format(
    "ultrafeedback",
    "UltraFeedback, raw",
    '{"instruction": …, "completions": [{"response": …, "overall_score": …}, …]}',
    _is_ultrafeedback,
    _read_ultrafeedback,
)
DISTILABEL = Format(
    "distilabel",
    "distilabel",
    '{"instruction": …, "generations": […], "ratings": […]}',
    _is_distilabel,
    _read_ratings,
)
RATINGS = Format(
    "ratings",
    "completions with scores",
    '{"prompt": …, "completions": […], "scores": […]}',
    _is_ratings,
    _read_ratings,
)
