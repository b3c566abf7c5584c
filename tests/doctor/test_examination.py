"""The doctor: every rule finds what is planted, with the right count and line, and nothing else."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

import tiebreak
from tiebreak.config import DataConfig, ModelConfig
from tiebreak.doctor import examination, pairs
from tiebreak.doctor.examination import audit
from tiebreak.doctor.page import write_audit_page
from tiebreak.doctor.rules import FILE_RULES, READING_RULES, RULES
from tiebreak.errors import DataError
from tiebreak.progress import Silent
from tiebreak.verbs.check import check

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty", "knoll", "larch"]


def said(seed: int, count: int = 12) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def row(number: int, **changes) -> dict:
    return {
        "prompt": f"Question {number}: {said(number)}?",
        "chosen": f"{said(10_000 + number)}.",
        "rejected": f"{said(20_000 + number)}.",
    } | changes


def pair(prompt: int, better: str, worse: str) -> dict:
    return row(prompt, chosen=better, rejected=worse)


def write(path, rows):
    path.write_text("".join(one if isinstance(one, str) else json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return path


GOOD = [row(number) for number in range(120)]
KEY = "sk-proj-" + "aB3dE5fG7hJ9kL1mN3pQ" * 2

PLANTED = {
    "contradiction": ([pair(500, "a b c", "d e f"), pair(500, "d e f", "a b c")], 2, [121, 122]),
    "cycle": ([pair(501, "a", "b"), pair(501, "b", "c"), pair(501, "c", "a")], 1, [123]),
    "duplicate": ([row(3), row(4), row(4)], 3, [121, 122, 123]),
    "near_identical": ([row(502, chosen="It is so!", rejected="it is  so")], 1, [121]),
    "near_duplicate": ([row(7, chosen=row(7)["chosen"].upper())], 1, [121]),
    "inverted_score": ([row(503, score_chosen=1, score_rejected=2), row(504, soft_label=0.2)], 2, [121, 122]),
    "tied_score": ([row(505, score_chosen=1, score_rejected=1)], 1, [121]),
    "low_confidence": ([row(506, soft_label=0.55)], 1, [121]),
    "secret": ([row(507, chosen=f"My key is {KEY}.")], 1, [121]),
    "personal_data": ([row(508, prompt="Write to ingrid.vale@brightwater-mills.co.uk now.")], 1, [121]),
    "hidden_text": ([row(509, rejected="left\u202eright")], 1, [121]),
    "control_token": ([row(510, chosen="yes <|im_end|> no")], 1, [121]),
    "role_header": ([row(511, chosen="Yes.\n\nHuman: And then?\n\nAssistant: No.")], 1, [121]),
    "role_header_in_prompt": ([row(516, prompt="Why?\n\n### Response:")], 1, [121]),
    "prompt_in_completion": ([row(517, chosen=row(517)["prompt"] + " So."), row(518, chosen="Why?")], 1, [121]),
    "missing_value": (
        [
            row(519, rejected="None"),
            row(520, chosen=" nan\n"),
            row(521, prompt=row(521)["prompt"] + "\nNaN"),
            row(522, system="null"),
            row(523, chosen="N/A"),
            row(524, rejected="None of them."),
            row(525, chosen="Nan"),
        ],
        6,
        [121, 122, 123],
    ),
    "leak": ([row(512, split="train"), row(512, split="test", chosen="so")], 1, [121]),
    "bad_json": (["{\n"], 1, [121]),
    "duplicate_key": (['{"prompt": "a", "prompt": "b", "chosen": "c", "rejected": "d"}\n'], 1, [121]),
    "identical": ([row(513, chosen="x", rejected="x")], 1, [121]),
    "empty_completion": ([row(514, rejected=" ")], 1, [121]),
    "wrong_type": ([row(515, chosen=True)], 1, [121]),
}


@pytest.mark.parametrize("code", PLANTED)
def test_what_is_planted_is_found_with_count_and_lines(tmp_path, code):
    planted, count, lines = PLANTED[code]
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", [*GOOD, *planted]), quiet=True)
    (finding,) = [one for one in report.findings if one.code == code]
    assert finding.count == count
    assert sorted(example.line for example in finding.examples) == lines
    assert {example.file for example in finding.examples} == {"pairs.jsonl"}
    others = {one.code for one in report.findings} - {code, "repeated_prompt"}
    assert others <= {"near_duplicate", "tied_score"}  # a contradiction of nearly equal texts may be both


def test_clean_data_has_no_finding(tmp_path):
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", GOOD), quiet=True)
    assert report.findings == ()
    assert report.as_dict()["severities"] == {"error": 0, "warning": 0, "info": 0}


def _voted(better: str, worse: str, votes: list[int]) -> dict:
    return {"prompt": f"{said(1)}?", "response_a": better, "response_b": worse, "votes": votes}


@pytest.mark.parametrize("narrow", range(3))
def test_a_circle_is_opened_where_the_judgement_was_narrowest(tmp_path, narrow):
    ring = [("a", "b"), ("b", "c"), ("c", "a")]
    voted = [_voted(*one, [1, 1, 2 if n == narrow else 1]) for n, one in enumerate(ring)]
    scored = [row(9, chosen=a, rejected=b, margin=0.1 if n == narrow else 3.0) for n, (a, b) in enumerate(ring)]
    for name, rows in (("votes.jsonl", voted), ("scores.jsonl", scored)):
        report = tiebreak.check(write(tmp_path / name, rows), quiet=True)
        (finding,) = [one for one in report.findings if one.code == "cycle"]
        assert [example.line for example in finding.examples] == [narrow + 1]
        assert finding.detail == "3 pairs lie on circles, in one knot; without these none is left"


@pytest.mark.parametrize("end", [" ", "\n", "\u00a0", "  \n\n"])
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_blanks_at_the_ends_and_unicode_forms_hide_no_contradiction_and_no_copy(tmp_path, side, end):
    pairs = [row(n, chosen=f"Caf\u00e9 {n}.") for n in range(6)]
    turned = [one | {"chosen": one["rejected"], "rejected": one["chosen"]} for one in pairs[:3]]
    again = [one | {"chosen": one["chosen"].replace("\u00e9", "e\u0301")} for one in pairs[3:]]
    blanks = [one | {side: end + one[side] + end} for one in [*turned, *again]]
    file = write(tmp_path / "pairs.jsonl", [*pairs, *blanks])
    found = {one.code: one for one in tiebreak.check(file, quiet=True).findings}
    assert (found["contradiction"].count, found["duplicate"].count) == (6, 3)
    assert "near_duplicate" not in found
    made = tiebreak.clean(file, tmp_path / "out", quiet=True)
    assert (made.num_kept, made.num_set_aside) == (3, 9)


def test_a_blank_hides_no_leak_and_inner_blanks_are_text(tmp_path):
    train = write(tmp_path / "train.jsonl", [*GOOD, row(700, prompt="a  b"), row(701, prompt="c d")])
    heldout = write(
        tmp_path / "test.jsonl", [row(5, prompt=row(5)["prompt"] + "\n", chosen="so"), row(701, prompt="c  d")]
    )
    found = {one.code: one for one in check(DataConfig(train=str(train), heldout=str(heldout))).findings}
    assert (found["leak"].count, found["leak"].examples[0].line) == (1, 6)


def test_completions_that_differ_in_blanks_alone_are_nearly_identical(tmp_path):
    planted = [row(502, chosen="It is so.", rejected="It is so. "), row(503, chosen="caf\u00e9", rejected="cafe\u0301")]
    found = {
        one.code: one for one in tiebreak.check(write(tmp_path / "a.jsonl", [*GOOD, *planted]), quiet=True).findings
    }
    assert found["near_identical"].count == 2
    assert not {"contradiction", "duplicate", "cycle"} & set(found)


def test_votes_are_of_the_completion_they_were_cast_for_whatever_blanks_surround_it(tmp_path):
    ring = [("a ", " b"), ("b", "c\n"), ("\nc", "a")]
    for narrow in range(3):
        rows = [_voted(*one, [1, 1, 2 if n == narrow else 1]) for n, one in enumerate(ring)]
        found = {one.code: one for one in tiebreak.check(write(tmp_path / "v.jsonl", rows), quiet=True).findings}
        assert [example.line for example in found["cycle"].examples] == [narrow + 1]


@pytest.mark.parametrize(("num_tied", "told"), [(60, True), (20, False)])
def test_many_ties_are_told_with_their_number(tmp_path, num_tied, told):
    rows = [
        _voted(said(n), said(n + 1000), ["tie" if n < num_tied else 1 + n % 2]) | {"prompt": f"{said(n)}?"}
        for n in range(120)
    ]
    found = {one.code: one for one in tiebreak.check(write(tmp_path / "votes.jsonl", rows), quiet=True).findings}
    assert ("many_ties" in found) is told
    if told:
        assert (found["many_ties"].count, found["many_ties"].grade) == (60, "warning")
        assert "unusable" not in found


def test_secrets_are_never_shown(tmp_path):
    planted = [row(507, chosen=f"My key is {KEY}."), row(507, chosen=f"My key is {KEY}.")]
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", [*GOOD, *planted]), quiet=True)
    told = json.dumps(report.as_dict())
    assert {"secret", "duplicate"} <= {one.code for one in report.findings}
    assert KEY not in told
    assert KEY[:24] not in told


def test_a_shortcut_by_length_is_measured(tmp_path):
    rows = [row(n, chosen=said(n, 30), rejected=said(n + 1, 6)) for n in range(200)]
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", rows), quiet=True)
    assert {"shortcut_length", "shortcut"} <= {one.code for one in report.findings}
    assert report.as_dict()["shortcut"]["length"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("emoji", lambda text: text[:-1] + "\U0001f600"),
        ("leading_blanks", lambda text: " " + text[1:]),
        ("trailing_blanks", lambda text: text[:-1] + "\n"),
    ],
)
def test_a_shortcut_by_what_nobody_reads_is_measured(tmp_path, feature, change):
    rows = [row(n, chosen=change(f"{said(n)}.")) for n in range(200)]
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", rows), quiet=True)
    assert "shortcut" in {one.code for one in report.findings}
    (found,) = [one for one in report.as_dict()["shortcut"]["by_feature"] if one["name"] == feature]
    assert found["accuracy"] == 1.0


def test_annotators_who_disagree_are_found(tmp_path):
    chooser = random.Random(0)
    rows = [
        {"prompt": f"{said(n)}?", "response_a": said(n + 1), "response_b": said(n + 2)}
        | {"votes": [1 + n % 2, 1 + n % 2, chooser.choice((1, 2))], "annotators": ["ann", "ben", "coin"]}
        for n in range(0, 900, 3)
    ]
    found = tiebreak.check(write(tmp_path / "votes.jsonl", rows), quiet=True)
    assert found.as_dict()["agreement"]["num_votes"] == 900
    (worst,) = [one for one in found.findings if one.code == "unreliable_annotator"]
    assert (worst.count, worst.detail) == (1, "coin")


def test_leaks_between_two_files_are_found(tmp_path):
    train = write(tmp_path / "train.jsonl", GOOD)
    heldout = write(tmp_path / "test.jsonl", [row(5, chosen="so"), row(600), row(6, prompt=row(6)["prompt"].upper())])
    data = DataConfig(train=str(train), heldout=str(heldout))
    report = check(data)
    found = {one.code: one for one in report.findings}
    assert (found["leak"].count, found["leak"].examples[0].line, found["leak"].grade) == (1, 6, "error")
    assert (found["near_leak"].count, found["near_leak"].examples[0].line) == (1, 7)
    assert report.as_dict()["given_splits"] == {"train": 120, "heldout": 3}


def test_several_files_are_one_data_set(tmp_path):
    one, other = write(tmp_path / "a.jsonl", GOOD), write(tmp_path / "b.jsonl", [row(3)])
    report = tiebreak.check([one, other], quiet=True)
    (finding,) = [found for found in report.findings if found.code == "duplicate"]
    assert (finding.examples[0].file, finding.examples[0].line) == ("b.jsonl", 1)
    assert [file["num_records"] for file in report.files] == [120, 1]


def test_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one = write(tmp_path / "one" / "pairs.jsonl", GOOD)
    other = write(tmp_path / "two" / "pairs.jsonl", [row(300), row(3)])
    report = tiebreak.check([one, other], quiet=True)
    (finding,) = [found for found in report.findings if found.code == "duplicate"]
    assert (finding.examples[0].file, finding.examples[0].line) == (str(other), 2)
    assert finding.examples[0].excerpt.startswith("Question 3:")
    assert [file["num_records"] for file in report.files] == [120, 2]


def test_a_file_that_is_named_twice_is_all_duplicates(tmp_path):
    file = write(tmp_path / "pairs.jsonl", GOOD)
    report = tiebreak.check([file, file], quiet=True)
    (finding,) = [found for found in report.findings if found.code == "duplicate"]
    assert finding.count == 120
    assert (finding.examples[0].file, finding.examples[0].line) == (f"{file} (2)", 1)
    assert [one["num_records"] for one in report.files] == [120, 120]


def test_an_example_shows_the_pair_that_it_names_where_thumbs_are_paired(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "NUM_SAMPLED", 1)
    rows = [{"prompt": f"{said(n // 2)}?", "completion": said(n + 50), "label": n % 2 == 0} for n in range(60)]
    rows[0]["completion"] = "left\u202eright"
    report = tiebreak.check(write(tmp_path / "thumbs.jsonl", rows), quiet=True)
    texts = examination._texts(
        examination.open_data(DataConfig(train=report.files[0]["path"])),
        _facts(tmp_path / "thumbs.jsonl"),
        {0},
        Silent(),
    )
    assert list(texts.words) == [0]
    assert texts.words[0] == (rows[0]["completion"], rows[1]["completion"])


def _facts(path):
    files = examination.open_data(DataConfig(train=str(path)))
    return examination._gathered(files, pairs.PAIRS, None, Silent(), 1)[0]


def test_leaks_between_files_of_thumbs_are_found(tmp_path):
    thumbs = [{"prompt": f"{said(n // 2)}?", "completion": said(n + 50), "label": n % 2 == 0} for n in range(60)]
    train, heldout = write(tmp_path / "train.jsonl", thumbs), write(tmp_path / "test.jsonl", thumbs[:4])
    report = check(DataConfig(train=str(train), heldout=str(heldout)))
    assert report.as_dict()["given_splits"] == {"train": 30, "heldout": 2}
    (finding,) = [one for one in report.findings if one.code == "leak"]
    assert finding.count == 2


def test_processes_change_nothing(tmp_path):
    planted = [one for rows, _, _ in PLANTED.values() for one in rows]
    file = write(tmp_path / "pairs.jsonl", [*GOOD * 6, *planted])
    data = DataConfig(train=str(file), max_dropped_share=1.0)
    assert audit(data, num_workers=1).report == audit(data, num_workers=2).report


def test_thumbs_are_paired_across_the_file_and_shown_by_line(tmp_path):
    rows = [{"prompt": f"{said(n // 2)}?", "completion": said(n + 50), "label": n % 2 == 0} for n in range(200)]
    rows += [{"prompt": "Alone?", "completion": "yes", "label": True}]
    report = tiebreak.check(write(tmp_path / "thumbs.jsonl", rows), quiet=True)
    assert (report.counts["num_pairs"], report.counts["num_used_records"], report.counts["num_dropped"]) == (
        100,
        200,
        1,
    )
    (finding,) = [one for one in report.findings if one.code == "unpaired"]
    assert finding.examples[0].line == 201
    assert report.errors == []


def test_too_many_unusable_records_are_an_error_and_ties_are_not(tmp_path):
    bad = write(tmp_path / "bad.jsonl", [*GOOD[:8], "{\n", "{\n"])
    ties = [{"prompt": f"{said(n)}?", "response_a": "x", "response_b": "y", "winner": "tie"} for n in range(9)]
    won = [{"prompt": f"{said(n)}?", "response_a": "x", "response_b": "y", "winner": "A"} for n in range(50, 60)]
    assert [one.code for one in tiebreak.check(bad, quiet=True).errors] == ["unusable"]
    report = tiebreak.check(write(tmp_path / "ties.jsonl", [*won, *ties]), quiet=True)
    assert report.errors == []
    assert report.counts["dropped_by_reason"] == {"tie": 9}


SCORES = {
    "32-bit scores with one step": [
        {"score_chosen": 4.099999904632568, "score_rejected": 4.0},
        {"score_chosen": 0.8999999761581421, "score_rejected": 0.800000011920929},
    ],
    "one large margin": [{"margin": 5000000}],
    "one huge margin": [{"margin": 1e300}],
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_margins_that_are_all_but_equal_are_drawn(tmp_path, scores):
    rows = [row(n, **beside) for n, beside in enumerate(scores)]
    report = tiebreak.check(write(tmp_path / "pairs.jsonl", rows), quiet=True).as_dict()
    drawn = report["histograms"]["margin"]
    assert sum(drawn["counts"]) == len(rows)
    assert all(low < high for low, high in itertools.pairwise(drawn["edges"]))
    page = write_audit_page(report, tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")


def test_records_of_a_file_of_unknown_form_are_counted_beside_the_others(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "good.jsonl", GOOD)
    write(tmp_path / "data" / "odd.jsonl", [{"x": 1}, {"y": 2}, {"z": 3}])
    report = tiebreak.check(tmp_path / "data", quiet=True)
    assert (report.counts["num_records"], report.counts["num_pairs"], report.counts["num_dropped"]) == (123, 120, 3)
    assert report.counts["dropped_by_reason"] == {"unknown_format": 3}
    assert [(file["format"], file["num_records"]) for file in report.files] == [("trl", 120), ("unknown", 3)]


@pytest.mark.parametrize("max_length", [16, 64])
def test_tokens_are_counted_and_what_is_too_long_is_found(tmp_path, tiny_model, max_length):
    rows = [row(n) for n in range(20)] + [row(99, chosen=said(1, 200))]
    file = write(tmp_path / "pairs.jsonl", rows)
    data = DataConfig(train=str(file), max_length=max_length)
    report = check(data, ModelConfig(name=str(tiny_model)))
    tokens = report.as_dict()["tokens"]
    (finding,) = [one for one in report.findings if one.code == "too_long"]
    assert finding.count == tokens["num_too_long"] == round(sum(_too_long(tiny_model, rows, max_length)))
    assert tokens["row"]["max"] >= 200


def _too_long(model, rows, max_length):
    from tiebreak.engine.models import load_renderer

    renderer, _ = load_renderer(ModelConfig(name=str(model)), DataConfig(max_length=10**9))
    for one in rows:
        from tiebreak.data.formats import FORMATS, read_row
        from tiebreak.records import Source, longest_row

        tokenized = renderer.pair(read_row(one, FORMATS["trl"], Source("", 1)).pairs[0])
        yield longest_row(tokenized) > max_length


def test_what_the_model_cannot_take_counts_as_unusable_as_in_training(tmp_path, tiny_model):
    rows = [row(n) for n in range(20)] + [row(50 + n, prompt=said(n, 100)) for n in range(4)] + ["{\n"]
    data = DataConfig(train=str(write(tmp_path / "pairs.jsonl", rows)), max_length=400)
    found = {one.code: one for one in check(data, ModelConfig(name=str(tiny_model))).findings}
    assert (found["unusable"].count, found["unusable"].grade) == (5, "error")
    assert found["unusable"].share == pytest.approx(5 / 25)
    assert [example.line for example in found["unusable"].examples] == [25, 21, 22]
    assert "unusable" not in {one.code for one in check(data).findings}
    lenient = check(data.model_copy(update={"max_dropped_share": 0.2}), ModelConfig(name=str(tiny_model)))
    assert "unusable" not in {one.code for one in lenient.findings}
    counts = lenient.counts
    assert (counts["num_records"], counts["num_used_records"], counts["num_dropped"]) == (25, 20, 5)
    assert counts["dropped_by_reason"] == {"bad_json": 1, "too_long": 4}


def test_a_file_of_which_the_model_can_take_nothing_is_an_error(tmp_path, tiny_model):
    data = DataConfig(train=str(write(tmp_path / "pairs.jsonl", GOOD)), max_length=8, max_dropped_share=1)
    report = check(data, ModelConfig(name=str(tiny_model)))
    assert [(one.code, one.count, one.detail) for one in report.errors] == [("unusable", 120, "no pair is left")]
    assert report.counts["num_used_records"] == 0


def test_a_record_is_used_while_the_model_can_take_one_of_its_pairs(tmp_path, tiny_model):
    rows = [
        {
            "prompt": f"Why {n}?",
            "completions": [said(n, 100), said(n + 1, 90) if n else "no", "yes"],
            "scores": [3, 2, 1],
        }
        for n in range(2)
    ]
    data = DataConfig(train=str(write(tmp_path / "ratings.jsonl", rows)), max_length=100, pairing="all")
    counts = check(data, ModelConfig(name=str(tiny_model))).counts
    assert (counts["num_pairs"], counts["num_used_records"], counts["dropped_by_reason"]) == (6, 1, {"too_long": 1})


def test_the_positions_of_a_model_bound_what_fits(tmp_path, tiny_gpt, tiny_model):
    rows = [*({"prompt": f"Why {n}?", "chosen": "yes", "rejected": "no"} for n in range(30))]
    rows += [
        {"prompt": "why " * 40, "chosen": "yes", "rejected": "no"},
        {"prompt": "why " * 90, "chosen": "so", "rejected": "no"},
    ]
    data = DataConfig(train=str(write(tmp_path / "pairs.jsonl", rows)))
    found = {one.code: one for one in check(data, ModelConfig(name=str(tiny_gpt))).findings}
    assert (found["too_long"].count, found["too_long"].detail) == (2, "64 positions, data.max_length 1024")
    found = {one.code: one for one in check(data, ModelConfig(name=str(tiny_model))).findings}
    assert "too_long" not in found
    assert (found["beyond_context"].count, found["beyond_context"].grade) == (1, "warning")
    assert found["beyond_context"].detail == "made for 256 tokens, data.max_length 1024"
    assert [example.line for example in found["beyond_context"].examples] == [32]


def test_every_rule_has_words_and_a_possible_action():
    for code, rule in RULES.items():
        assert rule.title and rule.remedy and rule.action in rule.actions, code
        assert rule.title == rule.title.strip(". ")
    assert set(RULES) >= READING_RULES | FILE_RULES


DOES = {"reject": "drops", "quarantine": "sets aside", "fix": "mends", "warn": "keeps"}


def test_the_table_of_rules_on_the_page_is_that_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("| code | severity | what is wrong |")[2].partition("\n\n")[0]
    told = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert told == [
        [f"`{rule.code}`", rule.severity, rule.title, rule.remedy, DOES[rule.action] * (rule.code not in FILE_RULES)]
        for rule in RULES.values()
        if rule.code not in READING_RULES
    ]


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no record"):
        tiebreak.check(write(tmp_path / "empty.jsonl", []), quiet=True)


# ----------------------------------------------------------------------------------------------------------- real files


def found_in(shared, file):
    report = tiebreak.check(shared / "data" / file, quiet=True).as_dict()
    return report, {one["code"]: one["count"] for one in report["findings"]}


def test_the_known_defects_of_hh_are_found(shared):
    report, found = found_in(shared, "prefs/hh_harmless_base_test.raw.jsonl.gz")
    assert (found["prompts_differ"], found["empty_completion"], found["repeated_prompt"]) == (5, 4, 2)
    assert found["turn_order"] == 4  # not in the list of known defects
    assert (report["num_records"], report["num_pairs"]) == (2312, 2299)


def test_the_known_defects_of_ultrafeedback_are_found(shared):
    _, found = found_in(shared, "prefs/ultrafeedback_binarized_1200.jsonl.gz")
    assert (found["tied_score"], found["identical"], found["empty_completion"]) == (136, 5, 2)


def test_the_known_defects_of_pandalm_are_found(shared):
    report, found = found_in(shared, "prefs/pandalm_human_testset_votes.jsonl.gz")
    assert report["agreement"]["num_tie_votes"] == 326
    assert report["agreement"]["num_votes"] == 3 * 999
    assert found["wrong_type"] == 6


def test_the_known_defects_of_summedits_are_found(shared):
    report, found = found_in(shared, "prefs/summedits_pairs.jsonl.gz")
    assert (report["num_groups"], report["num_pairs"]) == (71, 1350)
    assert found["few_prompts"]
