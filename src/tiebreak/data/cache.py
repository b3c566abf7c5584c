"""What was made of files of data at an earlier start, kept on disk: found again by content, proven, and bounded.

Owns what such an entry depends on, how it appears whole or not at all, when it is believed, and which ones go where
they become too many. Knows nothing of what is in one: whoever made it writes and reads its files.

    FOLDER/.<kind>-<fingerprint of what it was made of, and for whom>/
        …             files of whoever made it
        entry.json    written last: its own digest, what it was made of, what is said of it, digests of the files
    FOLDER/..<kind>-….tiebreak-part/    being written, or thrown away; never read

An entry is never changed, so that any number of processes may read and write here without a lock. It is hidden, so that
a store inside a folder of data is no data. It is data of people, tokens and texts of what is held out: it can be read
and written by its owner alone, and whoever shares a folder believes nobody's entries but their own: digests prove that
nothing is damaged, and not who wrote it. No failure of the disk reaches the caller.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Generic, TypeVar

import platformdirs

from tiebreak import faults
from tiebreak.config import DataConfig
from tiebreak.data.locations import locate
from tiebreak.data.reader import DataFile
from tiebreak.errors import one_line
from tiebreak.files import PART, whole_folder
from tiebreak.fingerprint import LOADED, file_digest, fingerprint
from tiebreak.progress import Progress
from tiebreak.seals import fault_of, seal_of_file

SCHEMA = 1
"""Raised when files of an entry, or what stands in entry.json, come to mean something else. How records are read,
judged and rendered needs no number: `code` is of the text of all that, and what other code made is another entry."""
MOST_BYTES = 10 * 2**30
"""All entries of a folder together: some five million pairs of HH-RLHF, as one has room for in a cache."""
WORTH_SECONDS = 10.0
"""What is made sooner is made anew: some ten thousand pairs. Else a cache fills up with first steps and tests."""
WORTH_BYTES = 2**20
"""Of smaller files nothing takes so long, packed or not, and nobody needs to take a digest of a tokenizer for them."""
_SWEEP_SECONDS = 24 * 3600.0
_ENTRY = "entry.json"
_PACKAGE = Path(__file__).parents[1]
_IMPORTED = {"scikit-learn": "sklearn"}
_LIBRARIES = ("tiebreak", "tokenizers", "transformers", "jinja2", "pyarrow", "numpy", "scipy", "scikit-learn", "rensa")

_ODD = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""What comes of reading a file that is not as it was written."""

Made = TypeVar("Made")
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """An entry that was proven to be what was written."""

    folder: Path
    said: Any


@dataclass(frozen=True)
class Form(Generic[Made]):
    """How one kind of entry is written to the files of a folder, and read again."""

    kind: str
    told: str
    """What it is called in messages."""
    write: Callable[[Made, Path], Any]
    """Write files, and return what is to be said of them, as JSON takes it."""
    read: Callable[[Entry], Made]
    """Return what was written; raises OSError, or ValueError where it is not that."""


def made_of(data: DataConfig, files: Sequence[DataFile], unread: Sequence[str] = ()) -> Content:
    """Return all that reading depends on, for JSON: bytes of files, their names, settings, code; not where files lie.

    `unread` are settings that it does not depend on. Costs a pass over all bytes, a second or two a gigabyte.
    """
    barred = locate(data.heldout_prompts) if data.heldout_prompts else []
    return {
        "schema": SCHEMA,
        "files": [
            [
                *(file.name, file.path.name, file_digest(file.path), file.side, file.weight, file.by_name, file.stated),
                # What its first rows showed, which were looked at before: the file may have been replaced since.
                *(file.form and file.form.name, file.unfold, repr(file.look)),
            ]
            for file in files
        ],
        "heldout_prompts": [[name, path.name, file_digest(path)] for path, name in barred],
        "settings": {name: value for name, value in data.placeless.items() if name not in unread},
        "code": code(),
    }


@cache
def code() -> str:
    """Return a fingerprint of the code that reads, judges and renders: ours by its text, that of others by version."""
    return _code_on_disk()


def _code_on_disk() -> str:
    ours = {str(path.relative_to(_PACKAGE)): file_digest(path) for path in sorted(_PACKAGE.rglob("*.py"))}
    loaded = {name: vars(sys.modules.get(_IMPORTED.get(name, name), sys)).get("__version__") for name in _LIBRARIES}
    versions = {name: found or metadata.version(name) for name, found in loaded.items()}
    return fingerprint([ours, versions, list(sys.version_info[:3])])


def _is_code_at_work() -> bool:
    """Whether the text that `code` is of is still there, and was there before anything of it was loaded."""
    texts = _PACKAGE.rglob("*.py")
    return all(path.stat().st_mtime < LOADED for path in texts) and _code_on_disk() == code()


code()  # now, and not when it is first asked for: until then the text could become another than what is loaded


