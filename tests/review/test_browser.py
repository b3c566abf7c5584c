"""A review in a real browser: by keyboard alone, by two people, through a killed server, without scripts."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from chromium import chromium
from reviewed import SECRETS, items_of, lines_of, owner_token, review_of, serving, token_of
from tiebreak.records import Message
from tiebreak.review.items import Item

sys.path.append(str(Path(__file__).parents[1] / "security"))
from test_injection import ACTIVE, HOSTILE, HTML, TERMINAL

KEYS = {"1": "left", "ArrowLeft": "left", "2": "right", "ArrowRight": "right", "0": "tie", "t": "tie", "b": "both_bad"}
WORDS = {"a": "Cut tile {n} first,\nthen lay it in wet mortar.", "b": "Call somebody who lays tile {n} for a living."}


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser):
    """Open a person's page; what a browser complains of, a dialog, and a request elsewhere fail the test."""
    complaints: list[str] = []
    contexts = []

    def opened(server, token: str, *, seen: list | None = None, quiet: bool = True, width: int = 1280, **more):
        context = browser.new_context(viewport={"width": width, "height": 900}, **more)
        contexts.append(context)
        page = context.new_page()
        if quiet:
            page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda asked: None if asked.url.startswith(server.url) else complaints.append(asked.url))
        if seen is not None:
            page.on("response", lambda answer: seen.append(read(answer)))
        page.goto(f"{server.url}/r/{token}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def read(answer) -> str:
    """All that came over the network."""
    body = "" if answer.status in range(300, 400) else answer.text()
    return f"{answer.url}\n{answer.all_headers() | {'content-security-policy': ''}}\n{body}"


def number(page) -> str:
    """What the head of the page says, once the page is whole: before its style sheet is there, nothing is hidden."""
    page.wait_for_load_state()
    return page.locator("#progress-text").inner_text()


def showing(page) -> str | None:
    return page.locator("#main").get_attribute("data-showing")


def press(page, key: str) -> None:
    """Press a key and wait until the next item, or an earlier one, stands there."""
    was = showing(page)
    page.keyboard.press(key)
    page.locator(f'#main:not([data-showing="{was}"])').wait_for()


def test_forty_items_by_keyboard_alone_with_undo_tie_reload_and_a_killed_server(tmp_path, visit):  # noqa: PLR0915
    review = review_of(tmp_path / "review", items_of(40, **WORDS), strength=True)
    total = review.progress("ann")[1]
    pressed: list[tuple] = []
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"), quiet=False)  # of the killed server a browser does complain
        for turn in range(total):
            assert number(page) == f"{turn + 1} of {total}"
            key = ("1", "2", "0", "ArrowLeft", "t", "ArrowRight", "b")[turn % 7]
            if turn == 3:  # a note holds the keys of choices
                page.keyboard.press("n")
                page.keyboard.type("12 0tbsu ")
                page.keyboard.press("Enter")
                page.keyboard.type("end")
                page.keyboard.press("Escape")
                pressed.append(("left", "12 0tbsu \nend", ()))
            elif turn == 5:
                page.keyboard.press("Shift+Digit2")
                page.keyboard.press("Shift+Digit3")
                page.keyboard.press("Shift+Digit2")
                pressed.append(("right", "", ("safer",)))
            elif turn == 9:
                page.keyboard.press("s")
                page.keyboard.type("1 is not my field")
                press(page, "Enter")
                pressed.append(("skip", "1 is not my field", ()))
                continue
            elif turn == 11:
                press(page, "u")
                press(page, "u")
                press(page, "3")
                press(page, "4")
                pressed += [("undo", "", ())] * 2 + [("left", "clearly", ()), ("right", "clearly", ())]
                pressed.append((KEYS[key], "", ()))
            else:
                pressed.append((KEYS[key], "", ()))
            if turn == 15:
                page.reload()
            if turn == 20:
                server.kill()
                page.keyboard.press(key)
                page.locator("#said.wrong", has_text="Not kept").wait_for()
                assert number(page) == f"{turn + 1} of {total}"
                server.start()
            if turn == 25:  # looking closer chooses nothing
                page.keyboard.press("d")
                page.locator("mark").first.wait_for()
                page.keyboard.press("d")
                page.locator("#look-differences[aria-pressed=false]").wait_for()
                page.keyboard.press("7")
                page.keyboard.press("Control+1")
            press(page, key)
            assert page.evaluate("document.activeElement.id") == "choices"
        assert page.locator("h1").inner_text() == "All done"
        press(page, "u")
        press(page, "1")
        pressed += [("undo", "", ()), ("left", "", ())]
        assert page.locator("h1").inner_text() == "All done"
    lines = lines_of(review, "ann")
    kept = [
        ("undo", "", ()) if "undo_of" in one else
        (one["choice"], one.get("note") or one.get("reason") or one.get("strength", ""), tuple(one.get("tags", ())))
        for one in lines
    ]  # fmt: skip
    assert kept == pressed
    assert all(one.get("seconds", 0) < 60 for one in lines)
    assert all("seconds" in one for one in lines if "undo_of" not in one)


def test_the_next_item_stands_there_within_a_tenth_of_a_second(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(30, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"))
        page.evaluate("""() => {
          window.took = [];
          addEventListener("keydown", () => { window.since = performance.now(); }, true);
          new MutationObserver(() => requestAnimationFrame(() => window.took.push(performance.now() - window.since)))
            .observe(document.body, { childList: true });
        }""")
        for turn in range(30):
            press(page, "12"[turn % 2])
        took = sorted(page.evaluate("window.took"))
    print(f"milliseconds from key to picture: median {took[15]:.0f}, all of 30 within {took[-1]:.0f}")
    assert took[15] < 100


def test_two_people_see_sides_that_are_balanced_and_opposite_and_nothing_that_tells(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(100), ("ann", "ben"), per_item=2)
    left: dict[str, dict[str, bool]] = {}
    seen: list[str] = []
    with serving(review) as server:
        pages = {name: visit(server, token_of(review, name), seen=seen) for name in ("ann", "ben")}
        for name, page in pages.items():
            mine = left.setdefault(name, {})
            for turn in range(review.progress(name)[1]):
                tile = re.search(r"\d+", page.locator(".prompt .words").inner_text())[0]
                # The first time an item comes counts; those that come again do so with sides swapped.
                mine.setdefault(tile, page.locator("#left").inner_text().startswith("Call"))
                press(page, ("1", "2", "0")[turn % 3])
            press(page, "u")
    for mine in left.values():
        assert len(mine) == 100
        assert 49 <= sum(mine.values()) <= 51
    assert all(left["ann"][tile] != left["ben"][tile] for tile in left["ann"])
    assert len(seen) > 2 * 100
    everything = "\n".join(seen)
    assert "lay tile" in everything
    for secret in (*SECRETS, *review.items, owner_token(review)):
        assert secret not in everything, secret


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)])
def test_no_rule_of_accessibility_is_broken_and_every_state_fits(tmp_path, visit, scheme, width):
    prompt = (Message("system", "You are terse."), Message("user", "\n".join(f"line {n}" for n in range(20))))
    items = [Item("i-1", prompt, "# A\n\n| a | b |\n|-|-|\n| 1 | 2 |\n\n```\ncode\n```", "word " * 900),
             Item("i-2", prompt[1:], "", "x" * 4000)]  # fmt: skip
    review = review_of(tmp_path / "review", items, strength=True)
    with serving(review) as server:
        # The policy would refuse axe, which is no script of the page; what it refuses else is seen by other tests.
        page = visit(server, token_of(review, "ann"), width=width, color_scheme=scheme, bypass_csp=True)
        for step in ("", "p", "d", "m", "1", "0"):
            if step in ("1", "0"):
                press(page, step)
            elif step:
                page.keyboard.press(step)
                page.wait_for_timeout(150)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), step
            assert found_by_axe(page) == [], step
        page.goto(f"{server.url}/r/{owner_token(review)}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert found_by_axe(page) == []


def found_by_axe(page) -> list:
    page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    return page.evaluate("axe.run().then(one => one.violations.map(it => [it.impact, it.id, it.nodes[0].html]))")


def test_a_whole_session_without_scripts_by_tab_and_enter(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(12, **WORDS))
    total = review.progress("ann")[1]
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"), java_script_enabled=False)
        for turn in range(total):
            assert number(page) == f"{turn + 1} of {total}"
            assert page.locator("#keys-act >> visible=true").count() == 0
            assert page.locator(":is(kbd, .hint) >> visible=true").count() == 0
            if turn == 2:  # Enter in a field chooses nothing
                page.locator("#reason").fill("no")
                page.keyboard.press("Enter")
                page.get_by_role("button", name="Skip").click()
            elif turn == 4:
                page.get_by_role("button", name="Differences").click()
                assert page.locator("mark").count()
                page.locator("label", has_text="clearer").click()
                page.get_by_role("button", name="Both are bad").press("Enter")
            else:
                page.get_by_role("button", name="Right is better").press("Enter")
        assert page.locator("h1").inner_text() == "All done"
        page.get_by_role("button", name="Undo").click()
        assert number(page) == f"{total} of {total}"  # a page on its way cannot be loaded again
        page.reload()
        page.get_by_role("button", name="Equally good").click()
        assert page.locator("h1").inner_text() == "All done"
    made = ["undo" if "undo_of" in one else one["choice"] for one in lines_of(review, "ann")]
    assert made == ["right", "right", "skip", "right", "both_bad", *["right"] * (total - 5), "undo", "tie"]


def test_hostile_text_is_shown_and_never_runs(tmp_path, visit):
    texts = [HOSTILE, *TERMINAL.values(), *HTML.values(), "[x](javascript:alert(1)) ![y](//evil.example/y)"]
    items = [
        Item(f"i-{n}", tuple(Message(role, text) for role in ("system", "user")), text, f"{text}.")
        for n, text in enumerate(texts)
    ]
    name = "<img src=x onerror=alert(1)>"
    review = review_of(tmp_path / "review", items, (name,), tags=("'\"><svg onload=alert(1)>", "clearer"))
    with serving(review) as server:
        page = visit(server, token_of(review, name))
        for turn in range(review.progress(name)[1]):
            for key in ("d", "m") if turn % 4 == 0 else ():
                page.keyboard.press(key)
                page.locator(f"#look-{'differences' if key == 'd' else 'markdown'}[aria-pressed=true]").wait_for()
            assert page.evaluate("document.querySelectorAll('a, img, svg, iframe').length") == 0
            assert not ACTIVE.search(page.locator("body").inner_text().replace("\r", ""))
            page.keyboard.press("Shift+Digit1")
            page.locator("#note").fill(HOSTILE.replace("\0", ""))
            page.keyboard.press("Escape")
            press(page, "12"[turn % 2])
        assert page.locator("h1").inner_text() == "All done"
        page.goto(f"{server.url}/r/{owner_token(review)}")
        assert page.evaluate("document.querySelectorAll('a, img, svg:not(.interval), iframe').length") == 0


def test_long_texts_scroll_inside_their_column_and_keys_go_on_working(tmp_path, visit):
    items = [
        Item("i-1", (Message("user", "y" * 10**6),), "x" * 10**6, "مرحبا " * 3000),
        Item("i-2", (Message("user", "?"),), "a", "b"),
    ]
    review = review_of(tmp_path / "review", items)
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"))
        for key in "12":
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate("document.documentElement.scrollHeight") < 2000
            press(page, key)
        assert page.locator("h1").inner_text() == "All done"


def test_keys_can_be_let_alone_and_a_key_that_is_held_chooses_once(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(6, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"))
        page.keyboard.down("1")
        page.locator("#progress-text", has_text="2 of").wait_for()
        for _ in range(5):
            page.keyboard.down("1")  # the browser says that it is the same press
            page.wait_for_timeout(60)
        page.keyboard.up("1")
        assert number(page).startswith("2 of")
        assert page.locator("kbd >> visible=true").count()
        page.get_by_label("Keys act").click()
        assert page.locator("kbd >> visible=true").count() == 0
        page.keyboard.press("1")
        page.reload()
        page.keyboard.press("1")
        page.wait_for_timeout(300)
        assert number(page).startswith("2 of")
    assert len(lines_of(review, "ann")) == 1


def test_two_tabs_of_one_person_go_on_together(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(6, **WORDS))
    with serving(review) as server:
        first = visit(server, token_of(review, "ann"))
        second = first.context.new_page()
        second.goto(server.url)
        press(first, "1")
        press(first, "2")
        press(second, "0")  # the item that the first one had already chosen
        assert number(second).startswith("3 of")
    assert [one.choice for one in review.votes("ann")] == ["tie", "right"]


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_enter_on_a_reason_or_in_a_field_chooses_nothing_and_what_was_said_stays(tmp_path, visit, scripts):
    review = review_of(tmp_path / "review", items_of(6, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"), java_script_enabled=scripts)
        page.locator("#note").fill("keep me")
        page.get_by_label("safer").click()
        for field in (
            "input[value=safer]",
            *([] if scripts else ["#reason"]),
        ):  # with scripts that one skips, as it says
            page.locator(field).press("Enter")
            page.wait_for_timeout(300)
            assert number(page).startswith("1 of")
            assert page.locator("#note").input_value() == "keep me"
            assert page.get_by_label("safer").is_checked()
    assert lines_of(review, "ann") == []


def _looked_at_after(page, was: str) -> None:
    """Wait until another item stands there, however slow the server is, and then as long as a look takes."""
    page.locator(f'#main:not([data-showing="{was}"])').wait_for()
    page.wait_for_timeout(600)


def test_what_is_hit_twice_votes_once(tmp_path, visit):
    """A second stroke of the same key comes a twentieth of a second later, upon an item that nobody has seen."""
    review = review_of(tmp_path / "review", items_of(30, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"))
        for done, twice in enumerate((["1", "1"], ["ArrowRight", "2"], ["s", "Enter", "Enter"]), 1):
            was = showing(page)
            for key in twice:
                page.keyboard.press(key)
                page.wait_for_timeout(60)
            _looked_at_after(page, was)
            assert len(lines_of(review, "ann")) == done, twice
        for key in "12":  # another one is meant so, however quick
            press(page, key)
        press(page, "u")
        press(page, "2")  # and so it is after an undo
        page.wait_for_timeout(500)
        press(page, "2")  # and once there was time to look
        assert len(lines_of(review, "ann")) == 8
        for gap in (40, 200, 300):
            was = showing(page)
            at = page.get_by_role("button", name="Both are bad").bounding_box()
            page.mouse.move(at["x"] + 20, at["y"] + 15)
            page.mouse.down(click_count=1)
            page.mouse.up(click_count=1)
            page.wait_for_timeout(gap)
            page.mouse.down(click_count=2)
            page.mouse.up(click_count=2)
            _looked_at_after(page, was)
        assert [one.get("choice") for one in lines_of(review, "ann")[8:]] == ["both_bad"] * 3


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_what_was_said_beside_a_choice_comes_back_with_undo(tmp_path, visit, scripts):
    review = review_of(tmp_path / "review", items_of(6, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"), java_script_enabled=scripts)
        page.locator("#note").fill("a long careful note")
        page.get_by_label("safer").click()
        page.get_by_role("button", name="Right is better").click()
        page.locator("#progress-text", has_text="2 of").wait_for()
        page.locator("#note").fill("of the second")
        page.get_by_role("button", name="Undo").click()
        page.locator("#progress-text", has_text="1 of").wait_for()
        assert page.locator("#note").input_value() == "a long careful note"
        assert page.locator("input[name=tag]:checked").evaluate_all("all => all.map(one => one.value)") == ["safer"]
        page.get_by_role("button", name="Left is better").click()
        page.locator("#progress-text", has_text="2 of").wait_for()
        assert page.locator("#note").input_value() == ""
    assert [(one.choice, one.note) for one in review.votes("ann")] == [("left", "a long careful note")]


def test_what_is_done_is_announced_and_a_full_disk_too(tmp_path, visit):
    review = review_of(tmp_path / "review", items_of(6, **WORDS))
    with serving(review) as server:
        page = visit(server, token_of(review, "ann"), quiet=False)
        said = page.locator("#said[role=status][aria-live=polite]")
        for key, words in [("1", "Kept: left is better. 2 of"), ("t", "Kept: equally good. 3 of"), ("u", "taken back"),
                           ("n", "Escape goes back")]:  # fmt: skip
            page.keyboard.press(key)
            said.filter(has_text=words).wait_for()
        page.keyboard.type("kept words")
        page.keyboard.press("Escape")
        with full_disk(server, review):
            page.keyboard.press("2")
            page.locator(".failed[role=alert]", has_text="NOT kept").wait_for()
        assert number(page).startswith("2 of")
        assert page.locator("#note").input_value() == "kept words"
        press(page, "2")
        assert number(page).startswith("3 of")
    assert [one.choice for one in review.votes("ann")] == ["left", "right"]


@contextlib.contextmanager
def full_disk(server, review):
    """Let the server write nothing more, as on a disk that is full."""
    size = (review.folder / "votes" / "ann.jsonl").stat().st_size
    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
