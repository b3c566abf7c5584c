"""How a run comes into being: configuration, data and model proven usable together, and the first files of its folder.

Owns those files and the facts of the manifest that are known before a step is taken. An attempt that goes on proves
here that it is still the same run. What the doctor found is handed in.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from tiebreak import files, runs
from tiebreak.config import KL_SIGNALS, Config, dump_config
from tiebreak.data.preparation import PreparedData
from tiebreak.data.ready_made import ready_made
from tiebreak.doctor.report import AuditReport
from tiebreak.engine import probes
from tiebreak.engine.arithmetic import name_of
from tiebreak.engine.placing import placing_of
from tiebreak.engine.planner import Plan, plan_together
from tiebreak.engine.quantization import facts
from tiebreak.engine.sources import same_model
from tiebreak.errors import ConfigError, RunError
from tiebreak.evaluation.capabilities.asking import prepare_tasks
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Progress
from tiebreak.records import Example
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.company import Company
from tiebreak.training.moments import Earlier, moments_of
from tiebreak.training.order import num_steps, refuse_steps
from tiebreak.training.preamble import tell, tell_watch
from tiebreak.training.resumption import heed_drift, identity
from tiebreak.training.trained import Loaded, as_begun, go_by, load
from tiebreak.training.whereabouts import lineage, whereabouts

LIBRARIES = ("tiebreak", "torch", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True)
class Ready:
    """All that a run stands on, proven usable together."""

    loaded: Loaded
    data: PreparedData
    memory: Plan
    audit: AuditReport
    moments: Earlier | None = None
    """What the optimizer starts with, where another run left it something."""

    def asked_ahead(self, objective: Objective) -> Sequence[Example]:
        """Return the examples whose reference log-probabilities are computed and stored before training.

        None where whole distributions are compared, which are too much to keep; the held-out ones alone where the
        objective does not read the reference, or the reference moves.
        """
        if objective.asks_distributions:
            return ()
        wanted = objective.asks_reference and not self.loaded.moving
        return self.data.all_pairs if wanted else self.data.heldout.tokenized


def made_ready(
    config: Config,
    run: Run,
    audit: AuditReport,
    progress: Progress,
    company: Company | None = None,
    *,
    anew: bool = False,
) -> Ready:
    """Prove that configuration, data and model can be used together, and set the policy up for its memory.

    `anew` says that what an earlier attempt left will be set aside.
    """
    begun, company = as_begun(config, run) if run.has_begun else config, company or Company()
    go_by(run if run.has_begun else None)
    progress.say(f"loading {config.model.name}")
    loaded = load(_with_store(begun, run), say=progress.say, ranks=company.ranks)
    policy, settings = loaded.policy, config.training
    of = [policy.source.identity, policy.tokenizer.chat_template, str(policy.now)]
    of += [section.model_dump(mode="json") for section in (config.data, config.model)]
    data = company.once(["tokens", *of], lambda: ready_made(config.data, policy.renderer(config.data), progress))
    if company.aside and not company.aside.exists():
        files.write_jsonl(company.aside, (pair.as_dict() for pair in data.aside.pairs))
    refuse_steps(data.train, settings, config.loss)
    tell(data, policy, loaded.compared, config.data, progress)
    is_first = anew or not run.has_begun  # an attempt that goes on has moments of its own
    moments = moments_of(settings.moments_from, policy) if settings.moments_from and is_first else None
    if moments:
        progress.say(moments.told())
    total = num_steps(len(data.train), settings)
    tell_watch(config.signals, config.stopping, config.evaluation, total, progress)
    _heed_moves(config, len(data.train), progress)
    _heed_kl(config, loaded)
    prepare_tasks(load_tasks(config.evaluation.tasks), policy, progress)
    memory = plan_together(
        policy,
        data.all_pairs,
        settings.token_budget,
        settings.gradient_checkpointing,
        _held_bytes(config, loaded),
        placing_of(policy),
    )
    loaded.budget.tokens = memory.token_budget
    return Ready(loaded, data, memory, audit, moments)


def _held_bytes(config: Config, loaded: Loaded) -> int:
    """Return what a reference takes that stays in memory: one that moves, or one that steps or looks ask anew."""
    if loaded.moving:
        return loaded.moving.num_bytes
    steps_ask = config.loss.wants_prompts_in_a_step or config.loss.compares_distributions
    return loaded.reference.num_bytes if steps_ask or config.signals.looks_at_start else 0


def _heed_moves(config: Config, num_pairs: int, progress: Progress) -> None:
    """Tell where a run ends before its reference would have moved: it trains as if nothing had been asked for."""
    total, moves = num_steps(num_pairs, config.training), config.reference.moves
    if moves and moves.every >= total:
        progress.warn(
            f"reference.moves.every {moves.every}: the run has {total} steps, so that none compares with a reference "
            "that has moved; lower it, or train longer"
        )


def _heed_kl(config: Config, loaded: Loaded) -> None:
    """Refuse a bound on a KL that nobody would know, since the weights of the start are not in memory."""
    bounded = [rule.signal for rule in config.stopping.rules if rule.signal in KL_SIGNALS]
    if bounded and config.signals.kl == "auto" and loaded.reference.model_is_dear:
        raise ConfigError(
            f"stopping.rules: {bounded[0]} takes the weights of the reference ({loaded.reference.identity}), which are "
            "not kept in memory; set signals.kl to on, or take the rule out"
        )


def _with_store(config: Config, run: Run) -> Config:
    """Return settings with a store of the run's own where none is wanted: an attempt that goes on needs its values."""
    if config.reference.store != "off":
        return config
    own = config.reference.model_copy(update={"store": str(run.store_folder)})
    return config.model_copy(update={"reference": own})


