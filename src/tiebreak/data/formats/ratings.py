"""Rows whose completions each have a score: UltraFeedback's raw form, lists of completions and scores, distilabel's.

Owns these shapes. A completion without text or without a score takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiebreak.data.formats.annotations import origin_of
from tiebreak.data.formats.candidates import (
    completion,
    completions_of,
    has_prompt,
    has_text,
    is_paired,
    prompt_in,
    score_of,
    side_scores,
    sides_of,
)
from tiebreak.data.formats.cells import column_in, kind_of, shown, value_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.thumbs import COMPLETION, RATED_SCORE, answer_in
from tiebreak.records import Dropped, Message, Pair, Rated, Source

COMPLETIONS = ("completions", "responses", "candidates", "answers", "outputs", "generations")
LISTED = (*COMPLETIONS, "output")
"""Where a list may hold completions that are judged beside it; what else is called `output` is one completion."""
SCORES = ("scores", "ratings", "rewards")
_SCORE = ("score", "rating", "reward", "overall_score")


def judged_lists(row: Row, names: Sequence[str]) -> tuple[list[Any], list[Any], str]:
    """Return the list of completions, the list beside it that judges them, and the name of the former."""
    name, verdicts = column_in(row, names)
    column, items = column_in(row, LISTED)
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
    is_list = isinstance(value_in(row, LISTED), list)
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


def _is_scored_sides(row: Row) -> bool:
    return side_scores(row) is not None and _is_judged(row)


def _read_scored_sides(row: Row, pairing: Pairing) -> Reading:
    """Completions with a score each, two as in WebGPT's comparisons (Nakano et al. 2021), or more; the higher wins."""
    columns, names = completions_of(row), side_scores(row)
    if not columns or names is None:
        raise RowError("wrong_type", "two completions need a score each, a number")
    scores = [score_of(row[name]) for name in names]
    return _reading(row, [row[column] for column in columns], scores, columns[0], pairing)


def _why_scored_sides(row: Row) -> str:
    return ", ".join(f"{name} {shown(row[name])}" for name in side_scores(row) or ()) + ": the higher is better"


def _is_rated(row: Row) -> bool:
    is_told = has_prompt(row) and isinstance(answer_in(row), str | Mapping | list)
    return is_told and score_of(value_in(row, RATED_SCORE)) is not None and not is_paired(row) and sides_of(row) is None


def _read_rated(row: Row, _: Pairing) -> Reading:
    """One completion a row with a score, as HelpSteer2 (Wang et al. 2024) has them; pairs are made over all rows."""
    name, value = column_in(row, COMPLETION)
    field, told = column_in(row, RATED_SCORE)
    score = score_of(told)
    if score is None:
        raise RowError("wrong_type", f"'{field}' is a number, found {kind_of(told)}")
    tools = tools_of(row.get("tools"))
    return Reading(rated=(Rated(prompt_in(row), completion(value, name), score, tools, origin=origin_of(row)),))


def _why_rated(row: Row) -> str:
    field, told = column_in(row, RATED_SCORE)
    return f"{field} {shown(told)}: of one prompt the higher is better"


def paired_ratings(rated: Sequence[Rated], pairing: Pairing) -> tuple[list[Pair], list[Dropped], int]:
    """Pair the scored completions of each prompt, as `pairing` says; return pairs, dropped records, and ties.

    A pair is of the record of its chosen completion. A record whose completion is in no pair is `unpaired`, or a `tie`
    where nobody won.
    """
    groups: dict[str, list[Rated]] = {}
    for one in rated:
        groups.setdefault(one.prompt_id, []).append(one)
    pairs: list[Pair] = []
    dropped: list[Dropped] = []
    num_ties = 0
    for group in groups.values():
        completions, reason = tuple(one.completion for one in group), "unpaired"
        judged = Judged(
            group[0].prompt, completions, (Ballot(tuple(one.score for one in group)),), group[0].tools, is_scored=True
        )
        try:
            reading = pairs_of(judged, pairing)
        except RowError as bad:
            reading, reason = Reading(), "tie" if bad.reason == "tie" else reason
            alone = "no other completion of its prompt is scored" if len(group) == 1 else str(bad)
        else:
            alone = f"its prompt's pair is made of other completions (data.pairing {pairing.choose})"
        num_ties += reading.num_ties
        used: set[int] = set()
        for pair in reading.pairs:
            best, worst = completions.index(pair.chosen), completions.index(pair.rejected)
            used |= {best, worst}
            pairs.append(replace(pair, source=group[best].source, origin=group[best].origin))
        dropped += [
            Dropped(one.source or Source("", 0), reason, f"scored {one.score:g}, and {alone}")
            for index, one in enumerate(group)
            if index not in used
        ]
    return pairs, dropped, num_ties


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
SCORED_SIDES = Format(
    "scored_sides",
    "completions in columns, with a score each (WebGPT)",
    '{"question": …, "answer_0": …, "answer_1": …, "score_0": -1, "score_1": 1}',
    _is_scored_sides,
    _read_scored_sides,
    why=_why_scored_sides,
)
RATED = Format(
    "rated",
    "one completion and a score a row (HelpSteer2)",
    '{"prompt": …, "response": …, "helpfulness": 4}',
    _is_rated,
    _read_rated,
    why=_why_rated,
)