class Cache:
    """A folder of entries, or none."""

    def __init__(self, store: str, progress: Progress, most_bytes: int = MOST_BYTES) -> None:
        """`store` is the setting: a folder, auto or off."""
        self._folder = None if store == "off" else Path(store)
        if store == "auto":
            self._folder = platformdirs.user_cache_path("tiebreak") / "prepared"
        self._small_too = store != "auto"
        self._say = progress.say
        self._most_bytes = most_bytes

    def once(
        self, files: Sequence[DataFile], form: Form[Made], of: Callable[[], Content | None], make: Callable[[], Made]
    ) -> Made:
        """Return what an earlier start made of the same content, else what `make` makes now, kept for the next one.

        `of` says of what, of which `files` are a part; None where that cannot be told. It is asked again where anything
        is kept: files that changed while they were read were read as nobody knows what.
        """
        if self._folder is None or not (self._small_too or _is_large(files)) or (content := _unless_gone(of)) is None:
            return make()
        path = self._folder / f".{form.kind}-{fingerprint(content)[:32]}"
        if (found := self._read(path, form, content)) is not None:
            self._say(f"{form.told}: from an earlier start with the same data and settings ({path})")
            return found
        began = time.perf_counter()
        made = make()
        is_worth_it = self._small_too or time.perf_counter() - began >= WORTH_SECONDS
        if is_worth_it and _is_code_at_work() and _unless_gone(of) == content:
            self._keep(path, form, content, made)
        return made

    def _read(self, path: Path, form: Form[Made], content: Content) -> Made | None:
        """Return what an entry holds; None where there is none, or where it is not what was written."""
        if not os.path.lexists(path):
            return None
        try:
            made = form.read(_proven(path, content))
        except (OSError, *_ODD) as error:
            # What cannot be read now may be sound; a file that is missing will not come back.
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                self._say(f"{path}: cannot be read ({one_line(error, 120)}); {form.told} are made anew")
            elif os.path.lexists(path):
                self._say(f"{path}: is not what was written ({one_line(error, 120)}); {form.told} are made anew")
                _throw_away(path)
            return None
        with contextlib.suppress(OSError):  # a folder that is only read: what was used last is not known there
            os.utime(path / _ENTRY)
        return made

    def _keep(self, path: Path, form: Form[Made], content: Content, made: Made) -> None:
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (path.parent / ".gitignore").write_text("*\n", encoding="ascii")
            _sweep(path.parent)
            with whole_folder(path, new=True, private=True) as folder:
                said = form.write(made, folder)
                faults.point("store:data")
                seals = {file.name: seal_of_file(file) for file in folder.iterdir()}
                if (num := sum(seal["bytes"] for seal in seals.values())) > self._most_bytes:
                    raise OSError(f"{num / 2**30:.1f} GiB, more than the {self._most_bytes / 2**30:g} of all entries")
                text = json.dumps({"of": content, "said": said, "files": seals}).encode("ascii")
                (folder / _ENTRY).write_bytes(_seal(text) + b"\n" + text + b"\n")
            self._make_room(path)
        except (OSError, ValueError, TypeError) as error:
            if isinstance(error, FileExistsError) and path.is_dir():  # another process was faster
                return
            self._say(f"{path}: {form.told} cannot be kept ({one_line(error, 120)}); the next start makes them again")

    def _make_room(self, newest: Path) -> None:
        """Throw away what was not used for longest, until the rest fits."""
        found: list[tuple[bool, float, int, Path]] = []
        for path in newest.parent.glob(".*-" + "[0-9a-f]" * 32):
            with contextlib.suppress(OSError):  # gone meanwhile
                if path.stat().st_uid != os.geteuid():
                    continue
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append((path == newest, (path / _ENTRY).stat().st_mtime, size, path))
        held, gone = 0, []
        for *_, size, path in sorted(found, reverse=True):
            held += size
            if held > self._most_bytes and _throw_away(path):
                gone.append(size)
        if gone:
            self._say(
                f"{newest.parent}: {len(gone)} entries that were not used for longest are removed "
                f"({sum(gone) / 2**30:.2f} GiB); {self._most_bytes / 2**30:g} GiB are kept"
            )


def _proven(path: Path, content: Content) -> Entry:
    """Return an entry whose files are those that were written, of this content; raises OSError or ValueError."""
    if path.is_symlink() or not path.is_dir():
        raise ValueError("it is a link or no folder, which a store does not hold")
    for one in (path, *path.iterdir()):
        told = one.lstat()
        if told.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(told.st_mode) & 0o022:
            raise ValueError(f"{one.name} is somebody else's, or could be written by others")
    seal, _, text = (path / _ENTRY).read_bytes().partition(b"\n")
    if seal != _seal(text.removesuffix(b"\n")):
        raise ValueError(f"{_ENTRY} does not have the digest that it begins with")
    entry = json.loads(text)
    if entry["of"] != json.loads(json.dumps(content)):
        raise ValueError("it is of other data or settings than its name says")
    for name, seal in entry["files"].items():
        if fault_of(path / name, seal):
            raise ValueError(f"{name} does not have the digest that {_ENTRY} gives")
    return Entry(path, entry["said"])


def _seal(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode("ascii")


def _throw_away(path: Path) -> bool:
    """Remove an entry, and return whether it is gone: under its own name it is whole until then."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        hidden = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART))
        try:
            path.rename(hidden / path.name)
            return True
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    return False


def _is_large(files: Sequence[DataFile]) -> bool:
    try:
        return sum(file.path.stat().st_size for file in files) >= WORTH_BYTES
    except OSError:  # who reads it says so
        return False


def _unless_gone(of: Callable[[], Content | None]) -> Content | None:
    """Return what an entry is of, and for whom; None where a file of it cannot be read (any more)."""
    try:
        return None if (content := of()) is None else {**content, "for": os.geteuid()}
    except OSError:
        return None


def _sweep(folder: Path) -> None:
    """Remove what processes left behind that died long ago, while they wrote or threw away."""
    for left in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _SWEEP_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
