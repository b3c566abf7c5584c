"""The capability card: the numbers of the run and no others, on the page, in the model card and as JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tiebreak.errors import RunError
from tiebreak.evaluation.rows import Row
from tiebreak.files import write_json, write_jsonl
from tiebreak.reporting.capability_card import by_group, capability_card
from tiebreak.reporting.card import model_card
from tiebreak.reporting.page import render_report, write_report
from written_runs import NUM, PROMPTS, row_of, written_run

HOSTILE = "a | b `c` [x](http://evil.example) <script>alert(1)</script>\n\n# heading * _z_ \\"


def _measure(card, key):
    return next(one for one in card["measures"] if one["key"] == key)


# ------------------------------------------------------------------------------------------------------------- its JSON


def test_before_and_after_are_those_of_the_table_and_on_the_way_those_of_the_probes(tmp_path):
    run = written_run(tmp_path)
    card = capability_card(run)
    for row in run.evaluation["table"]:
        found = _measure(card, row["key"])
        assert (found["before"], found["after"], found["name"]) == (row["before"], row["after"], row["name"])
    accuracy = _measure(card, "accuracy")
    assert accuracy["during"] == [{"step": 0, "mean": 0.5}, {"step": 20, "mean": 0.7}, {"step": 40, "mean": 0.9}]
    assert _measure(card, "margin")["during"] == []
    assert (accuracy["num"], accuracy["num_prompts"]) == (NUM, NUM // 2)
    assert card["num_probed_pairs"] == 16


def test_each_measure_stands_beside_the_rules_that_it_is_held_against(tmp_path):
    run = written_run(tmp_path, **{"gate.overrides": {"repetition": "few items"}, "gate.min_prompts": 20})
    card, evaluation = capability_card(run), run.evaluation
    assert (card["verdict"], card["first_line"]) == (evaluation["verdict"], evaluation["reason"])
    assert card["overridden"] == evaluation["overridden"]
    for check in evaluation["checks"]:
        place = [rule for one in card["measures"] for rule in one["rules"]] + card["unmeasured"]
        [rule] = [rule for rule in place if rule["name"] == check["name"]]
        assert rule["holds"] == (check["verdict"] == "pass")
        for key in ("minimum_detectable", "threshold", "says", "override", "observed", "low", "high"):
            assert rule[key] == check[key]
    [preferred] = _measure(card, "answers/preferred")["rules"]
    assert preferred["holds"]
    assert preferred["minimum_detectable"] > 0
    [repetition] = _measure(card, "answers/repetition")["rules"]
    assert (repetition["holds"], repetition["override"]) == (False, "few items")
    assert {rule["name"] for rule in card["unmeasured"]} >= {"unfinished", "unchanged", "longer"}
    assert "capability" in card["not_asked"]


def test_abilities_and_tasks_are_a_group_of_their_own_before_the_pairs(tmp_path):
    task = Row("capability/sums", "Sums | in my head", "share", "higher", PROMPTS, [1.0] * NUM, [0.9] * NUM)
    card = capability_card(
        written_run(tmp_path, row_of("capability", -1.0, -1.1), row_of("neutral_logps", -2.0, -2.0), task)
    )
    titles = [title for title, _ in by_group(card)]
    assert titles[0].startswith("Answers")
    assert titles[1].startswith("Abilities")
    assert titles[-1] == "Held-out pairs"
    [(_, abilities)] = [group for group in by_group(card) if group[0].startswith("Abilities")]
    assert [one["key"] for one in abilities] == ["capability", "neutral_logps", "capability/sums"]
    [held] = abilities[2]["rules"]
    assert held["name"] == "tasks"


def test_weak_evidence_is_called_so_everywhere(tmp_path):
    weak = Row("answers/judged", "Judged", "share", "higher", PROMPTS, [0.5] * NUM, [0.7] * NUM, True, "a <probe>")
    run = written_run(tmp_path, weak)
    found = _measure(capability_card(run), "answers/judged")
    assert (found["weak"], found["note"]) == (True, "a <probe>")
    assert "weak evidence: a &lt;probe&gt;" in render_report(run)
    assert "Judged (weak evidence: a &lt;probe&gt;)" in model_card(run, "merged")


def test_a_value_that_is_no_number_has_a_row_that_says_so(tmp_path):
    run = written_run(tmp_path, row_of("answers/length", 10.0, [float("nan")] + [10.0] * (NUM - 1)))
    found = _measure(capability_card(run), "answers/length")
    assert (found["before"], found["after"], found["num"]) == (None, None, NUM)
    assert {rule["verdict"] for rule in found["rules"]} == {"fail"}
    assert "| no number |" in model_card(run, "merged")
    assert "no number" in render_report(run)


def test_the_card_is_written_beside_the_report(tmp_path):
    run = written_run(tmp_path)
    write_report(run)
    assert json.loads(run.capability_file.read_text()) == capability_card(run)
    assert "Capability card" in run.report_file.read_text()


# ------------------------------------------------------------------------------------------------------------- the page


class _Texts(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.rows, self.tags, self._open = [], set(), False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data):
        if self.rows:
            self.rows[-1] += " ".join(data.split()) + " "


def test_the_page_shows_numbers_rules_and_the_way(tmp_path):
    page = render_report(written_run(tmp_path))
    rows = [" ".join(row.split()) for row in _Texts(page).rows]
    [accuracy] = [row for row in rows if row.startswith("Held-out preference accuracy 50.0 %")]
    assert "90.0 %" in accuracy
    assert "50.0 % → 90.0 %" in accuracy
    assert "on 20 prompts" in accuracy
    assert 'aria-label="step 0: 50.0 %, step 20: 70.0 %, step 40: 90.0 %"' in page
    assert '<polyline points="4.0,24.0 48.0,14.0 92.0,4.0 "' in page
    [preferred] = [row for row in rows if row.startswith("preferred holds")]
    assert re.search(r"40 prompts would show \d+\.\d points", preferred)


# ------------------------------------------------------------------------------------------------------- the model card


def _tables(text):
    """Rows of the tables of a Markdown text, each as its cells, as GitHub splits them."""
    lines = [line for line in text.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_nothing_that_a_name_says_breaks_the_model_card(tmp_path):
    task = Row("capability/x", HOSTILE, "share", "higher", PROMPTS, [1.0] * NUM, [0.9] * NUM, True, HOSTILE)
    hostile = written_run(
        tmp_path,
        task,
        name="run `<b>` | [x](y)",
        model=HOSTILE,
        **{
            "gate.overrides": {"repetition": HOSTILE},
            "gate.rules": {"tasks": {"says": HOSTILE}},
            "evaluation.rule": {"name": f"```\n{HOSTILE}", "pattern": "```"},
        },
    )
    text, plain = model_card(hostile, "merged"), model_card(written_run(tmp_path / "plain", task), "merged")
    assert {len(row) for row in _tables(text)} == {3, 6}
    assert len(_tables(text)) == len(_tables(plain))
    before, _, code = text.partition("````yaml")
    assert code.endswith("\n````\n")
    assert "````" not in code[:-5]
    ours = re.sub(r"^---\n.*?---\n|```python.*?```\n", "", before, flags=re.DOTALL)
    for line in ours.split("\n"):
        spans = re.sub(r"(`+) ?.*?[^`]\1(?!`)", "", line)  # what stands in a span of code means itself
        assert not re.search(r"(?<!\\)[`\[<]|(?<!\\)://", spans), line
    headings = [line for line in text.split("\n") if line.startswith("#")]
    assert len(headings) == len([line for line in plain.split("\n") if line.startswith("#")])


def test_the_model_card_names_what_each_rule_found_and_wanted(tmp_path):
    run = written_run(tmp_path)
    rows = _tables(model_card(run, "adapter"))
    [accuracy] = [row for row in rows if row[0] == "Held-out preference accuracy"]
    assert accuracy[1] == "50.0 %"
    assert accuracy[2] == "50.0 % → 70.0 % → 90.0 %"
    assert accuracy[3].startswith("90.0 %")
    assert accuracy[4] == "40 on 20 prompts"
    assert accuracy[5].startswith("accuracy: holds (")
    for check in run.evaluation["checks"]:
        assert check["says"].split(" ")[0] in next(row for row in rows if row[0] == check["name"])[2]


@pytest.mark.parametrize("damage", ["evaluation.json", "measures.jsonl", "metrics.jsonl", "run.json"])
def test_files_that_are_not_as_a_run_writes_them_are_one_line(tmp_path, damage):
    run = written_run(tmp_path)
    files = {"evaluation.json": {"verdict": "pass"}, "run.json": {"model": 3}}
    wrong = files.get(damage, [{"step": 1, "heldout/rewards/accuracies": {}}])
    if isinstance(wrong, dict):
        write_json(run.path / damage, wrong)
    else:
        write_jsonl(run.path / damage, wrong)
    for make in (render_report, lambda run: model_card(run, "merged")):
        with pytest.raises(RunError, match="not as a run writes them"):
            make(run)