def begin(run: Run, config: Config, ready: Ready, accept: Collection[str], progress: Progress) -> None:
    """Write what the run is of, or prove that it is still that; the manifest comes first: it makes a folder a run."""
    known = identity(config, ready.data, ready.loaded.policy, ready.loaded.reference)
    with as_a_run_writes(run.path):
        history, trained = _heed_history(run, known, config, ready, accept, progress)
    files.sweep(run.path)
    run.reopen(runs.RUNNING)
    _write_inputs(run, ready, trained)
    run.update_manifest(
        schema=runs.SCHEMA, status=runs.RUNNING, identity=known, **history, **_facts(run, config, ready)
    )
    # Last: were it there before the identity, a change that was cut off here could not be told by its settings.
    run.keep({run.config_file: dump_config(config).encode()})


def _heed_history(
    run: Run, known: dict[str, str], config: Config, ready: Ready, accept: Collection[str], progress: Progress
) -> tuple[dict[str, Any], set[str]]:
    """Return what the manifest keeps of earlier attempts, and the prompts that they trained on.

    Raises RunError where something changed that was not accepted, or where prompts changed sides.
    """
    before, begun = run.manifest if run.manifest_file.exists() else {}, run.has_begun
    if begun and before.get("schema") != runs.SCHEMA:
        raise RunError(
            f"{run.path}: was begun by another version of tiebreak, whose checkpoints this one does not read; what it "
            "trained is kept: evaluate measures it, --resume never starts afresh beside it"
        )
    if begun:
        run.verify(run.config_file, run.train_prompts_file)
    accepted = heed_drift(run, known, config, accept, progress) if begun else []
    same = before.get("identity") == known
    if begun or same:
        # Memory may be freer than it was; other micro-batches would change last bits.
        budget = ready.loaded.budget
        budget.tokens = int(before.get("plan", {}).get("token_budget", budget.tokens))
    trained = set(run.train_prompt_ids) if begun else set()
    _refuse_turned_sides(run, trained, ready.data)
    _refuse_learned_before(config, ready.data)
    if not same:  # weights of other settings must not pass for this run's
        shutil.rmtree(run.policy_folder, ignore_errors=True)
    kept: dict[str, Any] = (
        {} if same else dict.fromkeys(("num_steps", "num_steps_done", "stopped", "artefact_step", "best"))
    )
    if not begun:
        kept["moments_from"] = ready.moments and ready.moments.as_dict()
    return kept | {
        "started": before.get("started") or now(),
        "num_attempts": int(before.get("num_attempts", 0)) + 1,
        "accepted": [*before.get("accepted", []), *accepted],
        "identities": [*(one for one in before.get("identities", []) if one != known), known],
    }, trained


