"""What the user names as data, to files: a path, a folder, a pattern, the bundled pairs, or a data set of the Hub.

Owns which files belong to a name, their order, how they are called in messages, and which of several are held out by
their own names. It opens none of them.
"""

from __future__ import annotations

import os
import re
import stat
from importlib import resources
from pathlib import Path
from typing import cast

from tiebreak.config import BUNDLED_PAIRS
from tiebreak.data.hub import unreachable
from tiebreak.errors import DataError, nearest, one_line

HUB = "hf:"
_HUB_NAME = re.compile(r"hf:(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[^:@\s]+))?(?:@(?P<split>[\w.-]+))?")
_DATA_FILE = re.compile(r"\.(jsonl?|ndjson|csv|tsv|parquet|arrow|feather)(\.(gz|gzip|zst|zstd))?$", re.IGNORECASE)
_ABOUT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})

Located = list[tuple[Path, str]]


def locate(spec: str) -> Located:
    """Return the files that a name stands for, each with its display name, in an order that is always the same.

    A file · a folder: the data files below it, hidden ones and links to folders left out · a pattern with `*`, `?`,
    `[…]` or `**` · `bundled` · `hf:owner/name[:config][@split]`: the files of one split (train, unless named) as they
    lie on the Hub, loaded by the `datasets` library without running code of theirs. Raises DataError, in one line,
    where nothing is found.
    """
    if spec == BUNDLED_PAIRS:
        return [(cast(Path, resources.files("tiebreak") / "bundled" / "pairs.jsonl"), "pairs.jsonl")]
    if not spec.strip():
        raise DataError("the data have no name, but an empty one; name a file, a folder or a pattern")
    path = Path(spec)
    if spec.startswith(HUB):
        if os.path.lexists(path):
            raise DataError(
                f"{spec}: may be a data set of the Hub, and a file here has this name; write ./{spec} for it"
            )
        return _from_hub(spec)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from None
    if mode is None and re.search(r"[*?\[]", spec):
        return _matching(spec)
    if mode is None:
        raise DataError(f"{spec}: no such file.{_neighbour(path)}")
    if stat.S_ISDIR(mode):
        return _below(path)
    if not stat.S_ISREG(mode):
        raise DataError(f"{spec}: is a pipe, a socket or a device, not a file")
    return [(path, _printable(path.name))]


def hub_name(spec: str) -> str | None:
    """Return the name of a data set on the Hub, where it is one that is meant."""
    found = _HUB_NAME.fullmatch(spec)
    return found["name"] if found else None


def held_out_by_name(places: Located) -> frozenset[Path]:
    """Return those of several files whose own names say that they are not for training, like dev/a.jsonl.

    What the user named does not count: one file, the folder itself, or a pattern that only such files match is meant.
    """
    found = frozenset(path for path, name in places if not name.startswith(HUB) and _says_held_out(name))
    return found if len(found) < len(places) else frozenset()


_HELD_OUT = r"(?:tests?|eval|evaluation|dev|val|valid|validation|held[-_ ]?out|holdout)"
_HELD_OUT_FILE = re.compile(rf"{_HELD_OUT}(?:[-_ \d].*)?|(?!train).*[-_ ]{_HELD_OUT}(?:[-_ ]?\d.*)?", re.IGNORECASE)


def _says_held_out(name: str) -> bool:
    *folders, file = Path(name).parts[1:] or [name]  # below the folder that was named
    alone = any(re.fullmatch(_HELD_OUT, folder, re.IGNORECASE) for folder in folders)
    return alone or _HELD_OUT_FILE.fullmatch(file.split(".")[0]) is not None


def _neighbour(path: Path) -> str:
    try:
        if path.is_symlink():
            return " It is a link that leads nowhere."
        return nearest(path.name, sorted(item.name for item in path.parent.iterdir()))
    except OSError:
        return ""


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "strerror", None) or error, 300)


def _printable(name: str) -> str:
    """Return a file name as text; bytes that are no UTF-8 become a replacement character."""
    return os.fsencode(name).decode("utf-8", "replace")


