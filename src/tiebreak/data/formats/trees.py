"""Rows that hold a whole conversation with several answers at some of its turns: Open Assistant's trees, PRISM.

Owns these shapes. Pure: a row in, pairs out, or RowError; what nobody compared gives no pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tiebreak.data.formats.candidates import score_of, system_in
from tiebreak.data.formats.cells import kind_of, text_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import SPEAKERS, message_of
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.pieces import with_system
from tiebreak.records import Message, Pair

MAX_DEPTH = 64


def _is_tree(row: Row) -> bool:
    root = row.get("prompt")
    return isinstance(root, Mapping) and isinstance(root.get("replies"), list) and "text" in root


def _read_tree(row: Row, pairing: Pairing) -> Reading:
    """Open Assistant (Köpf et al. 2023): of the answers to one message, that of the lowest rank is the best.

    Each message of a user whose answers are ranked is a prompt of its own, with the messages before it.
    """
    return _paired(_ranked(row["prompt"], (), "prompt"), pairing, "no message of the tree has ranked answers")


def _ranked(item: Any, before: tuple[Message, ...], field: str) -> Iterator[Judged]:
    if not isinstance(item, Mapping) or len(before) > MAX_DEPTH:
        raise RowError("wrong_type", f"'{field}' is a message with replies, found {kind_of(item)}")
    said = (*before, message_of(item, field))
    told = item.get("replies") if isinstance(item.get("replies"), list) else []
    replies = [reply for reply in told or () if isinstance(reply, Mapping) and not reply.get("deleted")]
    ranks = [score_of(reply.get("rank")) for reply in replies]
    if said[-1].role == "user" and sum(rank is not None for rank in ranks) > 1:
        sides = [message_of(reply, f"{field}.replies[{index}]") for index, reply in enumerate(replies)]
        scores = tuple(None if rank is None else -rank for rank in ranks)
        yield Judged(said, tuple(sides), (Ballot(scores),))
    for index, reply in enumerate(replies):
        yield from _ranked(reply, said, f"{field}.replies[{index}]")


def _paired(found: Iterator[Judged], pairing: Pairing, nothing: str) -> Reading:
    """Return the pairs of all judged turns; those of a turn weigh 1 together."""
    pairs: list[Pair] = []
    num_ties, refusal = 0, RowError("no_completion", nothing)
    for judged in found:
        try:
            reading = pairs_of(judged, pairing)
        except RowError as bad:
            refusal = bad
            continue
        pairs += reading.pairs
        num_ties += reading.num_ties
    if not pairs:
        raise refusal
    return Reading(tuple(pairs), num_ties=num_ties)


def _is_prism(row: Row) -> bool:
    turns = row.get("conversation_history")
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, Mapping) and {"turn", "role", "content"} <= turn.keys() for turn in turns)
    )


def _read_prism(row: Row, pairing: Pairing) -> Reading:
    """PRISM (Kirk et al. 2024): at each turn the user scored what several models said and went on with one of them."""
    return _paired(_scored_turns(row), pairing, "no turn has two answers with a score each")


def _scored_turns(row: Row) -> Iterator[Judged]:
    before = with_system(system_in(row), [])
    turns: dict[Any, list[Row]] = {}
    for item in row["conversation_history"]:
        turns.setdefault(str(item["turn"]), []).append(item)
    for items in turns.values():
        sides = [SPEAKERS.get(str(item["role"]).casefold()) for item in items]
        asked = [item for item, side in zip(items, sides, strict=True) if side == "user"]
        said = [item for item, side in zip(items, sides, strict=True) if side == "assistant"]
        if len(asked) != 1 or not said:
            raise RowError("turn_order", "a turn of 'conversation_history' is one user message and its answers")
        before.append(Message("user", text_of(asked[0]["content"], "conversation_history.content")))
        told = [Message("assistant", text_of(item["content"], "conversation_history.content")) for item in said]
        scores = tuple(score_of(item.get("score")) for item in said)
        if sum(score is not None for score in scores) > 1:
            yield Judged(tuple(before), tuple(told), (Ballot(scores),), is_scored=True)
        kept = [message for message, item in zip(told, said, strict=True) if item.get("if_chosen") is True]
        if len(kept) != 1:
            return  # what the conversation went on with is not known
        before.append(kept[0])


def _why_prism(_: Row) -> str:
    return "the higher score is better"


def _why_tree(_: Row) -> str:
    return "rank 0 is the best"


TREE = Format(
    "oasst",
    "Open Assistant, message trees",
    '{"prompt": {"text": …, "role": "prompter", "replies": [{"text": …, "role": "assistant", "rank": 0}, …]}}',
    _is_tree,
    _read_tree,
    why=_why_tree,
)
PRISM = Format(
    "prism",
    "PRISM, conversations with scores",
    '{"conversation_history": [{"turn": 0, "role": "user", …}, {"turn": 0, "role": "model", "score": 80, …}, …]}',
    _is_prism,
    _read_prism,
    why=_why_prism,
)
