"""Promise: text from data, models and file names is shown as text: to terminals, pages, trackers and logs."""

from __future__ import annotations

import ast
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tiebreak
from tiebreak.data.formats import FORMATS
from tiebreak.reporting import console
from tiebreak.reporting.page import render_report
from tiebreak.runs import Run
from tiny import unsealed

SOURCES = sorted(Path(tiebreak.__file__).parent.rglob("*.py"))
TERMINAL = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "eight bit": "\x9b31m \x9d0;x\x9c",
    "clear": "\x1b[2J\x1b[H",
    "bidi": "\u202egnp.exe\u2066x\u2069",
    "zero width": "a\u200bb\u2060c\ufeff",
    "tags": "a\U000e0041\U000e007f",
    "carriage return": "error\rok",
    "backspace": "rm\x08\x08ls",
    "line separator": "a\u2028error: fake\u2029b",
    "NUL": "a\x00b",
    "markup": "[bold red]x[/] [link=https://evil.example]y[/link]",
}
HTML = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "attribute": '" onmouseover="alert(1)" x=\'',
    "style": "</style><script>alert(1)</script>",
    "svg": "<svg onload=alert(1)>",
    "link": "<a href='javascript:alert(1)'>x</a>",
    "comment": "--><script>alert(1)</script><!--",
    "template": "{{ 7 * 7 }}{% raw %}",
    "entity": "&lt;script&gt;&#60;script&#62;",
    "pre": "</pre></details><iframe src=//evil.example>",
}
HOSTILE = " ".join([*TERMINAL.values(), *HTML.values()])
# What a terminal acts on, and what makes people read something else than what stands there.
ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)


def _rows(text: str, num: int = 24):
    for n in range(num):
        yield {"prompt": f"{text} {n}", "chosen": f"yes {n} {text}", "rejected": f"no {text}"}


# ------------------------------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize("text", TERMINAL.values(), ids=TERMINAL)
def test_no_text_reaches_a_terminal_with_its_effects(text, capsys):
    told = console.Console()
    told.say(text)
    told.warn(text)
    with told.stage(f"reading {text}", 2) as advance:
        advance(2)
    console.print_text(text)
    console.print_json({text: [text]})
    side = {"text": text, "num_tokens": 1, "finished": True}
    sample = {"prompt": [{"role": "user", "content": text}], "before": side, "after": side}
    estimate = {"mean": 0.5, "low": 0.4, "high": 0.6}
    table = [{"name": text, "unit": "share", "before": estimate, "after": estimate}]
    console.print_evaluation({"table": table, "verdict": "fail", "reason": text}, [sample])
    check = {"name": text, "verdict": "fail", "says": text, "override": text}
    console.print_decision({"checks": [check], "verdict": "fail", "reason": text})
    shown = capsys.readouterr()
    assert not ACTIVE.search(shown.out + shown.err)
    if "[bold" in text:
        assert shown.err.count("[bold red]") == 3


def test_json_on_standard_output_reads_back_to_the_same_text(capsys):
    for text in TERMINAL.values():
        console.print_json({"text": text})
        assert json.loads(capsys.readouterr().out) == {"text": text}


def test_a_message_cannot_forge_a_second_one(capsys):
    console.Console().warn("3 records dropped; the first: a\nerror: all is lost\r\nwarning: x")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["\x1b[31mred.jsonl", "\u202elnosj.jsonl", "[bold]x[link=a]", "a\nerror: x.jsonl", "-"]
)
def test_a_file_with_a_hostile_name_is_read_and_shown_as_text(command, here, name):
    path = here / "data" / f"{name}.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows("the cat")))
    for words in (
        ["check", path],
        ["check", path, "--json"],
        ["check", path.parent],
        ["check", f"{path}x"],
        ["init", path],
    ):
        code, out, err = command(*words)
        assert code in (0, 1, 2)
        assert "Traceback" not in err
        assert not ACTIVE.search(out + err)
        assert not [line for line in (out + err).splitlines() if line.startswith("error: x")]


