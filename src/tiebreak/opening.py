"""How a run folder comes into being: what the run stands on, and what its first files say of it.

Owns those files and the facts of the manifest that are known before a step is taken. An attempt that goes on proves
here that it is still the same run.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from tiebreak import runs
from tiebreak.config import Config, dump_config
from tiebreak.data.audit.report import AuditReport
from tiebreak.data.preparation import PreparedData
from tiebreak.engine.planner import Plan
from tiebreak.engine.policy import Policy
from tiebreak.engine.reference import REFERENCE_ADAPTER
from tiebreak.fingerprint import fingerprint
from tiebreak.preamble import num_parameters
from tiebreak.progress import Progress
from tiebreak.resumption import has_begun, heed_drift, identity
from tiebreak.runs import Run

LIBRARIES = ("tiebreak", "torch", "transformers", "peft", "accelerate", "safetensors")


@dataclass(frozen=True)
class Ready:
    """All that a run stands on, proven usable together."""

    policy: Policy
    data: PreparedData
    memory: Plan
    audit: AuditReport


def begin(run: Run, config: Config, ready: Ready, accept: Collection[str], progress: Progress) -> None:
    """Write what the run is of, or prove that it is still that; the manifest comes first: it makes a folder a run."""
    policy = ready.policy
    known, before = identity(config, ready.data, policy), run.manifest if (run.path / "run.json").exists() else {}
    accepted = heed_drift(run, known, config, accept, progress) if has_begun(run) else []
    if has_begun(run) or before.get("identity") == known:
        # Memory may be freer than it was; other micro-batches would change last bits.
        policy.budget.tokens = int(before.get("plan", {}).get("token_budget", policy.budget.tokens))
    runs.sweep(run.path)
    run.update_manifest(status=runs.RUNNING)
    _write_inputs(run, config, ready)
    run.update_manifest(
        schema=runs.SCHEMA,
        status=runs.RUNNING,
        started=before.get("started") or now(),
        num_attempts=int(before.get("num_attempts", 0)) + 1,
        accepted=[*before.get("accepted", []), *accepted],
        identity=known,
        identities=[*(one for one in before.get("identities", []) if one != known), known],
        **_facts(config, ready),
    )


def versions() -> dict[str, str]:
    """Return the versions of what a run's numbers depend on."""
    return {name: metadata.version(name) for name in LIBRARIES}


def now() -> str:
    """Return the time, UTC, as manifests give it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_inputs(run: Run, config: Config, ready: Ready) -> None:
    data, policy = ready.data, ready.policy
    runs.write_text(run.path / "config.yaml", dump_config(config))
    runs.write_json(run.path / "data.json", data.report)
    runs.write_json(run.path / "audit.json", ready.audit.as_dict())
    runs.write_jsonl(run.path / "dropped.jsonl", (item.as_dict() for item in data.dropped))
    runs.write_json(run.path / "train_prompts.json", {"prompt_ids": data.train.prompt_ids()})
    runs.write_jsonl(run.path / "heldout_pairs.jsonl", (pair.as_dict() for pair in data.heldout.pairs))
    if policy.continues_adapter:
        with runs.whole_folder(run.path / "reference") as folder:
            policy.save(folder, REFERENCE_ADAPTER)


def _facts(config: Config, ready: Ready) -> Mapping[str, Any]:
    """Return what made the run, and on what."""
    policy = ready.policy
    trainable, total = num_parameters(policy)
    return {
        "config_fingerprint": fingerprint(config.model_dump(mode="json")),
        "data_fingerprint": ready.data.fingerprint,
        "model": policy.source.identity,
        "base_model": policy.source.base,
        "base_identity": policy.source.base_identity,
        "reference": policy.reference.identity,
        "layout": policy.scorer.layout,
        "plain_because": policy.plain_because,
        "plan": ready.memory.as_dict() | {"token_budget": policy.budget.tokens},
        "method": config.adapter.kind,
        "num_parameters": total,
        "num_trainable_parameters": trainable,
        "learning_rate": config.learning_rate,
        "device": str(policy.device),
        "num_threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | versions(),
    }
