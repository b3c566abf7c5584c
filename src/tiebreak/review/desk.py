"""A review: who may vote, what each of them has at hand, and what they chose.

Owns the one rule about it: what people are shown follows from review.json and items.jsonl, and what they chose from the
logs. Nothing that it hands out of a showing says which completion is which.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiebreak.errors import DataError, one_line
from tiebreak.fingerprint import derive_seed
from tiebreak.records import Message
from tiebreak.review.evidence import Results
from tiebreak.review.folder import (
    ITEMS,
    SETTINGS,
    Settings,
    check_asked,
    digest_of,
    is_review,
    items_content,
    log_file,
    read_folder,
    require_same,
    write_folder,
)
from tiebreak.review.items import Item, gather
from tiebreak.review.order import Turn, turns
from tiebreak.review.queue import Queue
from tiebreak.review.results import results
from tiebreak.review.showing import Draft, Showing, said, sayable
from tiebreak.review.votes import CHOICES, CLEARLY, MAX_LINES, MAX_NOTE, DamagedLog, Log, Place, State, Vote

REASONS = ("correct", "clearer", "safer", "shorter", "follows format")
"""Tags for reasons, where a review names none."""


class Review:
    """One review, opened; calls from several threads take turns."""

    def __init__(self, folder: Path, settings: Settings, items: Sequence[Item], links: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.tags, self.strength = settings.tags, settings.strength
        self.items: Mapping[str, Item] = {item.id: item for item in items}
        self._owner, self._tokens = str(links["owner"]), {name: str(links["people"][name]) for name in self.annotators}
        # Names and texts are known to those who vote: without a secret the order would say which side is which.
        secret = derive_seed(settings.seed, "order", self._owner)
        self._turns = turns(list(self.items), settings.annotators, settings.per_item, secret)
        self._ids = {name: {self._id(name, turn): turn for turn in own} for name, own in self._turns.items()}
        self._logs = {name: Log(log_file(folder, name), name, settings.items_digest) for name in self.annotators}
        self._lock = threading.RLock()
        self._queue = Queue(Path(settings.source["path"])) if settings.source.get("kind") == "queue" else None

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who votes."""
        return self.settings.annotators

    def is_of(self, source: Path) -> bool:
        """Whether a source gives the items of this review; raises as `gather` does where it gives none."""
        found = gather(source, self.settings.items, self.settings.seed).items
        return digest_of(items_content(found)) == self.settings.items_digest

    # ------------------------------------------------------------------------------------------------ who asks

    def person(self, token: str) -> str | None:
        """Return whose link has a token, None where nobody's has; how long it takes says nothing."""
        found = None
        for name, own in self._tokens.items():
            if _same(own, token):
                found = name
        return found

    def is_owner(self, token: str) -> bool:
        """Whether a token is that of whoever made the review."""
        return _same(self._owner, token)

    def links(self, base: str) -> dict[str, str]:
        """Return the link of each annotator, below an address such as http://127.0.0.1:8090."""
        return {name: f"{base}/r/{token}" for name, token in self._tokens.items()}

    def owner_link(self, base: str) -> str:
        """Return the link of whoever made the review."""
        return f"{base}/r/{self._owner}"

    # ------------------------------------------------------------------------------------------------ what is at hand

    def at_hand(self, name: str) -> Showing | None:
        """Return what a person is to compare next; None where all is done."""
        with self._lock:
            done = self._done(name)
        own = self._turns[name]
        return next(
            (self._showing(name, number, turn) for number, turn in enumerate(own, 1) if _place(turn) not in done), None
        )

    def progress(self, name: str) -> tuple[int, int]:
        """Return how many showings of a person are done, and how many there are."""
        with self._lock:
            return len(self._done(name)), len(self._turns[name])

    def votes(self, name: str) -> list[Vote]:
        """Return a person's votes that count, one for each showing, in the order of the showings."""
        with self._lock:
            done = self._done(name)
        return [done[_place(turn)] for turn in self._turns[name] if _place(turn) in done]

    def _done(self, name: str) -> dict[Place, Vote]:
        found = self._logs[name].state().votes
        shown = {_place(turn): turn.shown for turn in self._turns[name]}
        for place, vote in found.items():
            if shown.get(place) != vote.shown:
                raise DamagedLog(
                    f"{self._logs[name].path}: holds a vote on {one_line(place[0], 40)} that {name} was not shown so; "
                    f"{SETTINGS} or {ITEMS} changed since, bring them back from a copy"
                )
        return found

    def _showing(self, name: str, number: int, turn: Turn) -> Showing:
        item = self.items[turn.item]
        left, right = (item.a, item.b) if turn.left == "a" else (item.b, item.a)
        prompt = tuple(Message(one.role, said(one), one.name) for one in item.prompt)
        total = len(self._turns[name])
        return Showing(self._id(name, turn), number, total, prompt, sayable(left), sayable(right))

    def _id(self, name: str, turn: Turn) -> str:
        secret = self._owner.encode()
        return hmac.digest(secret, json.dumps([name, turn.item, turn.again]).encode(), "sha256").hex()[:32]

    # ------------------------------------------------------------------------------------------------ what was chosen

    def choose(
        self,
        name: str,
        showing: str,
        choice: str,
        *,
        tags: Sequence[str] = (),
        note: str = "",
        strength: str | None = None,
        seconds: float | None = None,
        reason: str = "",
    ) -> None:
        """Keep what a person chose of a showing: left, right, tie, both_bad or skip; on disk before this returns.

        What was chosen before of the same showing stays in the log, and the last word counts. Raises DataError where
        it is no vote on what this person is shown, OSError where the disk takes nothing: then nothing is kept.
        """
        turn = self._ids[name].get(showing)
        if turn is None:
            raise DataError("this comparison is none of yours; load the page again")
        if choice not in CHOICES:
            raise DataError(f"{one_line(ascii(choice), 40)} is no choice; choose {', '.join(CHOICES)}")
        if unknown := [tag for tag in tags if tag not in self.tags]:
            raise DataError(
                f"{one_line(ascii(unknown[0]), 40)} is no tag of this review; it has {', '.join(self.tags)}"
            )
        if max(len(note), len(reason)) > MAX_NOTE:
            raise DataError(f"a note has at most {MAX_NOTE} characters; found {max(len(note), len(reason))}")
        if strength is not None and not (self.strength and strength == CLEARLY and choice in ("left", "right")):
            raise DataError(f"{one_line(ascii(strength), 40)} is no strength of this choice")
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise DataError("seconds are a number, 0 or more")
        vote = Vote(
            turn.item,
            name,
            choice,
            turn.shown,
            turn.again,
            tuple(dict.fromkeys(tags)),
            sayable(note),
            strength,
            None if seconds is None else round(float(seconds), 3),
            "",
            sayable(reason),
        )
        with self._lock:
            self._require_few(name, vote)
            self._logs[name].append({**vote.as_dict(), "at": _now()})
            with contextlib.suppress(OSError):  # it is kept, and told with the next one
                self.tell_queue(name)

    def undo(self, name: str) -> bool:
        """Take a person's last choice that still holds back, and return whether there was one.

        Where it had replaced an earlier one, that holds again.
        """
        with self._lock:
            if standing := self._logs[name].state().standing:
                self._require_few(name, standing[-1][1])  # it could not be chosen anew
                with contextlib.suppress(FileNotFoundError):  # a round that is gone reads nothing
                    self.tell_queue(name, State(standing[:-1]), standing[-1][1].item)
                self._logs[name].append({"undo_of": standing[-1][0], "at": _now()})
            return bool(standing)

    def draft(self, name: str) -> Draft | None:
        """Return what was said beside the choice that a person took back just now; None where it was another thing."""
        with self._lock:
            vote = self._logs[name].state().taken_back
        turn = next((turn for turn in self._turns[name] if vote and _place(turn) == (vote.item, vote.again)), None)
        return Draft(self._id(name, turn), vote.tags, vote.note, vote.reason) if turn and vote else None

    def _require_few(self, name: str, vote: Vote) -> None:
        if self._logs[name].times((vote.item, vote.again)) >= MAX_LINES:
            raise DataError(f"this comparison was changed {MAX_LINES} times, and stays as it is now")

    def tell_queue(self, name: str, state: State | None = None, taken_back: str | None = None) -> None:
        """Say in the file beside a round's queue, where these are its items, what a person's log says."""
        if self._queue is not None:
            votes = (state or self._logs[name].state()).votes
            first = {item: vote for (item, again), vote in votes.items() if not again}
            self._queue.tell(name, first, taken_back)

    def results(self, exclude: Collection[str] = ()) -> Results:
        """Return what all votes come to; `exclude` names annotators whose votes do not count, or `fast`."""
        return results(
            self.items,
            {name: self.votes(name) for name in self.annotators},
            {name: len(own) for name, own in self._turns.items()},
            sides=self.settings.source.get("sides") or {"a": "a", "b": "b"},
            exclude=exclude,
            left_out=self.settings.source.get("left_out"),
            chosen_actively=self.settings.chosen_actively,
            seed=self.settings.seed,
        )

    def torn(self) -> list[Path]:
        """Return the logs at whose end a writer that was cut off left half a line, which does not count."""
        with self._lock:
            return [log.path for log in self._logs.values() if log.is_torn]


