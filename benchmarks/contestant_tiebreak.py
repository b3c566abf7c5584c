"""tiebreak as a contestant, and what every contestant is given: the same tokenised pairs, the same weights.

The only file of the benchmark that knows tiebreak from the inside.
"""

from __future__ import annotations

import gzip
import json
import random
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jobs import Job, Result, Row
from machine import description, measured, versions
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tiebreak.config import Config, load_config
from tiebreak.data.preparation import prepare
from tiebreak.engine.allocation import keep_freed_memory
from tiebreak.engine.model import Model
from tiebreak.engine.planner import make_plan
from tiebreak.engine.ranks import Alone
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.records import TokenizedPair
from tiebreak.training.optimizer import build_optimizer, rate_factor, set_rate
from tiebreak.training.order import Step, steps
from tiebreak.training.step import learn
from tiebreak.training.trained import Loaded, load

ORDER_SEED = 0


def run(job: Job) -> Result:
    """Do a job of this file."""
    return prepared(job) if job.kind == "prepare" else trained(job)


def configuration(job: Job, **changes: Any) -> Config:
    """Return tiebreak's own defaults but for what all contestants share; `changes` have '__' for the dot."""
    settings = job.settings
    shared = {
        "model.name": settings.model,
        "model.device": "cpu",
        "model.dtype": settings.dtype,
        "data.max_length": settings.max_length,
        "data.max_dropped_share": 1.0,
        "adapter.kind": "lora" if settings.method == "lora" else "none",
        "training.pairs_per_step": settings.pairs_per_step,
        "training.learning_rate": settings.learning_rate,
        "training.warmup_share": 0.0,  # TRL spends its first warm-up step at a rate of zero, tiebreak does not
        "training.shuffle": False,
        "output.dir": str(Path(job.scratch) / "run"),
    }
    return load_config(None, shared | {key.replace("__", "."): value for key, value in changes.items()})


# ------------------------------------------------------------------------------------------------- before the contest


def prepared(job: Job) -> Result:
    """Return the pairs of the file as ids in a random order, and save the adapter that all start from.

    Pairs longer than `max_length` are left out, and so is a tenth of the prompts, which tiebreak holds out.
    """
    train = with_prompts(Path(job.settings.data), Path(job.folder))
    config = configuration(job, data__train=str(train))
    policy = load(config).policy
    data = prepare(config.data, policy.renderer(config.data))
    pairs = list(data.train)
    random.Random(ORDER_SEED).shuffle(pairs)
    if policy.is_adapter:
        policy.save(Path(job.folder) / "start")
    return {
        "base": str(policy.source.base),
        "rows": [row_of(pair) for pair in pairs],
        "recipe": recipe(config),
        "shape": shape(str(policy.source.base)) | {"adapter": adapter_size(policy)},
        "data": {
            key: data.report[key]
            for key in ("num_records", "num_dropped", "prompt_tokens", "chosen_tokens", "rejected_tokens")
        },
        "machine": description(),
        "versions": versions(),
    }


