"""Prompts are split by their hashes and walked in an order that needs no memory, none twice before all were used."""

from __future__ import annotations

from collections import Counter

import pytest

from tiebreak.config.rounds import RoundsConfig
from tiebreak.data.asking import read_prompts
from tiebreak.data.split import is_heldout
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.models import load_renderer
from tiebreak.errors import DataError
from tiebreak.files import write_jsonl
from tiebreak.records import Asked, Message
from tiebreak.stations.walk import Walk, digest_of, open_walk
from tiny import settings


def _chats(num):
    return tuple(Chat((Message("user", f"prompt {place}"),)) for place in range(num))


def _walk(num, per_round, seed=0):
    return Walk(_chats(num), _chats(0), per_round, seed, {})


@pytest.mark.parametrize(("num", "per_round"), [(12, 4), (13, 4), (7, 7), (10, 3), (5, 4), (9, 8), (1, 1), (3, 8)])
def test_no_prompt_comes_twice_before_all_were_used_and_none_twice_in_a_round(num, per_round):
    walk, used = _walk(num, per_round), Counter()
    for number in range(1, 3 * num + 1):
        some = [chat.prompt_id for chat in walk.round_of(number)]
        assert len(some) == len(set(some)) == min(num, per_round)
        used.update(some)
        # Within a round that straddles two laps some are a lap ahead; nobody is ever two ahead.
        assert max(used.values()) - min(used[chat.prompt_id] for chat in walk.prompts) <= 1 + (num % per_round != 0)
    laps = [one for number in range(1, num + 1) for one in walk.round_of(number)][: num * min(num, per_round)]
    for start in range(0, len(laps), num):
        assert len({chat.prompt_id for chat in laps[start : start + num]}) == num


def test_a_round_is_a_function_of_its_number_and_the_seed_alone_and_laps_have_another_order():
    walk = _walk(20, 5)
    first = [walk.round_of(number) for number in range(1, 9)]
    assert [_walk(20, 5).round_of(number) for number in (8, 3)] == [first[7], first[2]]
    laps = [[chat for some in first[start : start + 4] for chat in some] for start in (0, 4)]
    assert laps[0] != laps[1]
    assert {chat.prompt_id for chat in laps[0]} == {chat.prompt_id for chat in laps[1]}
    assert _walk(20, 5, seed=1).round_of(1) != first[0]
    shuffled = Walk(walk.prompts[::-1], (), 5, 0, {})
    assert shuffled.round_of(2) == first[1]


def test_the_digest_of_prompts_sees_their_order_and_all_that_their_rows_say():
    one, two = _chats(2)
    told = Chat(one.messages, columns={"solution": 4})
    assert len({digest_of(some) for some in ([one, two], [two, one], [one], [told, two])}) == 4


class Heard:
    """A progress that keeps what it is told."""

    def __init__(self):
        self.said, self.warned = [], []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def stage(self, name, total):
        from tiebreak.progress import Silent

        return Silent().stage(name, total)


@pytest.fixture
def opened(tiny_model, tmp_path):
    def start(rows, heldout=None, positions=None, max_length=1024, truncation="drop", **more):
        write_jsonl(tmp_path / "prompts.jsonl", rows)
        told = {"judge": {"kind": "rule", "reward": "r.py:f"}, "prompts": str(tmp_path / "prompts.jsonl")} | more
        if heldout is not None:
            write_jsonl(tmp_path / "heldout.jsonl", heldout)
            told["heldout"] = str(tmp_path / "heldout.jsonl")
        config = settings(tiny_model, data__max_length=max_length, data__truncation=truncation)
        renderer, context = load_renderer(config.model, config.data)
        heard = Heard()
        limit = context.most if positions is None else positions
        return open_walk(RoundsConfig.model_validate(told), config.data, renderer, limit, heard), heard

    return start


def _rows(num):
    return [{"prompt": f"the cat sat on mat {place}", "solution": place} for place in range(num)]


def _text(chat):
    return chat.messages[-1].content


def test_the_hash_of_a_prompt_decides_its_side_as_it_does_in_a_run(opened):
    walk, heard = opened(_rows(200), per_round=30, num_heldout=9)
    asked = [Asked((Message("user", row["prompt"]),)) for row in _rows(200)]
    heldout = {one.prompt_id for one in asked if is_heldout(one, 0.1)}
    assert {chat.prompt_id for chat in walk.prompts} == {one.prompt_id for one in asked} - heldout
    assert [chat.prompt_id for chat in walk.heldout] == sorted(heldout)[:9]
    assert (walk.counts["num_heldout"], walk.counts["num_heldout_at_hand"]) == (9, len(heldout))
    assert all(chat.is_text and chat.columns["solution"] == int(_text(chat).split()[-1]) for chat in walk.prompts)
    assert heard.warned == []
    for number in (1, 4, 40):
        assert not {chat.prompt_id for chat in walk.round_of(number)} & heldout


