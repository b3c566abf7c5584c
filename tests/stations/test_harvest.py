"""Answers of a round are the same bit for bit wherever it is cut off, and nobody is asked for a batch that is done."""

from __future__ import annotations

import json

import pytest

from tiebreak.config.rounds import SamplingConfig
from tiebreak.engine.answers.answerer import Answer, Chat, Sampling, nothing
from tiebreak.errors import RunError
from tiebreak.files import read_jsonl
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.stations import harvest as station
from tiebreak.stations.harvest import cut, extent, harvest, read_answered, sampling_of, tally
from tiebreak.stations.rows import Answered
from tiny import load, settings

SAMPLING = Sampling(6, 1.2, 3, 11)


def _chats(num):
    words = ["the cat", "yes", "the dog ran to the park", "no and no", "user", "on the mat and the cat sat"]
    return [
        Chat((Message("user", f"{words[place % 6]} {place}"),), columns={"solution": place}, is_text=True)
        for place in range(num)
    ]


class Watched:
    """An answerer that counts its calls and dies before one of them, or in the middle of it."""

    def __init__(self, answerer, dies_at=None, midway=False):
        self.answerer, self.identity = answerer, answerer.identity
        self.asked, self.dies_at, self.midway = [], dies_at, midway

    def answer(self, chats, sampling, done=nothing):
        if len(self.asked) == self.dies_at and not self.midway:
            raise SystemError("killed")
        self.asked.append(list(chats))

        def told(made):
            if len(self.asked) - 1 == self.dies_at:
                raise SystemError("killed")
            done(made)

        return self.answerer.answer(chats, sampling, told)


@pytest.fixture(scope="module")
def policy(tiny_model):
    return load(settings(tiny_model, "none")).policy


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(station, "PER_BATCH", 12)  # four prompts of three answers


def _whole(policy, folder):
    folder.mkdir()
    harvest(policy, _chats(18), SAMPLING, folder / "samples.jsonl", Silent())
    return (folder / "samples.jsonl").read_bytes()


def test_rows_stand_in_the_order_of_the_prompts_and_hold_what_each_gets_alone(policy, tmp_path):
    chats = _chats(18)
    rows = harvest(policy, chats, SAMPLING, tmp_path / "samples.jsonl", Silent())
    assert [row.chat for row in rows] == chats
    assert [row.chat.columns for row in rows] == [chat.columns for chat in chats]
    assert [list(row.answers) for row in rows] == [policy.answer([chat], SAMPLING) for chat in chats]
    assert len({answer.ids for row in rows for answer in row.answers}) > 40
    assert [path.name for path in tmp_path.iterdir()] == ["samples.jsonl"]
    told = read_jsonl(tmp_path / "samples.jsonl")
    assert told == [json.loads(json.dumps(row.as_dict())) for row in rows]
    assert [Answered.from_dict(row) for row in told] == rows


@pytest.mark.parametrize("midway", [False, True])
@pytest.mark.parametrize("dies_at", range(5))
def test_a_loop_that_is_cut_off_anywhere_ends_with_equal_bytes_and_asks_no_batch_twice(
    policy, tmp_path, dies_at, midway
):
    wanted, path, chats = _whole(policy, tmp_path / "whole"), tmp_path / "samples.jsonl", _chats(18)
    first = Watched(policy, dies_at, midway)
    with pytest.raises(SystemError):
        harvest(first, chats, SAMPLING, path, Silent())
    assert not path.exists()
    second = Watched(policy)
    harvest(second, chats, SAMPLING, path, Silent())
    assert path.read_bytes() == wanted
    assert len(second.asked) == 5 - dies_at
    assert first.asked[:dies_at] + second.asked == [[chats[place] for place in batch] for batch in cut(chats, 3)]


def test_a_torn_journal_costs_the_batch_that_it_lost(policy, tmp_path):
    wanted, path, chats = _whole(policy, tmp_path / "whole"), tmp_path / "samples.jsonl", _chats(18)
    with pytest.raises(SystemError):
        harvest(Watched(policy, 3), chats, SAMPLING, path, Silent())
    journal = tmp_path / ".samples.kept.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])
    watched = Watched(policy)
    harvest(watched, chats, SAMPLING, path, Silent())
    assert path.read_bytes() == wanted
    assert len(watched.asked) == 3


