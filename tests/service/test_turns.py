"""Whose turn it is, of several keys: of jobs, examinations and chats alike."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tiebreak.service.turns import Turns, chosen


@dataclass(frozen=True)
class Waits:
    key: str
    id: str = ""


FLOOD = [Waits("flood", f"flood-{number}") for number in range(5)]


def test_turns_go_to_the_key_that_runs_least_and_of_its_own_to_the_oldest():
    waiting = [*FLOOD, Waits("late", "late-0"), Waits("later", "later-0")]
    turns = chosen(waiting, [Waits("flood", "busy")], 4, {})
    assert [one.id for one in turns] == ["late-0", "later-0", "flood-0"]
    assert chosen(waiting, [Waits("a")] * 4, 4, {}) == []
    assert chosen(waiting, [Waits("a")] * 5, 4, {}) == []


def test_where_keys_run_as_little_the_turn_is_that_of_the_one_whose_last_was_longest_ago():
    waiting = [*FLOOD, Waits("late", "late-0")]
    for last, turn in (
        ({"flood": 90.0, "late": 20.0}, "late-0"),
        ({"flood": 90.0}, "late-0"),
        ({"late": 95.0, "flood": 90.0}, "flood-0"),
    ):
        assert [one.id for one in chosen(waiting, [], 1, last)] == [turn]


def test_a_turn_is_never_given_to_whoever_has_just_left():
    async def work():
        turns, had = Turns(), []

        async def take(key, seconds=0.0):
            async with turns.taken(key):
                had.append(key)
                await asyncio.sleep(seconds)

        first, left, last = (asyncio.create_task(take(*told)) for told in (("a", 60), ("b",), ("c",)))
        await asyncio.sleep(0.01)
        first.cancel()
        left.cancel()  # both at once: the turn of the first is given while the second is on its way out
        await asyncio.wait_for(last, 5)
        await asyncio.wait_for(take("b"), 5)
        return had

    assert asyncio.run(work()) == ["a", "c", "b"]
