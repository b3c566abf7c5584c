"""Policy and reference: at their start, or as a run left them.

Owns which sections of a configuration they are made of, what a run keeps of its beginning, and what of its held-out
pairs may be missing: nothing.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tiebreak import files
from tiebreak.config import Config
from tiebreak.data.account import Side
from tiebreak.data.formats import Pairing
from tiebreak.data.preparation import render_side
from tiebreak.data.whole import PairFile, read_pairs
from tiebreak.doctor.triage import shortcuts
from tiebreak.engine import models, probes
from tiebreak.engine.arithmetic import NAMED, name_of
from tiebreak.engine.building import device_of
from tiebreak.engine.model import Model
from tiebreak.engine.models import Bases
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.reference.moving import Moving
from tiebreak.engine.reference.stored import Stored
from tiebreak.errors import RunError, one_line
from tiebreak.evaluation.measuring import Measured, measure
from tiebreak.maths.objectives import Objective, Running
from tiebreak.progress import Progress, Silent
from tiebreak.records import Tokenized
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.budget import Budget
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.choosing import told_of
from tiebreak.training.parts import Part, Weights
from tiebreak.training.whereabouts import placed, require_same

NUM_CHECKED_PAIRS = 8
"""Held-out pairs that an export is held against."""


@dataclass(frozen=True)
class Loaded:
    """A policy, what it is measured against, and how much of a step fits in memory."""

    policy: Model
    reference: Stored
    """What the policy is measured against: as it was at its start, unless another model is named."""
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
    kept: Path | None = None,
    bases: Bases = (None, None),
    say: Callable[[str], None] = lambda _: None,
    ranks: Ranks | None = None,
) -> Loaded:
    """Return the policy at its start, or as trained in a folder, with its reference, in every process.

    `trained` holds what `Model.save` wrote. `kept` holds the adapter that is the reference, where a run kept one.
    """
    policy, reference, moving = models.load(
        config.model,
        config.adapter,
        config.reference,
        seed=config.training.seed,
        quantization=config.quantization,
        trained=trained,
        kept=kept,
        bases=bases,
        beside=Objective.of(config.loss).beside_reference,
        say=say,
        ranks=ranks,
        distributed=config.distributed,
    )
    if config.training.gradient_checkpointing and trained is None:
        policy.checkpoint_activations()
    return Loaded(policy, reference, Budget(policy, config.training.token_budget), moving)


def as_begun(config: Config, run: Run) -> Config:
    """Return settings with what a run found when it began, where they leave it open.

    That is the date that its chat template wrote, and the arithmetic that its machine was fast in: the next CPU may be
    fast in another one.
    """
    if not run.manifest_file.exists():
        return config
    model, found = config.model, dict[str, Any]()
    with as_a_run_writes(run.path):
        manifest = run.manifest
        if not model.chat_template_date and (kept := manifest.get("template_date")):
            found["chat_template_date"] = date.fromisoformat(kept).isoformat()
        if model.dtype == "auto" and manifest.get("device") == "cpu" == device_of(model).type:
            found["dtype"] = name_of(NAMED[manifest.get("dtype") or "float32"])
    return config.model_copy(update={"model": model.model_copy(update=found)}) if found else config


def go_by(run: Run | None) -> None:
    """Compute by the libraries that were faster where a run began; by those that are faster here, for None."""
    probes.hold({})
    if run is not None and run.manifest_file.exists():
        with as_a_run_writes(run.path):
            probes.hold(run.manifest.get("faster") or {})


def load_trained(run: Run, progress: Progress | None = None) -> Loaded:
    """Return the policy that a run trained, with the reference that it was trained against.

    Called from any folder, and after the run was moved together with its model. Raises RunError where a file that it
    is loaded from is not what was written, the model is gone, or its weights are no longer those of the training.
    """
    run.verify(*run.trained_files)
    say = (progress or Silent()).say
    if not run.is_sealed:
        say(f"{run.path}: is of a version that kept no digests of its files, so that damage to them is not seen")
    there = placed(run)
    config = run.config.model_copy(update={"model": there.model, "reference": there.reference})
    go_by(run)
    loaded = load(as_begun(config, run), trained=run.policy_folder, kept=there.kept, bases=there.bases, say=say)
    require_same(run, loaded.policy.source, loaded.reference.source)
    return loaded


def load_checkpoint(run: Run, step: int, say: Callable[[str], None] = lambda _: None) -> Model:
    """Return the policy of a run as it was after a step, whether or not the run has come to its end.

    Raises RunError where there is no whole checkpoint of that step: a run keeps the newest ones.
    """
    run.verify(run.config_file, run.start_folder)
    found = Checkpoints(run, {}, 2, say, known=run.manifest["identities"], holds=[Weights.name]).of_step(step)
    if found is None:
        raise RunError(f"{run.path}: the checkpoint of step {step} is not there any more, or is not whole")
    there = placed(run)
    config = run.config.model_copy(update={"model": there.model, "reference": there.reference})
    go_by(run)
    loaded = load(as_begun(config, run), kept=there.kept, bases=there.bases, say=say)
    require_same(run, loaded.policy.source, loaded.reference.source)
    Weights(loaded.policy).restore(load_file(found / f"{Weights.name}.safetensors"))
    return loaded.policy


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


def own_side(run: Run, policy: Model) -> Side:
    """Return what a run held out, as text and as a policy's tokens."""
    return render_side(heldout_pairs(run).judged, policy.renderer(run.config.data))[0]
