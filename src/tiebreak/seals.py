"""What a file was when it was written, and whether it still is: its seal is its size and SHA-256.

Owns how files are held against their seals, also where whoever wrote them was killed, and JSON that carries its own
digest. Which files are sealed, and what is done where one differs, is known to whoever keeps them.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.files import as_json
from tiebreak.fingerprint import file_digest

Seal = Mapping[str, Any]
"""`bytes` and `sha256` of a file, as JSON keeps them."""
DIGEST = "digest"
_LARGE = 2**20
_SEEN: dict[tuple[str | int, ...], str] = {}


def digest_once(path: Path) -> str:
    """Return a file's SHA-256; a large one is read once in a process, for as long as the system says it is the same."""
    told = path.stat()
    if told.st_size < _LARGE:
        return file_digest(path)
    key = (str(path.absolute()), told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns, told.st_ctime_ns)
    if key not in _SEEN:
        _SEEN[key] = file_digest(path)
    return _SEEN[key]


def seal_of(content: bytes) -> Seal:
    """Return the seal of what is about to be written."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def seal_of_file(path: Path) -> Seal:
    """Return the seal of a file as it is now."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def files_in(folder: Path) -> list[str]:
    """Return the names of all files in a folder and the folders in it, with slashes; links among them, never followed.

    None where there is no such folder.
    """
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return sorted(found) if folder.is_dir() else []


def fault_of(path: Path, told: Seal, digest: Callable[[Path], str] = file_digest) -> str | None:
    """Return what is wrong with a file, to be read after its name; None where it is what was sealed.

    Raises KeyError for a seal that is none.
    """
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != told["bytes"]:
        return f"is not what was written ({size} bytes, {told['bytes']} were)"
    return None if digest(path) == told["sha256"] else f"is not what was written ({size} bytes)"


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """Return a JSON object, readable by people, that ends with the digest of all of it."""
    told = {key: one for key, one in value.items() if key != DIGEST}
    return as_json(told | {DIGEST: hashlib.sha256(as_json(told)).hexdigest()})


def whole_json(data: bytes) -> Any:
    """Return what `sealed_json` made these bytes of, with the digest; None where it did not make them."""
    return json.loads(data) if _is_whole(data) else None


@functools.lru_cache(maxsize=16)  # a tiny run asks for its manifest two hundred times
def _is_whole(data: bytes) -> bool:
    return sealed_json(json.loads(data)) == data


@dataclass(frozen=True)
class Seals:
    """The seals of files in a folder, by their names, and of those that are being written anew.

    What is being written is told first, so that whatever a killed process leaves fits one seal or the other.
    """

    folder: Path
    noted: Mapping[str, Seal]
    coming: Mapping[str, Seal]

    def names(self, asked: Collection[str] = ()) -> set[str]:
        """Return the names of sealed files: those asked for, those in folders asked for, or all."""
        return {name for name in (*self.noted, *self.coming) if not asked or {name, top(name)} & set(asked)}

    def fault_of(self, name: str) -> str | None:
        """Return what is wrong with a file, to be read after its name; None where it fits a seal."""
        told = [seals[name] for seals in (self.noted, self.coming) if name in seals]
        if not told:
            return "was not written by the run"
        found = [fault_of(self.folder / name, seal, digest_once) for seal in told]
        is_new_or_goes = len(told) == 1 and top(name) in map(top, self.coming)
        if None in found or (is_new_or_goes and not (self.folder / name).exists()):
            return None
        return found[0]

    def is_torn(self, names: Collection[str]) -> bool:
        """Whether of these files, which belong together, some that change have come and some have not."""
        arrived = self.arrived()
        made = [name in arrived for name in {*names} & self.coming.keys() if self.coming[name] != self.noted.get(name)]
        return any(made) and not all(made)

    def arrived(self) -> dict[str, Seal]:
        """Return the seals of what is there of what is being written."""
        coming = self.coming.items()
        return {name: seal for name, seal in coming if fault_of(self.folder / name, seal, digest_once) is None}

    def taken(self, new: Mapping[str, Seal]) -> dict[str, Seal]:
        """Return the seals with those of what was written since; what is gone from a folder that was written goes."""
        folders = {top(name) for name in new if "/" in name}
        kept = {name: top(name) not in folders or (self.folder / name).exists() for name in self.noted}
        return {name: seal for name, seal in self.noted.items() if kept[name]} | dict(new)


def top(name: str) -> str:
    """Return the file or folder of the folder that a name leads to or into."""
    return name.partition("/")[0]
