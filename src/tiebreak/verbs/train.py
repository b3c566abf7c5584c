"""The verb train: from a configuration to a judged and reported model.

Owns the order of its stations, and when a run folder comes into being: only after configuration, data and model have
proven usable.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

from tiebreak import faults, files, runs
from tiebreak.config import Config, with_output_dir
from tiebreak.data.preparation import PreparedData
from tiebreak.doctor.examination import audit
from tiebreak.doctor.triage import heed
from tiebreak.engine.memory import peak_memory_bytes
from tiebreak.engine.model import Policy
from tiebreak.errors import Preempted
from tiebreak.evaluation.heldout import HeldoutPairs
from tiebreak.evaluation.measuring import measure
from tiebreak.progress import Progress, Silent
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run
from tiebreak.secrecy import masked
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.loop import Outcome
from tiebreak.training.loop import train as train_policy
from tiebreak.training.opening import Ready, begin, check_settings, made_ready, now, versions
from tiebreak.training.preemption import Stop, listening
from tiebreak.training.recorder import Recorder
from tiebreak.training.resumption import Resume, already_done, asked_for, flat, set_aside


def train(
    config: Config, progress: Progress | None = None, *, resume: Resume = "auto", accept: Collection[str] = ()
) -> Run:
    """Run the whole job and return its folder; a run that is already done is returned as it is.

    An attempt that was cut off goes on where it was, unless `resume` is never; `accept` names what may have changed
    since. Raises a TiebreakError before anything is written where configuration, data or model cannot be used, and
    Preempted where a signal ended it.
    """
    progress, accept = progress or Silent(), asked_for(resume, accept)
    config = with_output_dir(config)
    run = Run(str(config.output.dir))
    if already_done(run, config):
        progress.say(f"{run.path} is already done with this configuration; nothing to do")
        if not run.report_file.exists():
            write_report(run)
        return run
    with listening() as stop:
        began = time.perf_counter()
        check_settings(config, progress)
        faults.point("audit")
        examined = audit(config.data, progress=progress).report
        heed(examined, config.data, progress)
        ready = made_ready(config, run, examined, progress)
        if resume == "never":
            set_aside(run, progress)
        with files.locked(run.path, progress.warn):
            begin(run, config, ready, accept, progress)
            _carry_out(run, config, ready, stop, progress, began)
        faults.point("report")
        write_report(run)
    return run


def _carry_out(run: Run, config: Config, ready: Ready, stop: Stop, progress: Progress, began: float) -> None:
    """Train, save, measure; the manifest says how it ended."""
    policy, data = ready.policy, ready.data
    try:
        heldout = HeldoutPairs(policy, data.heldout.tokenized, config)
        outcome = _train(run, config, ready, heldout, stop, progress)
        with stop.held():
            _save_policy(run, policy, outcome)
        stop.check()
        measured = measure(policy, heldout, data.heldout.pairs, config, progress, run.answers_file)
        measured.write(run)
        run.answers_file.unlink(missing_ok=True)
    except BaseException as error:
        ended = isinstance(error, KeyboardInterrupt | Preempted)
        with contextlib.suppress(OSError):  # on a full disk the cause is worth more than the note
            run.update_manifest(status=runs.INTERRUPTED if ended else runs.FAILED, error=masked(str(error)))
        raise
    finally:
        policy.reference.flush()
    run.update_manifest(
        status=runs.DONE,
        error=None,
        finished=now(),
        total_seconds=round(time.perf_counter() - began, 1),
        verdict=measured.evaluation["verdict"],
    )


def _train(run: Run, config: Config, ready: Ready, heldout: HeldoutPairs, stop: Stop, progress: Progress) -> Outcome:
    policy, data = ready.policy, ready.data
    named = {"identity": run.manifest["identity"], "versions": versions(), "dtype": str(policy.dtype), "world_size": 1}
    known = run.manifest["identities"]
    checkpoints = Checkpoints(run.path, named, config.training.keep_checkpoints, progress.warn, known)
    start = checkpoints.latest()
    if start is not None:
        checkpoints.restore_reference(start, policy)
    _ask_reference(policy, data, config, progress, afresh=start is None)
    with Recorder(run.path, config.output.trackers, flat(config)) as recorder:
        return train_policy(
            policy,
            data.train,
            config,
            probe=heldout.probe,
            recorder=recorder,
            progress=progress,
            checkpoints=checkpoints,
            start=start,
            stop=stop,
        )


def _ask_reference(policy: Policy, data: PreparedData, config: Config, progress: Progress, *, afresh: bool) -> None:
    """Verify what is stored; ask a frozen copy for all that is not, so that its weights can go."""
    pairs = data.all_pairs
    finding = policy.reference.spot_check(pairs, config.reference.spot_checks, policy.dtype)
    if finding:
        progress.warn(finding)
    if afresh or finding:
        policy.reference.pin(pairs)
    missing = policy.reference.missing(pairs)
    if len(missing) < len(pairs):
        progress.say(f"reference: {len(pairs) - len(missing)} of {len(pairs)} pairs are stored from earlier runs")
    if config.adapter.kind == "none" and missing:
        with progress.stage("reference", len(missing)) as advance:
            # Grouped as if nothing were stored: after a kill each pair is computed in the company that it had before.
            for group in policy.micro_batches(pairs):
                if asked := policy.reference.missing(group):
                    faults.point("reference")
                    policy.reference.logps(asked)
                    advance(len(asked))
        policy.reference.flush()


def _save_policy(run: Run, policy: Policy, outcome: Outcome) -> None:
    # The counts come first: whatever holds a policy/ says how much it was trained.
    faults.point("policy")
    run.update_manifest(
        num_steps=outcome.num_steps,
        num_steps_done=outcome.num_steps,
        num_rollbacks=outcome.num_rollbacks,
        training_seconds=round(outcome.seconds, 1),
        peak_memory_bytes=peak_memory_bytes(policy.device),
    )
    with files.whole_folder(run.policy_folder) as folder:
        policy.save(folder)
