"""The folder of a review: what it was made with, its items, and the tokens of its links.

Owns these files and what may be asked for. A folder that is not as it was made is refused, and what is there is never
written over.

    review.json   settings, the source, the digest of the items       links.json   the tokens; for the owner alone
    items.jsonl   what is compared                                    votes/       a log for each person
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import quoted
from tiebreak.errors import ConfigError, DataError, RunError, one_line
from tiebreak.fingerprint import fingerprint
from tiebreak.review.evidence import FAST
from tiebreak.review.items import Item

SETTINGS, ITEMS, LINKS, VOTES = "review.json", "items.jsonl", "links.json", "votes"
MAX_PEOPLE, MAX_TAGS, MAX_NAME = 100, 20, 64


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
    items: int | None = None
    """At most how many of the source's items are asked, drawn by chance; None: all."""

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
            "items": self.items,
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
            None if row.get("items") is None else int(row["items"]),
        )


def is_review(folder: Path) -> bool:
    """Whether a review is there."""
    return (folder / SETTINGS).is_file()


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one JSON object a line; halves of characters are kept as escapes."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def items_content(items: Sequence[Item]) -> bytes:
    """Return items.jsonl."""
    return as_lines(item.as_dict() for item in items)


def digest_of(content: bytes) -> str:
    """Return what a review knows its items by; raises ValueError where they are no text."""
    return fingerprint(content.decode("utf-8"))


def write_folder(place: Path, settings: Settings, content: bytes) -> None:
    """Make the folder; review.json comes last, and speaks for the rest. Raises RunError where something else is."""
    if place.exists() and not place.is_dir():
        raise RunError(f"{place}: is no folder; choose another --out")
    if place.is_dir() and (others := sorted({one.name for one in place.iterdir()} - {ITEMS, LINKS, VOTES, ".lock"})):
        raise RunError(f"{place}: holds {one_line(others[0], 60)} and is no review; choose another --out")
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    files.refuse_links(place)
    (place / VOTES).mkdir(exist_ok=True, mode=0o700)
    for folder in (place, place / VOTES):
        _for_the_owner_alone(folder, 0o700)
    files.write_bytes(place / ITEMS, content)
    _for_the_owner_alone(place / ITEMS, 0o600)
    _write_links(place / LINKS, settings.annotators)
    files.write_json(place / SETTINGS, settings.as_dict())
    _for_the_owner_alone(place / SETTINGS, 0o600)


def _for_the_owner_alone(path: Path, mode: int) -> None:
    """Close what stood there before, or was written with the rights that are usual here."""
    try:
        path.chmod(mode)
    except PermissionError:
        raise RunError(
            f"{path}: is somebody else's, who could read what people vote on; choose another --out"
        ) from None


def read_folder(place: Path) -> tuple[Settings, list[Item], Mapping[str, Any]]:
    """Return settings, items and tokens; raises RunError where there is no review, DataError where items changed."""
    if not is_review(place):
        raise RunError(f"{place}: holds no {SETTINGS}; 'tiebreak review RUN --annotators NAMES' makes a review")
    files.refuse_links(place)
    try:
        settings = Settings.from_dict(files.read_json_object(place / SETTINGS))
        links = files.read_json_object(place / LINKS)
        if {*links["people"]} != {*settings.annotators} or not isinstance(links["owner"], str):
            raise KeyError
        check_asked(settings.annotators, settings.per_item, settings.tags)
    except (LookupError, TypeError, ValueError, AttributeError, ConfigError):
        raise RunError(
            f"{place}: its {SETTINGS} or {LINKS} is not what was written; bring it back from a copy"
        ) from None
    content = (place / ITEMS).read_bytes() if (place / ITEMS).is_file() else b""
    try:
        if digest_of(content) != settings.items_digest:
            raise ValueError
        return settings, [Item.from_dict(json.loads(line)) for line in content.decode().split("\n") if line], links
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(
            f"{place / ITEMS}: changed since the review was made, and votes would be on something else; bring it back "
            "from a copy, or make a new review with another --out"
        ) from None


def check_asked(annotators: Sequence[str], per_item: int | None, tags: Sequence[str]) -> None:
    """Raise ConfigError for names, tags or numbers that cannot be."""
    if not 1 <= len(annotators) <= MAX_PEOPLE:
        raise ConfigError(f"--annotators: wanted 1 to {MAX_PEOPLE} names; found {len(annotators)}")
    for what, most, given in (("--annotators", MAX_NAME, annotators), ("--tags", MAX_NAME, tags)):
        for one in given:
            if not 1 <= len(one) <= most or not one.isprintable() or one != one.strip():
                raise ConfigError(f"{what}: {one_line(ascii(one), 80)}: wanted 1 to {most} characters that can be read")
        if len({one.casefold() for one in given}) != len(given):
            raise ConfigError(f"{what}: a name is there twice")
    if FAST in annotators:
        raise ConfigError(f"--annotators: {FAST} is what --exclude calls votes that were too fast; choose another name")
    if len(tags) > MAX_TAGS:
        raise ConfigError(f"--tags: at most {MAX_TAGS}; found {len(tags)}")
    if per_item is not None and not 1 <= per_item <= len(annotators):
        raise ConfigError(f"--per-item {per_item}: wanted 1 to {len(annotators)}, as there are annotators")


def require_same(place: Path, found: Settings, wanted: Settings) -> None:
    """Raise where a folder holds a review of something else."""
    before, now = found.as_dict(), wanted.as_dict()
    options = ("items", "annotators", "per_item", "seed", "tags", "strength")
    differ = [name for name in options if before[name] != now[name]]
    drawn_otherwise = differ and (found.items or wanted.items)
    if found.items_digest != wanted.items_digest and not drawn_otherwise:
        raise DataError(
            f"{place}: holds a review of other items than these; they changed since, or are another file's: choose "
            f"another --out, or go on with 'tiebreak review {quoted(str(place))}'"
        )
    for name in differ:
        option = f"--{name.replace('_', '-')}"
        if before[name] is None:
            raise RunError(f"{place}: was made without {option}; leave it out, or choose another --out")
        told = one_line(json.dumps(before[name], ensure_ascii=False), 80)
        raise RunError(f"{place}: was made with {option} {told}; give the same, or choose another --out")
    if found.chosen_actively != wanted.chosen_actively:  # no option says so: whoever gathers the items does
        both = ("were not chosen actively, and these were", "were chosen actively, and these were not")
        raise RunError(f"{place}: was made of items that {both[found.chosen_actively]}; choose another --out")


def _write_links(path: Path, annotators: Sequence[str]) -> None:
    """Write the tokens, 128 random bits each, for the owner's eyes alone; never over those that are there."""
    told = {"owner": secrets.token_urlsafe(16), "people": {name: secrets.token_urlsafe(16) for name in annotators}}
    path.unlink(missing_ok=True)  # of a making that was cut off: nobody was told these
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(files.as_json(told))
        file.flush()
        os.fsync(file.fileno())


def log_file(folder: Path, name: str) -> Path:
    """Return a person's log; names that could be a path, or are long, are spelled by a hash."""
    plain = re.fullmatch(r"[A-Za-z0-9][\w-]{0,60}", name, re.ASCII)
    return folder / VOTES / f"{name if plain else 'n-' + fingerprint(name)[:16]}.jsonl"
