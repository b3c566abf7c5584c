"""Checkpoints: everything that training needs to go on as if nothing had happened.

    RUN/checkpoints/step-00000012/
        PART.safetensors        one for each part: policy, optimizer, random, reference, … (see `parts`)
        state.json              step, rate, budget, digest of the sample order, length of metrics.jsonl
        manifest.json           written last: schema, sizes and SHA-256 of all files, identities, versions; and of the
                                files beside it that its parts stand on
    RUN/checkpoints/values/
        <sha256>.safetensors    shards of what the reference said, each written once and named by the checkpoints

Owns this folder. A checkpoint becomes visible whole, is read back before an older one is removed, and is verified
before it is loaded; what fails is moved to RUN/quarantine. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tiebreak import faults
from tiebreak.errors import RunError, TrainingError, one_line
from tiebreak.files import sweep, whole_folder, write_json
from tiebreak.fingerprint import fingerprint
from tiebreak.folders import by_step
from tiebreak.runs import Run
from tiebreak.seals import fault_of, seal_of_file
from tiebreak.training.parts import Part

SCHEMA = 3
STATE, MANIFEST = "state.json", "manifest.json"
UNTOLD = {"bytes": -1, "sha256": ""}
"""Of a file that a manifest leaves out: whatever lies there is not what was written."""


Say = Callable[[str], None]


@dataclass(frozen=True)
class State:
    """Where training stands after `step` optimizer steps, besides what its parts hold."""

    step: int = 0
    epoch: int = 0
    pairs_seen: int = 0
    rate_scale: float = 1.0
    """Factor on the learning rate; halved by each rollback."""
    num_rollbacks: int = 0
    token_budget: int = 0
    order_digest: str = ""
    """Digest of the ids of all examples seen, in their order."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl; what comes after it was measured by steps that are taken again."""
    metrics_sha256: str = ""
    """Digest of so much of it."""
    running: tuple[float, float] = (0.0, 0.0)
    """What the objective remembers of the steps taken: a mean and a spread, float64."""
    stopped: str | None = None
    """Why a watcher ended training before its last step."""
    best_step: int | None = None
    """The step whose policy is the best so far by a held-out score: its checkpoint stays."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        run: Run,
        identity: Mapping[str, Any],
        keep: int,
        say: Say = lambda _: None,
        known: Sequence[Mapping[str, Any]] = (),
        holds: Collection[str] = (),
    ) -> None:
        """`identity` goes into each manifest: what the run is of. `known` are those that a checkpoint may have.

        `holds` are the names of parts that each checkpoint must have.
        """
        self._run = run
        self._known = list(known)
        self._identity = dict(identity)
        self._keep = keep
        self._say = say
        self._wanted = {STATE, *(f"{name}.safetensors" for name in holds)}
        self._read_back: set[str] = set()
        """Files beside checkpoints that were seen whole in this process; they are never changed."""

    def save(self, state: State, parts: Sequence[Part]) -> None:
        """Write a checkpoint, read it and what is new beside it back, and remove those beyond the newest `keep`.

        That of the best step is not removed.
        """
        target = self._run.checkpoints_folder / f"step-{state.step:08}"
        try:
            faults.point("save:begin")
            with whole_folder(target) as hidden:
                self._write(hidden, state, parts)
                faults.point("save:rename")
        except (OSError, SafetensorError) as error:
            steps = self._steps()
            kept = f"the last one, {steps[-1].name}, is whole" if steps else "there is none yet"
            raise TrainingError(
                f"the checkpoint of step {state.step} cannot be written ({one_line(error, 160)}); {kept}: free space "
                f"under {target.parent} and run the same command again"
            ) from None
        if fault := self._fault_of(target):
            raise TrainingError(f"{target}: reads back damaged ({fault}); the disk cannot be trusted, check it")
        faults.point("save:rotate")
        for old in self._steps()[: -self._keep]:
            if old.name != f"step-{state.best_step or 0:08}":
                shutil.rmtree(old)
        self._remove_unnamed()

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole; damaged ones are set aside and told.

        Raises RunError where there were some and none is left: training must not start afresh silently.
        """
        folder, quarantine = self._run.checkpoints_folder, self._run.quarantine_folder
        # What a killed process left half written; the run's lock is held, so nobody writes there now.
        for left in folder.glob(".step-*") if folder.is_dir() else ():
            shutil.rmtree(left, ignore_errors=True)
        sweep(self._run.values_folder)
        self._read_back.clear()
        found = self._steps()
        for path in reversed(found):
            fault = self._fault_of(path)
            if fault is None:
                return path
            self._say(f"{path.name}: {fault}; moved to {self._set_aside(path)}, the next older one is tried")
        if found or (quarantine.is_dir() and any(quarantine.iterdir())):
            raise RunError(
                f"{folder}: no checkpoint is whole; they are in {quarantine}. Start afresh with "
                "--resume never, which keeps this attempt beside the new one"
            )
        return None

    def whole(self) -> list[Path]:
        """Return the checkpoints that are whole, the oldest first; damaged ones stay where they are and are told."""
        found = {path: self._fault_of(path) for path in self._steps()}
        for path, fault in found.items():
            if fault:
                self._say(f"{path.name}: {fault}")
        return [path for path, fault in found.items() if fault is None]

    def of_step(self, step: int) -> Path | None:
        """Return the checkpoint of a step; None where there is none that is whole, which is told."""
        path = self._run.checkpoints_folder / f"step-{step:08}"
        fault = self._fault_of(path)
        if fault:
            self._say(f"{path.name}: {fault}")
        return None if fault else path

    def restore(self, path: Path, parts: Sequence[Part]) -> State:
        """Let each part go back to a verified checkpoint; return where it stands."""
        for part in parts:
            file = path / f"{part.name}.safetensors"
            part.restore(load_file(file) if file.exists() else {})  # none in a checkpoint older than the part
        return State(**json.loads((path / STATE).read_text(encoding="utf-8")))

    def _write(self, folder: Path, state: State, parts: Sequence[Part]) -> None:
        beside: dict[str, Mapping[str, Any]] = {}
        for part in parts:
            save_file(dict(part.tensors()), folder / f"{part.name}.safetensors")
            for path in part.beside():
                name = str(path.relative_to(self._run.path))
                beside[name] = {"bytes": path.stat().st_size, "sha256": path.stem}
        faults.point("save:state")
        write_json(folder / STATE, asdict(state))
        faults.point("save:manifest")
        files = {path.name: seal_of_file(path) for path in sorted(folder.iterdir())}
        manifest = {"schema": SCHEMA, **asdict(state), "files": files, "beside": beside, **self._identity}
        write_json(folder / MANIFEST, manifest | {"digest": fingerprint(manifest)})

    def _fault_of(self, path: Path) -> str | None:
        """Return what is wrong with a checkpoint or with what it stands on; None where all of it is whole."""
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            schema, digest = manifest["schema"], manifest.pop("digest", None)
            if schema != SCHEMA:
                return f"{MANIFEST} is of schema {schema!r:.20}, this version reads {SCHEMA}"
            if digest != fingerprint(manifest) or path.name != f"step-{manifest['step']:08}":
                return f"{MANIFEST} is not what was written"
            if self._known and manifest.get("identity") not in self._known:
                return f"{MANIFEST} is of another run"
            own = sorted(manifest["files"].keys() | self._wanted)
            told = {path / name: manifest["files"].get(name, UNTOLD) for name in own}
            told |= {
                self._run.path / name: said for name, said in manifest["beside"].items() if name not in self._read_back
            }
            found = ((file.name, fault_of(file, said)) for file, said in told.items())
            fault = next((f"{name} {fault}" for name, fault in found if fault), None)
            self._read_back |= set() if fault else manifest["beside"].keys()
            return fault
        except FileNotFoundError:
            return f"{MANIFEST} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"{MANIFEST} or what it names cannot be read ({one_line(error, 80)})"

    def _remove_unnamed(self) -> None:
        """Remove shards that no checkpoint names: those of values that a spot check set aside."""
        if self._run.quarantine_folder.exists():  # somebody may want to look at what a damaged one stood on
            return
        manifests = [json.loads((path / MANIFEST).read_text(encoding="utf-8")) for path in self._steps()]
        named = {self._run.path / name for manifest in manifests for name in manifest["beside"]}
        for shard in self._run.values_folder.glob("*.safetensors"):
            if shard not in named:
                shard.unlink()

    def _steps(self) -> list[Path]:
        return [path for _, path in by_step(self._run.checkpoints_folder, 8) if path.is_dir()]

    def _set_aside(self, path: Path) -> Path:
        quarantine, number = self._run.quarantine_folder, 1
        quarantine.mkdir(exist_ok=True)
        while os.path.lexists(target := quarantine / f"{path.name}-{number}"):
            number += 1
        return path.rename(target)


def checkpoint_steps(total: int, every: int | None) -> int:
    """Return after how many steps a checkpoint is due: as asked, or ten times a run."""
    return every or max(1, -(-total // 10))