def _refuse_turned_sides(run: Run, trained: set[str], data: PreparedData) -> None:
    """Held out is held out in every attempt: what one has trained on, the next cannot measure on."""
    held = {example.prompt_id for example in data.heldout.tokenized}
    if turned := held & trained:
        raise RunError(
            f"{run.path}: {len(turned)} of {len(held)} held-out prompts were trained on by an earlier attempt; put "
            "data and data.heldout_share back, or start afresh with --resume never"
        )


def _refuse_learned_before(config: Config, data: PreparedData) -> None:
    """Held out is held out in every stage: what a run trained on that made the model, or what it is compared with, this
    one cannot measure on.
    """
    made = [(earlier, "model") for earlier in lineage(config.model.name)]
    made += [(earlier, "reference") for earlier in lineage(config.reference.model)]
    for earlier, what in made:
        with as_a_run_writes(earlier.path):
            learned = {example.prompt_id for example in data.heldout.tokenized} & set(earlier.train_prompt_ids)
        if learned:
            raise RunError(
                f"{len(learned)} of {data.heldout.num_prompts} held-out prompts were trained on by {earlier.path}, "
                f"which made the {what}; take its data.heldout_share, or name other prompts as data.heldout"
            )


def versions() -> dict[str, str]:
    """Return the versions of what a run's numbers depend on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def now() -> str:
    """Return the time, UTC, as manifests give it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_inputs(run: Run, ready: Ready, trained: Collection[str]) -> None:
    data = ready.data
    run.keep(
        {
            run.data_file: files.as_json(data.report),
            run.audit_file: files.as_json(ready.audit.as_dict()),
            run.dropped_file: files.as_jsonl(item.as_dict() for item in data.dropped),
            run.train_prompts_file: files.as_json({"prompt_ids": sorted({*data.train.prompt_ids(), *trained})}),
            run.heldout_pairs_file: files.as_jsonl(pair.as_dict() for pair in data.heldout.pairs),
        }
    )
    if not ready.loaded.reference.is_kept:
        shutil.rmtree(run.start_folder, ignore_errors=True)  # of other settings, that were accepted to have changed
        return
    with run.keep_folder(run.start_folder) as folder, ready.loaded.reference.model() as start:
        start.save(folder)


def _facts(run: Run, config: Config, ready: Ready) -> Mapping[str, Any]:
    """Return what made the run, and on what."""
    policy, reference = ready.loaded.policy, ready.loaded.reference
    trainable, total = policy.num_parameters
    # A new adapter changes nothing yet: the start is what it hangs on.
    start = policy if policy.continues_adapter else replace(policy, adapter=None)
    is_start = same_model(policy.source, reference.source)
    return {
        "config_fingerprint": fingerprint(config.model_dump(mode="json")),
        "model_name": config.model.name,
        "model_base": config.model.base,
        "data_fingerprint": ready.data.fingerprint,
        "model": policy.source.identity,
        **whereabouts(run, config.reference, policy.source, reference.source),
        "base_identity": policy.source.base_identity,
        "quantization": facts(policy.source.quantization),
        "reference": ready.loaded.compared.identity,
        "start_weights": f"sha256:{reference.weights if is_start else start.digest()}",
        "reference_weights": f"sha256:{reference.weights}",
        "layout": policy.scorer.layout,
        "plain_because": policy.plain_because,
        "template_date": policy.now and policy.now.date().isoformat(),
        "plan": ready.memory.as_dict() | {"token_budget": ready.loaded.budget.tokens},
        "method": config.adapter.kind,
        "num_parameters": total,
        "num_trainable_parameters": trainable,
        "learning_rate": config.learning_rate,
        "device": str(policy.device),
        "dtype": name_of(policy.dtype),
        "faster": probes.given(),
        "num_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | versions(),
    }
