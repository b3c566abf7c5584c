"""What the server of a review answers: to people with a link, to everybody else, and to what browsers never send."""

from __future__ import annotations

import errno
import html
import json
import re
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")

from starlette.testclient import TestClient

from reviewed import SECRETS, fields_of, items_of, lines_of, owner_token, review_of, token_of
from tiebreak.errors import RunError
from tiebreak.records import Message
from tiebreak.review.desk import open_review
from tiebreak.review.entry import MOST_BODY, POLICY
from tiebreak.review.items import Item
from tiebreak.review.pages import create_app
from tiebreak.review.showing import Showing
from tiebreak.review.votes import Log

sys.path.append(str(Path(__file__).parents[1] / "security"))
from test_injection import ACTIVE, HOSTILE, HTML, TERMINAL

LOOPBACK = "http://127.0.0.1"
ADDRESSES = ("/", "/results", "/choose", "/undo", "/look", "/r/x", "/review.css", "/review.js", "/none", "/docs",
             "/openapi.json", "/r/")  # fmt: skip


def browser(review, name=None, **more) -> TestClient:
    """A browser that came by somebody's link."""
    client = TestClient(create_app(review, **more), base_url=LOOPBACK, raise_server_exceptions=False)
    if name:
        assert client.get(f"/r/{token_of(review, name)}").status_code == 200
    return client


@pytest.fixture
def review(tmp_path):
    return review_of(tmp_path / "review", items_of(6), ("ann", "ben"))


@pytest.fixture
def ann(review):
    return browser(review, "ann")


def does(client, choice, address="/choose", **more):
    """Fill in the form that is at hand, and send it as a browser without scripts does."""
    page = client.get("/").text
    return client.post(address, data={**fields_of(page), "choice": choice, **more})


# ------------------------------------------------------------------------------------------------------------ who asks


