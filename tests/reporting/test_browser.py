"""Pages in a real browser: nothing is refused or goes wrong, all is drawn, and everybody can use them."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import pytest

import audit_reports
from chromium import chromium
from tiebreak.doctor.page import render_audit_page
from tiebreak.files import write_json
from tiebreak.reporting.look import COLOURS
from tiebreak.reporting.overview import write_overview
from tiebreak.reporting.page import write_report
from written_runs import recorded_run, written_run

pytestmark = pytest.mark.plots

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">\u2028\u202e&amp;' "
)
SCHEMES = ("light", "dark")
NAMES = ("report", "hostile report", "report of a run of before", "report of a run that died", "runs", "audit")
VIEWS = [
    *((name, *view) for name in NAMES for view in (("light", 1280), ("dark", 390))),
    *(("report", *view) for view in (("dark", 1280), ("light", 390))),
]


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "report": recorded_run(folder, name="slower", **{"training.learning_rate": 3e-5, "loss.beta": 0.25}),
        "hostile report": recorded_run(folder, name="x' onerror=alert(1) <b>", text=lambda plain: HOSTILE + plain),
        "report of a run of before": written_run(folder, name="before"),
        "report of a run that died": written_run(folder, name="half"),
    }
    runs["report of a run of before"].update_manifest(schema=1)
    dead = runs["report of a run that died"]
    dead.update_manifest(status="running")
    for file in (dead.evaluation_file, dead.measures_file):
        file.unlink()
    found = {name: Path(write_report(run)) for name, run in runs.items()}
    (folder / "torn").mkdir()
    (folder / "torn" / "run.json").write_text('{"status": ')
    audit = folder / "audit.html"
    audit.write_text(render_audit_page(audit_reports.full()), encoding="utf-8")
    return found | {"runs": write_overview(folder), "audit": audit}


@pytest.fixture
def show(browser, pages):
    """Open a page; whatever a browser complains of, or asks a network for, fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(name: str, scheme: str = "light", width: int = 1280, **more):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith("file:") else None)
        page.goto(f"file://{quote(str(pages[name]))}")
        if page.locator("#plotly").count() and more.get("java_script_enabled", True):
            page.wait_for_selector("html[data-curves=drawn]", state="attached", timeout=120_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize(("name", "scheme", "width"), VIEWS)
def test_a_page_fits_complains_of_nothing_and_no_rule_of_accessibility_is_broken(show, name, scheme, width):
    # The policy would refuse axe, which is no script of the page; what it refuses else is seen by other tests.
    page = show(name, scheme, width, bypass_csp=True)
    assert page.title() != "pwned"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for details in page.locator("details:not(.numbers)").all():
        details.evaluate("one => one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(one => one.violations.map(it => [it.impact, it.id, it.nodes[0].html]))")
    assert [one for one in found if one[0] in ("serious", "critical")] == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_curve_is_drawn_under_the_policy_of_the_page(show, scheme):
    page = show("report", scheme)
    figures = page.locator("figure[data-curve]")
    assert figures.count() == 18
    assert page.locator("figure.plotted .live .main-svg >> nth=0").count() == 1
    drawn = page.evaluate(
        "[...document.querySelectorAll('.live')].map(one => one.querySelectorAll('.trace, .bars .point').length)"
    )
    assert len(drawn) == 18
    assert all(drawn)
    assert page.locator("figure > svg >> visible=true").count() == 0
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == {"light": "rgb(31, 41, 51)", "dark": "rgb(228, 231, 235)"}[scheme]


def test_a_curve_is_zoomed_by_a_drag_says_its_numbers_and_follows_the_scheme(show):
    page = show("report")
    live = page.locator("figure[data-curve='0'] .live")
    live.scroll_into_view_if_needed()
    box = live.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 200, middle)
    page.wait_for_selector("figure[data-curve='0'] .hoverlayer .legend text, figure[data-curve='0'] .hoverlayer text")
    before = live.evaluate("one => one.layout.xaxis.range.slice()")
    page.mouse.down()
    page.mouse.move(box["x"] + 300, middle, steps=4)
    page.mouse.up()
    after = live.evaluate("one => one.layout.xaxis.range.slice()")
    assert before[0] < after[0] < after[1] < before[1]
    light = live.evaluate("one => one.data[0].marker.color")
    page.emulate_media(color_scheme="dark")
    for _ in range(100):  # the policy lets nobody evaluate text in the page, a waiting browser neither
        if (dark := live.evaluate("one => one.data[0].marker.color")) != light:
            break
        page.wait_for_timeout(100)
    assert {light, dark} == set(COLOURS["train"])


