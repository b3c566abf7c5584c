"""Whether an attempt that was cut off may go on: what it was of, and what has changed since.

Owns the identity of a run and the refusal of drift. What a checkpoint holds is the business of `training.checkpoint`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from tiebreak import runs
from tiebreak.config import Config, leaves
from tiebreak.data.preparation import PreparedData
from tiebreak.engine.policy import Policy
from tiebreak.errors import ConfigError, RunError, nearest
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress
from tiebreak.runs import Run

Resume = Literal["auto", "never"]
PARTS = ("config", "data", "template", "tokenizer", "model")
"""What must be the same when an attempt goes on; a change of each can be accepted by its name."""
# Settings that move no weight: where results go, how often they are saved, where the reference is remembered.
_FREE = ("output.", "reference.", "training.checkpoint_steps", "training.keep_checkpoints")


def identity(config: Config, data: PreparedData, policy: Policy) -> dict[str, str]:
    """Return what a run is of, each part as a fingerprint or a name that holds one."""
    governing = {key: value_of(config, key) for key, _ in leaves() if not key.startswith(_FREE)}
    return {
        "config": fingerprint({key: _plain(value) for key, value in governing.items()}),
        "data": data.fingerprint,
        "template": fingerprint(policy.tokenizer.chat_template),
        "tokenizer": data.train.ids_digest(),
        "model": f"{policy.source.identity} {policy.source.base_identity}",
        "reference": policy.reference.identity,
    }


def check_names(accept: Collection[str]) -> None:
    """Raise ConfigError for a part that does not exist."""
    for name in accept:
        if name not in PARTS:
            raise ConfigError(f"--accept {name}: wanted one of {', '.join(PARTS)}.{nearest(name, PARTS)}")


def heed_drift(
    run: Run, now: Mapping[str, str], config: Config, accept: Collection[str], progress: Progress
) -> list[str]:
    """Refuse to go on where something changed that nobody accepted; return what was accepted, by name."""
    before: Mapping[str, str] = run.manifest.get("identity") or {}
    drifted = [name for name in PARTS if before.get(name) != now.get(name)]
    # A template changes the tokens, too; it alone is to blame then.
    blamed = [name for name in drifted if not (name == "tokenizer" and {"template", "data", "config"} & set(drifted))]
    refused = [name for name in blamed if name not in accept]
    if refused:
        raise RunError(
            f"{run.path}: {_told(refused, run, config)} changed since this attempt began; put it back, go on with "
            f"{' '.join(f'--accept {name}' for name in refused)}, or start afresh with --resume never"
        )
    if blamed:
        progress.warn(f"going on although {_told(blamed, run, config)} changed since this attempt began")
    return blamed


def set_aside(run: Run, progress: Progress) -> None:
    """Move an unfinished earlier attempt out of the way; nothing is deleted."""
    if not (run.path / "run.json").exists():
        return
    with runs.locked(run.path, progress.warn):
        if run.manifest.get("status") == runs.DONE:
            raise RunError(f"{run.path}: another process has just finished this run; start again to see its result")
        number = 1
        while (target := run.path.with_name(f"{run.path.name}.unfinished-{number}")).exists():
            number += 1
        run.path.rename(target)
    progress.warn(f"an earlier attempt did not finish; it was moved to {target}, and training starts afresh")


def has_begun(run: Run) -> bool:
    """Say whether an attempt got as far as a checkpoint, whole or not."""
    return any(any(run.path.glob(pattern)) for pattern in ("checkpoints/step-*", "quarantine/*"))


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
    before = run.config
    keys = [key for key, _ in leaves() if value_of(before, key) != value_of(config, key) and not key.startswith(_FREE)]
    return f"the configuration ({', '.join(keys)})"
