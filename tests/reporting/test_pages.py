"""Every page: read in either scheme, by anybody, on any screen, and nothing runs on it but scripts of ours."""

from __future__ import annotations

import itertools
import re
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest

import audit_reports
from tiebreak.config import load_config
from tiebreak.doctor.page import render_audit_page
from tiebreak.errors import RunError
from tiebreak.files import write_json, write_jsonl
from tiebreak.reporting.console import print_evaluation
from tiebreak.reporting.curves import figures
from tiebreak.reporting.figures import STYLE, drawn
from tiebreak.reporting.look import COLOURS
from tiebreak.reporting.numbers import INTERVALS
from tiebreak.reporting.overview import render_overview
from tiebreak.reporting.page import render_report
from tiebreak.reporting.scripts import digest_of, drawing_library
from written_runs import written_run

pytestmark = pytest.mark.plots

VOID = {"meta", "br", "hr", "input"}
HOSTILE = "</style></pre><script>alert(1)</script> | `x` \u202e {{ 7 * 7 }} it's \\ $(rm) \n\n---\n# x: [y]"


class _Page(HTMLParser):
    """A page as a tree of elements: each with its tag, attributes, what is above it, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str], tuple[str, ...], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        words: list[str] = []
        above = tuple(name for name, _ in self._open)
        self.elements.append((tag, {name: value or "" for name, value in attrs}, above, words))
        if tag not in VOID:
            self._open.append((tag, words))

    def handle_startendtag(self, tag, attrs):
        above = tuple(name for name, _ in self._open)
        self.elements.append((tag, {name: value or "" for name, value in attrs}, above, []))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, words in self._open:
            words.append(data)

    def of(self, *tags: str) -> list[tuple[str, dict[str, str], tuple[str, ...], str]]:
        return [(t, a, above, " ".join("".join(w).split())) for t, a, above, w in self.elements if t in tags]


def _troubled(folder):
    """A run that everything befell: three attempts, an accepted change, rollbacks, damage, findings."""
    run = written_run(folder, **{"data.train": "a b/it's.jsonl", "training.learning_rate": 3e-5, "loss.beta": 0.25})
    warnings = [(1, "data is odd"), (3, "data is odd"), (3, HOSTILE)]
    run.update_manifest(
        num_attempts=3,
        num_rollbacks=1,
        accepted=["data", "template"],
        template_date="2026-11-29",
        warnings=[{"attempt": attempt, "text": text} for attempt, text in warnings],
    )
    steps = [{"step": step, "loss": 0.7 - step / 100, "grad_norm": 1.0, "learning_rate": 1e-5} for step in range(1, 13)]
    rewards = {"rewards/chosen": 0.1, "rewards/rejected": -0.1, "rewards/accuracies": 0.7}
    probes = [{"step": step, "heldout/loss": 0.6, "heldout/rewards/accuracies": 0.7} for step in (0, 12)]
    rolled = [{"step": 4, "rollback": 1, "rate_scale": 0.5}]
    write_jsonl(run.metrics_file, [*(row | rewards for row in steps), *probes, *rolled])
    write_jsonl(run.evidence_file, [{"margin": (n - 5) / 3} for n in range(20)])
    write_jsonl(run.dropped_file, [{"file": HOSTILE, "line": 3, "reason": "empty", "detail": HOSTILE}])
    write_json(run.data_file, run.data | {"dropped_by_reason": {"empty": 1}})
    (run.quarantine_folder / "step-00000004-1").mkdir(parents=True)
    write_json(run.audit_file, {"findings": audit_reports.full()["findings"]})
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return _troubled(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory):
    return {
        "report": render_report(run),
        "report of a run of before": render_report(written_run(tmp_path_factory.mktemp("plain"))),
        "runs": render_overview(run.path.parent),
        **{
            f"audit, {name}": render_audit_page(getattr(audit_reports, name)()) for name in ("full", "clean", "hostile")
        },
    }


PAGES = ("report", "report of a run of before", "runs", "audit, full", "audit, clean", "audit, hostile")


# ------------------------------------------------------------------------------------------------------------ each page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_its_language_its_title_and_its_headings_in_order(pages, name):
    assert pages[name].startswith("<!doctype html>\n")
    page = _Page(pages[name])
    assert [attributes["lang"] for _, attributes, _, _ in page.of("html")] == ["en"]
    assert next(text for _, _, above, text in page.of("title") if "head" in above)
    assert len(page.of("main")) == 1
    levels = [int(tag[1]) for tag, _, _, text in page.of("h1", "h2", "h3", "h4") if text]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_on_a_page_nothing_runs_but_scripts_that_its_policy_names_by_digest(pages, name):
    page = _Page(pages[name])
    [(_, policy, above, _)] = [one for one in page.of("meta") if "http-equiv" in one[1]]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "head" in above
    allowed = dict(part.split(" ", 1) for part in policy["content"].split("; "))
    scripts = re.findall(r"<script>(.*?)</script>", pages[name], re.DOTALL)
    digests = {f"'{digest_of(script.encode())}'" for script in scripts}
    library = {f"'{drawing_library().digest}'"} if 'id="plotly"' in pages[name] else set()
    assert {*allowed.pop("script-src", "").split()} == digests | library
    assert bool(digests) == (not name.startswith("audit"))
    assert allowed.pop("default-src") == "'none'"
    assert allowed == {"style-src": "'unsafe-inline'", "base-uri": "'none'", "form-action": "'none'"}
    tags = [tag for tag, _, _, _ in page.elements]
    assert tags.index("meta") < tags.index("style")
    assert not {"img", "link", "iframe", "object", "form", "base"} & set(tags)
    data = [one[1] for one in page.of("script") if one[1]]
    assert {one["type"] for one in data} <= {"application/json", "application/gzip+base64"}
    assert not [name for _, attributes, _, _ in page.elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("name", PAGES)
def test_a_link_leads_to_a_section_of_the_page_or_to_the_page_of_a_run_beside_it(pages, name):
    ids = set(re.findall(r' id="([^"]*)"', pages[name]))
    for _, attributes, _, _ in _Page(pages[name]).of("a"):
        target = attributes["href"]
        assert target[1:] in ids if target.startswith("#") else re.fullmatch(r"\./[\w/%.-]+/report\.html", target)


@pytest.mark.parametrize("name", PAGES)
def test_every_id_is_there_once(pages, name):
    ids = re.findall(r' id="([^"]*)"', pages[name])
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_a_table_has_a_heading_with_its_scope(pages, name):
    page = _Page(pages[name])
    assert all(attributes.get("scope") for _, attributes, _, _ in page.of("th"))
    assert all({"thead", "tbody"} & set(above) for _, _, above, _ in page.of("tr"))
    for row in re.findall(r"<tr.*?</tr>", pages[name], re.DOTALL):
        continues = re.match(
            r'<tr class="(?:rules|error|warning|info)"', row
        )  # what the row above is held to; a finding
        assert continues or re.search(r'<th scope="(?:row|rowgroup|col)"', row), row


@pytest.mark.parametrize("name", PAGES)
def test_every_table_folds_or_scrolls_in_a_box_of_its_own(pages, name):
    for _, attributes, above, _ in _Page(pages[name]).of("table"):
        assert "folds" in attributes.get("class", "") or "div" in above
    boxes = [one[1] for one in _Page(pages[name]).of("div") if one[1].get("class") == "wide"]
    assert all(box["role"] == "region" and box["aria-label"] and box["tabindex"] == "0" for box in boxes)


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_says_in_words_what_it_shows(pages, name):
    page = _Page(pages[name])
    pictures = [attributes for tag, attributes, _, _ in page.of("svg", "div") if tag == "svg" or "role" in attributes]
    assert all(one.get("aria-label") for one in pictures)
    assert all(one[1].get("role") == "img" for one in page.of("svg"))
    assert len(page.of("figcaption")) == len(page.of("figure"))


# -------------------------------------------------------------------------------------------------------------- colours


def _luminance(colour: str) -> float:
    """Of WCAG 2.2, relative."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _schemes(page: str) -> list[dict[str, str]]:
    """The colours that the style sheet of a page sets: in the light scheme, and in the dark one."""
    sheet = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    blocks = re.findall(r":root \{ (.*?)\}", sheet)
    return [dict(re.findall(r"--([\w-]+):(#[0-9a-f]{6});", block)) for block in blocks]