def test_a_file_of_held_out_prompts_is_held_out_and_no_other_and_what_overlaps_is_said(opened):
    walk, heard = opened(_rows(30), heldout=[*_rows(4), {"prompt": "another"}])
    assert sorted(map(_text, walk.heldout)) == sorted(["another", *(row["prompt"] for row in _rows(4))])
    assert len(walk.prompts) == 26
    assert walk.counts["num_overlapping"] == 4
    assert any("4 prompts are held out, and are not walked" in said for said in heard.said)
    assert any("a round has 26 prompts" in said for said in heard.said)


def test_what_rows_hold_besides_prompts_is_said_with_counts(opened):
    rows = [*_rows(40), _rows(1)[0], {"prompt": ""}, {"messages": [
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]},
    ]  # fmt: skip
    walk, heard = opened(rows)
    assert (walk.counts["num_repeated"], walk.counts["num_answered"]) == (1, 1)
    assert walk.counts["dropped"] == {"empty_turn": 1}
    assert any("41 prompts; 1 that repeat one; 1 rows hold answers, which are not used" in said for said in heard.said)
    assert any("1 empty_turn dropped, the first at prompts.jsonl:42: a prompt" in said for said in heard.warned)


def test_prompts_without_room_for_an_answer_are_left_out_and_counted(opened):
    rows = [*_rows(60), {"prompt": "the cat " * 40}]
    walk, heard = opened(rows, max_length=60)
    assert walk.counts["unfit"] == {"too_long": 1}
    assert len(walk.prompts) + walk.counts["num_heldout_at_hand"] == 60
    assert any("1 prompts are left out (too_long), the first at prompts.jsonl:61" in said for said in heard.warned)
    assert any("60 prompts leave less than rounds.sampling.max_new_tokens 256" in said for said in heard.warned)
    assert opened(rows, max_length=60, truncation="prompt_start")[0].counts["unfit"] == {}
    walk, heard = opened(rows, positions=100, sampling={"max_new_tokens": 60})
    assert walk.counts["unfit"] == {"no_room": 1}
    assert any("more than the model's 100 positions" in said for said in heard.warned)


@pytest.mark.parametrize(
    ("rows", "more", "words"),
    [
        (_rows(2), {}, "no prompt is held out to measure on: raise data.heldout_share"),
        (_rows(3), {"heldout": _rows(3)}, "no prompt is left to answer"),
        (_rows(3), {"heldout": [{"prompt": ""}]}, "heldout.jsonl:1: .*no record of the file holds a usable prompt"),
        (_rows(40), {"max_length": 8}, r"no prompt is left to answer. The first that is left out: prompts.jsonl:\d+: "),
    ],
)
def test_a_loop_without_prompts_on_one_side_is_one_line(opened, rows, more, words):
    with pytest.raises(DataError, match=words) as caught:
        opened(rows, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked_as", [None, "{prompt} Be brief."])
def test_whatever_is_held_out_is_barred_as_it_is_written_and_as_it_is_asked(opened, tmp_path, asked_as):
    rows = [{**row, "group": f"g{place // 2}"} for place, row in enumerate(_rows(60))]
    walk, _ = opened(rows, num_heldout=3, asked_as=asked_as)
    walk.write_barred(tmp_path / "barred.jsonl")
    barred = read_prompts(str(tmp_path / "barred.jsonl")).asked
    assert [one.prompt_id for one in barred] == [one.prompt_id for one in walk.barred]
    written = {Asked((Message("user", row["prompt"]),)).prompt_id: row for row in rows}
    plain = {one.prompt_id for one in barred} & set(written)
    assert len(plain) == walk.counts["num_heldout_at_hand"] > len(walk.heldout) == 3
    assert len(barred) == len(plain) * (2 if asked_as else 1)
    assert {chat.prompt_id for chat in walk.heldout} <= {one.prompt_id for one in barred}
    assert not {chat.prompt_id for chat in walk.prompts} & {one.prompt_id for one in barred}
    assert {one.origin.group for one in barred} == {written[one]["group"] for one in plain}