# ------------------------------------------------------------------------------------------------- folders and patterns


def _below(folder: Path) -> Located:
    """Return the data files below a folder; links to folders are not followed, so that no loop can catch us."""
    files: list[Path] = []
    errors: list[OSError] = []
    for where, folders, names in os.walk(folder, onerror=errors.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += (path for name in names if not name.startswith(".") and (path := Path(where, name)).is_file())
    if errors:
        raise DataError(f"{errors[0].filename}: cannot be read ({_reason(errors[0])})")
    files.sort(key=Path.as_posix)
    found = [file for file in files if _DATA_FILE.search(file.name) and file.name not in _ABOUT_DATA]
    if not found:
        held = f"it holds {len(files)} other files" if files else "it is empty"
        raise DataError(f"{folder}: no data file in this folder ({held}); wanted .jsonl, .json, .csv, .tsv, .parquet …")
    return _named(found, folder)


def _matching(spec: str) -> Located:
    """Return the files that match a pattern: the data files among them or, where there is none, all of them."""
    parts = Path(spec).parts
    fixed = next(index for index, part in enumerate(parts) if re.search(r"[*?\[]", part))
    folder, pattern = Path(*parts[:fixed]), "/".join(parts[fixed:])
    try:
        files = sorted({path for path in folder.glob(pattern) if path.is_file()}, key=Path.as_posix)
    except (OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{spec}: is no pattern of files ({_reason(error)})") from None
    inside = {file: file.relative_to(folder).parts for file in files}
    shown = [file for file in files if not any(part.startswith(".") and part != ".." for part in inside[file])]
    found = [file for file in shown if _DATA_FILE.search(file.name) and file.name not in _ABOUT_DATA] or shown
    if not found:
        raise DataError(f"{spec}: no file matches this pattern")
    return _named(found, folder)


def _named(files: list[Path], folder: Path) -> Located:
    above = Path(os.path.abspath(folder)).name  # noqa: PTH100 - resolve() would name what a link leads to
    return [(file, _printable(str(Path(above) / file.relative_to(folder)))) for file in files]


# -------------------------------------------------------------------------------------------------------------- the Hub


def _from_hub(spec: str) -> Located:
    stated = _HUB_NAME.fullmatch(spec)
    if stated is None:
        raise DataError(f"{spec}: is no data set of the Hub; wanted hf:owner/name, hf:owner/name:config@split")
    try:
        import datasets  # noqa: PLC0415 - optional, and heavy
    except ImportError:
        raise DataError(f"{spec}: needs the library 'datasets'; pip install 'tiebreak[hub]'") from None
    # The library takes a folder here that is called so, too.
    kept = Path(datasets.config.HF_DATASETS_CACHE) / stated["name"].replace("/", "___")
    if not (kept.exists() or Path(stated["name"]).exists()) and (cause := unreachable()):
        raise DataError(f"{spec}: the Hub cannot be reached ({_printable(cause)}); name a file or folder that is here")
    try:
        builder = datasets.load_dataset_builder(stated["name"], stated["config"])
        splits = {str(split): [*map(str, files)] for split, files in (builder.config.data_files or {}).items()}
        wanted = stated["split"] or (next(iter(splits)) if len(splits) == 1 else "train")
        if not splits.get(wanted):
            raise DataError(f"{spec}: has no split '{wanted}'; choose from {', '.join(splits) or 'none'}")
        paths = datasets.DownloadManager().download(splits[wanted])
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - offline, gated, not found, no data: the library has no common error
        raise DataError(f"{spec}: cannot be loaded from the Hub ({_reason(error)})") from None
    # They are called by the ends of their addresses, from the first folder on in which these differ.
    parts = [_printable(url).split("/") for url in splits[wanted]]
    num_shared = len(os.path.commonprefix([folders[:-1] for folders in parts]))  # noqa: RUF071 - lists, not text
    names = ["/".join(folders[num_shared:]) for folders in parts]
    return [(Path(path), f"{spec}/{name}") for path, name in zip(paths, names, strict=True)]
