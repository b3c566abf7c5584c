"""The doctor's page: all of the report is on it, and nothing from data does anything there but be read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

import audit_reports
from bounds import hang_after
from tiebreak.doctor.figures import audit_plots
from tiebreak.doctor.page import render_audit_page, write_audit_page
from tiebreak.doctor.sentences import measurements, next_steps, verdict
from tiebreak.reporting.figures import CHOSEN, MUTED, REJECTED
from tiebreak.reporting.numbers import amount, count, percent
from tiebreak.reporting.visible import visible

pytestmark = pytest.mark.plots

REPORTS = {"empty": dict, "minimal": lambda: audit_reports.MINIMAL} | {
    name: getattr(audit_reports, name) for name in ("clean", "full", "hostile")
}
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Every element and attribute of a page as a browser would see it, and the text without styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render_audit_page(made()) for name, made in REPORTS.items()}


@pytest.mark.parametrize("name", REPORTS)
def test_every_element_is_closed_and_every_id_is_there_once(pages, name):
    page = Page(pages[name])
    assert page.open == []
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_on_the_page_runs_or_asks_the_network(pages, name):
    page = Page(pages[name])
    assert not {"script", "img", "link", "iframe", "object", "form", "a", "base"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    loading = [value for _, name, value in page.attributes if name in {"href", "xlink:href", "src", "action"}]
    assert all(value.startswith("#") for value in loading)
    assert "@import" not in pages[name]
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", pages[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_every_character_of_the_page_can_be_seen(pages, name):
    assert pages[name].replace("\n", "").isprintable()
    pages[name].encode("utf-8")


def test_hostile_text_is_shown_as_text(pages):
    text = Page(pages["hostile"]).text
    for shown in (
        "<script>alert(1)</script>",
        "</svg></style><img src=x onerror=alert(1)>",
        "\\x1b[31mred\\x1b]0;title\\x07\\x9b1m",
        "left\\u202eright\\u2066\\u200b\\ufeff",
        "nul\\x00and\\ud800surrogate",
        "[red]{{ 7 * 7 }}{% raw %}[/red]",
        "two lines and more of it",
        "漢字 עברית العربية 🦊",
    ):
        assert shown in text, shown
    assert "www" + "w" * 500 not in text


def test_a_text_of_megabytes_costs_no_time_and_little_of_the_page():
    report = audit_reports.full()
    long = "\u202e<b> " * 2_000_000
    report["findings"][1]["examples"] = [audit_reports.example(1, long)]
    report["findings"][1]["detail"] = report["files"][0]["path"] = long
    with hang_after():
        page = render_audit_page(report)
    assert len(page) < 300_000


@pytest.mark.parametrize("name", ["clean", "full"])
def test_the_page_has_every_finding_with_its_numbers_places_and_remedy(pages, name):
    text = Page(pages[name]).text
    report = REPORTS[name]()
    for found in report["findings"]:
        for wanted in (found["severity"], found["code"], found["title"], found["detail"], found["remedy"]):
            assert wanted in text
        assert amount(found) in text
        for example in found["examples"][:3]:
            assert f"{example['file']}:{example['line']}" in text
    assert verdict(report) in text


def test_findings_go_from_errors_to_notes(pages):
    text = Page(pages["full"]).text
    places = [text.index(f"the title of {code}") for code in ("contradiction", "shortcut_length", "repeated_prompt")]
    assert places == sorted(places)


def test_only_three_examples_are_shown(pages):
    assert "pairs.jsonl.gz:40" in pages["full"]
    assert "pairs.jsonl.gz:41" not in pages["full"]


def test_the_page_names_files_hashes_splits_licences_and_reasons(pages):
    text = Page(pages["full"]).text
    for wanted in (
        "more/pairs.parquet",
        "0123456789abcdef",
        "eval 219",
        "CC-BY-4.0",
        "empty_completion",
        "smollm2-135m-instruct",
        "80.0 % (78.0 … 83.0)",
        "66.1 % (63.2 … 68.9): the number DPO must beat",
        "at 1024 153 pairs cut",
    ):
        assert wanted in text, wanted
    assert "0123456789abcdef0" not in text


def test_every_plot_is_there_where_its_numbers_are():
    drawn = {plot.name: plot for plot in audit_plots(audit_reports.full())}
    assert list(drawn) == [
        "Lengths",
        "Length difference",
        "Margins",
        "Pairs per prompt",
        "Shortcuts",
        "Agreement of annotators",
        "Tokens",
    ]
    for plot in drawn.values():
        assert plot.svg.startswith('<svg role="img" aria-label="')
        assert plot.caption
    assert "max_length 1,024" in drawn["Tokens"].svg
    assert "log length" in drawn["Shortcuts"].svg


def test_bars_have_the_colour_of_the_side_that_they_speak_for():
    counts = {"edges": [-1, -0.5, 0.5, 1], "counts": [1, 1, 1]}
    drawn = audit_plots({"histograms": {"margin": counts}})[0].svg
    bars = re.findall(r'clip-path="[^"]*" style="fill: var\(--\w+, (#\w+)\)', drawn)
    assert bars == [REJECTED, MUTED, CHOSEN]
    one_sided = audit_plots({"histograms": {"margin": {"edges": [0, 1, 2], "counts": [3, 4]}}})[0].svg
    assert REJECTED not in one_sided


def test_unreliable_annotators_stand_out(pages):
    drawn = {plot.name: plot.svg for plot in audit_plots(audit_reports.full())}
    assert REJECTED in drawn["Agreement of annotators"]
    assert "40.0 % (20.0 … 60.0) unreliable" in Page(pages["full"]).text


def test_of_many_annotators_the_lowest_are_drawn():
    people = [{"name": f"name{n:03}", "agreement": n / 100, "low": 0, "high": 1} for n in range(100)]
    (drawn,) = audit_plots({"agreement": {"annotators": people[::-1]}})
    assert "name015" in drawn.svg
    assert "name016" not in drawn.svg


def test_where_there_are_no_numbers_nothing_is_drawn(pages):
    assert [plot.name for plot in audit_plots(audit_reports.clean())] == ["Lengths"]
    assert audit_plots({}) == []
    assert "<svg" not in pages["minimal"]
    assert "Plots" not in pages["minimal"]


def test_what_cannot_be_drawn_is_left_out():
    for histogram in (
        None,
        {},
        {"edges": [0, 1], "counts": []},
        {"edges": [0, 1], "counts": [0]},
        {"edges": [1, 0], "counts": [3]},
        {"edges": [0, float("nan")], "counts": [3]},
        {"edges": ["a", "b"], "counts": [3]},
        {"edges": "ab", "counts": "c"},
        {"edges": 3, "counts": 4},
    ):
        kinds = ("words", "length_difference", "margin", "pairs_per_prompt")
        report = {"histograms": dict.fromkeys(kinds, histogram), "tokens": {"histogram": histogram}}
        assert audit_plots(report) == []
    report = {"shortcut": {"length": {"accuracy": None}, "by_feature": [{}]}, "agreement": {"annotators": [{}, None]}}
    assert audit_plots(report) == []


def test_the_same_report_gives_the_same_page(pages):
    assert render_audit_page(audit_reports.full()) == pages["full"]


def test_a_saved_report_shows_the_same_page(pages, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(audit_reports.full()), encoding="utf-8")
    written = write_audit_page(json.loads(path.read_text(encoding="utf-8")), tmp_path / "page.html")
    assert written == tmp_path / "page.html"
    assert written.read_text(encoding="utf-8") == pages["full"]


@pytest.mark.parametrize("missing", sorted(audit_reports.full()))
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_any_part_may_be_missing(missing, absent):
    report = audit_reports.clean() | {"agreement": audit_reports.full()["agreement"], "histograms": None}
    report[missing] = None
    if absent:
        del report[missing]
    assert "<h2>Data</h2>" in render_audit_page(report)


def test_parts_of_parts_may_be_missing():
    report = {
        "files": [{}],
        "findings": [{}, {"code": "x", "examples": [{}]}],
        "words": {"prompt": None},
        "shortcut": {"length": {}, "by_feature": None},
        "agreement": {"num_annotators": 2, "annotators": [{}], "cohen_kappa": [{}]},
        "label_noise": {"estimate": None, "sources": [{}]},
        "prompts": {},
        "tokens": {"model": "m", "fits": [{}]},
    }
    assert Page(render_audit_page(report)).open == []


def test_the_verdict_says_what_to_type_next():
    full, clean = audit_reports.full(), audit_reports.clean()
    assert verdict(full) == "2 errors: contradiction, secret"
    assert [step.command for step in next_steps(full)] == [
        "tiebreak clean FILE OUT",
        "data.allow: [contradiction, secret]",
    ]
    assert verdict(clean) == "clean: nothing that would ruin a run; 1 warning to read"
    assert [step.command for step in next_steps(clean)] == ["tiebreak init 'my pairs.jsonl'"]
    assert verdict({}) == "clean: nothing that would ruin a run"
    only = clean | {"findings": [audit_reports.finding("unusable", "error", 9, "records", 0.5, action="warn")]}
    assert [step.command for step in next_steps(only)] == ["tiebreak check 'my pairs.jsonl'"]


def test_a_name_that_cannot_be_typed_is_spelled_out_in_a_command():
    for name in ("a\nb.jsonl", "a  b", "\x1b[2J", "x" * 5000, None):
        report = {"files": [{"path": name}], "findings": []}
        (line,) = [step.command for step in next_steps(report)]
        assert line.isprintable()
        assert "  " not in line
    assert next_steps({"files": [{"path": "$(rm x)"}]})[0].command == "tiebreak init '$(rm x)'"


def test_numbers_are_never_rounded_to_nothing_or_to_everything():
    assert [percent(share) for share in (0, 0.0001, 0.5, 0.99999, 1, None, float("nan"), "x")] == [
        "0.0 %",
        "< 0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100.0 %",
        "–",
        "–",
        "–",
    ]
    assert [count(value) for value in (1193, 950.25, 12.0, True, None, "x")] == ["1,193", "950.2", "12", "–", "–", "–"]


def test_measurements_say_only_what_was_measured():
    assert measurements({}) == []
    assert measurements(audit_reports.MINIMAL) == []
    assert [one.name for one in measurements(audit_reports.clean())] == ["words", "longer", "shortcut", "split"]


def test_visible_text_is_one_line_that_hides_nothing():
    assert visible("a\x00b\u202e\n c\ud800\U000e0041") == "a\\x00b\\u202e c\\ud800\\U000e0041"
    assert visible("é 漢 🦊") == "é 漢 🦊"
    assert visible("abcdef", 4) == "abc…"
    assert visible(" " * 10_000 + "x", 4) == "…"
    assert visible(None) == "None"
