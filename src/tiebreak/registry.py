"""A registry folder of promoted models: what its files are called, what they mean, and what a damaged one is.

Owns these names, the chain of its history, and how `current` is switched. What may come in is known to the verb
promote.

    history.jsonl       what happened, a line each, and the truth: its last line says what is current
    versions/0001-NAME/ an artefact with its lineage.json; never changed once it is there
    current             a relative link to the current version, for a serving stack
    current.json        the same in words, for scripts and for file systems without links

An event is one whole rewrite of history.jsonl, so it has happened or it has not; link and current.json are made of it
afterwards. Each line holds the digest of the line before, and current.json that of the last one: a line that somebody
changed is found. Whoever may write here may make all of it anew; this finds accidents, not forgers.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiebreak import faults, files, folders
from tiebreak.errors import RegistryError, RunError, one_line, require_name
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Progress

REGISTRY = "models"
"""Where models are promoted to unless another folder is named."""
LINEAGE = "lineage.json"
_VERSION = r"[0-9]{4,9}-[A-Za-z0-9][A-Za-z0-9._-]{0,59}"
_SHA256 = r"[0-9a-f]{64}"
_NOTHING = "0" * 64


class Event(BaseModel):
    """A line of history.jsonl: something became current."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    event: int
    """From 1 on."""
    what: Literal["promoted", "rolled back"]
    time: str
    """UTC."""
    version: str = Field(pattern=f"^{_VERSION}$")
    """What is current since."""
    replaced: str | None
    """What was current before."""
    verdict: Literal["pass", "fail", "inconclusive"]
    """Of the version, when it was promoted."""
    overridden: dict[str, str]
    """Rules that did not hold, with the reason why it was promoted all the same."""
    loosened: dict[str, str] = {}
    """Default rules of the gate that were taken away or asked less, and how; lines of before do not say it."""
    run: str
    form: Literal["merged", "adapter"]
    data_fingerprint: str
    config_fingerprint: str
    base_model: str
    reference: str
    policy_sha256: str
    """Of the run's policy folder: promoting the same again does nothing."""
    lineage_sha256: str = Field(pattern=f"^{_SHA256}$")
    """Of the version's lineage.json, which holds the digest of every other file."""
    line_before_sha256: str = Field(pattern=f"^{_SHA256}$")

    def line(self) -> bytes:
        """Return the line without its end."""
        return json.dumps(self.model_dump(exclude_unset=True), ensure_ascii=False).encode("utf-8")


