"""Clean: what is kept, what is set aside and why, and that every record and every pair is accounted for."""

from __future__ import annotations

import json

import pytest

import tiebreak
from tiebreak.errors import DataError


def row(number: int, **changes) -> dict:
    return {"prompt": f"Question {number}?", "chosen": f"Yes, {number}.", "rejected": f"No {number}"} | changes


def swapped(one: dict) -> dict:
    return one | {"chosen": one["rejected"], "rejected": one["chosen"]}


ROWS = [
    *map(row, range(20)),
    swapped(row(3)),
    row(4),
    row(20, chosen="Look\u202e here", rejected="away"),
    row(21, chosen="Same", rejected="same."),
    row(22, score_chosen=2.0, score_rejected=8.0),
    row(23, chosen=""),
    row(24, rejected="only\u200b", chosen="only"),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in [*ROWS]) + "{\n", encoding="utf-8")
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_kept_and_set_aside_add_up_to_what_was_read(file, tmp_path):
    made = tiebreak.clean(file, tmp_path / "out", quiet=True)
    kept, aside = lines(tmp_path / "out" / "kept.jsonl"), lines(tmp_path / "out" / "quarantined.jsonl")
    assert (len(kept), len(aside)) == (made.num_kept, made.num_set_aside + made.num_dropped)
    assert made.num_records == 28 == len(kept) + len(aside)
    assert made.num_judged == made.num_kept + made.num_set_aside
    report = json.loads((tmp_path / "out" / "report.json").read_text())["cleaned"]
    assert sum(entry["count"] for entry in report["by_code"].values() if entry["action"] != "fix") >= made.num_set_aside


def test_every_pair_set_aside_has_line_codes_action_and_text(file, tmp_path):
    tiebreak.clean(file, tmp_path / "out", quiet=True)
    aside = {one["line"]: one for one in lines(tmp_path / "out" / "quarantined.jsonl")}
    assert {line: (one["codes"], one["action"]) for line, one in aside.items()} == {
        4: (["contradiction"], "quarantine"),
        21: (["contradiction"], "quarantine"),
        22: (["duplicate"], "reject"),
        24: (["near_identical"], "quarantine"),
        25: (["inverted_score"], "quarantine"),
        26: (["empty_completion"], "reject"),
        27: (["near_identical"], "quarantine"),
        28: (["bad_json"], "reject"),
    }
    assert aside[4]["pair"]["preferred_output"][0]["content"] == "Yes, 3."
    assert aside[26]["pair"] is None


def test_hidden_characters_are_mended_and_what_they_hid_is_not_kept(file, tmp_path):
    made = tiebreak.clean(file, tmp_path / "out", quiet=True)
    texts = (tmp_path / "out" / "kept.jsonl").read_text(encoding="utf-8")
    assert made.num_fixed == 1
    assert "Look here" in texts
    assert "\u202e" not in texts


def test_what_is_kept_is_clean_in_the_doctors_eyes_and_reads_back(file, tmp_path):
    tiebreak.clean(file, tmp_path / "out", quiet=True)
    again = tiebreak.check(tmp_path / "out" / "kept.jsonl", quiet=True)
    assert again.errors == []
    assert {finding.code for finding in again.findings} <= {"few_prompts"}


def test_an_action_of_ones_own_replaces_that_of_the_rule(file, tmp_path):
    actions = {"contradiction": "warn", "duplicate": "quarantine", "hidden_text": "quarantine"}
    made = tiebreak.clean(file, tmp_path / "out", actions=actions, quiet=True)
    assert made.num_fixed == 0
    assert "contradiction" not in made.by_code
    assert made.by_code["duplicate"] == {"action": "quarantine", "count": 1}
    assert made.by_code["hidden_text"] == {"action": "quarantine", "count": 2}


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        ({"contradictions": "warn"}, "'contradictions' is no rule. Did you mean 'contradiction'"),
        ({"contradiction": "fix"}, "can only reject, quarantine, warn"),
        ({"shortcut": "reject"}, "can only warn"),
        ({"bad_json": "warn"}, "can only reject"),
    ],
)
def test_an_impossible_action_is_refused_before_anything_is_written(file, tmp_path, actions, words):
    with pytest.raises(DataError, match=words):
        tiebreak.clean(file, tmp_path / "out", actions=actions, quiet=True)
    assert list(tmp_path.iterdir()) == [file]


def test_a_named_file_gets_its_companions_beside_it(file, tmp_path):
    tiebreak.clean(file, tmp_path / "new" / "kept.jsonl.gz", to="trl", quiet=True)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "kept.jsonl.gz", "kept.quarantined.jsonl", "kept.report.json",
    ]  # fmt: skip
    assert tiebreak.read_pairs(tmp_path / "new" / "kept.jsonl.gz").format == "trl"


def test_nothing_is_overwritten(file, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="already exists"):
        tiebreak.clean(file, tmp_path / "out", quiet=True)


def test_scores_and_votes_come_through(tmp_path):
    file = tmp_path / "votes.jsonl"
    votes = {"prompt": "Why?", "response_a": "Because.", "response_b": "No.", "votes": [1, 1, 2], "group": "g"}
    file.write_text(json.dumps(votes) + "\n" + json.dumps(row(1, score_chosen=3, score_rejected=1)) + "\n")
    tiebreak.clean(tmp_path / "votes.jsonl", tmp_path / "out", quiet=True)
    (kept,) = tiebreak.read_pairs(tmp_path / "out" / "kept.jsonl").pairs
    assert [vote.choice for vote in kept.preference.votes] == ["chosen", "chosen", "rejected"]
    assert kept.origin.group == "g"