@pytest.mark.plots
@pytest.mark.slow
def test_a_hostile_file_and_what_comes_of_it_are_shown_as_text(command, here, trained_on, tiny_model):
    pairs = here / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps(row) + "\n" for row in _rows(HOSTILE)) + '{"broken": ' + json.dumps(HOSTILE) + "}\n"
    )
    more = ["data.max_length=2048", "model.layout=plain", "data.allow=[secret]"]
    answers = [trained_on(tiny_model, pairs, *more), command("check", pairs), command("check", pairs, "--json")]
    answers += [
        command("evaluate", here / "runs/my"),
        command("chat", here / "runs/my", "-p", HOSTILE.replace("\0", "")),
    ]
    answers += [command("evaluate", here / "runs/my", "--data", pairs), command("clean", pairs, "out")]
    for code, out, err in answers:
        assert code in (0, 1, 2)
        assert "Traceback" not in err
        assert not ACTIVE.search(out + err)
    assert (here / "runs/my/report.html").exists(), answers[0]
    _check_page((here / "runs/my/report.html").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------- pages


TEMPLATES = Path(tiebreak.__file__).parent / "reporting" / "templates"
OWN_SCRIPTS = {path.read_text(encoding="utf-8").strip() for path in TEMPLATES.glob("*.js")}


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.scripts += [""] if (tag, attrs) == ("script", []) else []

    def handle_data(self, data):
        if self.found and self.found[-1] == ("script", {}):
            self.scripts[-1] += data


def _check_page(page: str) -> None:
    elements = _Elements()
    elements.feed(page)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"iframe", "img", "object", "embed", "link", "base", "form", "foreignobject"}
    # What runs stands in the package, and the policy names it by its digest; what a script reads has a type of data.
    assert {one.strip() for one in elements.scripts} <= OWN_SCRIPTS | {""}
    kinds = {attributes.get("type", "") for tag, attributes in elements.found if tag == "script"}
    assert kinds <= {"", "application/json", "application/gzip+base64"}
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not attributes.keys() & {"src", "srcset", "action", "formaction", "srcdoc", "background"}, (
            tag,
            attributes,
        )
        for name in attributes.keys() & {"href", "xlink:href"}:  # SVG points to its own pieces
            assert re.match(r"#|\./[\w%/.-]*/report\.html$", attributes[name] or "")
        assert not re.search(r"url\((?!#)|expression", attributes.get("style") or "")
    assert not ACTIVE.search(page.replace("\r", ""))
    policies = [attributes for tag, attributes in elements.found if tag == "meta" and "http-equiv" in attributes]
    assert [policy["http-equiv"] for policy in policies] == ["Content-Security-Policy"]
    assert page.count("http-equiv") == 1


