"""What became of a model since a run recorded it.

Owns what can honestly be known: a folder has content, a hub's files have dates here, and a hub id alone says nothing of
which weights it was.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import huggingface_hub

from tiebreak.engine.sources import contents, is_same
from tiebreak.errors import TiebreakError, one_line

MOST_BYTES = 8 * 2**30
"""Of weights that are read to tell whether they are the same; of more only the dates are looked at."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


Answer = tuple[bool | None, str]
"""Whether it changed, None where that cannot be known; and how that is known."""


def changed_since(name: str, identity: str, revision: str | None, since: str | None) -> Answer:
    """Return whether the model that is found by a name is another one than was recorded.

    `identity` is what was recorded, `since` when, as manifests give the time.
    """
    if Path(name).is_dir():
        return _folder(Path(name), identity, _moment(since))
    if contents(identity) != identity:
        return None, "its folder is not there"
    if _COMMIT.fullmatch(revision or ""):
        return False, f"revision {str(revision)[:12]} is one commit"
    unknown = None, "no revision was set, so that the Hub may give other weights under its name"
    return unknown if revision else _hub(name, _moment(since)) or unknown


def _folder(folder: Path, identity: str, began: float | None) -> Answer:
    weights = sorted(folder.glob("*.safetensors"))
    if not all(file.is_file() for file in weights):  # a pipe would be waited for
        return None, "its folder holds what is no file"
    if sum(file.stat().st_size for file in weights) > MOST_BYTES:
        late = [file.name for file in weights if began and file.stat().st_mtime > began]
        return (True, f"{late[0]} is newer") if late else (None, "its weights are too large to be read for it")
    try:
        return (False, "the same bytes") if is_same(identity, str(folder)) else (True, "its bytes are others")
    except (OSError, TiebreakError) as error:
        return None, f"it cannot be read ({one_line(error, 80)})"


def _hub(name: str, began: float | None) -> Answer | None:
    """Return what the dates of a hub's files on this machine say; None where they say nothing."""
    kept = Path(huggingface_hub.constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    ref = kept / "refs" / "main"
    if began is None or not ref.is_file():
        return None
    fetched = ref.stat().st_mtime
    if fetched <= began:
        return False, "its Hub has given this machine no other commit since"
    several = len([*kept.glob("snapshots/*")]) > 1
    day = datetime.fromtimestamp(fetched, UTC).date().isoformat()
    return (True, f"its Hub gave this machine another commit, on {day}") if several else None


def _moment(told: str | None) -> float | None:
    try:
        return datetime.fromisoformat(told).timestamp() if told else None
    except ValueError:
        return None
