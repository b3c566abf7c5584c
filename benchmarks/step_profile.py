"""Where the time of one step goes, again and again on the same pairs, so that the first touch of memory shows.

    python benchmarks/step_profile.py --data ../shared/data/prefs/hh_harmless_base_test.raw.jsonl.gz
    python benchmarks/step_profile.py --data … --budget 4096 --no-keep-memory
    python benchmarks/step_profile.py --data … --dtype bfloat16
    python benchmarks/step_profile.py --data … --ops

For each repetition: seconds of the policy's forward and backward pass and of the reference, page faults and system
time of both, the most resident memory so far, and the share of a large matrix product's rate (the operations of
reckoning.py, without LoRA's own and attention's). `--ops` adds torch's table of operations for one more repetition.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import torch
from contestant_tiebreak import row_of, shape
from machine import sgemm_gflops
from reckoning import operations
from torch.profiler import ProfilerActivity, profile

from tiebreak.config import Config, load_config
from tiebreak.data.preparation import prepare
from tiebreak.engine import head
from tiebreak.engine.allocation import keep_freed_memory
from tiebreak.engine.fused_lora import unfuse
from tiebreak.engine.loading import quiet
from tiebreak.engine.memory import peak_memory_bytes
from tiebreak.engine.planner import MOST_TOKENS
from tiebreak.maths.objectives import Objective
from tiebreak.training.order import Step, steps
from tiebreak.training.trained import Loaded, load


def main() -> None:
    """Profile one step."""
    options = _arguments()
    quiet()
    if options.keep_memory:
        keep_freed_memory()
    head.CHUNK = options.chunk
    config = load_config(None, settings(options))
    loaded = load(config)
    policy = loaded.policy
    if not options.fuse:
        unfuse(policy.network)
    loaded.budget.tokens = options.budget
    data = prepare(config.data, policy.renderer(config.data))
    step = next(steps(data.train, config.training))
    print(f"{policy.scorer.layout}, {step.num_unique_tokens} unique tokens, {torch.get_num_threads()} threads")
    policy.network.train()
    for _ in range(options.repeat):
        print(measured(loaded, step, config), flush=True)
    if options.ops:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            once(loaded, step, config)
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=60))


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what differs from the defaults."""
    return {
        "data.train": options.data,
        "data.max_length": options.max_length,
        "data.max_pairs": 400,
        "data.max_dropped_share": 1.0,
        "adapter.kind": options.adapter,
        "model.dtype": options.dtype,
        "reference.store": "off",
    }


def measured(loaded: Loaded, step: Step, config: Config) -> str:
    """Return one line about one repetition."""
    gflops = sgemm_gflops(2048)
    before = resource.getrusage(resource.RUSAGE_SELF)
    forward, backward, reference = once(loaded, step, config)
    after = resource.getrusage(resource.RUSAGE_SELF)
    rows, lora = [row_of(pair) for pair in step.examples], config.adapter.kind == "lora"
    needed = operations(rows, len(rows), shape(loaded.policy.source.base), lora=lora, live=False)
    return (
        f"forward {forward:.2f} s, backward {backward:.2f} s, reference {reference:.2f} s; "
        f"{after.ru_minflt - before.ru_minflt} page faults, {after.ru_stime - before.ru_stime:.2f} s in the system; "
        f"policy at {needed / (forward + backward) / 1e9 / gflops:.2f} of {gflops:.0f} GFLOP/s; "
        f"peak {peak_memory_bytes(loaded.policy.device) / 2**30:.2f} GiB"
    )


def once(loaded: Loaded, step: Step, config: Config) -> tuple[float, float, float]:
    """Return seconds of forward, backward and reference for the pairs of a step; the weights stay."""
    objective, forward, backward, reference = Objective.of(config.loss), 0.0, 0.0, 0.0
    for group in loaded.budget.cut(step.examples):
        times = [time.perf_counter()]
        with loaded.reference.model() as frozen, torch.no_grad():
            values = frozen.score(group).summed()
        times.append(time.perf_counter())
        total = objective(loaded.policy.score(group).summed(), values).losses.sum()
        times.append(time.perf_counter())
        total.backward()
        times.append(time.perf_counter())
        reference, forward, backward = (
            one + two - three for one, two, three in zip((reference, forward, backward), times[1:], times, strict=False)
        )
    loaded.policy.network.zero_grad(set_to_none=True)
    return forward, backward, reference


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file of pairs")
    parser.add_argument("--adapter", choices=("lora", "none"), default="lora")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--budget", type=int, default=MOST_TOKENS["cpu"], help="tokens of a micro-batch")
    parser.add_argument("--chunk", type=int, default=head.CHUNK, help="scored positions whose logits are held at once")
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--keep-memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--fuse", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--ops", action="store_true", help="table of operations at the end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
