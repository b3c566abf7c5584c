"""A review: who asks, what is at hand, what is refused, and where its items come from."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from dataclasses import replace

import pytest

from reviewed import items_of, owner_token, review_of, token_of, turns_of
from tiebreak.config import PeopleJudge
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import ConfigError, DataError, RunError, Waiting
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.people import People
from tiebreak.progress import Silent
from tiebreak.records import Message
from tiebreak.review.desk import make, open_review
from tiebreak.review.items import gather
from written_runs import recorded_run


@pytest.fixture
def review(tmp_path):
    return review_of(tmp_path / "r", items_of(30), ("ann", "ben"))


def test_a_token_is_one_persons_or_the_owners_and_no_two_are_alike(review):
    tokens = {name: token_of(review, name) for name in ("ann", "ben")}
    assert {review.person(token): review.is_owner(token) for token in tokens.values()} == {"ann": False, "ben": False}
    assert review.is_owner(owner_token(review))
    for other in ("", "x", "é", "\ud800", owner_token(review), tokens["ann"][:-1], tokens["ann"] + "A"):
        assert review.person(other) is None
    assert len({*tokens.values(), owner_token(review)}) == 3
    assert all(len(token) >= 22 for token in tokens.values())  # 128 bits


def test_tokens_are_the_owners_alone_and_stay(review):
    links = review.folder / "links.json"
    assert links.stat().st_mode & 0o077 == 0
    assert review.folder.stat().st_mode & 0o077 == 0
    again = review_of(review.folder, items_of(30), ("ann", "ben"))
    assert again.links("x") == review.links("x")


def test_a_showing_is_of_one_person_and_says_nothing(review):
    own = {name: [*review._ids[name]] for name in ("ann", "ben")}
    assert not {*own["ann"]} & {*own["ben"]}
    other = review_of(review.folder.parent / "again", items_of(30), ("ann", "ben"))
    assert not {*own["ann"]} & {*other._ids["ann"]}  # not to be computed from the items
    with pytest.raises(DataError, match="none of yours"):
        review.choose("ben", review.at_hand("ann").id, "left")
    assert review.progress("ben") == (0, 32)


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ("both", {}),
        ("", {}),
        ("left", {"tags": ["faster"]}),
        ("left", {"note": "x" * 4001}),
        ("skip", {"reason": "x" * 4001}),
        ("left", {"strength": "clearly"}),
        ("left", {"seconds": -1.0}),
        ("left", {"seconds": float("nan")}),
    ],
    ids=str,
)
def test_what_is_no_choice_is_refused_and_nothing_is_kept(review, choice, more):
    with pytest.raises(DataError) as error:
        review.choose("ann", review.at_hand("ann").id, choice, **more)
    assert "\n" not in str(error.value)
    assert review.progress("ann")[0] == 0


def test_strength_is_of_a_side_where_it_is_offered(tmp_path):
    review = review_of(tmp_path / "r", items_of(3), strength=True)
    showing = review.at_hand("ann")
    with pytest.raises(DataError, match="strength"):
        review.choose("ann", showing.id, "tie", strength="clearly")
    review.choose("ann", showing.id, "left", strength="clearly")
    assert review.votes("ann")[0].strength == "clearly"


def test_the_same_call_opens_a_review_and_another_one_is_refused(review):
    review.choose("ann", review.at_hand("ann").id, "left")
    assert review_of(review.folder, items_of(30), ("ann", "ben")).progress("ann")[0] == 1
    with pytest.raises(DataError, match="other items"):
        review_of(review.folder, items_of(29), ("ann", "ben"))
    for change, option in (({"seed": 1}, "--seed"), ({"per_item": 1}, "--per-item"), ({"tags": ["x"]}, "--tags")):
        with pytest.raises(RunError, match=option):
            review_of(review.folder, items_of(30), ("ann", "ben"), **change)
    with pytest.raises(RunError, match="--annotators"):
        review_of(review.folder, items_of(30), ("ann", "cem"))


def test_items_chosen_actively_are_told_apart_by_what_no_option_says(tmp_path):
    for before in (False, True):
        review_of(tmp_path / f"{before}", items_of(3), chosen_actively=before)
        with pytest.raises(RunError, match="chosen actively") as error:
            review_of(tmp_path / f"{before}", items_of(3), chosen_actively=not before)
        assert "--choose" not in str(error.value)


def test_a_folder_that_was_there_is_closed_to_others(tmp_path):
    (tmp_path / "r").mkdir(mode=0o755)
    review = review_of(tmp_path / "r", items_of(3))
    review.choose("ann", review.at_hand("ann").id, "left")
    for path in (review.folder, *review.folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_that_no_two_people_see_an_item_is_said_when_the_review_is_made(tmp_path):
    told = []
    for names, num, said in ((["ann", "ben"], 1, 1), (["ann", "ben"], None, 0), (["ann"], None, 0)):
        for _ in range(2):  # once
            make(tmp_path / f"{names} {num}", items_of(6), names, per_item=num, say=told.append)
        assert len(told) == said, names
        told.clear()


def test_items_that_changed_since_are_refused_by_their_digest(review):
    review.choose("ann", review.at_hand("ann").id, "left")
    file = review.folder / "items.jsonl"
    file.write_text(file.read_text().replace("Cut 3 first", "Cut 4 first"))
    with pytest.raises(DataError, match=r"items\.jsonl: changed since"):
        open_review(review.folder)


def test_votes_are_not_read_by_settings_that_were_changed(review):
    for _ in range(8):
        review.choose("ann", review.at_hand("ann").id, "left")
    file = review.folder / "review.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 9}))
    with pytest.raises(DataError, match="was not shown so"):
        open_review(review.folder).results()


@pytest.mark.parametrize("broken", ["{}", "[]", "", '{"annotators": 5}'])
@pytest.mark.parametrize("name", ["review.json", "links.json"])
def test_a_damaged_review_is_refused_in_one_line(review, name, broken):
    (review.folder / name).write_text(broken)
    with pytest.raises(RunError) as error:
        open_review(review.folder)
    assert "\n" not in str(error.value)


def test_what_is_no_review_is_not_written_over(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("all of it")
    with pytest.raises(RunError, match=r"holds thesis\.txt"):
        review_of(tmp_path / "r", items_of(3))
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "people",
    [[], ["ann", "Ann"], [" ann"], ["a\nb"], ["x" * 65], [""], ["fast"], ["\ud800"]],
    ids=ascii,
)
def test_names_that_cannot_be_are_refused(tmp_path, people):
    with pytest.raises(ConfigError, match="--annotators"):
        make(tmp_path / "r", items_of(3), people)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", ["../ann", "/etc/x", "<script>alert(1)</script>", "آن", "a b", ".", "CON", "x" * 64])
def test_hostile_names_are_people_and_their_logs_stay_in_the_folder(tmp_path, name):
    review = review_of(tmp_path / "r", items_of(3), (name,))
    review.choose(name, review.at_hand(name).id, "left")
    assert open_review(review.folder).progress(name) == (1, 3)
    assert {path.parent for path in tmp_path.rglob("*.jsonl")} == {review.folder, review.folder / "votes"}


# ------------------------------------------------------------------------------------------------ where items come from


def test_a_run_gives_before_against_after_and_equal_texts_are_not_asked(tmp_path):
    run = recorded_run(tmp_path)
    run.policy_folder.mkdir()
    rows = run.samples
    found = gather(run.path)
    same = sum(row["before"]["text"] == row["after"]["text"] for row in rows)
    assert found.source["sides"] == {"a": "before", "b": "after"}
    assert len(found.items) == len(rows) - same - found.left_out.get("twice there", 0)
    assert found.left_out.get("equal texts", 0) == same
    texts = {(row["before"]["text"], row["after"]["text"]) for row in rows}
    assert all((item.a, item.b) in texts for item in found.items)


def test_a_run_without_samples_is_refused_with_what_makes_them(tmp_path):
    run = recorded_run(tmp_path)
    run.policy_folder.mkdir()
    run.samples_file.unlink()
    with pytest.raises(RunError, match=r"tiebreak evaluate .* --set evaluation\.num_samples=64' writes some"):
        gather(run.path)


ROW = {"prompt": "q", "completion_a": "x", "completion_b": "y"}


def written(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_completions_a_row_an_empty_one_among_them(tmp_path):
    file = written(
        tmp_path / "f.jsonl", ROW, ROW, ROW | {"completion_b": ""}, ROW | {"completion_b": "x"}, ROW | {"prompt": "r"}
    )
    found = gather(file)
    assert [(item.a, item.b) for item in found.items] == [("x", "y"), ("x", ""), ("x", "y")]
    assert found.left_out == {"twice there": 1, "equal texts": 1}
    assert len({item.prompt_id for item in found.items}) == 2


@pytest.mark.parametrize(
    ("row", "a", "b"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, "bad", "good"),
        (ROW | {"winner": "a"}, "y", "x"),
        ({"prompt": "q", "response_a": "x", "response_b": "y", "score_a": 1, "score_b": 5}, "x", "y"),
    ],
    ids=["chosen and rejected", "a winner", "scores"],
)
def test_what_a_file_prefers_is_the_side_whose_wins_are_counted(tmp_path, row, a, b):
    (item,) = gather(written(tmp_path / "f.jsonl", row)).items
    assert (item.a, item.b) == (a, b)


CALL = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
TURNS = [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        (ROW | {"system": "Be kind."}, ["Be kind.", "q"]),
        (ROW | {"history": [["before", "then"]]}, ["before", "then", "q"]),
        ({"instruction": "Add", "input": "1 2", "completion_a": "x", "completion_b": "y"}, ["Add\n1 2"]),
        (ROW | {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}, ["q"]),
        ({"messages": TURNS, "completion_a": "x", "completion_b": "y"}, ["q"]),
        (ROW | {"completion_a": [{"role": "assistant", "content": "x"}]}, ["q"]),
        (ROW | {"id": "1", "source": "a forum", "model_a": "llama-1", "model_b": "llama-2"}, ["q"]),
        (ROW | {"prompt": "Which is better, A or B?", "winner": None}, ["Which is better, A or B?"]),
    ],
    ids=["system", "history", "input", "parts", "messages", "a message", "beside", "nobody said"],
)
def test_the_prompt_of_two_completions_is_all_that_the_row_says_of_it(tmp_path, row, prompt):
    (item,) = gather(written(tmp_path / "f.jsonl", row)).items
    assert ([one.content for one in item.prompt], item.a, item.b) == (prompt, "x", "y")


def test_two_completions_are_read_from_whatever_files_are_read_from(tmp_path):
    plain = written(tmp_path / "f.jsonl", ROW).read_bytes()
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + plain)
    (tmp_path / "f.json").write_text(json.dumps([ROW]))
    (tmp_path / "f.csv").write_text("prompt,completion_a,completion_b\nq,x,y\n")
    for name in ("f.jsonl.gz", "bom.jsonl", "f.json", "f.csv"):
        (item,) = gather(tmp_path / name).items
        assert (item.prompt[0].content, item.a, item.b) == ("q", "x", "y")


@pytest.mark.parametrize("told", [{"verdict": "A"}, {"better": "completion_a"}, {"chosen_side": "a"}], ids=str)
def test_a_verdict_of_whatever_name_is_read_or_asked_about_and_never_left_out(tmp_path, told):
    file = written(tmp_path / "f.jsonl", ROW | dict.fromkeys(told), ROW | told)
    try:
        (item,) = gather(file).items
    except DataError as error:
        assert "'chosen_side' may say which one is better: call it 'winner' if it does" in str(error)
    else:
        assert (item.a, item.b) == ("y", "x")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW | {"completion_b": "x"}], "holds nothing to compare"),
        ([ROW, {"prompt": "q", "completion_a": "x"}], r"f\.jsonl:2: is no row of two completions"),
        ([ROW, ROW | {"completion_a": 5}], r"f\.jsonl:2"),
        ([ROW, [1]], r"f\.jsonl:2"),
        ([ROW, ROW | {"completion_a": None}], r"f\.jsonl:2: .*'completion_a' is null"),
        ([ROW, ROW | {"completion_b": {"role": "assistant", "tool_calls": [CALL]}}], r"f\.jsonl:2: .*calls a tool"),
        ([ROW, *[ROW] * 300, ROW | {"winner": "a"}], r"f\.jsonl:302: .*says which one is better"),
    ],
    ids=["equal", "half", "a number", "a list", "null", "a call", "judged later"],
)
def test_rows_that_are_none_are_refused_by_their_line(tmp_path, rows, says):
    with pytest.raises(DataError, match=says):
        gather(written(tmp_path / "f.jsonl", *rows))


def test_half_characters_and_nul_are_kept_and_shown(tmp_path):
    text = "\ud800 \0 x"
    (item,) = [replace(one, a=text) for one in gather(written(tmp_path / "f.jsonl", ROW)).items]
    review = make(tmp_path / "r", [item], ["ann"])
    showing = review.at_hand("ann")
    assert {showing.left, showing.right} == {"? \0 x", "y"}
    assert open_review(review.folder).items[item.id].a == text


# ------------------------------------------------------------------------------------------------------ a round's queue


def test_a_round_goes_on_with_the_votes_of_a_review_of_its_queue(tmp_path):
    """The judge of rounds writes the queue, people vote on the page with undo, and the judge reads what they said."""
    settings = PeopleJudge(kind="people", votes_needed=2)
    questions = [Question(Chat((Message("user", f"q{n}"),)), f"one {n}", f"two {n}") for n in range(30)]
    judge = People(settings, tmp_path, Silent())
    with pytest.raises(Waiting):
        judge.prefer(questions)
    found = gather(tmp_path / "queue.jsonl")
    assert found.source["kind"] == "queue"
    review = make(tmp_path / "queue.review", found.items, ["ann", "ben"], source=found.source)
    queue = (tmp_path / "queue.jsonl").read_text()
    names = {row["item"]: n for n, row in enumerate(map(json.loads, queue.splitlines()))}
    rng, wanted = random.Random(0), {}
    for name in ("ann", "ben"):
        while showing := review.at_hand(name):
            review.choose(name, showing.id, rng.choice(["left", "right", "tie", "both_bad"]))
            if rng.random() < 0.2:
                review.undo(name)
        for vote in review.votes(name):
            if not vote.again:
                win = {"a": 1.0, "b": 0.0}.get(vote.verdict, 0.5)
                wanted.setdefault(names[vote.item], []).append(win)
    said = judge.prefer(questions)
    assert [one.first for one in said] == [sum(wanted[n]) / 2 for n in range(30)]


def test_what_was_not_passed_on_to_a_queue_is_when_the_review_opens(tmp_path):
    rows = [{"item": f"i-{n}", **ROW, "prompt": [{"role": "user", "content": f"q{n}"}]} for n in range(4)]
    found = gather(written(tmp_path / "queue.jsonl", *rows))
    review = make(tmp_path / "r", found.items, ["ann"], source=found.source)
    votes = tmp_path / "votes.jsonl"
    votes.write_text('{"item": "i-1", "annotator": "cem", "choice": "b"}\n{"torn')
    review.choose("ann", review.at_hand("ann").id, "left")
    review.choose("ann", review.at_hand("ann").id, "right")
    whole = votes.read_text()
    assert whole.count("\n") == 3
    assert whole.startswith('{"item": "i-1", "annotator": "cem", "choice": "b"}\n{"item": ')
    votes.write_text("\n".join(whole.split("\n")[:2]) + "\n")
    open_review(review.folder)
    assert votes.read_text() == whole
    review.undo("ann")
    assert json.loads(votes.read_text().splitlines()[-1])["choice"] == "skip"


@pytest.fixture
def queued(tmp_path):
    """A review of a round's queue, and that round's folder."""
    rows = [{"item": f"i-{n}", **ROW, "prompt": [{"role": "user", "content": f"q{n}"}]} for n in range(4)]
    (tmp_path / "round").mkdir()
    found = gather(written(tmp_path / "round" / "queue.jsonl", *rows))
    review = make(tmp_path / "r", found.items, ["ann"], source=found.source)
    review.choose("ann", review.at_hand("ann").id, "left")
    return review, tmp_path / "round"


def test_a_review_goes_on_where_the_round_of_its_queue_is_gone(queued):
    review, folder = queued
    shutil.rmtree(folder)
    told = []
    opened = open_review(review.folder, told.append)
    assert [one.count("\n") for one in told] == [0]
    assert str(folder / "votes.jsonl") in told[0]
    opened.choose("ann", opened.at_hand("ann").id, "right")
    assert [opened.undo("ann") for _ in range(3)] == [True, True, False]
    assert opened.progress("ann")[0] == 0


def test_a_review_opens_where_its_round_takes_no_votes_and_an_undo_that_cannot_be_told_is_none(queued):
    review, folder = queued
    (folder / "votes.jsonl").unlink()
    (folder / "votes.jsonl").mkdir()
    told = []
    opened = open_review(review.folder, told.append)
    assert [one.count("\n") for one in told] == [0]
    opened.choose("ann", opened.at_hand("ann").id, "right")
    with pytest.raises(OSError, match=r"votes\.jsonl"):  # the round would go on with a vote that was taken back
        opened.undo("ann")
    assert opened.progress("ann")[0] == 2
    (folder / "votes.jsonl").rmdir()
    told.clear()
    open_review(review.folder, told.append).undo("ann")
    assert told == []
    lines = (folder / "votes.jsonl").read_text().splitlines()
    assert [json.loads(line)["choice"] for line in lines] == ["left", "right", "skip"]


def test_a_link_in_place_of_the_votes_of_a_round_is_not_written_through(queued, tmp_path):
    review, folder = queued
    (folder / "votes.jsonl").unlink()
    (tmp_path / "elsewhere").write_text("")
    (folder / "votes.jsonl").symlink_to(tmp_path / "elsewhere")
    opened = open_review(review.folder)
    opened.choose("ann", opened.at_hand("ann").id, "right")
    assert (opened.progress("ann")[0], (tmp_path / "elsewhere").read_text()) == (2, "")


def test_whoever_knows_the_texts_the_names_and_the_seed_does_not_know_the_sides(tmp_path):
    """The order hangs on a secret that stays on the server: two reviews of one kind show other sides."""
    one, other = (review_of(tmp_path / name, items_of(60), ("ann",), seed=0) for name in ("one", "other"))
    sides = [{turn.item: turn.left for turn in turns_of(review, "ann") if not turn.again} for review in (one, other)]
    same = sum(sides[0][item] == sides[1][item] for item in sides[0])
    assert 15 <= same <= 45
    assert [turn.item for turn in turns_of(one, "ann")] != [turn.item for turn in turns_of(other, "ann")]
    again = open_review(one.folder)
    assert turns_of(again, "ann") == turns_of(one, "ann")


def test_a_whole_vote_of_somebody_else_that_lacks_its_end_stays_in_a_queue(tmp_path):
    both = {"completion_a": "a", "completion_b": "b"}
    rows = [{"item": f"i-{n}", "prompt": [{"role": "user", "content": str(n)}], **both} for n in range(2)]
    found = gather(written(tmp_path / "queue.jsonl", *rows))
    votes = tmp_path / "votes.jsonl"
    whole = '{"item": "i-1", "annotator": "zoe", "choice": "a"}'
    votes.write_text(whole)
    review = make(tmp_path / "review", found.items, ["ann"], source=found.source)
    review.choose("ann", review.at_hand("ann").id, "left")
    lines = votes.read_text().splitlines()
    assert lines[0] == whole
    assert json.loads(lines[1])["annotator"] == "ann"
