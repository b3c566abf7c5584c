"""The pages of a review: one item at a time for whoever compares, and what came of it for whoever asked.

Owns the addresses, and what people are told of what they did. A page is one form that works without a script; with one,
the same answers of the server are put into the page that is open. What an item is, and what is kept of a choice, is
known to the desk alone: nothing else of it can reach a browser.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from importlib import resources
from typing import Annotated, Any

import jinja2
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp

from tiebreak.config import quoted
from tiebreak.errors import DataError, TiebreakError
from tiebreak.reporting.look import COLOURS
from tiebreak.reporting.visible import harmless, visible
from tiebreak.review.desk import Review
from tiebreak.review.entry import NOBODY, Entry, Form, Guest, form_of, owner_only, person_of, remember
from tiebreak.review.scene import LOOKS, scene
from tiebreak.review.showing import Showing
from tiebreak.review.votes import CLEARLY, DamagedLog

MOST_REASON = 200

CHOICES = {
    "left": ("Left is better", "1", "ArrowLeft"),
    "right": ("Right is better", "2", "ArrowRight"),
    "tie": ("Equally good", "0", "t"),
    "both_bad": ("Both are bad", "b", ""),
}
STRONGER = {"clearly_left": ("Left, clearly", "3", ""), "clearly_right": ("Right, clearly", "4", "")}

_SAID = {
    "left": "Kept: left is better.",
    "right": "Kept: right is better.",
    "clearly_left": "Kept: left is clearly better.",
    "clearly_right": "Kept: right is clearly better.",
    "tie": "Kept: equally good.",
    "both_bad": "Kept: both are bad.",
    "skip": "Skipped.",
    "undone": "The last choice is taken back: choose anew.",
    "nothing": "There is no choice to take back.",
}

_LOG = logging.getLogger("uvicorn.error")
_NOT_KEPT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk's share of whoever started the review is used up",
    errno.EROFS: "the disk can only be read",
    errno.EACCES: "the folder of the review may not be written",
}

TheForm = Annotated[Form, Depends(form_of)]


def create_app(review: Review, hosts: tuple[str, ...] = ()) -> ASGIApp:
    """Return the pages of a review; `hosts` are names by which others may reach it, beside those of this machine."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    desk = _Desk(review)
    for path, answer in desk.pages().items():
        app.get(path)(answer)
    for path, answer in desk.forms().items():
        app.post(path)(answer)
    for name, kind in (("review.css", "text/css"), ("review.js", "text/javascript")):
        app.get(f"/{name}")(_own(name, kind))
    app.get("/favicon.ico")(lambda: Response(status_code=204))  # browsers ask unasked
    _answer_errors(app)
    return Entry(app, hosts)


class _Desk:
    """What is answered; the review takes several threads in turn."""

    def __init__(self, review: Review) -> None:
        self._review = review
        self._templates = _environment()

    def pages(self) -> dict[str, Callable[..., Response]]:
        """Return what can be looked at, by its address."""
        return {"/": self.at_hand, "/r/{token}": self.enter, "/results": self.results}

    def forms(self) -> dict[str, Callable[..., Response]]:
        """Return what can be done, by its address."""
        return {"/choose": self.choose, "/undo": self.undo, "/look": self.look}

    def enter(self, request: Request, token: str) -> Response:
        """Take a link: remember the token, and lead on without it."""
        owner = self._review.is_owner(token)
        if not owner and self._review.person(token) is None:
            raise HTTPException(404, NOBODY)
        where = "/results" if owner else "/"
        answer: Response = RedirectResponse(where, 303)
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # Whoever comes from another page (a mail, a chat) brings the cookie only once a page of ours sends them.
            answer = self._page("enter", where=where)
        remember(request, answer, token, owner=owner)
        return answer

    def at_hand(self, request: Request, kept: str = "", look: str = "") -> Response:
        """Show what is to be compared next, or that all is done."""
        return self._show(person_of(request, self._review), look=look, said=_SAID.get(kept, ""))

    def choose(self, request: Request, form: TheForm) -> Response:
        """Keep a choice and go on; where it cannot be kept, say so and stay."""
        guest = self._guest(request, form)
        chosen = form.one("choice")
        side = {"clearly_left": "left", "clearly_right": "right"}.get(chosen)
        try:
            self._review.choose(
                guest.name,
                form.one("showing"),
                side or chosen,
                tags=form.many("tag"),
                note=form.one("note").replace("\r\n", "\n"),
                strength=CLEARLY if side else None,
                seconds=_seconds(form.one("seconds")),
                reason=form.one("reason")[:MOST_REASON] if chosen == "skip" else "",
            )
        except OSError as error:
            return self._show(guest, form, failed=_not_kept("Your choice", error))
        return self._went_on(request, guest, form, chosen)

    def undo(self, request: Request, form: TheForm) -> Response:
        """Take the last choice back and show its item."""
        guest = self._guest(request, form)
        try:
            moved = self._review.undo(guest.name)
        except OSError as error:
            return self._show(guest, form, failed=_not_kept("That you take it back", error))
        return self._went_on(request, guest, form, "undone" if moved else "nothing")

    def look(self, request: Request, form: TheForm) -> Response:
        """Show the same item otherwise; what was typed stays, and nothing is kept."""
        return self._show(self._guest(request, form), form, look=form.one("look"))

    def results(self, request: Request) -> Response:
        """Show the owner what came of it so far."""
        owner_only(request, self._review)
        return self._page("results", results=self._review.results(), folder=quoted(str(self._review.folder)))

    def _guest(self, request: Request, form: Form) -> Guest:
        guest = person_of(request, self._review)
        form.check(guest)
        return guest

    def _went_on(self, request: Request, guest: Guest, form: Form, did: str) -> Response:
        # Whoever reads Markdown reads the next answers so, too; where two differ is looked for each time.
        look = "markdown" if form.one("seen") == "markdown" else ""
        # A script puts the answer into its page; a browser without one would send the form anew on a reload.
        if request.headers.get("x-part") == "main":
            return self._show(guest, look=look, said=_SAID[did])
        return RedirectResponse(f"/?kept={did}{'&look=markdown' if look else ''}", 303)

    def _show(
        self, guest: Guest, form: Form | None = None, look: str = "", said: str = "", failed: str = ""
    ) -> Response:
        showing = self._review.at_hand(guest.name)
        done, total = self._review.progress(guest.name)
        told = {"guest": guest, "done": done, "total": total, "said": said, "failed": failed}
        if showing is None:
            return self._page("end", 507 if failed else 200, **told)
        draft = form if form and form.one("showing") == showing.id else self._taken_back(guest, showing)
        shown = scene(showing, look if look in LOOKS else "text")
        choices = CHOICES | (STRONGER if self._review.strength else {})
        return self._page(
            "item", 507 if failed else 200, showing=showing, scene=shown, choices=choices,
            tags=self._review.tags, draft=draft, most_reason=MOST_REASON, **told,
        )  # fmt: skip

    def _taken_back(self, guest: Guest, showing: Showing) -> Form:
        """Return what was said beside the choice that was just taken back, where it is what is shown."""
        draft = self._review.draft(guest.name)
        if draft is None or draft.showing != showing.id:
            return Form({})
        return Form({"tag": draft.tags, "note": [draft.note], "reason": [draft.reason]})

    def _page(self, name: str, status: int = 200, /, **told: Any) -> Response:
        return HTMLResponse(self._templates.get_template(f"{name}.html.j2").render(**told), status)


