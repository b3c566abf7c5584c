"""The main job, from a configuration to a judged and reported model: the verbs in their order.

Owns the order, and when a run folder comes into being: only after configuration, data and model have proven usable.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

from tiebreak import faults, runs
from tiebreak.config import Config, leaves, warnings_of, with_output_dir
from tiebreak.data.preparation import PreparedData, prepare
from tiebreak.data.reader import data_digest
from tiebreak.engine.memory import peak_memory_bytes
from tiebreak.engine.models import load_policy
from tiebreak.engine.planner import Plan, make_plan
from tiebreak.engine.policy import Policy
from tiebreak.errors import Preempted, RunError
from tiebreak.evaluation.heldout import HeldoutPairs
from tiebreak.evaluation.measuring import measure
from tiebreak.evaluation.samples import compiled_rule
from tiebreak.inspection import check
from tiebreak.opening import Ready, begin, now, versions
from tiebreak.preamble import tell
from tiebreak.progress import Progress, Silent
from tiebreak.reporting import write_report
from tiebreak.reporting.sound import as_a_run_writes
from tiebreak.resumption import Resume, asked_for, governing, set_aside, value_of
from tiebreak.runs import Run
from tiebreak.secrecy import masked
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.loop import Outcome
from tiebreak.training.loop import train as train_policy
from tiebreak.training.preemption import Stop, listening
from tiebreak.training.recorder import Recorder, check_trackers
from tiebreak.triage import heed


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
    if _already_done(run, config):
        progress.say(f"{run.path} is already done with this configuration; nothing to do")
        if not (run.path / "report.html").exists():
            write_report(run)
        return run
    with listening() as stop:
        began = time.perf_counter()
        ready = _ready(config, run, progress)
        if resume == "never":
            set_aside(run, progress)
        with runs.locked(run.path, progress.warn):
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
        answers = run.path / ".answers.jsonl"
        measured = measure(policy, heldout, data.heldout.pairs, config, progress, answers)
        measured.write(run)
        answers.unlink(missing_ok=True)
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


def plan(config: Config, progress: Progress | None = None) -> Plan:
    """Load data and model as `train` does, decide what fits in memory, and train nothing."""
    config = with_output_dir(config)
    return _ready(config, Run(str(config.output.dir)), progress or Silent()).memory


# ------------------------------------------------------------------------------------------------------------ beginning


def _ready(config: Config, run: Run, progress: Progress) -> Ready:
    """Prove that configuration, data and model can be used together, and set the policy up for its memory."""
    _check_settings(config, progress)
    faults.point("audit")
    audit = check(config.data, progress=progress)
    heed(audit, config.data, progress)
    policy = load_policy(_with_store(config, run), say=progress.say)
    data = prepare(config.data, policy.renderer(config.data), progress)
    tell(data, policy, config, progress)
    memory = make_plan(policy, data.all_pairs, config.training.token_budget, config.training.gradient_checkpointing)
    policy.budget.tokens = memory.token_budget
    for line in memory.lines():
        progress.say(line)
    return Ready(policy, data, memory, audit)


def _with_store(config: Config, run: Run) -> Config:
    """Return settings with a store of the run's own where none is wanted: an attempt that goes on needs its values."""
    if config.reference.store != "off":
        return config
    own = config.reference.model_copy(update={"store": str(run.path / "checkpoints" / "reference")})
    return config.model_copy(update={"reference": own})


def _check_settings(config: Config, progress: Progress) -> None:
    check_trackers(config.output.trackers)
    compiled_rule(config.evaluation.rule)
    for warning in warnings_of(config):
        progress.warn(warning)


def _already_done(run: Run, config: Config) -> bool:
    in_the_way = [path for path in (run.path, *run.path.parents) if path.exists() and not path.is_dir()]
    if in_the_way:
        raise RunError(f"output.dir {run.path}: {in_the_way[0]} is a file; choose another output.dir")
    if not (run.path / "run.json").exists():
        if run.path.is_dir() and any(not file.name.startswith(".") for file in run.path.iterdir()):
            raise RunError(f"{run.path}: is not empty and not a run; choose another output.dir")
        return False
    if run.manifest.get("status") != runs.DONE:
        return False
    before, now = governing(run.config), governing(config)
    if before == now:
        _refuse_changed_data(run)
        return True
    changed = ", ".join(key for key in now if before[key] != now[key])
    raise RunError(f"{run.path}: holds a finished run with other settings ({changed}); choose another output.dir")


def _refuse_changed_data(run: Run) -> None:
    with as_a_run_writes(run.path):
        known = {str(file["path"]): file["sha256"] for file in run.data["files"]}
    for path, digest in known.items():
        if data_digest(path) != digest:
            raise RunError(f"{run.path}: {path} has changed since this run; choose another output.dir")


# -------------------------------------------------------------------------------------------------- training, measuring


def _train(run: Run, config: Config, ready: Ready, heldout: HeldoutPairs, stop: Stop, progress: Progress) -> Outcome:
    policy, data = ready.policy, ready.data
    named = {"identity": run.manifest["identity"], "versions": versions(), "dtype": str(policy.dtype), "world_size": 1}
    known = run.manifest["identities"]
    checkpoints = Checkpoints(run.path, named, config.training.keep_checkpoints, progress.warn, known)
    start = checkpoints.latest()
    if start is not None:
        checkpoints.restore_reference(start, policy)
    _ask_reference(policy, data, config, progress, afresh=start is None)
    with Recorder(run.path, config.output.trackers, _flat(config)) as recorder:
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
    with runs.whole_folder(run.path / "policy") as folder:
        policy.save(folder)


# ---------------------------------------------------------------------------------------------------------- small facts


def _flat(config: Config) -> dict[str, str | int | float | bool]:
    values = {key: value_of(config, key) for key, _ in leaves()}
    return {key: v if isinstance(v, str | int | float | bool) else str(v) for key, v in values.items()}
