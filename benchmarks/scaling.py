"""Whether cost stays proportional: the data path and a bounded number of steps at growing numbers of pairs.

Owns how a file is made large: its pairs over and over, each with a number of its own at the end of the prompt, so that
no two are the same pair or the same prompt. tiebreak only; runs inside processes of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from contestant_tiebreak import configuration, take_steps, tokens_of_steps, with_prompts
from jobs import Job, Result
from machine import forget_peak, peak_rss_bytes, rss_bytes

from tiebreak.data.preparation import prepare
from tiebreak.data.whole import read_pairs
from tiebreak.records import num_unique_tokens
from tiebreak.training.trained import load


def run(job: Job) -> Result:
    """Do a job of this file."""
    return synthesized(job) if job.kind == "synthesize" else measured_at(job)


def synthesized(job: Job) -> Result:
    """Write a file of `num` different pairs."""
    num, path = job.facts["num"], Path(job.facts["path"])
    with path.open("w", encoding="utf-8") as sink:
        for row in islice(_numbered(with_prompts(Path(job.settings.data), Path(job.scratch))), num):
            sink.write(json.dumps(row) + "\n")
    return {"file_bytes": path.stat().st_size}


def _numbered(path: Path) -> Iterator[dict[str, Any]]:
    for index, pair in enumerate(cycle(read_pairs(path).pairs)):
        row = pair.as_openai()
        row["input"]["messages"][-1]["content"] += f" #{index:06}"
        yield row


def measured_at(job: Job) -> Result:
    """Return seconds and memory of reading, rendering and a few steps, on a file of `num` pairs."""
    config = configuration(
        job, data__train=job.facts["path"], model__name=job.facts["base"], training__shuffle=True, training__epochs=1000
    )
    loaded = load(config)
    before = rss_bytes()
    forget_peak()
    began = time.perf_counter()
    data = prepare(config.data, loaded.policy.renderer(config.data))
    prepared = time.perf_counter()
    kept, peak = rss_bytes(), peak_rss_bytes()
    pairs = data.train
    tokens = int(pairs.num_unique_tokens.sum()) + sum(map(num_unique_tokens, data.heldout.tokenized))
    seconds, _ = take_steps(loaded, pairs, config, job.settings.scaling_steps, warmup=[])
    return {
        "num_pairs": job.facts["num"],
        "num_train_pairs": len(pairs),
        "unique_tokens": tokens,
        "data_seconds": prepared - began,
        "data_seconds_per_unique_token": (prepared - began) / tokens,
        "step_seconds": seconds,
        "step_seconds_per_unique_token": sum(seconds) / tokens_of_steps(pairs, config, len(seconds)),
        "rss_before_data_bytes": before,
        "rss_after_data_bytes": kept,
        "data_path_peak_bytes": peak - before,
        "peak_rss_bytes": peak_rss_bytes(),
    }