class Echo:
    """Answers with the last message backwards; who it is can be said."""

    def __init__(self, identity="echo"):
        self.identity, self.num = identity, 0

    def answer(self, chats, sampling, done=nothing):
        self.num += len(chats)
        answers = [
            Answer(f"{chat.messages[-1].content[::-1]} {number}", (5, number), number > 0)
            for chat in chats
            for number in range(sampling.num)
        ]
        done(list(enumerate(answers)))
        return answers


def test_what_another_answerer_or_another_sampling_left_is_not_taken(tmp_path):
    path, chats = tmp_path / "samples.jsonl", _chats(8)
    for identity, sampling, num in (("a", SAMPLING, 8), ("b", SAMPLING, 8), ("b", Sampling(6, 1.2, 3, 12), 8)):
        echo = Echo(identity)
        harvest(echo, chats, sampling, path, Silent())
        assert echo.num == num
        path.unlink()


def test_a_file_that_is_whole_is_read_and_one_of_other_prompts_is_refused(tmp_path):
    path, chats, echo = tmp_path / "samples.jsonl", _chats(8), Echo()
    rows = harvest(echo, chats, SAMPLING, path, Silent())
    assert harvest(echo, chats, SAMPLING, path, Silent()) == rows
    assert echo.num == 8
    for others, num in ((chats[::-1], 3), (chats[:7], 3), (chats, 2)):
        with pytest.raises(RunError, match="holds answers to 8 prompts, and not") as caught:
            read_answered(path, others, num)
        assert "\n" not in str(caught.value)
    path.write_text('{"prompt": 3}\n')
    with pytest.raises(RunError, match=r"samples\.jsonl: cannot be read"):
        read_answered(path, chats, 3)


def test_batches_are_of_similar_length_the_longest_first_and_whole(monkeypatch):
    chats = _chats(30)
    batches = cut(chats, 3)
    assert [len(batch) for batch in batches] == [4] * 7 + [2]
    lengths = [len(chats[place].messages[0].content) for batch in batches for place in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(place for batch in batches for place in batch) == list(range(30))
    assert [len(batch) for batch in cut(chats, 1024)] == [1] * 30


def test_rounds_draw_with_other_seeds_and_a_dry_run_knows_how_much(policy):
    told = SamplingConfig(n=3, temperature=1.5, max_new_tokens=7, seed=4)
    drawn = [sampling_of(told, number) for number in (0, 1, 2)]
    assert len({one.seed for one in drawn}) == 3
    assert {(one.num, one.temperature, one.max_new_tokens) for one in drawn} == {(3, 1.5, 7)}
    found = extent(5, drawn[1])
    assert (found.num_prompts, found.num_answers, found.most_tokens) == (5, 15, 105)


def test_what_is_counted_of_answers(tmp_path):
    def answered(*told):
        answers = tuple(Answer(text, tuple(range(len(text.split()))), finished) for text, finished in told)
        return Answered(_chats(1)[0], answers)

    rows = [answered(("a b c d", True), ("a b c e", False)), answered(("a b c d", True), ("", True))]
    found = tally(rows)
    assert (found["num_prompts"], found["num_answers"], found["num_tokens"]) == (2, 4, 12)
    assert (found["mean_tokens"], found["finished"]) == (3.0, 0.75)
    assert (found["distinct_words"], found["distinct_2"]) == (4, 4 / 9)
    assert tally(rows, at_length=2)["distinct_2"] == 1 / 3
    assert tally(rows, at_length=9)["distinct_2"] is None
    assert tally([answered(("", True))])["distinct_2"] is None
    assert tally([])["finished"] is None


def test_what_was_kept_on_the_way_goes_where_the_kill_came_just_before_it_went(tmp_path):
    path, chats, echo = tmp_path / "samples.jsonl", _chats(8), Echo()
    kept = tmp_path / ".samples.kept.jsonl"
    rows = harvest(echo, chats, SAMPLING, path, Silent())
    for read in (lambda: harvest(echo, chats, SAMPLING, path, Silent()), lambda: read_answered(path, chats, 3)):
        kept.write_text('{"key": "x", "answers": []}\n')
        assert read() == rows
        assert not kept.exists()
    assert echo.num == 8