class Registry:
    """A registry folder, existing or about to be made. A link to one is followed; links inside are refused."""

    def __init__(self, path: str | Path) -> None:
        require_name(path, "the registry")
        self.path = Path(path)
        self.history_file = self.path / "history.jsonl"
        self.versions_folder = self.path / "versions"
        self.current_file = self.path / "current.json"
        self.current_link = self.path / "current"

    def existing(self) -> Registry:
        """Return the registry; raises RegistryError where there is none."""
        if not self.history_file.exists() and not self.current_file.exists():
            self._refuse_strangers()
            raise RegistryError(f"{self.path}: is no registry; 'tiebreak promote RUN --to DIR' makes one")
        return self

    def events(self) -> list[Event]:
        """Return what happened, oldest first; raises RegistryError where a line is not what was written."""
        self._refuse_strangers()
        for _ in range(3):
            # The pointer first, which another process writes last: where both are whole, they agree in the end.
            known, found = self._known_end(), self._lines()
            # A switch that was cut off knows the line before the last.
            if known is None or known in [_digest(event) for event in found[-2:]]:
                return found
        raise RegistryError(
            f"{self.history_file}: its last line is not the one that {self.current_file.name} knows, so it was "
            "changed, or lines are missing; bring the file back from a copy"
        )

    def _lines(self) -> list[Event]:
        found: list[Event] = []
        before = _NOTHING
        content = self.history_file.read_bytes() if self.history_file.exists() else b""
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            where = f"{self.history_file}:{number}"
            try:
                event = Event.model_validate_json(line)
            except ValidationError as error:
                fault = error.errors()[0]
                said = one_line(f"{'.'.join(map(str, fault['loc']))} {fault['msg']}", 120)
                raise RegistryError(f"{where}: is not a line as promote writes it ({said})") from None
            if event.line() != line:
                raise RegistryError(f"{where}: is not a line as promote writes it, so it was written anew by another")
            if event.line_before_sha256 != before or event.event != number:
                raise RegistryError(
                    f"{where}: does not follow from the line before, so one of the two was changed, or lines are "
                    "missing; bring the file back from a copy"
                )
            found.append(event)
            before = hashlib.sha256(line).hexdigest()
        if content and not content.endswith(b"\n"):
            raise RegistryError(f"{self.history_file}: its last line is cut off; bring the file back from a copy")
        return found

    def _known_end(self) -> str | None:
        """Return the digest of the last line as current.json has it; None where there is no such file."""
        if not self.current_file.exists():
            return None
        try:
            return str(json.loads(self.current_file.read_text(encoding="utf-8"))["line_sha256"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            raise RegistryError(
                f"{self.current_file}: is not as promote writes it; remove it, and the next promote or rollback writes "
                "it anew"
            ) from None

    def _refuse_strangers(self) -> None:
        """Raise RegistryError where something here is of another kind than promotions leave, as a link is."""
        if self.path.exists() and not self.path.is_dir():
            raise RegistryError(f"{self.path}: is no folder; choose another --to")
        for file in (self.history_file, self.current_file, self.path / ".lock"):
            if file.is_symlink() or (file.exists() and not file.is_file()):
                raise RegistryError(f"{file}: is a link or no file, which a registry does not hold; move it away")
        if self.versions_folder.is_symlink() or (self.versions_folder.exists() and not self.versions_folder.is_dir()):
            raise RegistryError(f"{self.versions_folder}: is a link or no folder, which a registry does not hold")
        if self.current_link.exists() and not self.current_link.is_symlink():
            raise RegistryError(f"{self.current_link}: is no link, so promotions did not make it; move it away")

    @contextlib.contextmanager
    def changing(self, progress: Progress) -> Iterator[list[Event]]:
        """Hold the registry's lock, and yield what happened so far.

        What a killed promotion left is removed: hidden pieces, and the version after the last event that says of itself
        that it was to follow it. Raises RegistryError where another process holds the lock.
        """
        self._refuse_strangers()
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(folders.locked(self.path, progress.warn, "choose another --to"))
            except RunError as error:
                raise RegistryError(str(error)) from None
            files.sweep(self.path)
            files.sweep(self.versions_folder)
            events = self.events()
            for folder in self._unrecorded(events):
                if not folder.is_symlink() and _lineage_in(folder).get("follows_sha256") == self.tip(events):
                    progress.say(f"{folder}: left by a promotion that was cut off; removed")
                    hidden = folder.with_name(f".{folder.name}{files.PART}")
                    folder.rename(hidden)
                    shutil.rmtree(hidden)
            yield events

    def _unrecorded(self, events: Sequence[Event]) -> list[Path]:
        known = {event.version for event in events}
        there = self.versions_folder.iterdir() if self.versions_folder.is_dir() else ()
        return [path for path in there if re.fullmatch(_VERSION, path.name) and path.name not in known]

    @staticmethod
    def tip(events: Sequence[Event]) -> str:
        """Return the digest of the last line, which what comes next will name."""
        return _digest(events[-1]) if events else _NOTHING

    def next_version(self, name: str, events: Sequence[Event]) -> Path:
        """Return the folder of a version that is not there yet."""
        taken = [event.version for event in events] + [path.name for path in self._unrecorded(events)]
        number = max((int(version.partition("-")[0]) for version in taken), default=0) + 1
        return self.versions_folder / f"{number:04}-{name}"

    def append(self, events: Sequence[Event], what: str, **said: Any) -> Event:
        """Write an event down, and let `current` lead to its version."""
        event = Event(
            event=len(events) + 1,
            what="promoted" if what == "promoted" else "rolled back",
            replaced=events[-1].version if events else None,
            line_before_sha256=self.tip(events),
            **said,
        )
        faults.point("registry:history")
        files.write_bytes(self.history_file, b"".join(one.line() + b"\n" for one in (*events, event)))
        self.show(event)
        return event

    def show(self, event: Event) -> None:
        """Let link and current.json say what an event made current."""
        faults.point("registry:current")
        said = {"version": event.version, "path": f"versions/{event.version}", "event": event.event}
        files.write_json(self.current_file, {**said, "since": event.time, "line_sha256": _digest(event)})
        faults.point("registry:link")
        try:
            files.point_link(self.current_link, f"versions/{event.version}")
        except OSError as error:
            # FAT, some network drives: current.json says it there.
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP):
                raise

    def unswitched(self, events: Sequence[Event]) -> str | None:
        """Say where link or current.json lead elsewhere than the last event says; None where all agree."""
        wanted = events[-1].version
        if self.current_link.is_symlink() and self.current_link.readlink() != Path("versions", wanted):
            return f"{self.current_link} leads to {self.current_link.readlink()}, and not to versions/{wanted}"
        known = json.loads(self.current_file.read_bytes()) if self.current_file.exists() else {}
        if known.get("version") != wanted:
            return f"{self.current_file} says {known.get('version')}, and not {wanted}"
        return None

    def check(self, version: str, lineage_sha256: str, progress: Progress) -> None:
        """Raise RegistryError where a version is not, file by file, what was promoted."""
        folder = self.versions_folder / version
        if folder.is_symlink() or not folder.is_dir():
            raise RegistryError(f"{folder}: is gone, or is no folder; nothing was changed")
        entries = sorted(folder.rglob("*"))
        for path in entries:
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise RegistryError(f"{path}: is a link or no file, which no promotion left; nothing was changed")
        there = {path.relative_to(folder).as_posix() for path in entries if path.is_file()}
        digests = {LINEAGE: lineage_sha256}
        if LINEAGE in there and file_digest(folder / LINEAGE) == lineage_sha256:
            digests |= _lineage_in(folder).get("files_sha256", {})
        with progress.stage(f"checking {version}", len(there)) as advance:
            for name in sorted({*digests, *there}, key=lambda name: (name != LINEAGE, name)):
                if name not in there:
                    raise RegistryError(f"{folder / name}: is gone; nothing was changed")
                if digests.get(name) != file_digest(folder / name):
                    raise RegistryError(f"{folder / name}: is not what was promoted; nothing was changed")
                advance()


def names_a_version(name: str) -> bool:
    """Say whether a version may be called so: up to 60 letters, digits, dots, dashes and underscores."""
    return re.fullmatch(_VERSION, f"0000-{name}") is not None


def before(events: Sequence[Event]) -> Event | None:
    """Return the promotion that a rollback goes to; None where there is none.

    A promotion puts a version on a pile, a rollback takes the top one away: two rollbacks go back by two versions, and
    what was rolled back is not come back to.
    """
    pile: list[Event] = []
    for event in events:
        if event.what == "promoted":
            pile.append(event)
        else:
            del pile[-1:]
    return pile[-2] if len(pile) > 1 else None


def _lineage_in(folder: Path) -> Mapping[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _digest(event: Event) -> str:
    return hashlib.sha256(event.line()).hexdigest()