READ_ON = {
    "ink": ("page", "soft", "yes", "no"),
    "muted": ("page", "soft", "plain"),
    "blue": ("page", "soft"),
    "green": ("page", "soft", "yes"),
    "red": ("page", "soft", "no"),
    "amber": ("page", "soft", "unknown"),
}
"""On which grounds each colour of text stands: a contrast of at least 4.5 (WCAG 2.2, 1.4.3)."""

DRAWN_ON = {
    "blue": ("page",),
    "track": ("page", "soft"),
    "train": ("page",),
    "chosen": ("page",),
    "rejected": ("page",),
}
"""The same of what is drawn and means something: at least 3 (WCAG 2.2, 1.4.11)."""


@pytest.mark.parametrize("name", PAGES)
def test_text_can_be_read_on_its_ground_in_both_schemes(pages, name):
    schemes = _schemes(pages[name])
    assert len(schemes) == 2
    assert "prefers-color-scheme:dark" in pages[name]
    for scheme in schemes:
        assert scheme.keys() == COLOURS.keys()
        for least, pairs in ((4.5, READ_ON), (3.0, DRAWN_ON)):
            for colour, grounds in pairs.items():
                for ground in grounds:
                    assert _contrast(scheme[colour], scheme[ground]) >= least, (colour, ground)


