"""Rows whose completions are ranked.

Owns what a rank is: a number for each completion in the order of the list, the lowest is the best, equal ranks are
ties. Numbers are never read as positions in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tiebreak.data.formats.candidates import PROMPTS, has_prompt, is_paired, prompt_in, score_of
from tiebreak.data.formats.cells import column_in, kind_of, value_in
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import tools_of
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.ratings import COMPLETIONS, judged_lists, usable

RANKS = ("ranking", "ranks", "rank")


def _is_ranking(row: Row) -> bool:
    is_list = isinstance(value_in(row, COMPLETIONS), list)
    has_ranks = value_in(row, RANKS) is not None or _has_ranks(row)
    return is_list and has_ranks and has_prompt(row) and not is_paired(row)


def _has_ranks(row: Row) -> bool:
    found = value_in(row, COMPLETIONS)
    items = found if isinstance(found, list) else []
    return bool(items) and all(isinstance(item, Mapping) and "rank" in item for item in items)


def _read_ranking(row: Row, pairing: Pairing) -> Reading:
    """Ranks beside the completions, or in each of them (Nectar); higher is better once they are turned round.

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
    judged = Judged(prompt_in(row), tuple(completions), (Ballot(tuple(scores)),), tools_of(row.get("tools")))
    return pairs_of(judged, pairing)


def _settled_ranking(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse lists of ranks beside the completions that may as well be places in the list, the best first.

    That is so from 0 on. From 1 on it is where the column is called `ranking`, each list has every number once (a tie
    or a gap proves ranks), and the two readings differ in some row.
    """
    from_one: list[tuple[str, list[int], Row]] = []
    for row in rows:
        if not _is_ranking(row) or _has_ranks(row):
            continue
        name, ranks = column_in(row, RANKS)
        if not isinstance(ranks, list) or len(ranks) < 2:
            continue
        scores = [score_of(rank) for rank in ranks]
        numbers = [-1 if score is None or not score.is_integer() else int(score) for score in scores]
        if sorted(numbers) == list(range(len(ranks))):
            raise _two_readings(row, name, 0)
        from_one.append((name, numbers, row))
    is_order = all(sorted(numbers) == list(range(1, len(numbers) + 1)) for _, numbers, _ in from_one)
    for name, numbers, row in from_one if is_order else ():
        places = [numbers.index(place) + 1 for place in range(1, len(numbers) + 1)]
        if name == RANKS[0] and places != numbers:
            raise _two_readings(row, name, 1)
    return form


def _two_readings(row: Row, name: str, first: int) -> Ambiguous:
    stated = {"prompt": column_in(row, PROMPTS)[0], "completions": column_in(row, COMPLETIONS)[0]}
    return Ambiguous(
        f"'{name}' counts from {first} and can be read in two ways: as the rank of each completion ({first} is the "
        f"best) or as places in the list, the best first. For ranks: {as_options({**stated, 'ranking': name})}; for "
        f"places: {as_options({**stated, 'order': name})}"
    )


def _why_ranking(_: Row) -> str:
    return "the lowest rank is the best"


RANKING = Format(
    "ranking",
    "rankings of several completions",
    '{"prompt": …, "completions": […], "ranking": [2, 1, 3]}',
    _is_ranking,
    _read_ranking,
    _settled_ranking,
    _why_ranking,
)
