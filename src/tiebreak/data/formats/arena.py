"""Battles: two models answer the same conversation and somebody says who won; two summaries of one post.

Owns these shapes. The majority rule is that of `pairing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from tiebreak.data.formats.candidates import completion, is_paired, names_of_sides, started
from tiebreak.data.formats.cells import has_all, shown, value_in
from tiebreak.data.formats.doubts import refuse_unmapped
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.pairing import Judged, pairs_of
from tiebreak.data.formats.pieces import split_dialogues
from tiebreak.data.formats.tallies import JUDGES, MAX_VOTES, name_of
from tiebreak.data.formats.verdicts import Side, word_of
from tiebreak.data.formats.votes import ballot, side_in, told_votes, why_votes
from tiebreak.records import Message, Pair


def _is_arena(row: Row) -> bool:
    return has_all(row, ("conversation_a", "conversation_b", "winner")) and not is_paired(row)


def _read_arena(row: Row, pairing: Pairing) -> Reading:
    """Chatbot Arena (Chiang et al. 2024): two whole conversations; they share all but the last turn.

    MT-Bench's human judgements (Zheng et al. 2023) are of one `turn`, with the turns after it in the row.
    """
    sides = [messages_of(row[name], name) for name in _CONVERSATIONS]
    turn = row.get("turn")
    if isinstance(turn, int) and turn > 0:
        sides = [_until(turn, side) for side in sides]
    side = side_in(row["winner"], "winner", names_of_sides(row, _CONVERSATIONS))
    return _battle(row, split_dialogues(*sides), [(side, name_of(value_in(row, JUDGES)))], pairing)


def _until(turn: int, messages: Sequence[Message]) -> list[Message]:
    """Return the messages up to the answer to the user's turn of this number, from 1."""
    asked = [place for place, message in enumerate(messages) if message.role == "user"]
    return list(messages if len(asked) <= turn else messages[: asked[turn]])


_CONVERSATIONS = ("conversation_a", "conversation_b")


def _battle(row: Row, pair: Pair, cast: Sequence[tuple[Side, str]], pairing: Pairing) -> Reading:
    ballots = tuple(ballot(side, judge) for side, judge in cast)
    judged = Judged(
        tuple(started(row, pair.prompt)),
        (pair.chosen, pair.rejected),
        ballots,
        tools_of(row.get("tools")),
        is_voted=True,
    )
    return pairs_of(judged, pairing)


def _why_arena(row: Row) -> str:
    return f"winner {shown(row.get('winner'))}"


def _settled_arena(form: Format, rows: Sequence[Row]) -> Format:
    told = [(row.get("winner"), names_of_sides(row, _CONVERSATIONS)) for row in rows]
    refuse_unmapped("winner", told, _CONVERSATIONS)
    return form


def _is_rounds(row: Row) -> bool:
    told = ("prompt", "response_a", "response_b")
    return has_all(row, told) and not is_paired(row) and all(_texts(row[name]) is not None for name in told)


def _texts(value: Any) -> list[str] | None:
    """Return a list of texts, also told as JSON; None where it is something else."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value or not all(isinstance(item, str | None) for item in value):
        return None
    return [item or "" for item in value]


def _read_rounds(row: Row, pairing: Pairing) -> Reading:
    """LMSYS's arena of 55,000 battles: lists of the turns of the user and of both models, and who won."""
    asked, *sides = (_texts(row[name]) or [] for name in ("prompt", "response_a", "response_b"))
    if len({len(asked), *map(len, sides)}) > 1:
        raise RowError("wrong_type", "'prompt', 'response_a' and 'response_b' are lists of equally many turns")
    dialogues = [
        [
            message
            for question, answer in zip(asked, said, strict=True)
            for message in (Message("user", question), Message("assistant", answer))
        ]
        for said in sides
    ]
    words = names_of_sides(row, _RESPONSES)
    cast = [(side_in(value, field, words), judge) for value, field, judge in islice(told_votes(row), MAX_VOTES + 1)]
    if not 0 < len(cast) <= MAX_VOTES:
        raise RowError("wrong_type", f"a record has 1 to {MAX_VOTES} votes on who won, found {len(cast)}")
    return _battle(row, split_dialogues(*dialogues), cast, pairing)


def _settled_rounds(form: Format, rows: Sequence[Row]) -> Format:
    told: dict[str, list[tuple[Any, Mapping[str, str]]]] = {}
    cells: dict[str, list[tuple[Any, Mapping[str, str]]]] = {}
    for row in rows:
        words = names_of_sides(row, _RESPONSES)
        with suppress(RowError):
            cast = list(told_votes(row))
            for vote, column, _ in cast:
                told.setdefault(column, []).append((vote, words))
            for column in dict.fromkeys(column for _, column, _ in cast):
                cells.setdefault(column, []).append((row[column], words))
    for column, votes in told.items():
        refuse_unmapped(column, votes, _RESPONSES, cells[column])
    return form


_RESPONSES = ("response_a", "response_b")


def _is_summaries(row: Row) -> bool:
    summaries = row.get("summaries")
    return (
        isinstance(row.get("info"), Mapping) and isinstance(summaries, list) and len(summaries) == 2 and "choice" in row
    )


def _read_summaries(row: Row, pairing: Pairing) -> Reading:
    """OpenAI's comparisons of summaries (Stiennon et al. 2020): `choice` 0 is the first of two, 1 the second."""
    info, (first, second) = row["info"], row["summaries"]
    if word_of(row["choice"]) not in ("0", "1"):
        raise RowError("wrong_type", f"'choice' is 0 or 1, found {shown(row['choice'])}")
    if isinstance(info.get("post"), str):
        # As the paper shows a post to the model.
        parts = (("SUBREDDIT: r/", info.get("subreddit")), ("TITLE: ", info.get("title")), ("POST: ", info["post"]))
        asked = "\n\n".join(f"{head}{text}" for head, text in parts if text) + "\n\nTL;DR:"
    elif isinstance(info.get("article"), str):
        asked = f"Article: {info['article']}\n\nTL;DR:"
    else:
        raise RowError("no_prompt", "'info' has neither a 'post' nor an 'article'")
    sides = completion(first, "summaries[0]"), completion(second, "summaries[1]")
    ballots = (ballot("first" if word_of(row["choice"]) == "0" else "second", name_of(value_in(row, JUDGES))),)
    return pairs_of(Judged((Message("user", asked),), sides, ballots, is_voted=True), pairing)


def _why_summaries(row: Row) -> str:
    return f"choice {shown(row.get('choice'))}: 0 is the first summary, 1 the second"


SUMMARIES = Format(
    "summaries",
    "OpenAI, summarize from feedback",
    '{"info": {"post": …}, "summaries": [{"text": …}, {"text": …}], "choice": 0}',
    _is_summaries,
    _read_summaries,
    why=_why_summaries,
)


ARENA = Format(
    "arena",
    "Chatbot Arena",
    '{"conversation_a": […], "conversation_b": […], "winner": "model_a"}',
    _is_arena,
    _read_arena,
    _settled_arena,
    _why_arena,
)


ARENA_ROUNDS = Format(
    "arena_rounds",
    "LMSYS arena, 55,000 battles",
    '{"prompt": ["…"], "response_a": ["…"], "response_b": ["…"], "winner_model_a": 1, "winner_model_b": 0, …}',
    _is_rounds,
    _read_rounds,
    _settled_rounds,
    why_votes,
)
