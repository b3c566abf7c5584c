"""People are asked by a queue and heard by their votes; until these are there, the loop waits and says for how many."""

from __future__ import annotations

import json

import pytest

from tiebreak.config import PeopleJudge
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.errors import EXIT_PREEMPTED, DataError, Waiting
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.files import read_jsonl
from tiebreak.progress import Silent
from tiebreak.records import Message

CHAT = Chat((Message("system", "Be brief."), Message("user", "x")))
ANSWERS = [Answer(text, (), finished=True) for text in ("a", "bb", "a", "ccc")]


class Told(Silent):
    """Remembers what is warned of."""

    def __init__(self):
        self.lines: list[str] = []

    def warn(self, text):
        self.lines.append(text)


def stand(folder, progress=None, **settings):
    with JUDGES["people"].make(PeopleJudge(**settings), Given(progress or Silent(), folder=folder)) as judge:
        return judge.stand([CHAT], [ANSWERS])[0]


def items(folder):
    return {row["completion_a"] + row["completion_b"]: row["item"] for row in read_jsonl(folder / "queue.jsonl")}


def vote(folder, *rows, end="\n"):
    with (folder / "votes.jsonl").open("a") as file:
        file.write("\n".join(json.dumps(row) for row in rows) + end)


def test_what_is_to_be_judged_is_queued_and_the_same_command_goes_on_once_there_are_votes(tmp_path):
    with pytest.raises(
        Waiting, match=r"votes\.jsonl: 3 votes are missing on 3 of 3 couples, which stand in .*queue"
    ) as told:
        stand(tmp_path)
    assert told.value.exit_code == EXIT_PREEMPTED
    queued = read_jsonl(tmp_path / "queue.jsonl")
    assert [(row["completion_a"], row["completion_b"]) for row in queued] == [("a", "bb"), ("a", "ccc"), ("bb", "ccc")]
    assert queued[0]["prompt"] == [message.as_dict() for message in CHAT.messages]
    known = items(tmp_path)
    vote(tmp_path, {"item": known["abb"], "annotator": "ann", "choice": "a"},
         {"item": known["accc"], "annotator": "ann", "choice": "tie"})  # fmt: skip
    with pytest.raises(Waiting, match="1 votes are missing on 1 of 3 couples"):
        stand(tmp_path)
    shown = {"left": "b", "right": "a"}
    vote(tmp_path, {"item": known["bbccc"], "annotator": "ben", "choice": "left", "shown": shown, "seconds": 2.5})
    found = stand(tmp_path)
    assert found.rates == ((1 + 0.5 + 0.5) / 3, 0.0, (1 + 0.5 + 0.5) / 3, (1 + 0.5 + 0.5) / 3)
    assert stand(tmp_path) == found


def test_the_last_vote_of_each_counts_and_several_are_averaged(tmp_path):
    with pytest.raises(Waiting, match="2 votes are missing on 2 of 2 couples"):
        stand(tmp_path, couples="chain")
    one, two = items(tmp_path).values()
    rows = [{"item": one, "annotator": name, "choice": choice} for name, choice in
            (("ann", "a"), ("ann", "b"), ("ben", "a"), ("eve", "a"), ("eve", "skip"))]  # fmt: skip
    vote(tmp_path, *rows, {"item": two, "annotator": "ann", "choice": "both_bad"},
         {"item": two, "annotator": "ben", "choice": "b"})  # fmt: skip
    found = stand(tmp_path, couples="chain", votes_needed=2)
    assert found.rates == (0.5, (0.5 + 0.5 + 0.25) / 3, 0.5, 0.75)  # a and a are a tie like any other
    with pytest.raises(Waiting, match="2 votes are missing on 2 of 2 couples"):
        stand(tmp_path, couples="chain", votes_needed=3)


@pytest.mark.parametrize(
    "line",
    ["{", "3", '{"item": "i", "choice": "a"}', '{"item": "i", "annotator": "", "choice": "a"}',
     '{"item": "i", "annotator": "a", "choice": "c"}', '{"item": "i", "annotator": "a", "choice": "left"}',
     '{"item": "i", "annotator": "a", "choice": "left", "shown": {"left": "x"}}',
     '{"item": "i", "annotator": "a", "choice": ["a"]}'],
)  # fmt: skip
def test_a_line_that_is_no_vote_is_named(tmp_path, line):
    (tmp_path / "votes.jsonl").write_text(f'\n{line}\n{{"item": "x", "annotator": "a", "choice": "a"}}\n')
    with pytest.raises(DataError, match=r"votes\.jsonl:2: is no vote; wanted") as told:
        stand(tmp_path)
    assert "\n" not in str(told.value)


def test_a_line_that_was_cut_off_is_forgotten_and_said_and_one_without_an_end_counts(tmp_path):
    with pytest.raises(Waiting):
        stand(tmp_path, couples="chain")
    one, two = items(tmp_path).values()
    vote(tmp_path, {"item": one, "annotator": "ann", "choice": "a"})
    told = Told()
    before = (tmp_path / "votes.jsonl").read_bytes()
    (tmp_path / "votes.jsonl").write_bytes(before + b'{"item": "i-')
    with pytest.raises(Waiting, match="1 votes"):
        stand(tmp_path, told, couples="chain")
    assert told.lines[0].endswith("votes.jsonl:2: is cut off, and is not counted")
    (tmp_path / "votes.jsonl").write_bytes(before)
    vote(tmp_path, {"item": two, "annotator": "ann", "choice": "a"}, end="")
    assert stand(tmp_path, couples="chain").rates == (0.75, 1 / 3, 0.75, 0.0)


def test_votes_on_other_items_do_not_count_and_are_said(tmp_path):
    vote(tmp_path, {"item": "i-other", "annotator": "ann", "choice": "a"})
    told = Told()
    with pytest.raises(Waiting, match="3 votes are missing"):
        stand(tmp_path, told)
    assert "1 votes are on items that are not in queue.jsonl, and are not counted" in told.lines[0]
