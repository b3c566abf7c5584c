"""Whether an attempt that was cut off may go on: what it was of, and what has changed since.

Owns the identity of a run and the refusal of drift. What a checkpoint holds is the business of `training.checkpoint`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tiebreak import files, folders, runs
from tiebreak.config import Config, leaves
from tiebreak.data.preparation import PreparedData
from tiebreak.data.whole import data_digests
from tiebreak.engine.sources import absolute, called, contents, is_same
from tiebreak.errors import ConfigError, RunError, nearest
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress
from tiebreak.runs import Run, as_a_run_writes

if TYPE_CHECKING:
    from tiebreak.engine.model import Model
    from tiebreak.engine.reference.kinds import Reference

Resume = Literal["auto", "never"]
PARTS = ("config", "data", "template", "tokenizer", "model")
"""What must be the same when an attempt goes on; a change of each can be accepted by its name."""
# Settings that move no weight: where results go, how often they are saved, where the reference is remembered, what is
# looked at on the way, what is made of the evidence.
_FREE = (
    *("output.", "gate.", "signals.", "distributed.", "data.store", "reference.store", "reference.spot_checks"),
    *("training.checkpoint_steps", "training.keep_checkpoints"),
)


def identity(config: Config, data: PreparedData, policy: Model, reference: Reference) -> dict[str, str]:
    """Return what a run is of, each part as a fingerprint or a name that holds one."""
    return {
        "config": fingerprint(governing(config)),
        "data": data.fingerprint,
        "template": fingerprint(policy.tokenizer.chat_template),
        "tokenizer": data.train.ids_digest(),
        "model": f"{policy.source.identity} {policy.source.base_identity}",
        "reference": reference.identity,
    }


def governing(config: Config) -> dict[str, Any]:
    """Return the settings that weights depend on, as plain values by dotted key.

    The path of a model, or of a run, counts by its last step, data's paths by nothing: the identity holds the content
    of models and data, and a path reads differently from another folder.
    """
    found = {key: _plain(value_of(config, key)) for key, _ in leaves() if not key.startswith(_FREE)}
    train = [source.model_dump(mode="json", exclude={"path"}) for source in config.data.sources]
    apart = {key: found[key] is not None for key in ("data.heldout", "data.heldout_prompts")}
    unplaced = {"data.train": train, **apart}
    named = {
        key: found[key] and called(found[key]) for key in ("model.name", "reference.model", "training.moments_from")
    }
    return found | unplaced | named


def asked_for(resume: str, accept: Collection[str]) -> tuple[str, ...]:
    """Return the parts that may have changed; raises ConfigError for one that does not exist, or another `resume`."""
    names = (accept,) if isinstance(accept, str) else tuple(accept)
    for name in names:
        if name not in PARTS:
            raise ConfigError(f"--accept {name}: wanted one of {', '.join(PARTS)}.{nearest(name, PARTS)}")
    if resume not in get_args(Resume):
        raise ConfigError(f"--resume {resume}: wanted one of {', '.join(get_args(Resume))}")
    return names


def heed_drift(
    run: Run, now: Mapping[str, str], config: Config, accept: Collection[str], progress: Progress
) -> list[str]:
    """Refuse to go on where something changed that nobody accepted; return what was accepted, by name."""
    before: Mapping[str, str] = dict(run.manifest.get("identity") or {})
    drifted = [name for name in PARTS if before.get(name) != now.get(name)]
    # Whatever their folders are called now.
    same = [name for name in ("model", "reference") if contents(str(before.get(name))) == contents(str(now[name]))]
    drifted = [name for name in drifted if name not in same]
    renamed = before.get("config") == fingerprint(governing(config) | _called_before(run, config, same))
    drifted = [name for name in drifted if not (name == "config" and renamed)]
    # A template changes the tokens, too; it alone is to blame then.
    blamed = [name for name in drifted if not (name == "tokenizer" and {"template", "data", "config"} & set(drifted))]
    moved, moves = ((one.reference.moves is not None) for one in (run.config, config))
    if moved != moves:
        raise RunError(
            f"{run.path}: reference.moves {'was' if moved else 'was not'} set when this attempt began, and a reference "
            "cannot begin or cease to move on the way; put it back, or start afresh with --resume never"
        )
    revised = config.reference.revision != run.config.reference.revision  # a hub id tells nothing of its content
    if {config.reference.model, run.config.reference.model} != {None} and (revised or "reference" not in same):
        raise RunError(
            f"{run.path}: the reference (reference.model) is another one than when this attempt began, and what that "
            "one said stands in the checkpoints; put it back, or start afresh with --resume never"
        )
    refused = [name for name in blamed if name not in accept]
    if refused:
        raise RunError(
            f"{run.path}: {_told(refused, run, config)} changed since this attempt began; put it back, go on with "
            f"{' '.join(f'--accept {name}' for name in refused)}, or start afresh with --resume never"
        )
    if blamed:
        progress.warn(f"going on although {_told(blamed, run, config)} changed since this attempt began")
    return blamed


def _called_before(run: Run, config: Config, same: Collection[str]) -> dict[str, Any]:
    """Return what the folders of models that hold what they held were called when an attempt began."""
    told = run.manifest
    folders = {"model": told.get("model_folder"), "reference": (told.get("reference_model") or {}).get("folder")}
    keys = {"model": ("model.name", config.model.name), "reference": ("reference.model", config.reference.model)}
    return {key: called(folders[name] or own) for name in same for key, own in [keys[name]] if own}


def set_aside(run: Run, progress: Progress) -> None:
    """Move an unfinished earlier attempt out of the way; nothing is deleted."""
    if not run.manifest_file.exists():
        return
    with folders.locked(run.path, progress.warn):
        if run.manifest.get("status") == runs.DONE:
            raise RunError(f"{run.path}: another process has just finished this run; start again to see its result")
        place = run.path.resolve()
        if Path.cwd().is_relative_to(place):
            raise RunError(f"{run.path}: is where this command runs; call it from another folder to start afresh")
        number = 1
        while os.path.lexists(target := place.with_name(f"{place.name}.unfinished-{number}")):
            number += 1
        place.rename(target)
        place.mkdir()  # where a link leads here, it leads somewhere still
    progress.warn(f"an earlier attempt did not finish; it was moved to {target}, and training starts afresh")


def already_done(run: Run, config: Config) -> bool:
    """Say whether a run is done with this very configuration and data; raises RunError where its folder is taken, or
    where a file of it is not what was written.
    """
    in_the_way = [path for path in (run.path, *run.path.parents) if path.exists() and not path.is_dir()]
    if in_the_way:
        raise RunError(f"output.dir {run.path}: {in_the_way[0]} is a file; choose another output.dir")
    files.refuse_links(run.path)
    if not run.manifest_file.exists():
        if run.path.is_dir() and any(not file.name.startswith(".") for file in run.path.iterdir()):
            raise RunError(f"{run.path}: is not empty and not a run; choose another output.dir")
        return False
    if run.manifest.get("status") != runs.DONE:
        return False
    run.verify()
    before, now = governing(run.config), governing(config)
    against = run.manifest.get("reference_model") or {}
    for key, name, folder, told in (
        ("model.name", config.model.name, run.manifest.get("model_folder"), run.manifest.get("model")),
        ("reference.model", config.reference.model, against.get("folder"), against.get("identity")),
    ):
        if folder is not None and name is not None:  # a folder, whatever it is called now
            there = folder == absolute(name) or is_same(str(told), name)
            before[key] = now[key] if there else str(folder)
    if config.training.moments_from:
        from tiebreak.training.moments import moments_digest  # noqa: PLC0415 - torch

        moments = (run.manifest.get("moments_from") or {}).get("sha256")
        if moments_digest(config.training.moments_from) not in (None, moments):
            before["training.moments_from"] = str(moments)
    if before != now:
        changed = ", ".join(key for key in now if before[key] != now[key])
        raise RunError(f"{run.path}: holds a finished run with other settings ({changed}); choose another output.dir")
    with as_a_run_writes(run.path):
        known = [str(file["sha256"]) for file in run.data["files"]]
    found = data_digests(config.data)
    if sorted(known) != sorted(found.values()):
        others = ", ".join(name for name, digest in found.items() if digest not in known) or config.data.train_paths
        raise RunError(f"{run.path}: {others} has changed since this run; choose another output.dir")
    return True


def flat(config: Config) -> dict[str, str | int | float | bool]:
    """Return the settings by dotted key, as trackers show them."""
    values = {key: value_of(config, key) for key, _ in leaves()}
    return {key: v if isinstance(v, str | int | float | bool) else str(v) for key, v in values.items()}


def value_of(config: Config, key: str) -> Any:
    """Return the value of a dotted key."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name, None)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _told(names: Collection[str], run: Run, config: Config) -> str:
    return " and ".join(_config_told(run, config) if name == "config" else f"the {name}" for name in names)


def _config_told(run: Run, config: Config) -> str:
    before, now = governing(run.config), governing(config)
    keys = [key for key in now if before[key] != now[key]]
    return f"the configuration ({', '.join(keys)})" if keys else "the configuration"
