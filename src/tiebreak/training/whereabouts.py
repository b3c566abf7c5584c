"""Where a run finds the models that it was made of, from wherever it is used, and the runs that made them.

Owns what a manifest keeps for that. Whether a folder holds what it held is told by its content, once it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import ModelConfig, ReferenceConfig
from tiebreak.engine.bundled import BUNDLED
from tiebreak.engine.models import Bases
from tiebreak.engine.sources import Source, contents
from tiebreak.errors import RunError
from tiebreak.runs import Run, as_a_run_writes


def whereabouts(run: Run, told: ReferenceConfig, policy: Source, reference: Source) -> dict[str, Any]:
    """Return what a manifest keeps so that a run finds its models again; `told` names the reference."""
    named = {
        "name": told.model,
        "told_base": told.base,
        "folder": reference.folder,
        "base": reference.base,
        "identity": reference.identity,
        "base_identity": reference.base_identity,
        "base_revision": reference.revision,
        "quantization": reference.quantization and reference.quantization.model_dump(),
    }
    return {
        "base_model": policy.base,
        "base_revision": policy.revision,
        "model_folder": policy.folder,
        "reference_model": None if told.model is None else named,
        "run_folder": str(run.path.resolve()),
    }


@dataclass(frozen=True)
class Placed:
    """The models of a run by the names that lead to them now, what it kept of them, and where their bases are."""

    model: ModelConfig
    reference: ReferenceConfig
    kept: Path | None
    """The adapter that is the reference."""
    bases: Bases


def placed(run: Run) -> Placed:
    """Return where a run's models are; raises RunError where one is nowhere: no folder is looked for on a hub."""
    config, manifest = run.config, run.manifest
    model, reference, is_adapter = config.model, config.reference, not config.adapter.trains_all
    kept = run.start_folder if run.start_folder.is_dir() else None
    with as_a_run_writes(run.path):
        named = dict(manifest.get("reference_model") or {})
        base, other = (_found(run, told.get(key), ()) for told, key in ((manifest, "base_model"), (named, "base")))
        update: dict[str, Any] = {}
        if kept is None and named and is_adapter:  # of the model that it started from, only the base is needed
            on = base or _base_of(run, model.base)
            update = {"name": on, "revision": manifest.get("base_revision"), "base": None}
        elif kept is None:
            update = {"name": _model_of(run, model.name)}
        against = reference.unnamed
        # The base model of the policy's adapter needs no name.
        if named and not kept and not (is_adapter and _is_base(named, manifest)):
            against = reference.model_copy(update={"model": _reference_of(run, str(reference.model), named)})
    return Placed(model.model_copy(update=update), against, kept, (base, other))


def require_same(run: Run, policy: Source, reference: Source) -> None:
    """Raise RunError where the models of a run, found again, are not those that it was trained on and against."""
    told = run.manifest
    trained_on = str(told.get("base_identity"))
    if contents(policy.base_identity) != contents(trained_on):
        raise RunError(
            f"{run.path}: was trained on the base model {trained_on}, but {policy.base} now holds "
            f"{policy.base_identity}; bring back the weights it was trained on"
        )
    named = told.get("reference_model")
    if named is None or run.start_folder.is_dir():  # a kept adapter has a seal
        return
    with as_a_run_writes(run.path):
        pairs = ((named["identity"], reference.identity), (named["base_identity"], reference.base_identity))
        for before, now in pairs:
            if contents(before) != contents(now):
                raise RunError(
                    f"{run.path}: was trained against the reference {before}, but {reference.folder or reference.base} "
                    f"now holds {now}; bring back the weights it was trained against"
                )


def lineage(name: str | None) -> Iterator[Run]:
    """Yield the runs that a model of this name comes from: the one whose policy it is, the one before it, …"""
    seen: set[Path] = set()
    while name and (folder := Path(name)).is_dir() and (run := Run(folder.parent)).manifest_file.exists():
        if folder != run.policy_folder or folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        run.verify(run.train_prompts_file, run.config_file)
        yield run
        name = run.config.model.name


def _is_base(named: Mapping[str, Any], manifest: Mapping[str, Any]) -> bool:
    return contents(named["identity"]) == contents(str(manifest["base_identity"]))


def _model_of(run: Run, name: str) -> str:
    """Return where the model is that a run was trained on; what was a folder is never looked for on a hub."""
    manifest = run.manifest
    # Runs of before say only by the content in a model's identity that it was a folder.
    identity = str(manifest.get("model"))
    told = contents(identity) != identity == manifest.get("base_identity") and name not in BUNDLED
    if manifest.get("model_folder") is None and ("model_folder" in manifest or not told):
        return name
    found = _found(run, manifest.get("model_folder"), (name,))
    if found is None:
        where = manifest.get("model_folder") or f"{name} of the folder that training was started in"
        raise RunError(
            f"{run.path}: was trained on the model in the folder {where}, which is not there; bring it back, or write "
            f"where it is now as model.name into {run.config_file}"
        )
    return found


def _base_of(run: Run, named: str | None) -> str:
    """Return where the base model of a trained adapter is, where its folder is not: on a hub, or as settings say."""
    recorded = str(run.manifest["base_model"])
    if named or not os.path.isabs(recorded):  # noqa: PTH117
        return named or recorded
    raise RunError(
        f"{run.path}: was trained on the base model in the folder {recorded}, which is not there; bring it back, or "
        f"write where it is now as model.base into {run.config_file}"
    )


def _reference_of(run: Run, name: str, named: Mapping[str, Any]) -> str:
    """Return where the model is that a run was trained against."""
    found = name if named["folder"] is None else _found(run, named["folder"], (name,))
    if found is None:
        raise RunError(
            f"{run.path}: was trained against the reference in the folder {named['folder']}, which is not there; bring "
            f"it back, or write where it is now as reference.model into {run.config_file}"
        )
    return found


def _found(run: Run, recorded: Any, others: tuple[str, ...]) -> str | None:
    """Return a folder where it was, moved along with the run, or as others call it; None where it is nowhere."""
    places = list(others)
    if isinstance(recorded, str) and os.path.isabs(recorded):  # noqa: PTH117
        places = [recorded, *_moved(recorded, str(run.manifest.get("run_folder")), str(run.path.resolve())), *others]
    return next((os.path.abspath(place) for place in places if Path(place).is_dir()), None)  # noqa: PTH100


def _moved(place: str, before: str, now: str) -> list[str]:
    """Return where a place is if the folder that it shares with a run was moved with it."""
    old, new = Path(before).parts, Path(now).parts
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    root = Path(*old) if old else None
    shared = root is not None and Path(place).is_relative_to(root)
    return [str(Path(*new) / Path(place).relative_to(root))] if root and shared and new else []
