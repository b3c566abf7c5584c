"""The doctor's screen: readable at any width, plain where it is piped, harmless whatever the data hold."""

from __future__ import annotations

import re

import pytest

import audit_reports
from tiebreak.doctor.screen import print_audit


@pytest.fixture
def screen(capsys, monkeypatch):
    """Print a report at a width; return what stands on standard output."""

    def call(report, width: int = 80, **environment) -> str:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        print_audit(report)
        shown = capsys.readouterr()
        assert shown.err == ""
        return shown.out

    return call


def test_the_screen_begins_with_the_file_and_ends_with_the_verdict(screen):
    lines = screen(audit_reports.clean()).splitlines()
    assert lines[0] == "my pairs.jsonl · TRL"
    assert lines[1] == "300 pairs on 300 prompts · 300 records, 0 dropped"
    assert "tiebreak init 'my pairs.jsonl'" in lines
    assert lines[-1] == "clean: nothing that would ruin a run; 1 warning to read"
    assert screen(audit_reports.full()).splitlines()[-1] == "2 errors: contradiction, secret"


def test_findings_are_grouped_by_how_grave_they_are(screen):
    shown = screen(audit_reports.full(), 120)
    wanted = ["2 errors", "contradiction", "secret", "2 warnings", "shortcut_length", "duplicate", "1 note", "measured"]
    places = [shown.index(f"\n{name}" if name[0].isdigit() or name == "measured" else f"\n  {name}") for name in wanted]
    assert places == sorted(places)


def test_a_finding_has_its_count_share_places_and_remedy(screen):
    shown = screen(audit_reports.full())
    assert "  contradiction  4 pairs (0.2 %): the title of contradiction\n" in shown
    assert "    pairs.jsonl.gz:17  How do I boil an egg? | chosen: Gently. | rejected: No.\n" in shown
    assert "    → the remedy of contradiction (clean sets them aside)\n" in shown
    assert "    measured in words\n" in shown
    assert "pairs.jsonl.gz:40" in shown
    assert "pairs.jsonl.gz:41" not in shown


def test_measurements_are_told_in_sentences(screen):
    shown = screen(audit_reports.full(), 120)
    for line in (
        "length alone  66.1 % (63.2 … 68.9): the number DPO must beat",
        "the chosen completion is the longer one in 61.0 % of pairs",
        "Krippendorff's alpha 0.500 (0.450 … 0.550) of 3 annotators, 993 pairs; unanimous in 60.0 %",
        "between 0.0 % and 20.0 % of the labels are turned round",
        "1,974 pairs to train on, 219 held out",
        "512 fits 71.0 %, 1024 fits 93.0 %, 2048 fits > 99.9 %; at 1024 153 pairs cut",
    ):
        assert line in shown


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["clean", "full", "hostile"])
def test_no_line_is_wider_than_the_terminal_or_ends_in_spaces(screen, name, width):
    from rich.cells import cell_len

    report = getattr(audit_reports, name)()
    commands = ("tiebreak ", "data.allow")
    for line in screen(report, width).splitlines():
        assert cell_len(line) <= width or line.startswith(commands), line
        assert line == line.rstrip()


def test_a_command_stays_on_one_line_however_narrow_the_terminal_is(screen):
    path = "a very long folder/" * 8 + "pairs.jsonl"
    report = audit_reports.clean() | {"files": [{"path": path, "format": "trl"}]}
    assert f"tiebreak init '{path}'" in screen(report, 40).splitlines()


def test_there_is_colour_on_a_terminal_and_none_in_a_pipe(screen):
    assert "\x1b" not in screen(audit_reports.full())
    coloured = screen(audit_reports.full(), FORCE_COLOR="1", TERM="xterm")
    assert re.search(r"\x1b\[1;31m2 errors", coloured)
    assert re.search(r"\x1b\[1;33m2 warnings", coloured)
    assert re.search(r"\x1b\[2m1 note", coloured)


def test_hostile_text_can_do_nothing_to_a_terminal(screen):
    shown = screen(audit_reports.hostile(), 120)
    assert shown.replace("\n", "").isprintable()
    assert "\\x1b[31mred" in shown
    assert "[red]{{ 7 * 7 }}" in shown
    assert len(shown) < 60_000


def test_the_smallest_reports_can_be_shown(screen):
    assert "clean: nothing that would ruin a run" in screen({})
    assert "0 pairs on 0 prompts · 0 records, 0 dropped" in screen(audit_reports.MINIMAL)


@pytest.mark.parametrize("missing", sorted(audit_reports.full()))
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_any_part_may_be_missing(screen, missing, absent):
    report = audit_reports.full()
    report[missing] = None
    if absent:
        del report[missing]
    assert screen(report).splitlines()[-1].startswith(("2 errors", "clean", "0 errors"))


def test_many_files_are_counted_and_not_all_listed(screen):
    files = [{"path": f"part-{number}.jsonl", "format": "hh"} for number in range(30)]
    shown = screen(audit_reports.full() | {"files": files})
    assert "part-7.jsonl · hh" in shown
    assert "part-8.jsonl" not in shown
    assert "and 22 more files" in shown
