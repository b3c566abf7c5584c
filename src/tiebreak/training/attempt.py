"""One attempt at a run whose data are read and examined: load, train, save, measure; the manifest says how it ended."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection
from typing import Any

from tiebreak import faults, folders, runs
from tiebreak.config import Config
from tiebreak.diagnosis.live import Live
from tiebreak.diagnosis.reading import settings_of
from tiebreak.doctor.report import AuditReport
from tiebreak.engine.memory import peak_memory_bytes
from tiebreak.errors import Preempted, RunError, one_line
from tiebreak.evaluation.heldout import Probe, probe_steps
from tiebreak.evaluation.looking import Looks
from tiebreak.evaluation.stopping import Stopping
from tiebreak.evaluation.thumbs import held_out
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Noting
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.secrecy import masked
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.choosing import Artefact, choose
from tiebreak.training.company import Company
from tiebreak.training.diagnosing import Diagnosing
from tiebreak.training.loop import Course, Outcome
from tiebreak.training.loop import train as train_policy
from tiebreak.training.opening import Ready, begin, made_ready, now, versions
from tiebreak.training.order import num_steps
from tiebreak.training.parts import Moments, Streams, Weights
from tiebreak.training.preemption import Stop
from tiebreak.training.recorder import Recorder
from tiebreak.training.resumption import Resume, flat, set_aside
from tiebreak.training.start_check import claims_of, has_told
from tiebreak.training.trained import measure_trained, remembered
from tiebreak.training.whereabouts import lineage


def attempt(
    run: Run,
    config: Config,
    examined: AuditReport,
    stop: Stop,
    progress: Noting,
    began: float,
    *,
    resume: Resume,
    accept: Collection[str],
    company: Company,
) -> None:
    """Begin a run, or go on with it, and carry it out; `began` is when the command did, on the monotonic clock."""
    ready = made_ready(config, run, examined, progress, company, anew=resume == "never")
    for line in ready.memory.lines():
        progress.say(line)
    if resume == "never":
        set_aside(run, progress)
    with folders.locked(run.path, progress.warn):
        begin(run, config, ready, accept, progress)
        ready.loaded.reference.on_kept = _counting(run)
        _carry_out(run, config, ready, stop, progress, began, company)


def _carry_out(
    run: Run, config: Config, ready: Ready, stop: Stop, progress: Noting, began: float, company: Company
) -> None:
    """Train, save, measure; the manifest says how it ended."""
    policy, reference = ready.loaded.policy, ready.loaded.reference
    note = functools.partial(_note, run, progress)
    asked = int(run.manifest.get("num_reference_asked", 0))
    try:
        note()
        outcome, artefact = _trained(run, config, ready, stop, progress, company)
        with stop.held():
            faults.point("policy")
            # The counts come first: whatever holds a policy/ says how much it was trained.
            note(
                num_steps=outcome.num_steps,
                num_steps_done=outcome.num_steps_done,
                num_rollbacks=outcome.num_rollbacks,
                running=list(artefact.running) if config.loss.remembers else None,
                **artefact.as_dict(outcome),
                training_seconds=round(outcome.seconds, 1),
                peak_memory_bytes=peak_memory_bytes(policy.device),
                reference_moves=ready.loaded.moving and ready.loaded.moving.as_dict(),
                trained_logps=remembered(policy, ready.data.heldout.tokenized),
            )
            with run.keep_folder(run.policy_folder) as folder:
                policy.save(folder)
            run.seal(run.metrics_file)
        stop.check()
        measured = measure_trained(
            run, config, policy, reference, ready.loaded.budget, ready.data.heldout, progress,
            into=run, train=ready.data.train, answers=company.answers,
        )  # fmt: skip
        measured.write(run)
    except BaseException as error:
        ended = isinstance(error, KeyboardInterrupt | Preempted)
        # On a full disk the cause is worth more than the note; where the run is gone, nothing is to be noted.
        with contextlib.suppress(OSError, RunError):
            if run.manifest_file.exists():
                status = runs.INTERRUPTED if ended else runs.FAILED
                note(status=status, error=masked(str(error)), num_reference_asked=asked + reference.num_asked)
        raise
    finally:
        if run.path.exists():  # deleted meanwhile, it would come back with nothing else in it
            reference.flush()
    note(
        status=runs.DONE,
        error=None,
        num_reference_asked=asked + reference.num_asked,
        finished=now(),
        total_seconds=round(time.perf_counter() - began, 1),
        verdict=measured.evaluation["verdict"],
        overridden=measured.evaluation["overridden"],
    )


def _counting(run: Run) -> Callable[[int], None]:
    """Return who notes how much the reference was asked as soon as its values are kept: a killed attempt notes nothing.

    On a full disk the count is worth less than the run.
    """
    before = int(run.manifest.get("num_reference_asked", 0))

    def note(num_asked: int) -> None:
        with contextlib.suppress(OSError):
            if run.manifest_file.exists():
                run.update_manifest(num_reference_asked=before + num_asked)

    return note


def _note(run: Run, progress: Noting, **facts: Any) -> None:
    """Write facts into the manifest, and what was warned of so far, beside the warnings of earlier attempts."""
    with as_a_run_writes(run.path):
        attempt = int(run.manifest["num_attempts"])
        told = [dict(one) for one in run.manifest.get("warnings", ()) if one["attempt"] != attempt]
    told += [{"attempt": attempt, "text": masked(one_line(text, 500))} for text in progress.warnings]
    run.update_manifest(warnings=told, **facts)


def _diagnosing(run: Run, config: Config, ready: Ready, progress: Noting, total: int) -> Diagnosing:
    """Return who says what is wrong as soon as it shows, after every probe and look."""
    settings = settings_of(config.loss, config.adapter, config.training, config.evaluation, config.reference)
    live = Live(settings, ready.audit.as_dict(), lambda: progress.warnings, progress.warn)
    looked_at = (config.evaluation.probes, config.signals.looks)
    return Diagnosing(run, live, {0}.union(*(probe_steps(total, num) for num in looked_at if num)))


def _trained(
    run: Run, config: Config, ready: Ready, stop: Stop, progress: Noting, company: Company
) -> tuple[Outcome, Artefact]:
    """Train from the newest whole checkpoint on, watched on the way; the policy then has the weights that it keeps."""
    policy, reference, budget = ready.loaded.policy, ready.loaded.reference, ready.loaded.budget
    settings, data, objective = config.training, ready.data, Objective.of(config.loss)
    of = {"identity": run.manifest["identity"], "versions": versions(), "dtype": str(policy.dtype)}
    held = ready.loaded.parts(run.values_folder)
    checkpoints = Checkpoints(
        run,
        of | {"world_size": policy.ranks.size},
        settings.keep_checkpoints,
        progress.warn,
        known=run.manifest["identities"],
        holds=[Weights.name, Moments.name, Streams.name, *(part.name for part in held)],
    )
    start = checkpoints.latest()
    heldout = held_out(policy, reference, objective, data.heldout.tokenized, budget.cut)
    total, seed = num_steps(len(data.train), settings), settings.seed
    looks = Looks(run, policy, reference, data.heldout.pairs, config.signals, total=total, seed=seed, cut=budget.cut)
    by = None if config.loss.keeps_scale else "accuracy"
    stopping = Stopping(Probe(heldout, config.evaluation, total), config.stopping, total, by)
    with Recorder(run, config.output.trackers, flat(config)) as recorder:
        course = Course(
            policy=policy,
            reference=ready.loaded.compared,
            objective=objective,
            examples=data.train,
            settings=settings,
            rate=config.learning_rate,
            budget=budget,
            watchers=[*company.watchers, looks, stopping, _diagnosing(run, config, ready, progress, total)],
            recorder=recorder,
            checkpoints=checkpoints,
            asked=ready.asked_ahead(objective),
            parts=[*held, stopping],
            is_told=any(has_told(earlier) for earlier in lineage(config.model.name)),
            moments=ready.moments.tensors if ready.moments else None,
            claims=claims_of(config.model, config.reference, policy, reference),
        )
        outcome = train_policy(course, progress, start=start, stop=stop)
    if told := looks.told():
        progress.say(told)
    return outcome, choose(policy, stopping, config.stopping, checkpoints, outcome, progress)
