"""Rows whose completions are ranked.

Owns what a rank is: a number for each completion in the order of the list, the lowest is the best, equal ranks are
ties. Numbers are never read as places in the list; where they could be those, the file is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.data.formats.annotations import number
from tiebreak.data.formats.candidates import PROMPTS, has_prompt, is_paired, prompt_in, score_of
from tiebreak.data.formats.cells import column_in, kind_of, value_in
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.proportions import commonest, not_few
from tiebreak.data.formats.ratings import COMPLETIONS, LISTED, judged_lists, usable
from tiebreak.data.formats.verdicts import word_of

RANKS = ("ranking", "ranks", "rank")
_PROMPTS = (*PROMPTS, "context")
"""NeMo RL calls the messages of a prompt `context`; text of that name may be what the prompt is about."""


def _is_ranking(row: Row) -> bool:
    is_list = isinstance(value_in(row, LISTED), list)
    has_ranks = value_in(row, RANKS) is not None or _has_ranks(row)
    is_asked = has_prompt(row) or isinstance(row.get("context"), list)
    return is_list and has_ranks and is_asked and not is_paired(row)


def _has_ranks(row: Row) -> bool:
    found = value_in(row, COMPLETIONS)
    items = found if isinstance(found, list) else []
    return bool(items) and all(isinstance(item, Mapping) and "rank" in item for item in items)


def _read_ranking(row: Row, pairing: Pairing) -> Reading:
    """Ranks beside the completions, or in each of them (Nectar, NeMo RL); higher is better once they are turned round.

    A completion without a rank takes no part.
    """
    if value_in(row, RANKS) is None and _has_ranks(row):
        column, items = column_in(row, COMPLETIONS)
        ranks = [item["rank"] for item in items]
    else:
        items, ranks, column = judged_lists(row, RANKS)
    found = [None if isinstance(rank, bool) else score_of(rank) for rank in ranks]
    for rank, score in zip(ranks, found, strict=True):
        if score is None and rank is not None:
            raise RowError("wrong_type", f"a rank is a number, 1 is the best; found {kind_of(rank)}")
    completions, scores = usable(items, [None if score is None else -score for score in found], column)
    judged = Judged(prompt_in(row, _PROMPTS), tuple(completions), (Ballot(tuple(scores)),), tools_of(row.get("tools")))
    return pairs_of(judged, pairing)


def _settled_ranking(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse lists beside the completions that are as well the rank of each as places, the best first.

    So are whole orders (0, 1, 2, … or 1, 2, 3, …, each once) which mean another thing as the one than as the other. A
    tie, a gap or a completion passed over says that they are ranks, and where not a few lists have one, all are. A list
    that ends early, by its length or with nothing, may be either and says nothing.
    """
    judged = [row for row in rows if _is_ranking(row) and not _has_ranks(row)]
    told = [(*column_in(row, RANKS), value_in(row, LISTED)) for row in judged]
    orders = [(name, _order_in(ranks)) for name, ranks, items in told if _are_numbers(ranks, len(items))]
    doubtful = [(name, order) for name, order in orders if order is not None and order != _turned(order)]
    if not doubtful or not_few(order is None for _, order in orders):
        return form
    name, first = commonest((name, min(order)) for name, order in doubtful)
    if first == 1 and name in _OF_EACH:
        return form
    stated = mapping_of_prompt(judged, _PROMPTS) | {"completions": column_in(judged[0], LISTED)[0]}
    raise Ambiguous(
        f"'{name}' counts from {first} and can be read in two ways: as the rank of each completion ({first} is the "
        f"best) or as places in the list, the best first. For ranks: {as_options({**stated, 'ranking': name})}; for "
        f"places: {as_options({**stated, 'order': name})}"
    )


_OF_EACH = ("ranks", "rank")
"""Names that say: a rank for each completion, as PairRM gives them."""


def _are_numbers(ranks: Any, num: int) -> bool:
    """Whether a list has a number for each of so many completions, the last of them among them."""
    if not isinstance(ranks, list) or len(ranks) != num or num < 2 or ranks[-1] is None:
        return False
    return all(rank is None or number(rank) is not None for rank in ranks)


def _order_in(ranks: Sequence[Any]) -> list[int] | None:
    """Return numbers that count from 0 or 1 without a tie or a gap, None where a list holds something else."""
    words = [word_of(rank) for rank in ranks]
    found = [int(word) for word in words if word.isdecimal()]
    first = min(found, default=2)
    is_whole = len(found) == len(words) and sorted(found) == list(range(first, first + len(found)))
    return found if is_whole and first < 2 else None


def _turned(order: Sequence[int]) -> list[int]:
    """Return the rank of each completion where `order` holds places, or the places where it holds ranks."""
    first = min(order)
    return [order.index(number) + first for number in range(first, first + len(order))]


def _why_ranking(_: Row) -> str:
    return "the lowest rank is the best"


RANKING = Format(
    "ranking",
    "rankings of several completions",
    '{"prompt": …, "completions": […], "ranks": [2, 1, 3]}',
    _is_ranking,
    _read_ranking,
    _settled_ranking,
    _why_ranking,
)
