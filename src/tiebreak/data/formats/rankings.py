"""Rows whose completions are ranked.

Owns what a rank is: a number for each completion in the order of the list, the lowest is the best, equal ranks are
ties. Numbers are never read as positions in the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.candidates import has_prompt, is_paired, prompt_in, score_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.pieces import kind_of, tools_of
from tiebreak.data.formats.ratings import COMPLETIONS, judged_lists, usable

RANKS = ("ranking", "ranks", "rank")


def _is_ranking(row: Row) -> bool:
    columns = [row[name] for name in COMPLETIONS if row.get(name) is not None]
    if not columns or not isinstance(columns[0], list) or not has_prompt(row) or is_paired(row):
        return False
    return any(row.get(name) is not None for name in RANKS) or _has_ranks(columns[0])


def _has_ranks(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, Mapping) and "rank" in item for item in items)


def _read_ranking(row: Row, pairing: Pairing) -> Reading:
    """Ranks beside the completions, or in each of them (Nectar)."""
    if any(row.get(name) is not None for name in RANKS):
        items, ranks, column = judged_lists(row, RANKS)
    else:
        column = next(name for name in COMPLETIONS if row.get(name) is not None)
        items, ranks = row[column], [item["rank"] for item in row[column]]
    completions, scores = usable(items, [_score(rank) for rank in ranks], column)
    judged = Judged(prompt_in(row), tuple(completions), (Ballot(tuple(scores)),), tools_of(row.get("tools")))
    return pairs_of(judged, pairing)


def _score(rank: Any) -> float | None:
    """Return the rank turned round, so that higher is better; a completion without a rank takes no part."""
    if rank is None:
        return None
    found = None if isinstance(rank, bool) else score_of(rank)
    if found is None:
        raise RowError("wrong_type", f"a rank is a number, 1 is the best; found {kind_of(rank)}")
    return -found


RANKING = Format(
    "ranking",
    "rankings of several completions",
    '{"prompt": …, "completions": […], "ranking": [2, 1, 3]}',
    _is_ranking,
    _read_ranking,
)
