"""The verb promote: a run that passes becomes the current version of a registry, with all that it stands on.

Owns what may come in, and what a version says of where it comes from. How a registry keeps it is known to `registry`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tiebreak import faults, files, folders, runs, seals
from tiebreak.config import in_quotes, quoted
from tiebreak.errors import ConfigError, NotPassing, RunError, nearest, one_line
from tiebreak.evaluation.gate import Decision
from tiebreak.evaluation.thumbs import held_out
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Progress, Silent
from tiebreak.registry import LINEAGE, REGISTRY, Event, Registry, names_a_version
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.opening import now, versions
from tiebreak.training.trained import NUM_CHECKED_PAIRS, Loaded, load_trained, own_side
from tiebreak.verbs.export import Artefact, Form, checked_target, export
from tiebreak.verbs.gate import gate, write_down


@dataclass(frozen=True)
class Promotion:
    """What is current now."""

    version: str
    path: str
    """The version's folder."""
    current: str
    """The link that a serving stack is given."""
    replaced: str | None
    verdict: str
    overridden: Mapping[str, str]
    loosened: Mapping[str, str]
    """Default rules that were taken away or ask less, and how."""
    form: str
    already: bool
    """Whether it was current before, so that nothing was done."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def promote(
    run: Run,
    to: str | Path = REGISTRY,
    *,
    name: str | None = None,
    overrides: Mapping[str, str] | None = None,
    form: Form | None = None,
    progress: Progress | None = None,
) -> Promotion:
    """Export a run that passes into a registry, and make it current; a run that is current already stays as it is.

    `overrides` are rules that may fail, with their reasons; they are recorded in the run first. Raises NotPassing where
    another rule does not hold or is not known to, RunError where the run is in use or its files contradict each
    other, RegistryError where the registry is damaged or in use, ConfigError for a name or a rule that is none.
    """
    progress, registry = progress or Silent(), Registry(to)
    label = _label(run, name)
    checked_target(f"{to}/versions/0000-{label}")  # before anything is written
    with _passing(run, overrides or {}, progress) as decision, registry.changing(progress) as events:
        policy = _digest_of(run.policy_folder)
        current = events[-1] if events else None
        same = current if current and current.policy_sha256 == policy else None
        if same and _says(same, name, form, decision):
            registry.check(same.version, same.lineage_sha256, progress)
            progress.say(f"{run.path}: is current already, as {same.version}; nothing to do")
            registry.show(same)
            return _promotion(registry, same, already=True)
        loaded = load_trained(run, progress)
        _require_measured(run, loaded, progress)
        if overrides:
            write_down(run, decision)
        target, follows = registry.next_version(label, events), registry.tip(events)
        with as_a_run_writes(run.path):
            origin = _origin(run) | {"policy_sha256": policy}

        def finish(folder: Path, artefact: Artefact) -> None:
            lineage = _lineage(run, decision, artefact, folder) | {"policy_sha256": policy, "follows_sha256": follows}
            lineage |= {"version": target.name, "replaced": current and current.version}
            files.write_json(folder / LINEAGE, lineage)
            faults.point("registry:version")

        artefact = export(run, loaded, target, form or (same.form if same else None), progress, finish)
        event = registry.append(
            events,
            "promoted",
            time=now(),
            version=target.name,
            verdict=decision.verdict,
            overridden=dict(decision.overridden),
            loosened=dict(decision.loosened),
            form=artefact.form,
            lineage_sha256=file_digest(target / LINEAGE),
            **origin,
        )
    return _promotion(registry, event, already=False)


def _digest_of(folder: Path) -> str:
    return fingerprint({name: file_digest(folder / name) for name in seals.files_in(folder)})


def _says(current: Event, name: str | None, form: Form | None, decision: Decision) -> bool:
    """Say whether the current version already has this name and form, and what is overridden."""
    called = current.version.partition("-")[2]
    return name in (None, called) and form in (None, current.form) and decision.overridden == current.overridden


@contextlib.contextmanager
def _passing(run: Run, overrides: Mapping[str, str], progress: Progress) -> Iterator[Decision]:
    """Hold a run's lock and yield its decision, so that all of it is one state; a run that is read-only has no lock."""
    writable = os.access(run.path, os.W_OK)
    with folders.locked(run.path, progress.warn, "promote another run") if writable else contextlib.nullcontext():
        run.verify()
        yield _decided(run, overrides)


def _label(run: Run, name: str | None) -> str:
    if name is None:
        called = re.sub(r"[^A-Za-z0-9._-]+", "-", run.path.resolve().name)[:60].strip("-._")
        return called or "run"
    if not names_a_version(name):
        raise ConfigError(f"--name {name}: wanted up to 60 letters, digits, dots, dashes and underscores")
    return name