@pytest.mark.parametrize("name", PAGES)
def test_no_colour_is_set_beside_the_schemes(pages, name):
    sheet = "".join(re.findall(r"<style>(.*?)</style>", pages[name], re.DOTALL))
    rules = re.sub(r":root \{.*?\}", "", sheet)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", rules)
    known = {light for light, _ in COLOURS.values()}
    assert set(re.findall(r"var\(--(\w+)\)", rules)) <= COLOURS.keys() | {"tone", "tint"}
    # In a plot each colour is one of the scheme; what follows the comma is for a file of its own.
    drawn = re.findall(r"(?:fill|stroke): ([^;\"]*)", pages[name])
    assert all(value == "none" or re.fullmatch(r"var\(--\w+, #[0-9a-f]{6}\)", value) for value in drawn), set(drawn)
    assert {value[-8:-1] for value in drawn if value != "none"} <= known


def test_each_colour_of_text_in_the_style_sheet_is_one_whose_contrast_is_known(pages):
    for page in pages.values():
        for sheet in re.findall(r"<style>(.*?)</style>", page, re.DOTALL):
            used = set(re.findall(r"(?<!-)color:var\(--(\w+)\)", sheet)) - {"tone"}
            tones = set(re.findall(r"--tone:var\(--(\w+)\)", sheet))
            assert used | tones <= READ_ON.keys()
            tinted = re.findall(r"--tone:var\(--(\w+)\); --tint:var\(--(\w+)\)", sheet)
            assert all(tint in READ_ON[tone] for tone, tint in tinted)


# ---------------------------------------------------------------------------------------------------------------- plots


def test_every_figure_of_a_run_has_both_axes_labelled_its_file_and_its_numbers_in_words(run):
    found = figures(run.metrics, [{"margin": (n - 5) / 3} for n in range(20)])
    labels = {
        "Loss": ("optimizer step", "mean loss of a pair"),
        "Preference accuracy": ("optimizer step", "share of pairs"),
        "Implicit rewards": ("optimizer step", "reward (nats × beta)"),
        "Held-out margins": ("margin (nats × beta)", "pairs"),
        "Gradient norm": ("optimizer step", "norm of the gradient"),
        "Learning rate": ("optimizer step", "learning rate"),
    }
    assert [one.name for one in found] == [*labels]
    for one in found:
        assert re.fullmatch(r"(metrics|evidence)\.jsonl: [\w/]+(, [\w/]+)*", one.source)
        svg = drawn(one).svg
        texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
        assert {*labels[one.name], one.name} <= set(texts)
        [label] = re.findall(r'<svg role="img" aria-label="([^"]*)"', svg)
        assert label.startswith(f"{one.name}. {one.caption}")
        assert re.search(r"\d", label.removeprefix(f"{one.name}. {one.caption}"))
    assert "14 of 20 pairs right of zero" in found[3].says
    assert "training: 0.69 at first, 0.58 at last. held-out: 0.6 at first" in found[0].says
    assert STYLE["svg.fonttype"] == "none"


# ------------------------------------------------------------------------------------------------- what befell the run


def _facts(page: str) -> dict[str, str]:
    rows = [text for tag, _, above, text in _Page(page).of("th", "td") if "tbody" in above]
    return dict(itertools.pairwise(rows))


def test_the_report_tells_attempts_accepted_changes_rollbacks_damage_and_warnings(pages):
    facts = _facts(pages["report"])
    assert facts["Attempts"] == "3"
    assert facts["Accepted changes"] == "data, template"
    assert facts["Rollbacks"] == "1back to step 4 with 0.5 of the rate"
    assert facts["Set aside as damaged"] == "quarantine/step-00000004-1"
    assert "data is odd (attempts 1, 3)" in facts["Warnings"]
    assert "<script>alert(1)</script>" in facts["Warnings"]
    assert "\\u202e {{ 7 * 7 }}" in facts["Warnings"]


