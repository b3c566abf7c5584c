"""A review: its folder, who may vote, what each of them has at hand, and what they chose.

Owns the folder and the one rule about it: what people are shown follows from review.json and items.jsonl, and what
they chose from the logs. Nothing that it hands out of a showing says which completion is which.

    review.json   settings, the source, the digest of the items       links.json   the tokens; for the owner alone
    items.jsonl   what is compared                                    votes/       a log for each person
"""

from __future__ import annotations

import hmac
import json
import math
import os
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import quoted
from tiebreak.errors import ConfigError, DataError, RunError, one_line
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Message
from tiebreak.review.items import Item
from tiebreak.review.order import Turn, turns
from tiebreak.review.votes import CHOICES, CLEARLY, MAX_NOTE, Log, Place, Vote

SETTINGS, ITEMS, LINKS, VOTES = "review.json", "items.jsonl", "links.json", "votes"
REASONS = ("correct", "clearer", "safer", "shorter", "follows format")
"""Tags for reasons, where a review names none."""
MAX_PEOPLE, MAX_TAGS, MAX_NAME = 100, 20, 64


@dataclass(frozen=True)
class Showing:
    """All that a browser may know of an item."""

    id: str
    """Names this showing of this person: says nothing of the item, the side or whether it comes again."""
    number: int
    total: int
    prompt: tuple[Message, ...]
    left: str
    right: str