def _decided(run: Run, overrides: Mapping[str, str]) -> Decision:
    """Decide again on what the run measured; return a decision that passes.

    What the run's own verdict has overridden counts; everything else is by the rules of its configuration.
    """
    with as_a_run_writes(run.path):
        status, told = run.manifest.get("status"), (run.manifest.get("verdict"), run.verdict)
    if status != runs.DONE:
        again = in_quotes(f"tiebreak train {quoted(str(run.config_file))}")
        raise RunError(f"{run.path}: the run is '{status}', and only one that came to its end is promoted; {again}")
    rules = [name for name, rule in run.config.gate.rules.items() if rule is not None]
    for rule, reason in overrides.items():
        if rule not in rules:
            raise ConfigError(f"--override {rule}: the run's gate has no such rule.{nearest(rule, rules)}")
        if not reason.strip() or reason.encode("utf-8", "replace").decode() != reason:
            raise ConfigError(f"--override {rule}: wanted the reason why it may fail, as text")
    own = gate(run)
    if {*told} != {own.verdict}:
        again = in_quotes(f"tiebreak gate {quoted(str(run.path))} --record")
        raise RunError(
            f"{run.path}: its files say {' and '.join(sorted({str(one) for one in told}))}, and what it measured says "
            f"{own.verdict} by the rules of its configuration ({one_line(own.reason, 200)}); rules of your own stand "
            f"in {run.config_file.name}, and {again} decides by them"
        )
    decision = gate(run, {f"gate.overrides.{rule}": one_line(reason) for rule, reason in overrides.items()})
    if decision.verdict == "pass":
        return decision
    open_rules = [one for one in decision.checks if one.verdict != "pass" and not one.override]
    named = dict.fromkeys(one.name for one in open_rules if one.kind != "finite")
    excuse = " ".join(f"--override {rule}=REASON" for rule in named)
    raise NotPassing(
        f"{run.path}: not promoted, its verdict is {decision.verdict}: {decision.reason}"
        + (f"; who takes it all the same says why for each rule: {excuse}" if excuse else ""),
        failed=decision.verdict == "fail",
    )


def _require_measured(run: Run, loaded: Loaded, progress: Progress) -> None:
    """Raise RunError where the policy in the folder is not the one that the evidence is about.

    A few held-out pairs are scored again. A token may be off by 1e-4 nats in fp32; of narrower weights all pairs
    together by a fifth of what training did.
    """
    # Of all that is held out: who meets whom, where completions are on their own, hangs on the others.
    side, objective = own_side(run, loaded.policy), Objective.of(run.config.loss).at_end
    found = held_out(loaded.policy, loaded.reference, objective, side.tokenized, loaded.budget.cut).evidence(
        NUM_CHECKED_PAIRS, progress
    )
    with as_a_run_writes(run.path):
        kept = {row["pair_id"]: row for row in run.rows(run.evidence_file)}
        numbers = [
            (
                getattr(one, f"policy_{side}_logps") - float(kept[one.pair_id][f"policy_{side}_logps"]),
                getattr(one, f"policy_{side}_logps") - getattr(one, f"reference_{side}_logps"),
                getattr(one, f"{side}_num_tokens"),
            )
            for one in found
            for side in ("chosen", "rejected")
        ]
    apart, moved, num_tokens = (torch.tensor(column, dtype=torch.float64) for column in zip(*numbers, strict=True))
    allowed = 1e-4 * float(num_tokens.max())
    if loaded.policy.dtype != torch.float32:
        allowed = max(allowed, 0.2 * float(moved.abs().mean()))
    if not float(apart.abs().mean()) <= allowed:
        again = in_quotes(f"tiebreak evaluate {quoted(str(run.path))}")
        raise RunError(
            f"{run.path}: was measured with other weights than its policy/ holds: log-probabilities differ by "
            f"{float(apart.abs().mean()):.3g} nats, at most {allowed:.3g} are rounding; {again} measures these"
        )


def _origin(run: Run) -> dict[str, str]:
    """Return where a version comes from, as a line of the history says it."""
    manifest = run.manifest
    return {
        "run": run.path.resolve().name,
        "data_fingerprint": str(manifest["data_fingerprint"]),
        "config_fingerprint": str(manifest["config_fingerprint"]),
        "base_model": str(manifest["base_identity"]),
        "reference": str(manifest["reference"]),
    }


def _lineage(run: Run, decision: Decision, artefact: Artefact, folder: Path) -> dict[str, Any]:
    """Return lineage.json: from the data to the files of the artefact."""
    evidence = (run.evidence_file, run.samples_file, run.measures_file, run.evaluation_file)
    with as_a_run_writes(run.path):
        manifest, data = run.manifest, run.data
        return {
            "schema": 1,
            "time": now(),
            **_origin(run),
            "model": manifest["model"],
            "method": manifest["method"],
            "seed": run.config.training.seed,
            "num_steps_done": manifest["num_steps_done"],
            "data": {
                "files_sha256": {Path(str(file["path"])).name: file["sha256"] for file in data["files"]},
                "num_train_pairs": data["num_train_pairs"],
                "num_heldout_pairs": data["num_heldout_pairs"],
            },
            "decision": decision.as_dict(),
            "evidence_sha256": {file.name: file_digest(file) for file in evidence if file.exists()},
            "artefact": {key: value for key, value in artefact.as_dict().items() if key != "path"},
            "files_sha256": {
                file.relative_to(folder).as_posix(): file_digest(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            },
            "versions": {"trained": manifest["versions"], "promoted": versions()},
        }


def _promotion(registry: Registry, event: Event, *, already: bool) -> Promotion:
    return Promotion(
        event.version,
        str(registry.versions_folder / event.version),
        str(registry.current_link),
        event.replaced,
        event.verdict,
        event.overridden,
        event.loosened,
        event.form,
        already,
    )
