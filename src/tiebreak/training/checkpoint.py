"""Checkpoints: everything that training needs to go on as if nothing had happened.

    RUN/checkpoints/step-00000012/
        policy.safetensors      the parameters that train
        optimizer.safetensors   AdamW's moments, by parameter
        random.safetensors      the states of the random streams
        reference.safetensors   what the reference has said of the run's pairs by now
        state.json              step, rate, budget, digest of the sample order, length of metrics.jsonl
        manifest.json           written last: schema, sizes and SHA-256 of all files, identities, versions

Owns this folder. It becomes visible whole, is read back before an older one is removed, and is verified before it is
loaded; what fails is moved to RUN/quarantine. Nothing is pickled.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.model import Policy
from tiebreak.errors import RunError, TrainingError, one_line
from tiebreak.files import whole_folder, write_json
from tiebreak.fingerprint import file_digest, fingerprint

SCHEMA = 2
POLICY, OPTIMIZER, RANDOM, REFERENCE, STATE, MANIFEST = (
    "policy.safetensors", "optimizer.safetensors", "random.safetensors", "reference.safetensors", "state.json",
    "manifest.json",
)  # fmt: skip
FILES = (POLICY, OPTIMIZER, RANDOM, REFERENCE, STATE)
MOMENTS = ("exp_avg", "exp_avg_sq", "step")

_NAME = re.compile(r"step-\d{8,}")

Say = Callable[[str], None]


@dataclass(frozen=True)
class State:
    """Where training stands after `step` optimizer steps, besides weights, moments and random streams."""

    step: int = 0
    epoch: int = 0
    pairs_seen: int = 0
    rate_scale: float = 1.0
    """Factor on the learning rate; halved by each rollback."""
    num_rollbacks: int = 0
    token_budget: int = 0
    order_digest: str = ""
    """Digest of the ids of all pairs seen, in their order."""
    metrics_bytes: int = 0
    """Length of metrics.jsonl; what comes after it was measured by steps that are taken again."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(
        self,
        run: Path,
        identity: Mapping[str, Any],
        keep: int,
        say: Say = lambda _: None,
        known: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """`identity` goes into each manifest: what the run is of. `known` are those that a checkpoint may have."""
        self._known = list(known)
        self.folder = run / "checkpoints"
        self._quarantine = run / "quarantine"
        self._identity = dict(identity)
        self._keep = keep
        self._say = say

    def save(self, state: State, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        """Write a checkpoint, read it back, and remove those beyond the newest `keep`."""
        target = self.folder / f"step-{state.step:08}"
        try:
            faults.point("save:begin")
            with whole_folder(target) as hidden:
                self._write(hidden, state, policy, optimizer)
                faults.point("save:rename")
        except (OSError, SafetensorError) as error:
            raise TrainingError(self._unwritten(state, error)) from None
        fault = _fault_of(target)
        if fault:
            raise TrainingError(f"{target}: reads back damaged ({fault}); the disk cannot be trusted, check it")
        faults.point("save:rotate")
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(old)

    def latest(self) -> Path | None:
        """Return the newest checkpoint that is whole; damaged ones are set aside and told.

        Raises RunError where there were some and none is left: training must not start afresh silently.
        """
        self._sweep()
        found = self._steps()
        for path in reversed(found):
            fault = _fault_of(path) or self._foreign(path)
            if fault is None:
                return path
            self._say(f"{path.name}: {fault}; moved to {self._set_aside(path)}, the next older one is tried")
        if found or (self._quarantine.is_dir() and any(self._quarantine.iterdir())):
            raise RunError(
                f"{self.folder}: no checkpoint is whole; they are in {self._quarantine}. Start afresh with "
                "--resume never, which keeps this attempt beside the new one"
            )
        return None

    def restore(self, path: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> State:
        """Load a verified checkpoint into policy, optimizer and random streams; return where it stands."""
        weights = load_file(path / POLICY)
        moments = load_file(path / OPTIMIZER)
        with torch.no_grad():
            for name, parameter in policy.trainable:
                parameter.copy_(weights[name])
                optimizer.state[parameter] = {
                    key: _placed(key, moments[f"{name}.{key}"], parameter)
                    for key in MOMENTS
                    if f"{name}.{key}" in moments
                }
        _set_random(load_file(path / RANDOM), policy)
        self.restore_reference(path, policy)
        return State(**json.loads((path / STATE).read_text(encoding="utf-8")))

    def restore_reference(self, path: Path, policy: Policy) -> None:
        """Give the reference what it had said by a verified checkpoint, and nothing that was stored since."""
        policy.reference.restore(load_file(path / REFERENCE))

    def _foreign(self, path: Path) -> str | None:
        """Say where a checkpoint is of another run than this one, as far as that is known."""
        of = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("identity")
        return f"{MANIFEST} is of another run" if self._known and of not in self._known else None

    def _write(self, folder: Path, state: State, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
        faults.point("save:policy")
        save_file({name: _plain(p) for name, p in policy.trainable}, folder / POLICY)
        faults.point("save:optimizer")
        save_file(_moments(policy, optimizer), folder / OPTIMIZER)
        save_file(_random(policy), folder / RANDOM)
        save_file(policy.reference.rows(), folder / REFERENCE)
        faults.point("save:state")
        write_json(folder / STATE, asdict(state))
        faults.point("save:manifest")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in sorted(folder.iterdir())
        }
        manifest = {"schema": SCHEMA, **asdict(state), "files": files, **self._identity}
        write_json(folder / MANIFEST, manifest | {"digest": fingerprint(manifest)})

    def _unwritten(self, state: State, error: Exception) -> str:
        steps = self._steps()
        kept = f"the last one, {steps[-1].name}, is whole" if steps else "there is none yet"
        return (
            f"the checkpoint of step {state.step} cannot be written ({one_line(error, 160)}); {kept}: free space under "
            f"{self.folder} and run the same command again"
        )

    def _steps(self) -> list[Path]:
        found = self.folder.glob("step-*") if self.folder.is_dir() else ()
        return sorted(path for path in found if path.is_dir() and _NAME.fullmatch(path.name))

    def _sweep(self) -> None:
        """Remove what a killed process left half written; the run's lock is held, so nobody writes there now."""
        for left in self.folder.glob(".step-*") if self.folder.is_dir() else ():
            shutil.rmtree(left, ignore_errors=True)

    def _set_aside(self, path: Path) -> Path:
        self._quarantine.mkdir(exist_ok=True)
        number = 1
        while (target := self._quarantine / f"{path.name}-{number}").exists():
            number += 1
        return path.rename(target)


def _fault_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint, None where it is whole."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        schema, digest = manifest["schema"], manifest.pop("digest", None)
        if schema != SCHEMA:
            return f"{MANIFEST} is of schema {schema!r:.20}, this version reads {SCHEMA}"
        if digest != fingerprint(manifest) or path.name != f"step-{manifest['step']:08}":
            return f"{MANIFEST} is not what was written"
        faults_found = (_fault_of_file(path / name, manifest["files"][name]) for name in FILES)
        return next((fault for fault in faults_found if fault), None)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({one_line(error, 80)})"


def _fault_of_file(file: Path, told: Mapping[str, Any]) -> str | None:
    if not file.is_file():
        return f"{file.name} is missing"
    if file.stat().st_size != told["bytes"] or file_digest(file) != told["sha256"]:
        return f"{file.name} is not what was written ({file.stat().st_size} bytes)"
    return None


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _moments(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": _plain(torch.as_tensor(optimizer.state[parameter][key]))
        for name, parameter in policy.trainable
        for key in MOMENTS
        if key in optimizer.state.get(parameter, {})
    }


def _placed(key: str, value: Tensor, parameter: Tensor) -> Tensor:
    """Put a moment where its parameter is; AdamW counts steps on the CPU."""
    return value if key == "step" else value.to(parameter.device)


def _random(policy: Policy) -> dict[str, Tensor]:
    streams = {"cpu": torch.get_rng_state()}
    if policy.device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(policy.device)
    return streams


def _set_random(streams: Mapping[str, Tensor], policy: Policy) -> None:
    torch.set_rng_state(streams["cpu"])
    if policy.device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], policy.device)


def checkpoint_steps(total: int, every: int | None) -> int:
    """Return after how many steps a checkpoint is due: as asked, or ten times a run."""
    return every or max(1, -(-total // 10))
