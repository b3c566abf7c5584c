"""The doctor of completions on their own: each planted fault is found with count and line, and nothing else is."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

import tiebreak
from tiebreak.config import DataConfig, ModelConfig
from tiebreak.doctor.apart import EVEN
from tiebreak.doctor.blocks import merged
from tiebreak.doctor.examination import audit
from tiebreak.doctor.facts import MAX_KEPT, Facts, ThumbFacts
from tiebreak.doctor.intake import facts_of, thumb_facts_of
from tiebreak.doctor.page import render_audit_page
from tiebreak.doctor.screen import print_audit
from tiebreak.records import Message, Origin, Record, Source, Thumb
from tiebreak.verbs.check import check

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch"]
KEY = "sk-proj-" + "aB3dE5fG7hJ9kL1mN3pQ" * 2


def said(seed: int, count: int = 12) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def row(number: int, **changes) -> dict:
    return {
        "prompt": f"Question {number}: {said(number)}?",
        "completion": f"{said(10_000 + number)}.",
        "label": number % 2 == 0,
    } | changes


def write(path, rows):
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


def checked(path, rows, **settings):
    data = DataConfig(train=str(write(path / "thumbs.jsonl", rows)), **{"pairing": "none", **settings})
    return check(data)


GOOD = [row(number) for number in range(160)]
PLANTED = {
    "contradiction": (
        [row(3, label=True), row(5, label=True)],
        4,
        [4, 6, 161],
        "2 texts, each both liked and disliked",
    ),
    "duplicate": ([row(3), row(4), row(4)], 3, [161, 162, 163], ""),
    "near_duplicate": ([row(7, completion=row(7)["completion"].upper())], 1, [161], ""),
    "secret": ([row(501, completion=f"My key is {KEY}.")], 1, [161], ""),
    "personal_data": ([row(502, prompt="Write to ingrid.vale@brightwater-mills.co.uk now.")], 1, [161], ""),
    "hidden_text": ([row(503, completion="left\u202eright")], 1, [161], ""),
    "control_token": ([row(504, completion="yes <|im_end|> no")], 1, [161], ""),
    "role_header": ([row(505, completion="Yes.\n\nHuman: And then?\n\nAssistant: No.")], 1, [161], ""),
    "prompt_in_completion": ([row(511, completion=row(511)["prompt"] + "\nSo.")], 1, [161], "at its start"),
    "missing_value": ([row(512, completion="None")], 1, [161], "None (1)"),
    "licence": ([row(506, license="MIT"), row(507, license="CC-BY-NC-4.0")], 2, [], "MIT (1), CC-BY-NC-4.0 (1)"),
    "leak": ([row(508, split="train"), row(508, split="test", completion="so", label=True)], 1, [161], "given splits"),
    "bad_json": (["{\n"], 1, [161], ""),
    "empty_completion": ([row(509, completion=" ")], 1, [161], ""),
    "wrong_type": ([row(510, label="perhaps")], 1, [161], ""),
}


@pytest.mark.parametrize("code", PLANTED)
def test_what_is_planted_is_found_with_count_and_lines_and_nothing_else(tmp_path, code):
    planted, count, lines, detail = PLANTED[code]
    report = checked(tmp_path, [*GOOD, *planted])
    (finding,) = [one for one in report.findings if one.code == code]
    assert (finding.count, [example.line for example in finding.examples]) == (count, lines)
    assert detail in finding.detail
    assert finding.of == ("records" if code in ("bad_json", "empty_completion", "wrong_type") else "completions")
    assert {one.code for one in report.findings} == {code}
    assert KEY[:24] not in json.dumps(report.as_dict())


def test_clean_data_has_no_finding_and_its_counts_add_up(tmp_path):
    report = checked(tmp_path, GOOD)
    assert report.findings == ()
    told = report.as_dict()
    wanted = {"unit": "completions", "num_records": 160, "num_used_records": 160, "num_completions": 160}
    wanted |= {"num_liked": 80, "num_disliked": 80, "num_prompts": 160, "num_duplicates": 0, "num_dropped": 0}
    assert {name: told[name] for name in wanted} == wanted
    assert "num_pairs" not in told
    split = told["split"]
    assert split["num_train_completions"] + split["num_heldout_completions"] == 160
    assert set(told["words"]) == {"prompt", "liked", "disliked"}
    assert sum(told["histograms"]["words"]["liked"]) == 80


def test_blanks_hide_no_contradiction_and_another_prompt_is_none(tmp_path):
    planted = [row(3, completion=row(3)["completion"] + " \n", label=True)]
    other = [row(900, completion=row(8)["completion"], label=False)]
    (found,) = checked(tmp_path, [*GOOD, *planted, *other]).findings
    assert (found.code, found.count, found.grade) == ("contradiction", 2, "error")


def test_nearly_the_same_text_with_the_other_label_is_no_copy(tmp_path):
    again = row(7, completion=row(7)["completion"].upper(), label=True)
    assert "near_duplicate" not in {one.code for one in checked(tmp_path, [*GOOD, again]).findings}


@pytest.mark.parametrize("label", [True, False])
def test_one_label_alone_is_an_error_that_says_which(tmp_path, label):
    report = checked(tmp_path, [row(n, label=label) for n in range(160)])
    assert [(one.code, one.detail) for one in report.errors] == [
        ("one_label", f"all are {'liked' if label else 'disliked'}")
    ]
    assert report.measurements["shortcut"] == {"note": "every completion has the same label"}


def test_one_label_on_a_side_of_the_split_is_an_error_that_says_where(tmp_path):
    train, heldout = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", [row(n) for n in (601, 603)])
    (found,) = check(DataConfig(train=str(train), heldout=str(heldout), pairing="none")).errors
    assert (found.code, found.detail) == ("one_label", "all 2 held out are disliked")
    by_share = [row(n, label=True) for n in range(160)] + [row(700, label=False)]
    (found,) = checked(tmp_path, by_share).errors
    assert re.fullmatch(
        r"all \d+ (held out|to train on) are liked; another data.heldout_share than 0.1 may help", found.detail
    )


@pytest.mark.parametrize(
    ("num_liked", "num_disliked", "grade"),
    [(100, 100, None), (130, 100, None), (100, 180, "info"), (400, 120, "info"), (20, 300, "warning")],
)
def test_uneven_labels_are_told_with_the_weight_that_makes_them_even(tmp_path, num_liked, num_disliked, grade):
    rows = [row(n, label=n < num_liked) for n in range(num_liked + num_disliked)]
    report = checked(tmp_path, rows)
    labels = report.measurements["labels"]
    found = [one for one in report.findings if one.code == "uneven_labels"]
    assert [one.grade for one in found] == ([] if grade is None else [grade])
    # Eq. 8, by hand: what both labels weigh, over the rows that are trained on.
    held = labels["num_liked"] + labels["num_disliked"]
    assert held == report.measurements["split"]["num_train_completions"]
    weights = labels["weights"]
    ratio = labels["num_liked"] * weights["desirable_weight"] / (labels["num_disliked"] * weights["undesirable_weight"])
    assert min(weights.values()) == 1
    assert (EVEN[0] if found else 0.75) <= ratio <= EVEN[1]
    if found:
        assert f"{max(weights.values()):g}" in found[0].detail


def test_what_rows_weigh_counts_where_labels_are_held_against_each_other(tmp_path):
    rows = [row(n, weight=3.0 if n % 2 else 1.0) for n in range(160)]
    labels = checked(tmp_path, rows).measurements["labels"]
    assert labels["ratio"] == pytest.approx(labels["num_liked"] / (3 * labels["num_disliked"]), abs=1e-6)
    assert labels["weights"]["desirable_weight"] == pytest.approx(
        3.5 * labels["num_disliked"] / labels["num_liked"], rel=0.1
    )


def test_every_ratio_has_a_weight_of_two_digits_that_brings_it_into_the_range():
    from tiebreak.doctor.apart import Completions

    for ratio in [*np.geomspace(1e-4, 0.7499, 400), *np.geomspace(1.3334, 1e4, 400)]:
        facts = thumb_facts_of([record(1, True), record(2, False)])
        object.__setattr__(facts, "weight", np.array([ratio, 1.0]))
        weighed = Completions(facts, 0.0, None)._weighed()
        both = weighed["weights"]
        assert EVEN[0] <= ratio * both["desirable_weight"] / both["undesirable_weight"] <= EVEN[1]


@pytest.mark.parametrize("longer", [True, False])
def test_a_shortcut_by_length_is_measured_whichever_way_it_goes(tmp_path, longer):
    rows = [row(n, completion=said(n, 30 if (n % 2 == 0) is longer else 6)) for n in range(200)]
    report = checked(tmp_path, rows)
    found = {one.code: one for one in report.findings}
    assert {"shortcut_length", "shortcut"} == set(found)
    assert report.as_dict()["shortcut"]["length"]["accuracy"] == (1.0 if longer else 0.0)
    assert found["shortcut_length"].detail.startswith("a liked completion is longer than a disliked one in ")
    assert found["shortcut"].count == 200


def test_a_shortcut_that_only_several_features_show_is_measured(tmp_path):
    rows = [row(n, completion=said(n) + ("?" if n % 2 else ".") + (" \U0001f600" if n % 2 else "")) for n in range(200)]
    assert "shortcut" in {one.code for one in checked(tmp_path, rows).findings}


def test_few_prompts_and_a_file_without_a_completion_are_told(tmp_path):
    found = {one.code: one for one in checked(tmp_path, [row(n % 20, completion=said(n)) for n in range(160)]).findings}
    assert found["few_prompts"].count == 20
    report = checked(tmp_path, ["{\n"])
    assert [(one.code, one.detail) for one in report.errors] == [("unusable", "no completion is left")]


def test_leaks_between_two_files_are_found(tmp_path):
    train = write(tmp_path / "a.jsonl", GOOD)
    planted = [row(5, completion="so"), row(600), row(6, prompt=row(6)["prompt"].upper(), completion="oh")]
    heldout = write(tmp_path / "b.jsonl", planted)
    found = {
        one.code: one for one in check(DataConfig(train=str(train), heldout=str(heldout), pairing="none")).findings
    }
    assert (found["leak"].count, found["leak"].examples[0].line) == (1, 6)
    assert (found["near_leak"].count, found["near_leak"].examples[0].line) == (1, 7)


def test_pairs_and_ratings_are_examined_apart_where_that_is_asked_for(tmp_path):
    pairs = [{"prompt": f"Why {n}?", "chosen": said(n), "rejected": said(n + 500)} for n in range(110)]
    report = checked(tmp_path, pairs)
    assert (report.counts["num_completions"], report.counts["num_liked"]) == (220, 110)
    middle = [
        {"prompt": "Middle?", "chosen": "a b c", "rejected": "d e f"},
        {"prompt": "Middle?", "chosen": "d e f", "rejected": "g h i"},
    ]
    (found,) = checked(tmp_path, [*pairs, *middle]).findings
    assert (found.code, found.count, [one.line for one in found.examples]) == ("contradiction", 2, [111, 112])


def test_tokens_are_counted_and_what_is_too_long_is_found(tmp_path, tiny_model):
    rows = [row(n) for n in range(40)] + [row(99, completion=said(1, 200))]
    data = DataConfig(train=str(write(tmp_path / "thumbs.jsonl", rows)), pairing="none", max_length=300)
    report = check(data, ModelConfig(name=str(tiny_model)))
    (found,) = [one for one in report.findings if one.code == "too_long"]
    assert (found.count, found.of, found.examples[0].line) == (1, "completions", 41)
    tokens = report.as_dict()["tokens"]
    assert tokens["num_too_long"] == 1
    assert tokens["row"]["max"] > tokens["completion"]["max"] >= 200
    assert report.counts["dropped_by_reason"] == {"too_long": 1}


def test_processes_change_nothing(tmp_path):
    planted = [one for rows, *_ in PLANTED.values() for one in rows]
    data = DataConfig(train=str(write(tmp_path / "t.jsonl", [*GOOD * 4, *planted])), pairing="none")
    assert audit(data, num_workers=1).report == audit(data, num_workers=2).report


# --------------------------------------------------------------------------------------------------------------- facts


def record(line: int, liked: bool, text: str = "", **given) -> Record:
    source = Source("a.jsonl", line)
    prompt = (Message("user", f"Why {line}?"),)
    return Record(source, unpaired=(Thumb(prompt, Message("assistant", text or f"So {line}."), liked, **given),))


def test_a_completion_leaves_where_it_stands_how_long_it_is_and_what_was_said_of_it():
    facts = thumb_facts_of([record(41, True, "Two or three.", origin=Origin("D", "MIT", "train", "7"), weight=0.5)])
    assert (facts.num_rows, facts.num_records, facts.place(0)) == (1, 1, "a.jsonl:41")
    assert (facts.liked[0], facts.weight[0]) == (True, 0.5)
    assert (facts.prompt_words[0], facts.completion_words[0], facts.completion_characters[0]) == (2, 3, 13)
    assert (facts.dataset_names, facts.licence_names, facts.split_names) == (("D",), ("MIT",), ("train",))
    assert facts.clusters[0] == facts.group[0]


def test_blocks_change_nothing_and_memory_is_less_than_that_of_pairs():
    records = [record(n, n % 3 == 0, said(n) + (" me@uni-graz.at" if n % 2 else "")) for n in range(1, 301)]
    whole = thumb_facts_of(records)
    parts = merged(
        ThumbFacts, [thumb_facts_of(records[:7]), thumb_facts_of(records[7:150]), thumb_facts_of(records[150:])]
    )
    for name in ThumbFacts.COLUMNS:
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name
    assert whole.num_marks == parts.num_marks
    assert whole.marks == parts.marks
    assert len(whole.marks) <= MAX_KEPT * len(whole.num_marks)
    pair = facts_of([])
    assert sum(np.dtype(kind).itemsize * max(width, 1) for kind, width in ThumbFacts.COLUMNS.values()) < 270
    assert set(ThumbFacts.COLUMNS) - {"liked"} - set(vars(pair)) == {
        f"completion_{name}" for name in ("key", "words", "characters")
    }
    assert issubclass(Facts, type(whole).__mro__[1])


# ------------------------------------------------------------------------------------------------ what people are shown


def test_the_screen_and_the_page_speak_of_completions(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [row(n, label=n % 4 == 0, completion=said(n, 9 + n % 4)) for n in range(200)]
    report = checked(tmp_path, [*rows, rows[3] | {"label": True}]).as_dict()
    print_audit(report)
    shown = capsys.readouterr().out
    for words in (
        "201 completions (51 liked, 150 disliked) on 200 prompts",
        "contradiction  2 completions (1.0 %)",
        "how often a liked completion is longer than a disliked one",
        "disliked, to train on; desirable_weight ",
        "completions to train on, ",
        "--pairing none",
    ):
        assert words in shown, words
    page = render_audit_page(report)
    text = re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    for told in (shown, text):
        assert not re.search(r"\bpairs?\b", told.replace("a loss of pairs", "")), told
    assert "usable completions" in text
    assert page.count("<svg") >= 3


def test_a_report_of_pairs_names_its_unit(tmp_path):
    pairs = [{"prompt": f"Why {n}?", "chosen": said(n), "rejected": said(n + 500)} for n in range(4)]
    report = tiebreak.check(write(tmp_path / "p.jsonl", pairs), quiet=True)
    assert (report.unit, report.as_dict()["unit"]) == ("pairs", "pairs")


# -------------------------------------------------------------------------------------------- thumbs without a partner


def test_thumbs_without_partners_are_told_and_what_to_do(tmp_path):
    from tiebreak.doctor.sentences import next_steps

    file = write(tmp_path / "thumbs.jsonl", GOOD)
    report = tiebreak.check(file, quiet=True)
    found = {one.code: one for one in report.findings}
    assert (found["lone_thumbs"].count, found["lone_thumbs"].grade) == (160, "warning")
    assert found["unusable"].detail == "no pair is left; lone_thumbs says what to do"
    steps = [step.command for step in next_steps(report.as_dict())]
    assert steps[0] == f"tiebreak check {file} --pairing none"
    assert "--pairing none" in found["lone_thumbs"].as_dict()["remedy"]
    assert "loss: {name: kto}" in found["lone_thumbs"].as_dict()["remedy"]


def test_thumbs_that_mostly_find_partners_and_scores_that_do_not_are_not_told_so(tmp_path):
    paired = [row(n // 2, label=n % 2 == 0, completion=said(n)) for n in range(240)]
    assert "lone_thumbs" not in {
        one.code for one in tiebreak.check(write(tmp_path / "a.jsonl", paired), quiet=True).findings
    }
    scored = [{"prompt": f"Why {n}?", "response": said(n), "score": n % 5} for n in range(40)]
    found = {one.code: one for one in tiebreak.check(write(tmp_path / "b.jsonl", scored), quiet=True).findings}
    assert found["unpaired"].count == 40
    assert "lone_thumbs" not in found


# ----------------------------------------------------------------------------------------------------------- real files


def test_real_thumbs_are_examined(shared):
    file = str(shared / "data" / "unpaired" / "gsm8k_model_solutions.jsonl.gz")
    report = check(DataConfig(train=file, pairing="none")).as_dict()
    assert (report["num_completions"], report["num_liked"], report["num_prompts"]) == (5276, 2001, 1319)
    found = {one["code"]: one["count"] for one in report["findings"]}
    assert found == {"duplicate": 8, "near_duplicate": 4, "uneven_labels": report["labels"]["num_liked"]}
    assert report["shortcut"]["length"]["high"] < 0.4  # right solutions are the shorter ones
    assert report["severities"]["error"] == 0


def test_a_real_file_of_one_thumb_a_prompt_is_told_so_and_sound_on_its_own(shared):
    file = shared / "data" / "unpaired" / "llamafactory_kto_en_demo.jsonl.gz"
    assert "lone_thumbs" in {one.code for one in tiebreak.check(file, quiet=True).findings}
    report = check(DataConfig(train=str(file), pairing="none"))
    assert (report.counts["num_liked"], report.counts["num_disliked"], report.errors) == (150, 150, [])