def with_prompts(path: Path, folder: Path) -> Path:
    """Return a file that tiebreak reads; SummEdits rows hold a document, and the prompt that goes before it is ours."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
        rows = [json.loads(line) for line in handle if line.strip()]
    if not rows or "document" not in rows[0] or "prompt" in rows[0]:
        return path
    made = folder / "pairs.jsonl"
    with made.open("w", encoding="utf-8") as sink:
        for row in rows:
            asked = {"prompt": f"Summarize this text in a few sentences.\n\n{row['document'].strip()}"}
            sink.write(json.dumps(asked | {side: row[side] for side in ("chosen", "rejected")}) + "\n")
    return made


def row_of(pair: TokenizedPair) -> Row:
    """Return what crosses to another process of a tokenised pair."""
    ids = {key: list(getattr(pair, key)) for key in ("prompt_ids", "chosen_ids", "rejected_ids")}
    return {"pair_id": pair.example_id, "prompt_id": pair.prompt_id, **ids}


def pair_of(row: Row) -> TokenizedPair:
    """Return the tokenised pair of a row."""
    prompt, chosen, rejected = (tuple(row[key]) for key in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return TokenizedPair(row["pair_id"], row["prompt_id"], prompt, chosen, rejected)


def recipe(config: Config) -> dict[str, Any]:
    """Return the settings of the objective and the optimizer that every contestant has to share."""
    training = config.training
    return {
        "learning_rate": config.learning_rate,
        "schedule": training.schedule,
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "beta": config.loss.beta,
    }


def shape(base: str) -> dict[str, int]:
    """Return the sizes that operations are counted from: all matrices of the blocks, and the head's two sides."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
    head = model.get_output_embeddings()
    body = sum(
        parameter.numel()
        for module in model.modules()
        if module is not head and not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
        if parameter.ndim >= 2
    )
    config = model.config.get_text_config()
    heads = config.num_attention_heads * (
        getattr(config, "head_dim", None) or head.weight.shape[1] // config.num_attention_heads
    )
    attention = config.num_hidden_layers * heads
    return {"body": body, "vocabulary": head.weight.shape[0], "width": head.weight.shape[1], "attention": attention}


def adapter_size(policy: Model) -> int:
    """Return the numbers in the adapter's matrices; 0 where all weights are trained."""
    return sum(parameter.numel() for _, parameter in policy.trainable) if policy.is_adapter else 0


# -------------------------------------------------------------------------------------------------------- the contest


def trained(job: Job) -> Result:
    """Take the steps: with a live reference, or with one that was asked before the clock started."""
    keep_freed_memory()  # as the command line does
    config = configuration(job, model__name=job.facts["base"])
    loaded = load(config)
    policy, reference, budget = loaded.policy, loaded.reference, loaded.budget
    pairs = [pair_of(row) for row in job.rows]
    warmup = [pair_of(row) for row in job.warmup]
    plan = make_plan(policy, [*pairs, *warmup], None, None)
    budget.tokens = plan.token_budget
    if job.kind == "tiebreak_cached":
        for group in budget.cut([*pairs, *warmup]):
            reference.logps(group)
        reference.begin([*pairs, *warmup], budget.cut, Silent())  # as `train` does before its first step
    seconds, losses = take_steps(loaded, pairs, config, job.settings.steps, warmup)
    facts = {"layout": policy.scorer.layout, "plain_because": policy.plain_because, "token_budget": plan.token_budget}
    return measured(job, job.rows, seconds, losses, optimizer="AdamW", **facts)


def take_steps(
    loaded: Loaded, pairs: Sequence[TokenizedPair], config: Config, num: int, warmup: Sequence[TokenizedPair]
) -> tuple[list[float], list[float]]:
    """Return seconds and loss of each of `num` optimizer steps; `warmup` goes before them, at a rate of zero."""
    parameters = [parameter for _, parameter in loaded.policy.trainable]
    optimizer = build_optimizer(parameters, config.training, config.learning_rate)
    taken = partial(learn, loaded.policy, loaded.reference, Objective.of(config.loss))
    means = {"budget": loaded.budget, "ranks": Alone(), "max_grad_norm": config.training.max_grad_norm}
    loaded.policy.network.train()
    if warmup:
        taken(Step(0, 0, tuple(warmup)), torch.optim.SGD(parameters, lr=0.0), **means)
    seconds, losses = [], []
    for step in islice(steps(pairs, config.training), num):
        set_rate(optimizer, config.learning_rate * rate_factor(step.index, num, 0.0, config.training.schedule))
        began = time.perf_counter()
        metrics, _ = taken(step, optimizer, **means)
        losses.append(metrics.means()["loss"])
        seconds.append(time.perf_counter() - began)
    return seconds, losses


def tokens_of_steps(pairs: Sequence[TokenizedPair], config: Config, num: int) -> int:
    """Return the unique tokens of the first `num` steps that `take_steps` takes."""
    return sum(step.num_unique_tokens for step in islice(steps(pairs, config.training), num))
