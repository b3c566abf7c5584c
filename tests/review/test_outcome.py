"""What a review leaves: pairs that the doctor and training read, and evidence that the gate of its run uses."""

from __future__ import annotations

import json
import random
import shutil

import pytest

import tiebreak
from reviewed import items_of, turns_of
from tiebreak.files import write_jsonl
from tiebreak.records import Message
from tiebreak.reporting.card import model_card
from tiebreak.review.desk import make, open_review
from tiebreak.review.items import Item, gather
from tiebreak.review.outcome import conclude
from tiebreak.runs import Run
from tiebreak.verbs.gate import gate
from written_runs import recorded_run


def review_of_file(folder, items, names, **more):
    return make(folder, items, names, source={"kind": "rows", "path": "f.jsonl"}, **more)


QUICK = {
    "model.device": "cpu",
    "evaluation.num_samples": 2,
    "evaluation.max_new_tokens": 4,
    "evaluation.num_draws": 0,
    "evaluation.neutral_probe": False,
}


def vote_all(review, choose, names=None):
    """Let everybody choose by a function of name, item and the showing's sides."""
    for name in names or review.annotators:
        for turn in turns_of(review, name):
            choice = choose(name, review.items[turn.item])
            side = next((side for side, what in turn.shown.items() if what == choice), choice)
            review.choose(name, review.at_hand(name).id, side, tags=["clearer"] if side == "left" else [], seconds=30)
    return review


def by_chance(seed, verdicts=("a", "b", "b", "b", "tie", "both_bad", "skip")):
    rng = random.Random(seed)
    return lambda _name, _item: rng.choice(verdicts)