def make(
    folder: str | Path,
    items: Sequence[Item],
    annotators: Sequence[str],
    *,
    per_item: int | None = None,
    seed: int = 0,
    tags: Sequence[str] = REASONS,
    strength: bool = False,
    chosen_actively: bool = False,
    source: Mapping[str, Any] | None = None,
    drawn: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Review:
    """Return a new review in a folder, or the one that is there, where it was made of the same.

    `per_item` says how many people see each item; None: two, or the one there is. `drawn` says how many of the
    source's items were asked for, where not all were. Raises ConfigError for names or
    numbers that cannot be, DataError where the folder holds a review of other items, RunError where it holds another
    one, or something else.
    """
    check_asked(annotators, per_item, tags)
    place, content = Path(folder), items_content(items)
    wanted = Settings(
        tuple(annotators),
        min(2, len(annotators)) if per_item is None else per_item,
        seed,
        tuple(tags),
        strength,
        chosen_actively,
        dict(source or {}),
        digest_of(content),
        drawn,
    )
    if is_review(place):
        require_same(place, read_folder(place)[0], wanted)
    else:
        write_folder(place, wanted, content)
        if wanted.per_item == 1 < len(annotators):
            say(
                "with --per-item 1 no two people see the same item: whether they agree will not be known, and the win "
                "rate is no evidence for a gate; give --per-item 2 and another --out for that"
            )
    return open_review(place, say)


def open_review(folder: str | Path, say: Callable[[str], None] = lambda _: None) -> Review:
    """Return the review in a folder; `say` is told what a writer that was cut off left in a log.

    Raises RunError where there is none, DataError where its items changed since, or a log is not as it was written.
    """
    place = Path(folder)
    review = Review(place, *read_folder(place))
    for log in review.torn():
        say(f"{log}: its last line was cut off, and does not count")
    try:
        for name in review.annotators:
            review.tell_queue(name)
    except OSError as error:
        say(f"{one_line(error, 300)}: votes are kept here, and that round learns of them once it can be written")
    return review


def _place(turn: Turn) -> Place:
    return turn.item, turn.again


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