def test_the_numbers_of_a_curve_are_a_table_that_the_keyboard_opens(show):
    page = show("report")
    summary = page.locator("figure[data-curve='0'] .numbers summary")
    summary.focus()
    page.keyboard.press("Enter")
    rows = page.locator("figure[data-curve='0'] .numbers tbody tr")
    rows.first.wait_for()
    assert rows.count() == 41
    assert rows.nth(10).inner_text().split() == ["10", "0.59", "0.617971", "0.59"]


def test_answers_are_filtered_ordered_and_searched_by_keyboard(show):
    page = show("report", bypass_csp=False)
    shown = page.locator("article.sample >> visible=true")
    said = page.locator("#answers-count")
    assert (shown.count(), said.inner_text()) == (8, "all 24, the first 8 shown")
    page.locator("#answers-mark").focus()
    page.keyboard.type("worse")
    assert said.inner_text() == "8 of 24 match"
    assert {*shown.evaluate_all("all => all.map(one => one.dataset.marks.includes('worse'))")} == {True}
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.keyboard.type("longest")
    lengths = shown.evaluate_all("all => all.map(one => Number(one.dataset.length))")
    assert lengths == sorted(lengths, reverse=True)
    page.keyboard.press("Tab")
    page.keyboard.type("tile 7?")
    assert said.inner_text() == "1 of 24 match"
    assert "How do I lay tile 7?" in shown.inner_text()
    assert shown.locator("ins").count() and shown.locator("del").count()
    for label in ("worse", "unchanged", "cut at"):  # words of the page, not of an answer
        page.locator("#answers-search").fill(label)
        assert (shown.count(), said.inner_text()) == (0, "0 of 24 match")
    page.locator("#answers-search").fill("")
    page.locator("button.all").press("Enter")
    assert said.inner_text() == "all 24"
    # Whoever came by keyboard goes on at the first answer that is new.
    assert page.evaluate("document.activeElement === document.querySelectorAll('article.sample')[8]")


def test_runs_are_sorted_and_filtered_by_keyboard(show):
    page = show("runs")
    names = lambda: [" ".join(one.split()) for one in page.locator("tbody th >> visible=true").all_inner_texts()]  # noqa: E731
    assert len(names()) == 5
    head = page.locator("thead th", has_text="Held-out accuracy")
    for order in ("ascending", "descending"):
        head.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert page.locator("[aria-sort]").count() == 1
        assert {*names()[3:]} == {"half", "torn"}, "runs that have no number come last"
    page.locator("thead button").first.press("Space")
    assert names() == sorted(names(), key=str.lower)
    page.locator("[data-filter]").focus()
    page.keyboard.type("damaged")
    assert names() == ["torn"]
    assert "cannot be read" in page.locator("tbody tr >> visible=true").inner_text()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.keyboard.type("older version")
    assert names() == ["before"]
    assert page.locator("[data-count]").inner_text() == "1 of 5 shown"


def test_a_run_s_row_leads_to_its_report_whatever_its_name(show):
    page = show("runs")
    page.get_by_role("link", name="onerror").click()
    page.wait_for_selector("h1")
    assert page.locator("h1").inner_text().startswith("x' onerror=alert(1)")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_paper_has_the_pictures_all_answers_and_the_colours_of_the_light_scheme(show, scheme):
    page = show("report", scheme)
    page.emulate_media(media="print", color_scheme=scheme)
    assert page.locator(".live >> visible=true").count() == 0
    assert page.locator("figure > svg >> visible=true").count() == 18
    assert page.locator("article.sample >> visible=true").count() == 24
    assert page.locator(".filters >> visible=true").count() == 0
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)"
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts_all_of_it_can_be_read(show):
    page = show("report", java_script_enabled=False)
    assert page.locator("figure > svg >> visible=true").count() == 18
    assert page.locator("article.sample").count() == 24
    assert page.locator(".scripted >> visible=true").count() == 0


def test_a_page_stays_under_five_megabytes_however_long_the_answers_are(tmp_path):
    run = recorded_run(tmp_path, text=lambda plain: plain + "<\u202e&" * 30_000)
    size = Path(write_report(run)).stat().st_size
    assert 2_000_000 < size < 5_000_000
    page = run.report_file.read_text(encoding="utf-8")
    left_out = re.search(r"(\d+) more are in samples\.jsonl", page)
    assert left_out
    assert int(left_out[1]) + page.count('<article class="sample"') == 24
    assert "more characters" in page
    write_json(run.audit_file, {"findings": []})
