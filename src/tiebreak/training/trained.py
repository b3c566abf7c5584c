"""Policy and reference: at their start, or as a run left them.

Owns which sections of a configuration they are made of, where a run finds the model that it was trained on, the date
that it keeps, and what of its held-out pairs may be missing: nothing.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch

from tiebreak import files
from tiebreak.config import Config
from tiebreak.data.account import Side
from tiebreak.data.formats import Pairing
from tiebreak.data.preparation import render_side
from tiebreak.data.whole import PairFile, read_pairs
from tiebreak.doctor.triage import shortcuts
from tiebreak.engine import models
from tiebreak.engine.bundled import BUNDLED
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.reference.moving import Moving
from tiebreak.engine.reference.stored import Stored
from tiebreak.engine.sources import Source, contents
from tiebreak.errors import RunError, one_line
from tiebreak.evaluation.measuring import Measured, measure
from tiebreak.maths.objectives import Objective, Running
from tiebreak.progress import Progress, Silent
from tiebreak.records import Tokenized
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.budget import Budget
from tiebreak.training.choosing import told_of
from tiebreak.training.parts import Part

NUM_CHECKED_PAIRS = 8
"""Held-out pairs that an export is held against."""


@dataclass(frozen=True)
class Loaded:
    """A policy, what it is measured against, and how much of a step fits in memory."""

    policy: Model
    reference: Stored
    """The policy as it was at its start."""
    budget: Budget
    moving: Moving | None = None
    """What steps compare with in place of the start, where that moves."""

    @property
    def compared(self) -> Reference:
        """What steps compare with."""
        return self.moving or self.reference

    def parts(self, values: Path) -> list[Part]:
        """Return the parts of a checkpoint that the reference is in; `values` is a folder of the run."""
        return [self.reference.own(values), *([self.moving] if self.moving else [])]


def load(
    config: Config,
    *,
    trained: Path | None = None,
    start: Path | None = None,
    base: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Loaded:
    """Return the policy at its start, or as trained in a folder, with its reference.

    `trained` holds what `Model.save` wrote. `start` holds the adapter that training started from, where it was one, and
    `base` is where its base model is now.
    """
    policy, reference, moving = models.load(
        config.model,
        config.adapter,
        config.reference,
        seed=config.training.seed,
        trained=trained,
        start=start,
        base=base,
        beside=Objective.of(config.loss).beside_reference,
        say=say,
    )
    if config.training.gradient_checkpointing and trained is None:
        policy.checkpoint_activations()
    return Loaded(policy, reference, Budget(policy, config.training.token_budget), moving)


def dated(config: Config, run: Run) -> Config:
    """Return settings with the date that a run's chat template wrote when it began, where none is set."""
    kept = run.manifest.get("template_date") if run.manifest_file.exists() else None
    if config.model.chat_template_date or not kept:
        return config
    with as_a_run_writes(run.path):
        day = date.fromisoformat(kept).isoformat()
    return config.model_copy(update={"model": config.model.model_copy(update={"chat_template_date": day})})


def load_trained(run: Run, progress: Progress | None = None) -> Loaded:
    """Return the policy that a run trained, with the reference that it was trained against.

    Called from any folder, and after the run was moved together with its model. Raises RunError where a file that it
    is loaded from is not what was written, the model is gone, or its weights are no longer those of the training.
    """
    run.verify(*run.trained_files)
    start, manifest, config = run.start_folder, run.manifest, run.config
    say = (progress or Silent()).say
    if not run.is_sealed:
        say(f"{run.path}: is of a version that kept no digests of its files, so that damage to them is not seen")
    base = _found(run, manifest.get("base_model"), ())
    if not start.is_dir():
        config = config.model_copy(update={"model": config.model.model_copy(update={"name": _model_of(run, config)})})
    config = dated(config, run)
    loaded = load(config, trained=run.policy_folder, start=start if start.is_dir() else None, base=base, say=say)
    trained_on, source = str(manifest.get("base_identity")), loaded.policy.source
    if contents(source.base_identity) != contents(trained_on):
        raise RunError(
            f"{run.path}: was trained on the base model {trained_on}, but {source.base} now holds "
            f"{source.base_identity}; bring back the weights it was trained on"
        )
    return loaded


