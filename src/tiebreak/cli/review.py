"""The command review: parse, open or make a review, serve it or say what its votes come to, exit.

Owns its options, and where a review lies unless it is told.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from tiebreak.cli.completion import run_folders
from tiebreak.cli.data import Json, Quiet, examples
from tiebreak.config import in_quotes, quoted
from tiebreak.errors import ConfigError, TiebreakError, require_name
from tiebreak.reporting import console


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog=examples(
            "tiebreak review runs/quickstart --annotators ann,ben",
            "tiebreak review runs/quickstart --items 40 --annotators ann,ben --out short.review",
            "tiebreak review answers.jsonl --annotators ann,ben,cem --per-item 2 --out answers.review",
            "tiebreak review runs/quickstart.review",
            "tiebreak review runs/quickstart.review --results --json",
            "tiebreak review runs/quickstart.review --results --exclude fast --exclude ben",
        )
    )(review)


def review(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE|REVIEW",
            help="Run folder (before against after), file of two completions a row, a round's queue, or a review.",
            autocompletion=run_folders,
        ),
    ],
    annotators: Annotated[
        str | None, typer.Option("--annotators", metavar="NAMES", help="Who votes: ann,ben; none: me.")
    ] = None,
    per_item: Annotated[
        int | None, typer.Option("--per-item", metavar="N", min=1, help="How many people see each item.")
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", metavar="N", min=1, help="How many items, drawn by chance; none: all.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="The review's folder; none: RUN.review.")
    ] = None,
    tags: Annotated[
        str | None, typer.Option("--tags", metavar="TAGS", help="Reasons that may be named: correct,clearer,…")
    ] = None,
    strength: Annotated[bool, typer.Option("--strength", help="Let people say that one is clearly better.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of sides, orders and what is drawn.")] = 0,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0: any that is free.")] = 8090,
    results: Annotated[
        bool, typer.Option("--results", help="Say what the votes come to and write it down; nothing is served.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="NAME", help="With --results: whose votes do not count, or fast; repeatable."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let people choose the better of two answers, blind, on a page; their votes become pairs and evidence."""
    require_name(source, "what is to be reviewed")
    for option, name in (("--out", out), ("--annotators", annotators)):
        if name is not None:
            require_name(name, option)
    if exclude and not results:
        raise ConfigError("--exclude goes with --results: votes are always kept, and there they do not count")
    asked = _Asked(annotators, per_item, items, tags, seed, strength)
    if results and any(asked):
        raise ConfigError("--results says what is there: a review stays as it was made; give no option of a new one")
    opened = _opened(source, out, asked, results=results, quiet=quiet)
    if results:
        _conclude(opened, exclude or [], Path(source), as_json=as_json, quiet=quiet)
    else:
        _serve(opened, host, port, as_json=as_json, quiet=quiet)


class _Asked(NamedTuple):
    """What a new review is to be like; of one that is there nothing of it can be asked."""

    annotators: str | None
    per_item: int | None
    items: int | None
    tags: str | None
    seed: int
    strength: bool


def _opened(
    source: str,
    out: str | None,
    asked: _Asked,
    *,
    results: bool,
    quiet: bool,
) -> Any:
    """Return the review that is there, or a new one."""
    from tiebreak.review import desk, folder
    from tiebreak.review.items import gather

    say = (lambda _: None) if quiet else console.Console().warn
    place = Path(source.rstrip("/") or "/")
    if folder.is_review(place):
        if any(asked) or out:
            raise ConfigError(
                f"{place}: is a review already, and stays as it was made; give no other option than --port"
            )
        return desk.open_review(place, say)
    named = place if place.name and place.name != ".." else place.resolve()
    into = Path(out) if out is not None else named.parent / f"{named.name}.review"
    if results or (folder.is_review(into) and not any(asked)):
        found = desk.open_review(into, say)
        if not results and place.exists():  # what it was made of may be gone
            try:
                if not found.is_of(place):
                    say(f"{into}: is of what {place} said when it was made, which changed; another --out begins anew")
            except TiebreakError as error:
                say(f"{error}; {into} is of what stood there when it was made, and goes on")
        return found
    gathered = gather(place, asked.items, asked.seed)
    return desk.make(
        into,
        gathered.items,
        _listed(asked.annotators) or ["me"],
        per_item=asked.per_item,
        seed=asked.seed,
        tags=_listed(asked.tags) if asked.tags is not None else desk.REASONS,
        strength=asked.strength,
        source={**gathered.source, "left_out": dict(gathered.left_out)},
        drawn=asked.items,
        say=say,
    )


def _listed(text: str | None) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()] if text else []


def _conclude(review: Any, exclude: list[str], named: Path, *, as_json: bool, quiet: bool) -> None:
    from tiebreak.review.outcome import conclude, next_step
    from tiebreak.review.saying import lines

    found = conclude(review, exclude, named)
    if as_json:
        console.print_json(found.as_dict())
        return
    console.print_text("\n".join(lines(found)))
    if not quiet:
        console.print_text(next_step(found, review.folder))


def _serve(review: Any, host: str, port: int, *, as_json: bool, quiet: bool) -> None:
    _require_extra()
    from tiebreak.review.serving import Open, serve
    from tiebreak.service.listening import Address

    def say(told: Open) -> None:
        left_out = review.settings.source.get("left_out") or {}
        if as_json:
            facts = {"dir": str(review.folder), "num_items": len(review.items), "left_out": left_out}
            console.print_json({**facts, "url": told.url, "links": told.links, "owner": told.owner})
        else:
            console.print_text(f"{len(review.items)} items in {quoted(str(review.folder))}")
            if left_out:
                console.print_text(f"not asked: {', '.join(f'{num} {reason}' for reason, num in left_out.items())}")
            for name, link in told.links.items():
                console.print_text(f"{name}:  {link}")
            console.print_text(f"results, for you alone:  {told.owner}")
            if not quiet:
                again = in_quotes(f"tiebreak review {quoted(str(review.folder))}")
                console.print_text(f"Ctrl-C ends it; votes are kept, and {again} goes on")
        if not told.is_here:
            console.Console().warn(
                f"--host {host}: others in this network reach the page, and links and votes travel unencrypted; "
                "whoever sees a link can vote with it"
            )
        if told.name:
            console.Console().warn(
                f"links name this machine {told.name}: it must be reachable under that name; --host with its address "
                "makes links of that"
            )
        sys.stdout.flush()  # whoever reads it from a pipe waits for it

    serve(review, Address(host, port), say)


def _require_extra() -> None:
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise ConfigError(f"review needs {error.name} to serve a page; pip install 'tiebreak[serve]'") from None
    del fastapi, uvicorn