def saved(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def test_mending_makes_no_contradiction(tmp_path):
    asked = {"prompt": "Which city is the capital?", "chosen": "Rome.", "rejected": "Milan"}
    rows = [asked, swapped(asked) | {"rejected": "Rome.\u200b"}, row(1)]
    made = tiebreak.clean(saved(tmp_path / "a.jsonl", rows), tmp_path / "out", quiet=True)
    assert made.by_code == {"contradiction": {"action": "quarantine", "count": 2}}
    assert [one["line"] for one in lines(tmp_path / "out" / "quarantined.jsonl")] == [1, 2]
    again = tiebreak.check(tmp_path / "out" / "kept.jsonl", quiet=True)
    assert (again.errors, again.counts["num_pairs"]) == ([], 1)


def test_a_completion_of_hidden_characters_alone_is_set_aside_as_empty(tmp_path):
    file = saved(tmp_path / "a.jsonl", [row(1), row(2, chosen="\u200b")])
    made = tiebreak.clean(file, tmp_path / "out", quiet=True)
    (aside,) = lines(tmp_path / "out" / "quarantined.jsonl")
    assert (made.num_kept, aside["line"], aside["action"]) == (1, 2, "reject")
    assert aside["codes"] == ["hidden_text", "empty_completion"]
    assert made.by_code == {"empty_completion": {"action": "reject", "count": 1}}


def test_a_name_that_what_is_set_aside_would_have_is_refused_before_anything_is_written(file, tmp_path):
    with pytest.raises(DataError, match=r"x\.quarantined\.jsonl: what is set aside would have this name"):
        tiebreak.clean(file, tmp_path / "x.quarantined.jsonl", quiet=True)
    assert list(tmp_path.iterdir()) == [file]


def test_thumbs_of_a_ranking_are_refused_and_of_one_pair_twice_are_written_once(tmp_path):
    ranking = [row(1, chosen="a", rejected="b"), row(1, chosen="b", rejected="c")]
    with pytest.raises(DataError, match=r"a\.jsonl:2: .*both liked and disliked"):
        tiebreak.clean(saved(tmp_path / "a.jsonl", ranking), tmp_path / "out", to="thumbs", quiet=True)
    assert not (tmp_path / "out").exists()
    best = [row(1, chosen="a", rejected="b"), row(1, chosen="a", rejected="c")]
    made = tiebreak.clean(saved(tmp_path / "b.jsonl", best), tmp_path / "out", to="thumbs", quiet=True)
    assert (made.num_kept, made.left_out) == (2, {"pairing": 2})
    assert len(lines(tmp_path / "out" / "kept.jsonl")) == 3


# --------------------------------------------------------------------------------------------- completions on their own


def thumb(number: int, **changes) -> dict:
    return {"prompt": f"Question {number}?", "completion": f"So {number}.", "label": number % 2 == 0} | changes


THUMBS = [
    *map(thumb, range(20)),
    thumb(3, label=True),
    thumb(4),
    thumb(20, completion="Look\u202e here"),
    thumb(21, completion=""),
    thumb(22, weight=0.5, group="g", license="MIT"),
]


def test_completions_on_their_own_are_sorted_mended_and_written_so_that_they_read_back(tmp_path):
    file = tmp_path / "thumbs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in THUMBS), encoding="utf-8")
    data = tiebreak.DataConfig(train=str(file), pairing="none")
    made = tiebreak.clean(data, tmp_path / "out", quiet=True)
    assert (made.unit, made.num_records, made.num_judged, made.num_kept, made.num_fixed) == (
        "completions",
        25,
        24,
        21,
        1,
    )
    assert (made.num_set_aside, made.num_dropped) == (3, 1)
    aside = {one["line"]: one for one in lines(tmp_path / "out" / "quarantined.jsonl")}
    assert {line: one["codes"] for line, one in aside.items()} == {
        4: ["contradiction"],
        21: ["contradiction"],
        22: ["duplicate"],
        24: ["empty_completion"],
    }
    assert aside[4]["completion"]["label"] is False
    assert aside[24]["completion"] is None
    assert "24 completions: 21 kept (1 of them mended), 3 set aside" in made.lines()
    told = json.loads((tmp_path / "out" / "report.json").read_text())["cleaned"]
    assert (told["num_completions"], "num_pairs" in told, "num_judged" in told) == (24, False, False)
    assert made.as_dict()["num_completions"] == 24
    kept = tiebreak.DataConfig(train=str(tmp_path / "out" / "kept.jsonl"), pairing="none", heldout_share=0.5)
    report = tiebreak.check(kept, quiet=True)
    assert (report.counts["num_completions"], report.errors) == (21, [])
    assert lines(tmp_path / "out" / "kept.jsonl")[-1] == {
        "prompt": [{"role": "user", "content": "Question 22?"}],
        "completion": [{"role": "assistant", "content": "So 22."}],
        "label": True,
        "weight": 0.5,
        "license": "MIT",
        "group": "g",
    }


def test_a_form_of_pairs_holds_no_completion_on_its_own(tmp_path):
    file = tmp_path / "thumbs.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in THUMBS), encoding="utf-8")
    with pytest.raises(DataError, match=r"--to trl: its rows are pairs, .* choose tiebreak or thumbs"):
        tiebreak.clean(tiebreak.DataConfig(train=str(file), pairing="none"), tmp_path / "out", to="trl", quiet=True)
    assert not (tmp_path / "out").exists()