def written(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_pairs_are_majorities_with_all_votes_and_the_rest_is_undecided(tmp_path):
    review = vote_all(review_of_file(tmp_path / "r", items_of(20), ("ann", "ben", "cem"), per_item=3), by_chance(1))
    outcome = conclude(review)
    pairs, undecided = written(review.folder, "pairs.jsonl"), written(review.folder, "undecided.jsonl")
    assert (outcome.num_pairs, outcome.num_undecided) == (len(pairs), len(undecided))
    assert {row["reviewed"]["item"] for row in pairs} | {row["item"] for row in undecided} <= {*review.items}
    for row in pairs:
        item = review.items[row["reviewed"]["item"]]
        said = [
            vote for name in review.annotators for vote in review.votes(name) if vote.item == item.id and not vote.again
        ]
        verdicts = [vote.verdict for vote in said if vote.verdict]
        winner = "a" if verdicts.count("a") > verdicts.count("b") else "b"
        assert row["preferred_output"][0]["content"] == getattr(item, winner)
        wins = sum({winner: 1.0, "tie": 0.5, "both_bad": 0.5}.get(verdict, 0.0) for verdict in verdicts)
        assert row["preference"]["soft_label"] == pytest.approx(wins / len(verdicts))
        assert [vote["annotator"] for vote in row["preference"]["votes"]] == [v.annotator for v in said if v.verdict]
        assert row["reviewed"].get("tags", {}) == {v.annotator: ["clearer"] for v in said if v.tags and v.verdict}
    for row in undecided:
        choices = [vote["choice"] for vote in row["votes"]]
        assert choices.count("completion_a") == choices.count("completion_b")


def test_the_doctor_counts_the_same_votes_and_finds_the_same_alpha(tmp_path):
    """Both files give the alpha of the whole review; pairs alone, where everybody decided, that of the pairs."""
    review = vote_all(review_of_file(tmp_path / "r", items_of(40), ("ann", "ben", "cem"), per_item=2), by_chance(2))
    outcome = conclude(review)
    both = tiebreak.check([review.folder / "pairs.jsonl", review.folder / "undecided.jsonl"], quiet=True).as_dict()
    told = both["agreement"]
    assert told["num_votes"] == outcome.results.num_votes
    assert told["num_items"] == outcome.results.num_judged_items
    assert told["num_annotators"] == 3
    assert told["krippendorff_alpha"] == pytest.approx(outcome.results.alpha.value, abs=1e-4)
    pairs = tiebreak.check(review.folder / "pairs.jsonl", quiet=True).as_dict()
    assert pairs["num_pairs"] == outcome.num_pairs
    assert pairs["agreement"]["krippendorff_alpha"] == pytest.approx(outcome.pairs_alpha, abs=1e-4)


def test_who_is_excluded_is_in_no_pair_and_named_in_the_results(tmp_path):
    review = vote_all(review_of_file(tmp_path / "r", items_of(12), ("ann", "ben")), by_chance(3))
    conclude(review, ["ben"])
    assert '"ben"' not in (review.folder / "pairs.jsonl").read_text()
    told = json.loads((review.folder / "results.json").read_text())
    assert (told["excluded"], told["num_excluded"]) == (["ben"], 13)
    conclude(review)
    assert '"ben"' in (review.folder / "pairs.jsonl").read_text()


def test_an_empty_answer_is_compared_and_is_no_completion_to_learn_from(tmp_path):
    prompt = (Message("user", "q"),)
    review = make(tmp_path / "r", [Item("i-1", prompt, "", "y"), Item("i-2", prompt, "x", "z")], ["ann"])
    vote_all(review, lambda _name, _item: "b")
    outcome = conclude(review)
    assert outcome.results.win_rate.value == 1.0
    assert [row["reviewed"]["item"] for row in written(review.folder, "pairs.jsonl")] == ["i-2"]
    assert [row["item"] for row in written(review.folder, "undecided.jsonl")] == ["i-1"]


def test_votes_of_people_train_a_policy(tmp_path, tiny_model):
    items = items_of(40, a="the cat sat on {n} mats", b="the dog ran over {n} hills")
    review = vote_all(review_of_file(tmp_path / "r", items, ("ann", "ben")), by_chance(4, ("a", "b", "b")))
    outcome = conclude(review)
    settings = {
        "model.name": str(tiny_model),
        "data.train": str(review.folder / "pairs.jsonl"),
        "output.dir": str(tmp_path / "run"),
        "training.epochs": 1,
        "data.heldout_share": 0.4,
    }
    config = tiebreak.load_config(None, settings | QUICK)
    run = tiebreak.train(config, quiet=True)
    counts = run.data
    assert counts["num_records"] == outcome.num_pairs
    assert run.policy_folder.is_dir()


# --------------------------------------------------------------------------------------------------- evidence of a run


@pytest.fixture
def run(tmp_path):
    """A run of 40 answers, each prompt once, that was measured and holds a policy."""
    run = recorded_run(tmp_path)
    run.policy_folder.mkdir()
    rows = [
        {**row, "prompt_id": f"p{n}", "prompt": [{"role": "user", "content": f"q{n}"}],
         "before": {**row["before"], "text": f"one {n}"}, "after": {**row["after"], "text": f"two {n}"}}
        for n, row in enumerate((run.samples * 2)[:40])
    ]  # fmt: skip
    run.samples_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def reviewed(run, choose, names=("ann", "ben"), **more):
    found = gather(run.path, more.get("drawn"), more.get("seed", 0))
    source = {**found.source, "left_out": dict(found.left_out)}
    review = make(run.path.parent / f"{run.path.name}.review", found.items, names, source=source, **more)
    return vote_all(review, choose)


def checked(run):
    return next((check for check in gate(run).checks if check.name == "human_win_rate"), None)


def mostly_after(_name, item):
    return "a" if item.b.endswith("0") else "b"


def test_the_gate_of_a_run_uses_what_people_say(run):
    assert checked(run) is None
    outcome = conclude(reviewed(run, mostly_after))
    told = run.evaluation["human_win_rate"]
    assert told["value"] == outcome.results.win_rate.value == 36 / 40
    assert (told["items"], told["annotators"], told["alpha"], told["doubts"]) == (40, 2, 1.0, [])
    check = checked(run)
    assert (check.verdict, check.observed) == ("pass", told["value"])
    assert (check.low, check.high) == (pytest.approx(told["low"], abs=0.01), pytest.approx(told["high"], abs=0.01))
    assert "as people say 90.0 %" in check.says
    assert "as people say" in run.report_file.read_text()
    assert "as people say" in model_card(run, "merged")


def test_a_second_look_takes_the_place_of_the_first(run):
    review = reviewed(run, mostly_after)
    conclude(review)
    first = run.measures_file.read_bytes(), run.evaluation_file.read_bytes()
    conclude(review)
    assert (run.measures_file.read_bytes(), run.evaluation_file.read_bytes()) == first
    conclude(review, ["ann"])
    assert run.evaluation["human_win_rate"]["annotators"] == 1
    assert sum(row["key"] == "human_win_rate" for row in run.rows(run.measures_file)) == 1


@pytest.mark.parametrize(
    ("choose", "says"),
    [
        (lambda name, _: "left", "position bias"),
        (lambda name, _: "b" if name == "ann" else "a", "people do not agree: alpha is -0.97"),
    ],
    ids=["always left", "contradiction"],
)
def test_people_who_cannot_be_relied_upon_decide_nothing(run, choose, says):
    conclude(reviewed(run, choose))
    check = checked(run)
    assert check.verdict == "inconclusive"
    assert says in check.says


def test_ten_items_decide_nothing_and_nobody_is_no_evidence(run):
    found = gather(run.path)
    review = make(run.path.parent / "r", found.items, ["ann"], source=found.source)
    assert conclude(review).not_evidence == "nobody voted"
    assert checked(run) is None
    for _ in range(10):
        showing = review.at_hand("ann")
        review.choose("ann", showing.id, "left" if showing.left.startswith("two") else "right")
    conclude(review)
    assert checked(run).verdict == "inconclusive"
    assert "10 items were judged, and at least 30 are needed" in checked(run).says
    while review.progress("ann")[0]:
        review.undo("ann")
    conclude(review)
    assert checked(run) is None
    assert "human_win_rate" not in run.evaluation


def test_items_that_were_chosen_actively_are_refused_as_evidence(run):
    outcome = conclude(reviewed(run, mostly_after, chosen_actively=True))
    assert outcome.run is None
    assert "says nothing of the rest" in outcome.not_evidence
    assert outcome.num_pairs == 40
    assert checked(run) is None


def test_a_run_that_answers_otherwise_by_now_gets_nothing(run):
    review = reviewed(run, mostly_after)
    before = run.evaluation_file.read_bytes()
    run.samples_file.write_text(run.samples_file.read_text().replace("two 3", "three"))
    outcome = conclude(review)
    assert outcome.run is None
    assert "answers otherwise than when it was reviewed" in outcome.not_evidence
    assert outcome.num_pairs == 40
    assert run.evaluation_file.read_bytes() == before


def test_a_run_and_its_review_that_were_moved_find_each_other(run, tmp_path):
    review = reviewed(run, mostly_after)
    (tmp_path / "moved").mkdir()
    for folder in (run.path, review.folder):
        folder.rename(tmp_path / "moved" / folder.name)
    moved = Run(tmp_path / "moved" / run.path.name)
    outcome = conclude(open_review(tmp_path / "moved" / review.folder.name))
    assert (outcome.run, outcome.not_evidence) == (moved.path, "")
    assert checked(moved).verdict == "pass"


def test_evidence_goes_to_the_run_that_is_named_and_never_to_one_that_answers_otherwise(run, tmp_path):
    review = reviewed(run, mostly_after)
    copy = Run(shutil.copytree(run.path, tmp_path / "copy"))
    before = run.evaluation_file.read_bytes()
    assert conclude(review, named=copy.path).run == copy.path
    assert run.evaluation_file.read_bytes() == before
    # Another run took the name of the first one, and the first one has another name by now.
    other = Run(shutil.copytree(run.path, tmp_path / "other"))
    other.samples_file.write_text(other.samples_file.read_text().replace("two 3", "three"))
    run.path.rename(tmp_path / "first")
    other.path.rename(run.path)
    told = run.evaluation_file.read_bytes(), run.measures_file.read_bytes()
    assert "answers otherwise than when it was reviewed" in conclude(review).not_evidence
    assert conclude(review, named=run.path).run is None
    assert conclude(review, named=tmp_path / "first").run == tmp_path / "first"
    assert (run.evaluation_file.read_bytes(), run.measures_file.read_bytes()) == told


def test_a_review_whose_items_are_not_those_of_the_run_is_no_evidence(run):
    """Its own digest fits, as whoever writes both makes it; the answers of the run say otherwise."""
    found = gather(run.path)
    swapped = [Item(one.id, one.prompt, one.b, one.a, one.tools, one.origin) for one in found.items]
    review = make(run.path.parent / "forged", swapped, ["ann", "ben"], source=found.source)
    before = run.evaluation_file.read_bytes()
    outcome = conclude(vote_all(review, lambda _name, item: "b" if item.b.startswith("one") else "a"))
    assert "its answers give other items than those of" in outcome.not_evidence
    assert (outcome.run, run.evaluation_file.read_bytes()) == (None, before)


def test_that_equal_answers_were_not_asked_stands_beside_the_win_rate(run):
    rows = run.samples
    for row in rows[:7]:
        row["after"]["text"] = row["before"]["text"]
    run.samples_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    conclude(reviewed(run, mostly_after))
    assert run.evaluation["human_win_rate"]["left_out"] == {"equal texts": 7}
    said = "of answers that differ (7 do not)"
    assert said in checked(run).says
    assert said in run.report_file.read_text()
    assert said in model_card(run, "merged")


def test_a_review_of_some_items_drawn_by_chance_is_evidence(run):
    conclude(reviewed(run, mostly_after, drawn=34, seed=5))
    told = run.evaluation["human_win_rate"]
    assert (told["items"], told["doubts"], told["left_out"]) == (34, [], {"not drawn": 6})
    assert checked(run).verdict == "pass"


def test_what_is_drawn_follows_from_the_seed_and_keeps_its_order(run):
    whole = gather(run.path).items
    draws = [[item.id for item in gather(run.path, 10, seed).items] for seed in range(200)]
    names = [item.id for item in whole]
    assert all(draw == [name for name in names if name in draw] and len(draw) == 10 for draw in draws)
    assert draws[3] == [item.id for item in gather(run.path, 10, 3).items] != draws[4]
    counts = [sum(name in draw for draw in draws) for name in names]  # 50 of 200 each, give or take 6.1
    assert 25 < min(counts) <= max(counts) < 75
    assert gather(run.path, 99) == gather(run.path, 40) == gather(run.path)  # there are no more


def test_a_review_that_was_stopped_decides_nothing(run):
    review = reviewed(run, mostly_after)
    for name in review.annotators:
        (review.folder / "votes" / f"{name}.jsonl").unlink()
    for name, num in (("ann", 43), ("ben", 33)):
        for turn in turns_of(review, name)[:num]:
            side = next(
                side for side, what in turn.shown.items() if what == mostly_after(name, review.items[turn.item])
            )
            review.choose(name, review.at_hand(name).id, side, seconds=30)
    conclude(review)
    assert checked(run).verdict == "inconclusive"
    assert "76 of 86 comparisons that were asked are made: whoever stops" in checked(run).says


def test_pairs_that_call_tools_are_left_out_and_counted(tmp_path):
    call = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
    rows = [
        {"prompt": [{"role": "user", "content": f"question {place}"}],
         "chosen": [{"role": "assistant", "content": "yes", **({"tool_calls": [call]} if place else {})}],
         "rejected": [{"role": "assistant", "content": "no"}]}
        for place in range(3)
    ]  # fmt: skip
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    found = gather(tmp_path / "pairs.jsonl")
    assert (len(found.items), found.left_out) == (1, {"tool_calls": 2})