def test_a_run_that_kept_no_warnings_does_not_claim_that_there_were_none(pages, tmp_path):
    facts = _facts(pages["report of a run of before"])
    assert facts["Warnings"] == "not kept by the version that made this run"
    assert facts["Accepted changes"] == facts["Rollbacks"] == "none"
    assert "this run holds no audit.json" in pages["report of a run of before"]
    quiet = written_run(tmp_path)
    quiet.update_manifest(warnings=[])
    write_json(quiet.audit_file, {"findings": []})
    page = render_report(quiet)
    assert _facts(page)["Warnings"] == "none"
    assert "<p>Nothing.</p>" in page


def test_the_report_shows_the_doctors_findings_as_its_own_page_does(pages):
    for found in audit_reports.full()["findings"]:
        for wanted in (found["code"], found["title"], found["remedy"]):
            assert wanted in pages["report"]
    tables = [
        re.search(r'<table class="findings.*?</table>', pages[name], re.DOTALL)[0] for name in ("report", "audit, full")
    ]
    bare = [re.sub(r"<p class=\"does\">.*?</p>|\s", "", table) for table in tables]
    assert bare[0].count("<tr") == bare[1].count("<tr")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.train": "a b/it's.jsonl", "training.learning_rate": 3e-5, "adapter": "none"},
        {
            "evaluation.rule": {"name": HOSTILE, "pattern": "\\A(?:I|'me\")\t$"},
            "data.allow": ["leak"],
            "model.name": "-x",
        },
        {"gate.overrides": {"repetition": "few"}, "gate.rules": {"tasks": None}, "evaluation.judge": "rule:repetition"},
        {"data.train": [{"path": "a", "weight": 0.5}, {"path": "hf:o/n@train"}], "data.columns": {"prompt": "5e-7"}},
    ],
    ids=["defaults", "plain", "hostile", "gate", "mix"],
)
def test_the_commands_that_repeat_a_run_give_its_very_settings(changes, tmp_path):
    run = written_run(tmp_path, **changes)
    shown = ["".join(words) for tag, _, _, words in _Page(render_report(run)).elements if tag == "pre"]
    commands = [text for text in shown if text.startswith("tiebreak train ")]
    assert len(commands) == 2
    output = run.config.output.model_copy(update={"dir": f"{run.path}-again"})
    for command in commands:
        # Pasted into a shell, in which tiebreak only tells what it was given.
        script = f"tiebreak() {{ printf '%s\\0' \"$@\"; }}\n{command}"
        told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        verb, file, *sets = told.split("\0")[:-1]
        assert verb == "train"
        assert set(sets[::2]) <= {"--set"}
        assert load_config(file, sets[1::2]) == run.config.model_copy(update={"output": output})


def test_the_date_that_a_template_wrote_is_part_of_the_command(pages):
    commands = re.findall(r"<pre>(tiebreak train.*?)</pre>", pages["report"], re.DOTALL)
    assert len(commands) == 2
    assert all("model.chat_template_date=" in command and "2026-11-29" in command for command in commands)


@pytest.mark.parametrize(
    "damage",
    [{"warnings": 3}, {"warnings": [3]}, {"warnings": [{}]}, {"num_attempts": None}, {"accepted": 3}],
    ids=str,
)
def test_a_manifest_that_no_run_wrote_is_one_line(tmp_path, damage):
    run = written_run(tmp_path)
    run.update_manifest(**damage)
    with pytest.raises(RunError, match="not as a run writes them"):
        render_report(run)


@pytest.mark.parametrize("audit", [{}, {"findings": 3}, {"findings": [{}]}, {"findings": [3]}], ids=str)
def test_an_audit_that_no_doctor_wrote_is_one_line(tmp_path, audit):
    run = written_run(tmp_path)
    write_json(run.audit_file, audit)
    with pytest.raises(RunError, match="not as a run writes them"):
        render_report(run)


def test_the_best_checkpoint_has_the_name_of_its_score_and_a_round_number(tmp_path):
    run = written_run(tmp_path)
    run.update_manifest(best={"step": 4, "score": 0.0004795195314279965, "of": 6, "by": "loss"})
    assert "step 4, by the held-out loss, 0.0004795" in render_report(run)
    run.update_manifest(best={"step": 4, "score": "<b>"})
    assert "step 4, by the held-out score<" in render_report(run).replace("; the artefact", "<")


def test_where_a_rule_and_the_table_have_an_interval_each_the_page_and_the_terminal_say_why(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "400")
    run = written_run(tmp_path)
    assert INTERVALS in " ".join(unescape(render_report(run)).split())
    print_evaluation(run.evaluation, run.samples)
    assert INTERVALS in capsys.readouterr().out