def _spoiled(value, text: str):
    """Every text of a JSON value replaced, keys too where they are no names of ours."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [_spoiled(item, text) for item in value]
    if isinstance(value, dict):
        return {key: _spoiled(item, text) if key != "unit" else item for key, item in value.items()}
    return value


@pytest.mark.plots
@pytest.mark.parametrize("text", [HOSTILE, "\ud800 half", *HTML.values()], ids=lambda text: ascii(text[:12]))
def test_whatever_the_files_of_a_run_say_is_text_on_its_page(run_copy, text):
    run = unsealed(Run(run_copy))
    for name in ("run.json", "data.json", "evaluation.json"):
        path = run_copy / name
        path.write_text(json.dumps(_spoiled(json.loads(path.read_text()), text)))
    row = {"file": text, "line": 1, "reason": text, "detail": text}
    (run_copy / "dropped.jsonl").write_text(json.dumps(row) + "\n")
    samples = [_spoiled(sample, text) for sample in run.samples]
    (run_copy / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples * 10))
    page = render_report(run)
    _check_page(page)
    page.encode("utf-8")
    assert ("{{ 7 * 7 }}" in page) == ("{{ 7 * 7 }}" in text)


def test_the_page_names_the_run_as_text(run_copy):
    target = run_copy.with_name("<script>alert(1)<\u2044script>\u202ex\x1b[31m")
    run_copy.rename(target)
    _check_page(render_report(Run(target)))


def test_no_template_writes_a_script_but_the_one_that_prints_files_of_the_package():
    templates = list(TEMPLATES.rglob("*.j2"))
    assert templates
    for template in templates:
        source = template.read_text(encoding="utf-8")
        if template.name == "page.html.j2":
            named = '<script type="{{ block.kind }}" id="{{ block.id }}">{{ block.text }}</script>'
            source = source.replace(named, "").replace("<script>{{ script.text }}</script>", "")
        assert not re.search(r"<script|\son\w+=|\|\s*safe\b|autoescape\s+false|https?://", source), template.name


def test_our_scripts_make_no_markup_of_text_and_ask_for_nothing():
    assert OWN_SCRIPTS
    for source in OWN_SCRIPTS:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", source)
        assert not re.search(r"fetch\(|XMLHttp|import\(|https?://|localStorage|cookie|src\s*=", source)


def test_only_markup_of_our_own_is_trusted():
    """Markup() is given text of the package, JSON and letters of which HTML reads none, plots, which are drawn from
    numbers and cleaned names, and Markdown rendered without HTML, links and pictures (tests/review)."""
    calls = [
        (path.name, ast.unparse(node.args[0]))
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Markup")
        if not isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(calls) == [
        ("page.py", "plot.svg"),
        ("rounds.py", "one.svg"),
        ("scene.py", "harmless(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))"),
        ("scripts.py", "packed"),
        ("scripts.py", "text"),
        ("scripts.py", "text"),
        ("sections.py", "drawn(figure).svg"),
        ("sweep.py", "one.svg"),
    ]


# ----------------------------------------------------------------------------------------------- trackers, logs, tables


def test_trackers_and_metrics_get_numbers_and_settings_and_no_text_of_the_data(here, trained_on, tiny_model):
    marker = "mtrackermarker"
    pairs = here / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in _rows(marker)))
    code, _, err = trained_on(tiny_model, pairs, 'output.trackers=["tensorboard"]')
    assert code == 0, err
    run = here / "runs" / "my"
    written = [path for path in (run / "tensorboard").rglob("*") if path.is_file()]
    assert written
    for path in [*written, run / "metrics.jsonl"]:
        assert marker.encode() not in path.read_bytes(), path
    for line in (run / "metrics.jsonl").read_text().splitlines():
        assert all(isinstance(value, int | float) for value in json.loads(line).values())


def test_nothing_is_ever_written_as_a_table_that_a_spreadsheet_would_compute(here, command, pairs):
    """`=cmd()` is a formula only in CSV and its like: we read them and write none."""
    formulas = "".join(json.dumps(row) + "\n" for row in _rows("=HYPERLINK(1)"))
    (here / "formulas.jsonl").write_text(formulas)
    for name in ("out.csv", "out.tsv", "out.xlsx", "out.csv.gz"):
        code, out, err = command("convert", here / "formulas.jsonl", name, "--to", "trl")
        assert code == 2, out + err
        assert not (here / name).exists()
    calls = {
        ast.unparse(node.func)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    assert not {"csv.writer", "csv.DictWriter"} & calls
    assert not [call for call in calls if call.endswith((".to_csv", ".write_csv", ".to_excel", ".savetxt"))]
    assert not {"csv", "tsv"} & set(FORMATS)


# ------------------------------------------------------------------------------------------------------ names and paths


@pytest.mark.parametrize(
    "name",
    ["a b", "ünï", "<b>x", "$(touch pwned)", "`touch pwned`", "x;touch pwned", "'\"", "\x1b[31mred", "\u202ex",
     "[bold]", "-rf", "%s{0}{{7*7}}", "a\nb", "a" * 200, os.fsdecode(b"\xff\xfe")],
    ids=ascii,
)  # fmt: skip
def test_a_run_may_have_any_name(here, trained_on, tiny_model, pairs, command, name):
    run = here / "runs" / name
    code, out, err = trained_on(tiny_model, pairs, f"output.dir={json.dumps(str(run))}")
    assert "Traceback" not in err
    if code == 2:  # refused, and said so in one line
        assert err.startswith("error: ")
        assert not run.exists()
        return
    assert code == 0, err
    _check_page((run / "report.html").read_text(encoding="utf-8"))
    for words in (["evaluate", run], ["report", run], ["export", run, "--out", here / "out"]):
        code, more, wrong = command(*words)
        assert code == 0, wrong
        out += more + wrong
    assert not ACTIVE.search(out)
    assert not (here / "pwned").exists()
    assert {path.name for path in here.iterdir()} == {"my.yaml", "runs", "out"}


@pytest.mark.parametrize("what", ["model", "pairs"])
def test_a_model_or_a_file_may_have_a_name_that_is_no_text(here, trained_on, tiny_model, pairs, what):
    name = here / os.fsdecode(b"\xff\xfe.jsonl")
    name.symlink_to(tiny_model if what == "model" else pairs)
    code, _, err = trained_on(*((name, pairs) if what == "model" else (tiny_model, name)))
    assert "Traceback" not in err
    assert code == 0 or err.startswith("error: ")


def test_no_command_goes_through_a_shell():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("os.system", "os.popen", "eval", "exec", "subprocess.getoutput")
                assert not [word for word in node.keywords if word.arg == "shell"]


def test_the_checks_of_this_file_can_fail():
    assert ACTIVE.search("\x1b")
    for page in ("<script>", "<p onclick=x>", "<a href=x>", "\u202e"):
        with pytest.raises(AssertionError):
            _check_page(page)