@dataclass(frozen=True)
class Settings:
    """What a review was made with."""

    annotators: tuple[str, ...]
    per_item: int
    seed: int
    tags: tuple[str, ...]
    strength: bool
    """Whether people may say that one is clearly better."""
    chosen_actively: bool
    """Whether items were chosen by how close they are: then no win rate says anything of the rest."""
    source: Mapping[str, Any]
    items_digest: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as review.json has it."""
        return {
            "annotators": list(self.annotators),
            "per_item": self.per_item,
            "seed": self.seed,
            "tags": list(self.tags),
            "strength": self.strength,
            "chosen_actively": self.chosen_actively,
            "source": dict(self.source),
            "items_digest": self.items_digest,
        }

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Settings:
        """Return what `as_dict` gave; raises KeyError or TypeError where it is none."""
        return Settings(
            tuple(map(str, row["annotators"])),
            int(row["per_item"]),
            int(row["seed"]),
            tuple(map(str, row["tags"])),
            bool(row["strength"]),
            bool(row["chosen_actively"]),
            dict(row["source"]),
            str(row["items_digest"]),
        )


class Review:
    """One review, opened; calls from several threads take turns."""

    def __init__(self, folder: Path, settings: Settings, items: Sequence[Item], links: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.tags, self.strength = settings.tags, settings.strength
        self.items: Mapping[str, Item] = {item.id: item for item in items}
        self._owner, self._tokens = str(links["owner"]), {name: str(links["people"][name]) for name in self.annotators}
        self._turns = turns(list(self.items), settings.annotators, settings.per_item, settings.seed)
        self._ids = {name: {self._id(name, turn): turn for turn in own} for name, own in self._turns.items()}
        self._logs = {name: Log(_log_file(folder, name), name, settings.items_digest) for name in self.annotators}
        self._lock = threading.RLock()

    @property
    def annotators(self) -> tuple[str, ...]:
        """Who votes."""
        return self.settings.annotators

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

    def turns_of(self, name: str) -> tuple[Turn, ...]:
        """Return all that a person is shown, in order."""
        return self._turns[name]

    def _done(self, name: str) -> dict[Place, Vote]:
        found = self._logs[name].state().votes
        shown = {_place(turn): turn.shown for turn in self._turns[name]}
        for place, vote in found.items():
            if shown.get(place) != vote.shown:
                raise DataError(
                    f"{self._logs[name].path}: holds a vote on {one_line(place[0], 40)} that {name} was not shown so; "
                    f"{SETTINGS} or {ITEMS} changed since, bring them back from a copy"
                )
        return found

    def _showing(self, name: str, number: int, turn: Turn) -> Showing:
        item = self.items[turn.item]
        left, right = (item.a, item.b) if turn.left == "a" else (item.b, item.a)
        prompt = tuple(Message(one.role, _sayable(one.content), one.name) for one in item.prompt)
        total = len(self._turns[name])
        return Showing(self._id(name, turn), number, total, prompt, _sayable(left), _sayable(right))

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
            raise DataError(f"{one_line(ascii(unknown[0]), 40)} is no tag of this review; it has {', '.join(self.tags)}")
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
            _sayable(note),
            strength,
            None if seconds is None else round(float(seconds), 3),
            "",
            _sayable(reason),
        )
        with self._lock:
            self._logs[name].append({**vote.as_dict(), "at": _now()})

    def undo(self, name: str) -> Showing | None:
        """Take a person's last choice that still holds back, and return what is at hand then.

        Where it had replaced an earlier one, that holds again. Nothing happens where nothing was chosen.
        """
        with self._lock:
            if standing := self._logs[name].state().standing:
                self._logs[name].append({"undo_of": standing[-1][0], "at": _now()})
            return self.at_hand(name)

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
) -> Review:
    """Return a new review in a folder, or the one that is there, where it was made of the same.

    `per_item` says how many people see each item; None: two, or the one there is. Raises ConfigError for names or
    numbers that cannot be, DataError where the folder holds a review of other items, RunError where it holds another
    one, or something else.
    """
    place = Path(folder)
    _check(annotators, per_item, tags)
    content = "".join(json.dumps(item.as_dict()) + "\n" for item in items).encode()
    digest = fingerprint(content.decode())
    num = min(2, len(annotators)) if per_item is None else per_item
    wanted = Settings(
        tuple(annotators), num, seed, tuple(tags), strength, chosen_actively, dict(source or {}), digest
    )  # fmt: skip
    if (place / SETTINGS).exists():
        found = open_review(place)
        _require_same(place, found.settings, wanted)
        return found
    if place.exists() and not place.is_dir():
        raise RunError(f"{place}: is no folder; choose another --out")
    if place.is_dir() and (others := sorted({one.name for one in place.iterdir()} - {ITEMS, LINKS, VOTES, ".lock"})):
        raise RunError(f"{place}: holds {one_line(others[0], 60)} and is no review; choose another --out")
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.refuse_links(place)
    files.sweep(place)
    (place / VOTES).mkdir(exist_ok=True, mode=0o700)
    files.write_bytes(place / ITEMS, content)
    _write_links(place / LINKS, annotators)
    files.write_json(place / SETTINGS, wanted.as_dict())
    return open_review(place)


def open_review(folder: str | Path, say: Callable[[str], None] = lambda _: None) -> Review:
    """Return the review in a folder; `say` is told what a writer that was cut off left in a log.

    Raises RunError where there is none, DataError where its items changed since, or a log is not as it was written.
    """
    place = Path(folder)
    if not (place / SETTINGS).is_file():
        raise RunError(f"{place}: holds no {SETTINGS}; {_ask('RUN')} makes a review")
    files.refuse_links(place)
    try:
        settings = Settings.from_dict(files.read_json_object(place / SETTINGS))
        links = files.read_json_object(place / LINKS)
        if {*links["people"]} != {*settings.annotators} or not isinstance(links["owner"], str):
            raise KeyError
    except (LookupError, TypeError, ValueError, AttributeError):
        raise RunError(f"{place}: its {SETTINGS} or {LINKS} is not what was written; bring it back from a copy") from None
    content = (place / ITEMS).read_bytes() if (place / ITEMS).is_file() else b""
    try:
        text = content.decode("utf-8")
        if fingerprint(text) != settings.items_digest:
            raise ValueError
        items = [Item.from_dict(json.loads(line)) for line in text.split("\n") if line]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{place / ITEMS}: changed since the review was made, and votes would be on something else; bring it back "
            "from a copy, or make a new review with another --out"
        ) from None
    review = Review(place, settings, items, links)
    for log in review.torn():
        say(f"{log}: its last line was cut off, and does not count")
    return review


def _ask(path: str) -> str:
    return f"'tiebreak review {path} --annotators NAMES'"


def _check(annotators: Sequence[str], per_item: int | None, tags: Sequence[str]) -> None:
    if not 1 <= len(annotators) <= MAX_PEOPLE:
        raise ConfigError(f"--annotators: wanted 1 to {MAX_PEOPLE} names; found {len(annotators)}")
    for what, most, given in (("--annotators", MAX_NAME, annotators), ("--tags", MAX_NAME, tags)):
        for one in given:
            if not 1 <= len(one) <= most or not one.isprintable() or one != one.strip():
                raise ConfigError(f"{what}: {one_line(ascii(one), 80)}: wanted 1 to {most} characters that can be read")
        if len({one.casefold() for one in given}) != len(given):
            raise ConfigError(f"{what}: a name is there twice")
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"--tags: at most {MAX_TAGS}; found {len(tags)}")
    if per_item is not None and not 1 <= per_item <= len(annotators):
        raise ConfigError(f"--per-item {per_item}: wanted 1 to {len(annotators)}, as there are annotators")


def _require_same(place: Path, found: Settings, wanted: Settings) -> None:
    """Raise where a folder holds a review of something else."""
    if found.items_digest != wanted.items_digest:
        raise DataError(
            f"{place}: holds a review of other items than these; they changed since, or are another file's: choose "
            f"another --out, or go on with 'tiebreak review {quoted(str(place))}'"
        )
    before, now = found.as_dict(), wanted.as_dict()
    for name in ("annotators", "per_item", "seed", "tags", "strength", "chosen_actively"):
        if before[name] != now[name]:
            told = one_line(json.dumps(before[name], ensure_ascii=False), 80)
            option = "--choose" if name == "chosen_actively" else "--" + name.replace("_", "-")
            raise RunError(f"{place}: was made with {option} {told}; give the same, or choose another --out")


def _write_links(path: Path, annotators: Sequence[str]) -> None:
    """Write the tokens, 128 random bits each, for the owner's eyes alone; never over those that are there."""
    told = {"owner": secrets.token_urlsafe(16), "people": {name: secrets.token_urlsafe(16) for name in annotators}}
    path.unlink(missing_ok=True)  # of a making that was cut off: nobody was told these
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(files.as_json(told))
        file.flush()
        os.fsync(file.fileno())


def _log_file(folder: Path, name: str) -> Path:
    """Return a person's log; names that could be a path, or are long, are spelled by a hash."""
    plain = re.fullmatch(r"[A-Za-z0-9][\w-]{0,60}", name, re.ASCII)
    return folder / VOTES / f"{name if plain else 'n-' + fingerprint(name)[:16]}.jsonl"


def _place(turn: Turn) -> Place:
    return turn.item, turn.again


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


def _sayable(text: str) -> str:
    """Return a text that can be sent: halves of characters, which no encoding has, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
