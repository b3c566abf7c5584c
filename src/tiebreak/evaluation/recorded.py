"""What a run's files say of it, part by part, and in which of these parts runs differ.

Owns which facts are set side by side, and when two are the same. A part that a run lacks, or whose file is not what was
written, is noted and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tiebreak.config import load_config
from tiebreak.config.yaml_text import parse_yaml
from tiebreak.engine.sources import contents
from tiebreak.errors import RunError, TiebreakError, one_line
from tiebreak.evaluation.against import Against
from tiebreak.evaluation.contrast import Items, items_of
from tiebreak.evaluation.rows import Row
from tiebreak.files import refuse_links
from tiebreak.folders import is_at_work, require_folder
from tiebreak.runs import RUNNING, SCHEMA, Run, as_a_run_writes

_Read = TypeVar("_Read")

Told = Mapping[str, tuple[Any, Any]]
"""Facts of a part by key: what is held against another run's, and what is shown of it."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in all runs."""

    part: str
    """settings, data, model, versions or machine."""
    key: str
    values: Sequence[Any]
    """One for each run; None where it is not known."""


class Recorded:
    """A run, read part by part; what cannot be known of it is noted once."""

    def __init__(self, letter: str, path: str | Path) -> None:
        """Raises RunError for a folder that is no run."""
        self.letter, self.run = letter, _opened(path)
        self.manifest, run = self.run.manifest, self.run
        self.unknown: list[str] = []
        self.settings = self.part("settings", lambda: _settings(run)) or {}
        self.data = self.part("data", lambda: run.data) or {}
        self.audit = self.part("audit of the data", lambda: run.audit) or {}
        self.prompts = self.part("training prompts", lambda: {*run.train_prompt_ids})
        self.evaluation = self.part("evaluation", lambda: run.evaluation) or {}
        self.against = self.part("reference", lambda: Against.of(self.manifest, self.settings))
        self.items = (self.part("scores", lambda: _items(run)) or {}) if self.evaluation else {}
        if self.manifest.get("schema") != SCHEMA:
            self.unknown.append("written by an older version of tiebreak: what it did not write down is not compared")

    def part(self, name: str, read: Callable[[], _Read]) -> _Read | None:
        """Return what is read of it; where that cannot be, note why and return None."""
        try:
            with as_a_run_writes(self.run.path):
                return read()
        except (TiebreakError, OSError) as error:
            self.unknown.append(f"{name} not known: {one_line(error, 400)}")
            return None

    def known(self, part: str, told: Callable[[Recorded], Told]) -> Told:
        """Return the facts of a part; none where they are not as a run writes them."""
        return self.part(part, lambda: told(self)) or {}

    def head(self) -> dict[str, Any]:
        """Return what names it."""
        told = {key: self.manifest.get(key) for key in ("status", "started", "finished", "num_steps", "num_steps_done")}
        if told["status"] == RUNNING and not is_at_work(self.run.path):
            told["status"] = "dead"
        said = {"verdict": self.evaluation.get("verdict"), "reason": self.evaluation.get("reason")}
        return {"letter": self.letter, "run": str(self.run.path), **told, **said}

    @property
    def began(self) -> str:
        """When it did, as it sorts; empty where it is not known."""
        return str(self.manifest.get("started") or "")


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings as the run wrote them, by dotted key: an older version's need not be known to this one."""
    run.verify(run.config_file)
    told = parse_yaml(run.config_file.read_text(encoding="utf-8"), str(run.config_file))
    return dict(_flat(told))


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from _flat(one, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _items(run: Run) -> dict[str, Items]:
    rows = [Row.from_dict(row) for row in run.rows(run.measures_file)]
    return items_of([row for row in rows if not row.num_not_finite], run.rows(run.evidence_file))


def _told_settings(side: Recorded) -> Told:
    """Where results go is no difference; which data and model were taken is told by their content."""
    own: tuple[str, ...] = ("output.", "data.train", "data.heldout", "model.name", "model.base")
    own += ("data.store", "reference.store", "reference.model", "reference.base")
    here = {
        key: value for key, value in side.settings.items() if not key.startswith(own) or key == "data.heldout_share"
    }
    # What an older version had no setting for was as its default says now.
    late = {key: value for key, value in _defaults().items() if key not in side.settings and not key.startswith(own)}
    return {key: (value, value) for key, value in (late | here if here else {}).items()}


def _defaults() -> dict[str, Any]:
    """Return the settings of today that stand in every configuration."""
    told = dict(_flat(load_config(None, {"output.dir": "x"}).model_dump(mode="json")))
    depends = ("loss.", "evaluation.judge", "evaluation.rule", "gate.")
    return {key: value for key, value in told.items() if not key.startswith(depends)}


def _told_data(side: Recorded) -> Told:
    found: dict[str, tuple[Any, Any]] = {}
    if side.data:
        files = side.data["files"]
        shown = [f"{Path(str(one['path'])).name} sha256:{str(one['sha256'])[:8]}" for one in files]
        found["files"] = sorted(str(one["sha256"]) for one in files), ", ".join(shown)
        for key in ("num_records", "num_train_pairs", "num_heldout_pairs", "num_dropped"):
            found[key] = side.data.get(key), side.data.get(key)
    known = side.manifest.get("data_fingerprint")
    return found | {"content": (known, known and str(known)[:8])}


def _told_model(side: Recorded) -> Told:
    manifest = side.manifest
    told = {"base model": "base_identity", "model": "model", "reference": "reference", "method": "method"}
    found = {name: manifest.get(key) for name, key in told.items()}
    template = (manifest.get("identity") or {}).get("template")
    moved: dict[str, tuple[Any, Any]] = {name: (value and contents(str(value)), value) for name, value in found.items()}
    if side.against and side.against.model:  # a frozen copy and an adapter that is switched off are one model
        moved["reference"] = (side.against.model, side.against.base, side.against.bits), found["reference"]
    return moved | {"chat template": (template, template and str(template)[:8])}


def _told_versions(side: Recorded) -> Told:
    return {str(key): (value, value) for key, value in (side.manifest.get("versions") or {}).items()}


def _told_machine(side: Recorded) -> Told:
    return {key: (side.manifest[key], side.manifest[key]) for key in ("device", "layout") if key in side.manifest}


FACTS: Mapping[str, Callable[[Recorded], Told]] = {
    "settings": _told_settings,
    "data": _told_data,
    "model": _told_model,
    "versions": _told_versions,
    "machine": _told_machine,
}


def _keys(told: Sequence[Told]) -> list[str]:
    return [*dict.fromkeys(key for one in told for key in one)]


def differences(part: str, told: Sequence[Told]) -> Iterator[Difference]:
    """Yield what is not the same in all runs of which a part is known."""
    for key in _keys(told):
        if not _is_equal(key, told):
            yield Difference(part, key, [one[key][1] if key in one else None for one in told])


def _is_equal(key: str, told: Sequence[Told]) -> bool:
    """Whether all runs of which a part is known hold the same."""
    held = [one[key][0] if key in one else None for one in told if one]
    return all(one == held[0] for one in held)


def num_equal(told: Sequence[Told]) -> int:
    """Return how much of a part is the same in all runs, where at least two are known."""
    return sum(_is_equal(key, told) for key in _keys(told)) if sum(map(bool, told)) > 1 else 0


def _opened(path: str | Path) -> Run:
    run = Run(path)
    require_folder(run.path)
    refuse_links(run.path)
    with as_a_run_writes(run.path):
        if not isinstance(run.manifest.get("status"), str):
            raise RunError(f"{run.manifest_file}: is not as a run writes it; bring it back from a copy, or train anew")
    return run
