"""How files are written: whole or not at all, and nowhere else than where they stand.

Owns temporary names, fsync and rename, lines that are appended, and what a link in a folder may do: nothing.
Knows nothing of what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from tiebreak.config import in_quotes, quoted
from tiebreak.errors import RunError

PART = ".tiebreak-part"
"""Ends the hidden names of what is being written, so that nothing of anybody else's is taken for a leftover."""


@contextlib.contextmanager
def whole_file(path: Path, *, new: bool = False) -> Iterator[IO[bytes]]:
    """Give a file to write to that appears at `path` whole, or not at all; a `new` one takes the place of none.

    Raises FileExistsError where it is to be new, and something stands there by the time that it is whole.
    """
    hidden = _hidden(path)
    # With the rights that are usual here: nobody can ask for them without changing them for all threads meanwhile.
    handle = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        appear(hidden, path) if new else hidden.replace(path)
        sync(path.parent)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


def _hidden(target: Path) -> Path:
    """Return a name beside a target that nothing has, and that says what it is of."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{PART}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str, *, new: bool = False) -> None:
    """Write a text file whole or not at all; raises FileExistsError where it is to be `new`, and is not."""
    with whole_file(path, new=new) as file:
        file.write(text.encode("utf-8"))


def appear(built: Path, target: Path) -> None:
    """Move a file to a name that nothing has; raises FileExistsError where something has it, and leaves both."""
    try:
        target.hardlink_to(built)
    except FileExistsError:
        raise
    except OSError:  # FAT, some network drives: they know no second name of a file, and two steps have to do
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        built.replace(target)
    else:
        built.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document, readable by people."""
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """Return one JSON document, readable by people."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return one JSON object a line."""
    return b"".join(map(_line, rows))


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    with whole_file(path) as file:
        file.writelines(map(_line, rows))


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_json_object(file: Path) -> dict[str, Any]:
    """Return what a JSON file of a run holds; raises RunError, with what makes it, where that is no object."""
    return json_object_and_bytes(file)[0]


def json_object_and_bytes(file: Path) -> tuple[dict[str, Any], bytes]:
    """Return it with the bytes that say so: of a file that others write meanwhile, a second look may see another."""
    try:
        content = file.read_bytes()
        value = json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        verb, of = ("evaluate", "") if (file.parent / "policy").is_dir() else ("train", "config.yaml")
        told = in_quotes(f"tiebreak {verb} {quoted(str(file.parent / of))}")
        maker = f"{told} makes it" if file.name == "evaluation.json" else "train makes a run"
        raise RunError(f"{file.parent}: holds no {file.name}; {maker}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file}: cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise RunError(f"{file}: cannot be read (wanted a JSON object)")
    return value, content


def read_jsonl(path: Path, *, is_whole: bool = True) -> list[dict[str, Any]]:
    """Read one JSON object a line; no file, no rows. Of one that is not whole, the end behind the last line goes."""
    if not path.exists():
        return []
    try:
        content = path.read_bytes()
        text = (content if is_whole else content[: content.rfind(b"\n") + 1]).decode("utf-8")
        # Not splitlines: it also breaks at U+2028 and its like, which JSON leaves inside text.
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]], *, needed: bool = False) -> None:
    """Add one JSON object a line, behind its digest, to a file of work that could be done again; numbers need not be
    finite.

    What a killed process left of a line goes first, so that nothing is glued to it. A full disk costs these rows and
    says nothing, unless they are `needed`; any other OSError is raised.
    """
    try:
        with opened(path) as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(b"".join(_proven(json.dumps(row).encode()) + b"\n" for row in rows))
    except OSError as error:
        if needed or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def appended_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file that was appended to; no file, no rows.

    A line that is not what was written is left out: a flipped digit would be a number like any other.
    """
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        text = line.partition(b" ")[2]
        if text and line == _proven(text):
            with contextlib.suppress(ValueError, RecursionError):
                row = json.loads(text.decode("utf-8"))
                if isinstance(row, dict):
                    yield row


def _proven(text: bytes) -> bytes:
    """Return a line behind the first half of its digest, which anybody who damages it by chance fails to meet."""
    return hashlib.sha256(text).hexdigest()[:32].encode() + b" " + text


def opened(path: Path, mode: int = 0o666) -> IO[bytes]:
    """Open a file to read and to append to, made where there is none; what is written stays in it.

    Raises RunError where it is a link or another thing than a file, or has a second name that would change as well.
    """
    try:
        # O_NONBLOCK: a pipe without a reader would be waited for.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path, flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise RunError(f"{path}: is a link or no file, and is not written to; move it away") from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        what = "has a second name" if stat.S_ISREG(found.st_mode) else "is no file"
        raise RunError(f"{path}: {what}, and what is written here would show there; put a copy in its place")
    return os.fdopen(handle, "ab+")


def refuse_links(folder: Path) -> None:
    """Raise RunError where a folder holds a link, at any depth, or what is neither file nor folder; none is a folder.

    `folder` itself may be a link. What comes from elsewhere would lead out of it, by what is written or read.
    """
    for place, folders, names in os.walk(folder):
        for name in sorted((*folders, *names)):
            path = Path(place, name)
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile, as what is hidden and being written goes
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    what = "a link" if stat.S_ISLNK(mode) else "neither file nor folder"
                    raise RunError(
                        f"{path}: is {what}, which a run does not hold; move it away, or copy it in its place"
                    )


@contextlib.contextmanager
def whole_folder(target: Path, *, new: bool = False, private: bool = False) -> Iterator[Path]:
    """Yield a hidden folder that becomes `target` when the block ends well, and vanishes when it does not.

    A `new` one takes the place of an empty folder and of nothing else: raises FileExistsError where something is there
    by then. The folder above is made, those above it are not: a run that was deleted does not come back by halves.
    What is `private` can be read by its owner alone.
    """
    target.parent.mkdir(exist_ok=True)
    building = _hidden(target)
    building.mkdir()
    mode = 0o700 if private else stat.S_IMODE(building.stat().st_mode)  # the rights that are usual here
    building.chmod(mode & stat.S_ISGID | 0o700)  # a shared folder passes its group on
    try:
        yield building
        # Safetensors files begin as private, others do not: one mode for all of it, and sync it.
        for path in (*building.rglob("*"), building):
            path.chmod(mode if path.is_dir() else mode & 0o666)
            sync(path)
        if not new and target.exists():
            shutil.rmtree(target)
        _rename_folder(building, target)
        sync(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _rename_folder(folder: Path, target: Path) -> None:
    """Rename a folder; POSIX lets it take the place of an empty one, and of nothing else."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        raise


def point_link(link: Path, target: str) -> None:
    """Make a symbolic link lead to `target`: whoever follows it sees the old place or the new one."""
    new = Path(tempfile.mkdtemp(dir=link.parent, prefix=f".{link.name}.", suffix=PART))
    try:
        (new / "link").symlink_to(target)
        (new / "link").replace(link)
        sync(link.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written in a folder whose lock is held."""
    for left in folder.glob(f".*{PART}"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return once what is at a path, or the names in a folder, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