def test_a_link_becomes_a_cookie_that_no_script_and_no_other_site_has_and_leads_on_without_the_token(review):
    client = browser(review)
    answer = client.get(f"/r/{token_of(review, 'ann')}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    kept = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in kept.split(";")}
    assert token_of(review, "ann") not in client.get("/").text


def test_whoever_comes_from_a_mail_gets_a_page_that_leads_on_since_no_strict_cookie_comes_along(review):
    client = browser(review)
    link = f"/r/{token_of(review, 'ann')}"
    answer = client.get(link, headers={"sec-fetch-site": "cross-site"}, follow_redirects=False)
    assert answer.status_code == 200
    assert '<a href="/">' in answer.text
    assert 'http-equiv="refresh"' in answer.text
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("path", ["/r/none", "/r/", "/", "/results", "/r/%ff%fe", "/r/a/b", "/r/" + "x" * 5000])
def test_whoever_has_no_token_gets_one_line_that_says_nothing(review, path):
    answer = browser(review).get(path)
    assert answer.status_code == 404
    assert answer.text.count("\n") == 1
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_person_cannot_see_the_results_and_the_owner_not_vote(review, ann):
    assert ann.get("/results").status_code == 404
    owner = browser(review)
    answer = owner.get(f"/r/{owner_token(review)}", follow_redirects=False)
    assert answer.headers["location"] == "/results"
    assert owner.get("/").status_code == 404


def test_a_cookie_that_is_none_and_one_of_another_review_are_nobody_s(tmp_path, review):
    other = review_of(tmp_path / "other", items_of(3), ("ann", "ben"))
    client = browser(review)
    for token in ("", "x", "\x7f", token_of(other, "ann"), "x" * 4000):
        client.cookies.set("tiebreak-person-80", token)
        assert client.get("/").status_code == 404
        assert client.post("/choose", data={"choice": "left"}).status_code == 404


def test_owner_and_person_can_be_one_browser(review, ann):
    ann.get(f"/r/{owner_token(review)}", follow_redirects=False)
    assert ann.get("/").status_code == 200


@pytest.mark.parametrize("address", ["/choose", "/undo", "/look"])
def test_a_form_that_another_site_made_is_refused(review, ann, address):
    sent = fields_of(ann.get("/").text) | {"choice": "left"}
    foreign = fields_of(browser(review, "ben").get("/").text)["csrf"]
    for csrf in ("", "x", foreign, "ü", "\ud800".encode("utf-8", "replace").decode()):
        assert ann.post(address, data=sent | {"csrf": csrf}).status_code == 403
    assert ann.post(address, data={one: sent[one] for one in sent if one != "csrf"}).status_code == 403
    assert lines_of(review, "ann") == []


@pytest.mark.parametrize(
    ("host", "known"),
    [("127.0.0.1:8090", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:8090", True), ("127.8.8.8", True),
     ("evil.example", False), ("127.0.0.1.evil.example", False), ("", False), ("10.0.0.9", False), ("[::2]", False),
     ("localhost:x", False)],
)  # fmt: skip
def test_a_name_that_somebody_else_gave_this_machine_is_not_answered(review, host, known):
    answer = browser(review).get("/review.css", headers={"host": host})
    assert answer.status_code == (200 if known else 421)
    assert answer.headers["content-security-policy"] == POLICY


def test_other_names_are_answered_where_they_were_asked_for(review):
    named = browser(review, hosts=("reviews.example",))
    assert named.get("/review.css", headers={"host": "reviews.example:80"}).status_code == 200
    assert named.get("/review.css", headers={"host": "10.0.0.9"}).status_code == 421
    everywhere = browser(review, hosts=("0.0.0.0",))
    assert everywhere.get("/review.css", headers={"host": "10.0.0.9:8090"}).status_code == 200
    assert everywhere.get("/review.css", headers={"host": "evil.example"}).status_code == 421


# ------------------------------------------------------------------------------------------------- what browsers may do


def test_every_answer_says_what_a_browser_may_do_with_it(review, ann):
    for path in ADDRESSES:
        for answer in (ann.get(path), ann.post(path, content=b"\xff"), ann.request("DELETE", path)):
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in answer.headers
    assert "'unsafe" not in POLICY


def test_pages_hold_no_code_and_name_nothing_elsewhere(ann):
    page = ann.get("/").text
    assert re.findall(r"<script[^>]*>[^<]*", page) == ['<script src="/review.js" defer>']
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|https?://|//", page.replace("<!doctype", ""))
    for own in ("/review.js", "/review.css"):
        text = ann.get(own).text
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|https?:|url\(", text
        )
        assert len(text.splitlines()) <= 200


@pytest.mark.parametrize("address", ["/choose", "/undo", "/look"])
def test_a_form_that_is_too_long_or_no_form_is_refused_in_one_line(review, ann, address):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    csrf = fields_of(ann.get("/").text)["csrf"]
    for content, status in [
        (b"x" * (MOST_BODY + 1), 413),
        ((b"x" * 4096 for _ in range(17)), 413),
        (b"&".join(b"a=1" for _ in range(200)), 400),
        (b"\xff\xfe=1", 400),
        (b"", 403),
    ]:
        answer = ann.post(address, content=content, headers=kind)
        assert answer.status_code == status, content
        assert answer.text.count("\n") == 1
    for other in ("application/json", "multipart/form-data; boundary=x", "text/plain", ""):
        answer = ann.post(address, content=f"csrf={csrf}&choice=left", headers={"content-type": other})
        assert answer.status_code == 415
    assert lines_of(review, "ann") == []


def test_the_longest_note_fits_whatever_its_letters(review, ann):
    assert does(ann, "left", note="😀" * 4000).status_code == 200
    assert lines_of(review, "ann")[0]["note"] == "😀" * 4000
    answer = does(ann, "left", note="x" * 4001)
    assert (answer.status_code, answer.text.count("\n")) == (400, 1)
    assert len(lines_of(review, "ann")) == 1


# ------------------------------------------------------------------------------------------------------------- choosing


def test_a_whole_review_is_done_with_forms_alone(review, ann):
    made = [
        ("left", {}), ("right", {"tag": ["clearer", "safer"]}), ("tie", {"note": "one\r\ntwo"}), ("both_bad", {}),
        ("skip", {"reason": "not my language"}),
    ]  # fmt: skip
    _, total = review.progress("ann")
    for number in range(total):
        page = ann.get("/").text
        assert f"{number + 1} of {total}" in page
        choice, more = made[number % 5]
        assert does(ann, choice, seconds="3.25", **more).url.path == "/"
    lines = lines_of(review, "ann")
    assert [one["choice"] for one in lines] == [made[number % 5][0] for number in range(total)]
    assert lines[1]["tags"] == ["clearer", "safer"]
    assert lines[2]["note"] == "one\ntwo"
    assert lines[4]["reason"] == "not my language"
    assert {one["seconds"] for one in lines} == {3.25}
    end = ann.get("/").text
    assert "All done" in end
    assert f"{total} of {total}" in end
    back = ann.post("/undo", data=fields_of(end))
    assert "taken back" in back.text
    assert f"{total} of {total}" in back.text


def test_any_number_of_choices_is_taken_back_and_no_more(review, ann):
    first = fields_of(ann.get("/").text)["showing"]
    for choice in ("left", "tie", "right"):
        does(ann, choice)
    for left in (2, 1, 0, 0):
        does(ann, "", "/undo")
        assert review.progress("ann")[0] == left
    assert fields_of(ann.get("/").text)["showing"] == first
    assert "no choice to take back" in does(ann, "", "/undo").text
    assert len(lines_of(review, "ann")) == 6


def test_a_form_sent_twice_and_a_tab_left_open_are_chosen_anew_and_break_nothing(review, ann):
    old = fields_of(ann.get("/").text)
    for choice in ("left", "left", "right"):
        assert ann.post("/choose", data={**old, "choice": choice}).status_code == 200
    does(ann, "tie")
    ann.post("/choose", data={**old, "choice": "both_bad"})
    assert review.progress("ann")[0] == 2
    assert [one.choice for one in review.votes("ann")] == ["both_bad", "tie"]


def test_many_tabs_at_once_keep_every_choice(review, ann):
    sent = fields_of(ann.get("/").text)
    answers = []

    def choose():
        answers.append(ann.post("/choose", data={**sent, "choice": "left"}, headers={"x-part": "main"}).status_code)

    threads = [threading.Thread(target=choose) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert answers == [200] * 12
    assert len(lines_of(review, "ann")) == 12
    assert review.progress("ann")[0] == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("showing", "x"), ("showing", ""), ("showing", "\0"), ("choice", "a"), ("choice", ""), ("choice", "clearly_left"),
     ("tag", "\u202eforged"), ("choice", HOSTILE)],
    ids=ascii,
)  # fmt: skip
def test_what_the_page_never_sends_is_refused_in_one_line_and_not_kept(review, ann, field, value):
    sent = fields_of(ann.get("/").text) | {"choice": "left"} | {field: value}
    answer = ann.post("/choose", data=sent)
    assert answer.status_code == 400
    assert answer.text.count("\n") == 1
    assert not ACTIVE.search(answer.text)
    assert lines_of(review, "ann") == []


def test_the_showing_of_another_person_is_none(review, ann):
    ben = fields_of(browser(review, "ben").get("/").text)["showing"]
    sent = fields_of(ann.get("/").text) | {"choice": "left", "showing": ben}
    assert ann.post("/choose", data=sent).status_code == 400
    assert lines_of(review, "ben") == lines_of(review, "ann") == []


@pytest.mark.parametrize("told", ["nan", "inf", "-1", "x", "", "1e99", "\u0661", "9" * 400])
def test_seconds_that_cannot_be_are_not_known(review, ann, told):
    assert does(ann, "left", seconds=told).status_code == 200
    assert lines_of(review, "ann")[0].get("seconds") in (None, 1.0)


def test_how_strong_a_preference_is_can_be_said_where_it_is_asked(tmp_path):
    review = review_of(tmp_path / "strong", items_of(6), strength=True, tags=())
    ann = browser(review, "ann")
    page = ann.get("/").text
    assert 'data-keys="3' in page
    assert 'data-keys="4' in page
    assert 'name="tag"' not in page
    does(ann, "clearly_left")
    does(ann, "right")
    assert [(one["choice"], one.get("strength")) for one in lines_of(review, "ann")] == [
        ("left", "clearly"), ("right", None),
    ]  # fmt: skip


def test_what_was_typed_stays_where_somebody_looks_otherwise_at_the_answers(ann, review):
    page = does(ann, "", "/look", look="differences", note="wait & see", tag="safer", reason="r").text
    assert "wait &amp; see</textarea>" in page
    assert re.search(r'value="safer" checked', page)
    assert page.count("<mark>") >= 2
    assert "<mark>" not in ann.get("/").text
    assert lines_of(review, "ann") == []


def test_markdown_is_rendered_on_both_sides_and_stays_with_whoever_asked_for_it(tmp_path):
    texts = {"a": "# Top {n}\n\n*one*", "b": "- two {n}"}
    ann = browser(review_of(tmp_path / "md", items_of(6, **texts)), "ann")
    assert "<em>" not in ann.get("/").text
    page = does(ann, "", "/look", look="markdown").text
    assert page.count('class="answer rendered"') == 2
    assert re.search(r'<p class="heading">Top \d</p>\n<p><em>one</em></p>', page)
    assert re.search(r"<li>two \d</li>", page)
    following = ann.post("/choose", data={**fields_of(page), "choice": "left"}).text
    assert following.count('class="answer rendered"') == 2


def test_a_prompt_of_many_lines_is_folded_and_its_turns_are_named(tmp_path):
    asked = "\n".join(f"line {n}" for n in range(30))
    prompt = tuple(Message(*one) for one in [
        ("system", "You are terse."), ("user", "Hello"), ("assistant", "Hi."), ("user", asked)])  # fmt: skip
    ann = browser(review_of(tmp_path / "long", [Item("i-1", prompt, "", "other")]), "ann")
    page = ann.get("/").text
    lead = page[: page.index("<details>")]
    assert "line 7 …" in lead
    assert "line 8" not in lead
    assert re.findall(r"<h3>(.*)</h3>", page) == ["System prompt", "Asked", "Earlier answer", "Asked"]
    assert page.count("(empty answer)") == 1


# ------------------------------------------------------------------------------------------------------ what goes wrong


class _Refusing:
    """A review whose disk takes nothing; what it shows is one item."""

    tags, strength = ("clearer",), False

    def __init__(self, error):
        self.error = error

    def person(self, token):
        return "ann" if token == "t" else None

    def is_owner(self, token):
        return False

    def at_hand(self, name):
        return Showing("s1", 1, 2, (Message("user", "Why?"),), "one", "two")

    def progress(self, name):
        return 0, 2

    def draft(self, name):
        return None

    def choose(self, name, showing, choice, **more):
        raise self.error

    def undo(self, name):
        raise self.error


@pytest.mark.parametrize("address", ["/choose", "/undo"])
@pytest.mark.parametrize(
    ("error", "why"),
    [(OSError(errno.ENOSPC, "x", "/secret/place"), "disk is full"), (OSError(errno.EROFS, "x"), "can only be read"),
     (OSError(errno.EIO, "x"), "Input/output error"), (OSError("odd"), "refused")],
    ids=["full", "read only", "broken", "odd"],
)  # fmt: skip
def test_a_page_says_that_nothing_was_kept_and_stays_with_what_was_typed(address, error, why):
    client = TestClient(create_app(_Refusing(error)), base_url=LOOPBACK)
    client.get("/r/t")
    answer = does(client, "left", address, note="my words", tag="clearer")
    assert answer.status_code == 507
    assert "NOT kept" in answer.text
    assert why in answer.text
    assert 'role="alert"' in answer.text
    assert "secret" not in answer.text
    assert "my words</textarea>" in answer.text
    assert "checked" in answer.text
    assert fields_of(answer.text)["showing"] == "s1"


def test_a_real_log_that_cannot_be_written_keeps_nothing_and_goes_on_once_it_can(review, ann, monkeypatch):
    does(ann, "left")
    write = json.dumps(lines_of(review, "ann"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("tiebreak.review.votes.os.write", full)
        answer = does(ann, "tie")
    assert answer.status_code == 507
    assert json.dumps(lines_of(review, "ann")) == write
    assert does(ann, "tie").status_code == 200
    assert [one["choice"] for one in lines_of(review, "ann")] == ["left", "tie"]


def _edited(file):
    file.write_text(file.read_text().replace('"left"', '"tie"', 1))


def _a_folder(file):
    file.unlink()
    file.mkdir()


def _around(file):
    file.unlink()
    file.symlink_to(file.name)


def _of_other_settings(file):
    """As if review.json had changed: a vote that fits its log, on what was not shown so."""
    row = json.loads(file.read_text())
    row["shown"] = {"left": row["shown"]["right"], "right": row["shown"]["left"]}
    log = Log(file, "ann", json.loads((file.parents[1] / "review.json").read_text())["items_digest"])
    file.unlink()
    log.append({name: value for name, value in row.items() if name != "seal"})


@pytest.mark.parametrize("damage", [_edited, _a_folder, _around, _of_other_settings])
def test_a_log_that_cannot_be_used_is_one_line_and_where_it_lies_is_told_to_the_owner_alone(
    review, ann, damage, caplog
):
    client = TestClient(ann.app, base_url=LOOPBACK)  # raises what a server would write as a traceback
    client.cookies = ann.cookies
    page = fields_of(client.get("/").text)
    does(client, "left")
    damage(review.folder / "votes" / "ann.jsonl")
    answers = [client.get("/")]
    if damage is not _of_other_settings:  # there another choice is one that fits
        answers += [client.post(f"/{do}", data=page | {"choice": "left"}) for do in ("choose", "undo", "look")]
    for answer in answers:
        assert (answer.status_code, answer.text.count("\n")) == (500, 1)
        assert "Your votes cannot be read" in answer.text
        assert str(review.folder) not in answer.text
    client.get(f"/r/{owner_token(review)}", follow_redirects=False)
    answer = client.get("/results")
    assert (answer.status_code, answer.text.count("\n")) == (500, 1)
    assert str(review.folder / "votes" / "ann.jsonl") in answer.text
    assert {str(review.folder / "votes" / "ann.jsonl") in record.message for record in caplog.records} == {True}


def test_a_refusal_of_the_folder_is_one_line_without_a_traceback():
    client = TestClient(create_app(_Refusing(RunError("/secret/place: is a link"))), base_url=LOOPBACK)
    client.get("/r/t")
    answer = does(client, "left")
    assert (answer.status_code, answer.text.count("\n"), "secret" in answer.text) == (500, 1, False)


def test_a_comparison_is_changed_so_often_and_no_more_and_the_disk_stays_free(review, ann):
    sent = fields_of(ann.get("/").text) | {"choice": "left", "note": "語" * 4000}
    for number in range(100):
        assert ann.post("/choose", data=sent, follow_redirects=False).status_code == 303, number
    for address in ("/choose", "/undo"):
        answer = ann.post(address, data=sent)
        assert (answer.status_code, answer.text) == (
            400,
            "this comparison was changed 100 times, and stays as it is now\n",
        )
    assert does(ann, "right").status_code == 200  # the next one
    assert [one.choice for one in review.votes("ann")] == ["left", "right"]
    assert (review.folder / "votes" / "ann.jsonl").stat().st_size < 100 * (3 * 4000 + 500)


def test_votes_that_were_taken_back_count_among_the_changes(review, ann):
    for _ in range(99):
        does(ann, "left")
        does(ann, "", "/undo")
    does(ann, "tie")
    assert ann.post("/undo", data=fields_of(ann.get("/").text)).status_code == 400
    assert [one.choice for one in open_review(review.folder).votes("ann")] == ["tie"]


def test_what_was_said_beside_a_choice_comes_back_with_undo_and_goes_with_the_next_choice(review, ann):
    said = {"note": "wait & see", "tag": "safer", "reason": "both odd"}
    does(ann, "skip", **said)
    does(ann, "left", note="another")
    for back in ("another", "wait &amp; see"):
        page = does(ann, "", "/undo").text
        assert f"{back}</textarea>" in page
        assert f"{back}</textarea>" in browser(review, "ann").get("/").text  # from the log: a reload keeps it
        assert page == ann.get("/?kept=undone").text
    assert re.search(r'value="safer" checked', page)
    assert 'value="both odd"' in page
    does(ann, "right")
    assert "wait" not in ann.get("/").text
    assert "note" not in lines_of(review, "ann")[-1]


def test_a_fault_of_ours_is_one_line_and_names_nothing(review):
    client = TestClient(create_app(_Refusing(ZeroDivisionError("/secret/place"))), base_url=LOOPBACK,
                        raise_server_exceptions=False)  # fmt: skip
    client.get("/r/t")
    answer = does(client, "left")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.text.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------- blind


def test_no_answer_holds_which_side_is_which_or_where_it_comes_from(tmp_path):
    review = review_of(tmp_path / "review", items_of(60), ("ann", "ben"))
    items = review.items
    for name in ("ann", "ben"):
        client, ids = browser(review, name), set()
        answers = [client.get(path) for path in ADDRESSES]
        _, total = review.progress(name)
        assert total > 60, "some items come again"
        for number in range(total):
            page = client.get("/")
            sent = fields_of(page.text)
            ids.add(sent["showing"])
            answers += [page, client.post("/look", data={**sent, "look": "differences"})]
            answers.append(client.post("/choose", data={**sent, "choice": ("left", "tie", "skip")[number % 3]}))
        answers += [client.get("/"), client.post("/undo", data=sent), client.post("/choose", data=sent)]
        assert len(ids) == total
        for answer in answers:
            headers = str({**answer.headers, "content-security-policy": ""})
            for secret in (*SECRETS, *items, str(review.folder), owner_token(review)):
                assert secret not in answer.text, secret
                assert secret not in headers, secret


def test_a_showing_that_comes_again_looks_like_one_that_does_not(tmp_path):
    """All that differs between two showings of one item is what differs between those of any two."""
    review = review_of(tmp_path / "review", items_of(60))
    client = browser(review, "ann")
    shapes, texts = set(), []
    for _ in range(review.progress("ann")[1]):
        page = client.get("/").text
        texts.append(re.search(r"lay tile (\d+)", page)[1])
        plain = re.sub(r"[0-9a-f]{32,64}|\d+", "#", page)
        shapes.add(re.sub(r"Cut #[^<]*|Call #\.", "?", plain))
        does(client, "left")
    assert len(texts) > len({*texts})
    assert len(shapes) == 1


# -------------------------------------------------------------------------------------------------------------- hostile


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


OURS = {
    "html", "head", "meta", "title", "link", "script", "body", "p", "main", "header", "h1", "h2", "h3", "div", "span",
    "progress", "section", "details", "summary", "form", "button", "input", "fieldset", "legend", "label", "kbd",
    "textarea", "footer", "mark", "em", "ul", "ol", "li", "pre", "code", "strong", "br", "hr", "blockquote", "table",
    "thead", "tbody", "tr", "th", "td", "s",
}  # fmt: skip


def _check(page: str) -> None:
    elements = _Elements()
    elements.feed(page)
    assert {tag for tag, _ in elements.found} <= OURS
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "href", "srcdoc")] or (
            tag == "link"
        ), (tag, attributes)
        if tag in ("script", "img"):
            assert attributes == {"src": "/review.js", "defer": None}
    assert not ACTIVE.search(page.replace("\r", ""))


MARKDOWN = {
    "link": "[x](javascript:alert(1)) [y](https://evil.example) <https://evil.example>",
    "image": "![x](https://evil.example/x.png)",
    "definition": "[a][b]\n\n[b]: https://evil.example 'x'",
    "entity": "&#x202e; &#0; &#x1b;[31m &lt;script&gt;",
    "fence": '```"><script>alert(1)</script>\nx\n```',
    "table": "|<b>|b|\n|-|-|\n|`<i>`|2|",
    "markup": "<div onclick=alert(1)>\n\n<script>alert(1)</script>",
    "deep": ">" * 3000 + "x",
    "brackets": "[" * 3000 + "*" * 3000,
}


@pytest.mark.parametrize("text", [HOSTILE, "\ud800 half", *TERMINAL.values(), *HTML.values(), *MARKDOWN.values()],
                         ids=lambda text: ascii(text[:12]))  # fmt: skip
def test_whatever_prompt_answers_notes_and_names_say_is_text(tmp_path, text):
    prompt = tuple(Message(role, text, text) for role in ("system", "user", "assistant", "tool", "user"))
    name = re.sub(r"\s", "_", text)[:60] if text.isprintable() else "ann"
    review = review_of(tmp_path / "review", [Item("i-1", prompt, text, f"{text} {text}")], (name,), tags=(name,))
    client = browser(review, name)
    pages = [client.get("/").text]
    for look in ("differences", "markdown"):
        pages.append(does(client, "", "/look", look=look, note=text.encode("utf-8", "replace").decode()).text)
    pages.append(does(client, "left", note=text.encode("utf-8", "replace").decode(), tag=name).text)
    for page in pages:
        _check(page)
    if text.isprintable() and "\\" not in text:
        assert html.escape(text, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in pages[0]


def test_texts_of_all_scripts_lie_in_the_direction_of_their_first_letter(tmp_path):
    review = review_of(tmp_path / "review", items_of(1, "مرحبا؟", "日本語の答え", "שלום"))
    page = browser(review, "ann").get("/").text
    assert page.count('dir="auto"') == 5
    assert "日本語の答え" in page
    assert "مرحبا؟" in page


def test_a_megabyte_without_a_blank_is_answered_whole_in_a_moment(tmp_path):
    import time

    review = review_of(tmp_path / "review", items_of(1, "x" * 10**6, "y" * 10**6, "# z*" * 250_000))
    client = browser(review, "ann")
    began = time.perf_counter()
    page = client.get("/").text
    assert "y" * 10**6 in page
    for look in ("differences", "markdown"):
        assert "too long" in client.post("/look", data={**fields_of(page), "look": look}).text
    assert time.perf_counter() - began < 5