def _environment() -> jinja2.Environment:
    """Return the environment of the templates: what they print is made visible, and then escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tiebreak.review"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: harmless(value) if type(value) is str else value,
    )
    environment.filters["percent"] = lambda share: "–" if share is None else f"{100 * share:.1f} %"
    environment.filters["number"] = lambda value: "–" if value is None else f"{value:.2f}"
    return environment


def _own(name: str, kind: str) -> Callable[[], Response]:
    text = resources.files("tiebreak.review").joinpath("static", name).read_text(encoding="utf-8")
    if kind == "text/css":
        light, dark = (" ".join(f"--{one}:{both[place]};" for one, both in COLOURS.items()) for place in (0, 1))
        schemes = f":root {{ {light} }}\n@media screen and (prefers-color-scheme:dark) {{ :root {{ {dark} }} }}\n"
        text = schemes + text

    def answer() -> Response:
        return Response(text, media_type=kind)

    return answer


def _seconds(told: str) -> float | None:
    """Return how long a script saw the item; None where there was none, or it says what cannot be."""
    try:
        seconds = float(told)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e7 else None


def _not_kept(what: str, error: OSError) -> str:
    why = _NOT_KEPT.get(error.errno or 0, os.strerror(error.errno) if error.errno else "the disk refused it")
    return (
        f"{what} was NOT kept: {why}. You are still at the same item; tell whoever sent you the link, then try again."
    )


def _answer_errors(app: FastAPI) -> None:
    """Let every error be one line of plain text."""

    def of_the_framework(_: Request, error: Any) -> Response:
        of_ours = {"Not Found": NOBODY, "Method Not Allowed": "This address takes another method."}
        detail = of_ours.get(error.detail, str(error.detail))
        return PlainTextResponse(visible(detail) + "\n", error.status_code, error.headers)

    def of_what_was_asked(_: Request, error: Any) -> Response:
        return PlainTextResponse(visible(error, 1000) + "\n", 400)

    def of_a_log(request: Request, error: Any) -> Response:
        """Say to the owner, who alone gets as far as the results, where it lies: that is nobody's matter who votes."""
        _LOG.error("%s", visible(error, 1000))
        told = visible(error, 1000) if request.url.path == "/results" else error.for_voters
        return PlainTextResponse(told + "\n", 500)

    def of_the_disk(request: Request, error: Any) -> Response:
        _LOG.error("%s", visible(error, 1000))
        return of_ours(request, error)

    def of_ours(_: Request, __: Any) -> Response:
        return PlainTextResponse(
            "The page failed and nothing was kept of what you did last; the server's window says more.\n", 500
        )

    app.add_exception_handler(HTTPException, of_the_framework)
    app.add_exception_handler(DamagedLog, of_a_log)
    app.add_exception_handler(DataError, of_what_was_asked)
    app.add_exception_handler(OSError, of_the_disk)
    app.add_exception_handler(TiebreakError, of_the_disk)
    app.add_exception_handler(RequestValidationError, lambda *_: PlainTextResponse(NOBODY + "\n", 404))
    app.add_exception_handler(Exception, of_ours)