def remembered(policy: Model, pairs: Sequence[Tokenized]) -> dict[str, Any] | None:
    """Return what an export is held against, as JSON takes it: what a policy says of a few held-out pairs (nats).

    None where there is no pair, or no number.
    """
    some = pairs[:NUM_CHECKED_PAIRS]
    with evaluation_mode(policy.network), torch.no_grad():  # one at a time: memory is still full of training
        logps = {pair.example_id: policy.score([pair]).summed().sums.tolist() for pair in some}
    is_finite = all(math.isfinite(one) for both in logps.values() for one in both)
    return {"dtype": str(policy.dtype), "pairs": logps} if logps and is_finite else None


def measure_trained(
    run: Run,
    config: Config,
    policy: Model,
    reference: Reference,
    budget: Budget,
    side: Side,
    progress: Progress,
    *,
    into: Run,
    train: Sequence[Tokenized] = (),
    answers: Path | None = None,
) -> Measured:
    """Measure what a run trained on pairs that it did not train on, by these settings, into a folder.

    What the reference answers is kept in the folder `answers` for other runs, where one is named, and the data's own
    judge beside it. That judge is fitted on `train`; without pairs to train on, the one is read that the run has kept.
    """
    own = into.path == run.path  # another policy of the run, or other pairs, are what nobody chose by
    with as_a_run_writes(run.path):
        manifest = run.manifest
        told, running = shortcuts(run.audit), Running(*map(float, manifest.get("running") or ()))
        chosen = told_of(manifest)
    fitted = answers and answers / run.judge_file.name
    if fitted and fitted.exists() and not run.judge_file.exists():  # it knows what it was fitted on
        shutil.copyfile(fitted, run.judge_file)
    found = measure(
        policy,
        reference,
        Objective.of(config.loss).at_end.remembering(running),
        side,
        config.evaluation,
        config.gate,
        told=[*([chosen] if chosen and own else []), *told],
        seed=config.training.seed,
        cut=budget.cut,
        progress=progress,
        into=into,
        train=train,
        data=config.data,
        judge=run.judge_file,
        answers=answers,
    )
    if fitted and run.judge_file.exists():
        files.write_bytes(fitted, run.judge_file.read_bytes())
    if not own:
        return found
    names = {"step": "artefact_step", "last_step": "num_steps_done", "best": "best"}
    artefact = {name: manifest.get(key) for name, key in names.items()} | {"told": chosen}
    return replace(found, evaluation=found.evaluation | {"artefact": artefact})


def heldout_pairs(run: Run) -> PairFile:
    """Return the pairs that a run held out, all of them; raises RunError where a line is no pair: it wrote no such."""
    file = run.heldout_pairs_file
    run.verify(file)
    found = read_pairs(file, pairing=Pairing(run.config.data.pairing))
    if found.dropped:
        first = found.dropped[0]
        raise RunError(
            f"{file}: {len(found.dropped)} of {found.num_records} lines are not as a run writes them "
            f"({one_line(first.detail, 120)}); bring it back from a copy, or train anew"
        )
    return found


def lineage(config: Config) -> Iterator[Run]:
    """Yield the runs whose policy a configuration starts from: the one that made its model, the one before it, …"""
    seen: set[Path] = set()
    while (folder := Path(config.model.name)).is_dir() and (run := Run(folder.parent)).manifest_file.exists():
        if folder != run.policy_folder or folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        run.verify(run.train_prompts_file, run.config_file)
        yield run
        config = run.config


def own_side(run: Run, policy: Model) -> Side:
    """Return what a run held out, as text and as a policy's tokens."""
    return render_side(heldout_pairs(run).judged, policy.renderer(run.config.data))[0]


def whereabouts(run: Run, source: Source) -> dict[str, Any]:
    """Return what a manifest keeps so that a run finds its model again, from wherever it is used."""
    return {"base_model": source.base, "model_folder": source.folder, "run_folder": str(run.path.resolve())}


def _model_of(run: Run, config: Config) -> str:
    """Return where the model is that a run was trained on; what was a folder is never looked for on a hub."""
    name, manifest = config.model.name, run.manifest
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


def _found(run: Run, recorded: Any, others: tuple[str, ...]) -> str | None:
    """Return a folder where it was, moved along with the run, or as it is called by others; None where it is nowhere.

    Whether it holds what it held is told by its content, once it is loaded.
    """
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
