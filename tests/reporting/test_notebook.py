"""What notebooks show of a run, an audit and a plan."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

import tiebreak
from tiebreak.api import Run
from tiebreak.doctor.report import AuditReport, Example, Finding
from tiebreak.engine.planner import Plan
from tiebreak.files import write_json
from tiebreak.reporting.console import Console
from tiebreak.reporting.notebook import BAD, GOOD, UNKNOWN, card

HOSTILE = "<script>alert(1)</script>&\"'\u202e\x1b[31m"


class Page(HTMLParser):
    """Tags, and the text between them; fails where one is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open.append(tag)
        assert {name for name, _ in attrs} <= {"style"}

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def _estimate(mean):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}


@pytest.fixture
def run(tmp_path) -> Run:
    made = Run(tmp_path / "run")
    made.path.mkdir()
    write_json(made.manifest_file, {"num_steps_done": 12, "training_seconds": 61.2})
    row = {"name": HOSTILE, "unit": "share", "before": _estimate(0.5), "after": _estimate(0.8)}
    write_json(made.evaluation_file, {"verdict": "pass", "reason": HOSTILE, "table": [row]})
    return made


def _audit(*findings: Finding) -> AuditReport:
    counts = {"unit": "pairs", "num_records": 9, "num_used_records": 8, "num_pairs": 7}
    return AuditReport(({"path": f"{HOSTILE}.jsonl"},), {}, counts, findings)


FINDING = Finding("contradiction", 3, "pairs", 0.1, (Example(HOSTILE, 4, HOSTILE),))
PLAN = Plan(512, False, 99, 2**33, 2**20, 2**20, 2**10, HOSTILE)


def test_what_is_shown_is_small_escaped_and_asks_for_nothing(run):
    for value in (run, _audit(FINDING), PLAN):
        html = value._repr_html_()
        page = Page(html)
        assert set(page.tags) <= {"div", "b", "span", "table", "tr", "th", "td"}
        assert "<script>alert(1)</script>" in "".join(page.texts)
        assert "\\u202e\\x1b[31m" in html
        assert not re.search(r"https?:|url\(|@import", html)
        assert len(html) < 4000


def test_a_run_shows_its_verdict_and_what_changed(run):
    shown = " ".join(Page(run._repr_html_()).texts)
    assert "pass" in shown
    assert "50.0 % (40.0 … 60.0)" in shown
    assert "80.0 % (70.0 … 90.0)" in shown
    assert "12 steps in 1 min 1 s" in shown
    assert "report" not in shown
    run.report_file.touch()
    assert f"report: {run.report_file}" in run._repr_html_()


@pytest.mark.parametrize(
    "content", [None, [], {}, {"verdict": "pass"}, {"verdict": "perhaps", "reason": "", "table": []}]
)
def test_a_run_that_has_no_verdict_says_why_and_raises_nothing(run, content):
    run.evaluation_file.unlink()
    if content is not None:
        write_json(run.evaluation_file, content)
    shown = " ".join(Page(run._repr_html_()).texts)
    assert "no verdict" in shown
    assert str(run.path) in shown


def test_an_audit_shows_each_finding_and_where_it_begins():
    shown = " ".join(Page(_audit(FINDING)._repr_html_()).texts)
    assert "1 error " in shown
    assert "8 of 9 records used, 7 pairs" in shown
    assert "3 pairs" in shown
    assert ":4" in shown
    assert "no errors" in _audit()._repr_html_()


def test_a_long_table_is_cut_and_says_so():
    shown = Page(card("t", None, [], ("a",), [[str(number)] for number in range(30)]))
    assert shown.tags.count("td") == 24
    assert "6 more rows are not shown" in shown.texts


@pytest.mark.parametrize("colour", [GOOD, BAD, UNKNOWN])
def test_badges_can_be_read_on_any_ground_and_other_text_has_the_notebook_s_colour(colour):
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) > 4.5
    html = card("t", ("b", colour), ["line"], ("h",), [["c"]])
    assert re.findall(r"[^-]color:([^;\"]+)", html) == ["#fff"]
    assert re.findall(r"background:([^;\"]+)", html) == [colour]


def test_the_package_gives_runs_their_look():
    assert tiebreak.Run._repr_html_ is Run._repr_html_


def test_where_no_terminal_is_progress_is_plain_whatever_a_notebook_says_of_colours(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernel does
    monkeypatch.setenv("TERM", "xterm-color")
    teller = Console()
    with teller.stage("training", 3) as advance:
        for _ in range(3):
            advance()
    teller.warn("mind this")
    told = capsys.readouterr().err
    assert not {"\r", "\x1b"} & set(told)
    assert "warning: mind this" in told
