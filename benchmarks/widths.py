"""How far training in bfloat16 goes from training in fp32: the same pairs, adapter, order and rate, step by step.

    python benchmarks/widths.py --data ../shared/data/prefs/hh_harmless_base_test.raw.jsonl.gz --steps 40
    python benchmarks/widths.py --data pairs.jsonl --steps 100 --json

For each step the loss in both, and their difference; then, for pairs that were not trained on, the reward margin and
the accuracy of both policies, and how many of them they order alike. Every policy is measured in its own arithmetic.
Last, what the company of a pair does to it: how far log p(chosen) − log p(rejected) of pairs, alone, is from what it is
among others in one micro-batch. A stored reference was computed in other company than the policy is.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from contestant_tiebreak import take_steps
from machine import description
from step_profile import settings

from tiebreak.config import load_config
from tiebreak.data.preparation import prepare
from tiebreak.engine.allocation import keep_freed_memory
from tiebreak.engine.loading import quiet
from tiebreak.engine.noise import evaluation_mode
from tiebreak.maths.objectives import Objective
from tiebreak.records import TokenizedPair
from tiebreak.training.trained import Loaded, load

DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Train twice, and print what differs."""
    options = _arguments()
    quiet()
    keep_freed_memory()
    found = {dtype: trained(options, dtype) for dtype in DTYPES}
    result = compared(*found.values()) | {"machine": description(), "settings": vars(options), "runs": found}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    wide, narrow = found.values()
    for step, (one, two) in enumerate(zip(wide["losses"], narrow["losses"], strict=True), start=1):
        print(f"step {step:3}: {one:.5f} {two:.5f} {two - one:+.1e}")
    print({key: value for key, value in result.items() if key not in ("runs", "settings")})


def trained(options: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Return the losses of the steps in a dtype, and the margins of held-out pairs after them."""
    own = {
        "model.name": options.model,
        "data.max_pairs": options.pairs,
        "training.learning_rate": options.learning_rate,
        "training.warmup_share": 0.0,
    }
    shared = settings(argparse.Namespace(**vars(options), adapter="lora", dtype=dtype))
    config = load_config(None, shared | own)
    loaded = load(config)
    policy, reference = loaded.policy, loaded.reference
    data = prepare(config.data, policy.renderer(config.data))
    alone, among = (gaps(loaded, groups) for groups in ([[pair] for pair in data.train[:48]], [data.train[:48]]))
    company = [abs(one - two) for one, two in zip(alone, among, strict=True)]
    seconds, losses = take_steps(loaded, list(data.train), config, options.steps, [])
    objective = Objective.of(config.loss)
    with evaluation_mode(policy.network), torch.no_grad():
        said = [
            objective(policy.score(group).summed(), reference.logps(group).summed())
            for group in loaded.budget.cut(data.heldout.tokenized)
        ]
    chosen, rejected = torch.cat([one.rewards for one in said]).view(-1, 2).T
    return {
        "losses": losses,
        "seconds_per_step": statistics.median(seconds),
        "company": {"mean": statistics.mean(company), "most": max(company), "num_pairs": len(company)},
        "margins": (chosen - rejected).tolist(),
        "heldout_loss": float(torch.cat([one.losses for one in said]).mean()),
    }


def gaps(loaded: Loaded, groups: Sequence[Sequence[TokenizedPair]]) -> list[float]:
    """Return by how many nats each pair's chosen completion is likelier than the rejected one."""
    with evaluation_mode(loaded.policy.network), torch.no_grad():
        return [gap for group in groups for gap in loaded.policy.score(group).summed().paired().gap.tolist()]


def compared(wide: dict[str, Any], narrow: dict[str, Any]) -> dict[str, Any]:
    """Return how two runs differ."""
    apart = [abs(one - two) for one, two in zip(wide["losses"], narrow["losses"], strict=True)]
    alike = [(one > 0) == (two > 0) for one, two in zip(wide["margins"], narrow["margins"], strict=True)]
    return {
        "largest_difference_of_a_loss": max(apart),
        "mean_difference_of_a_loss": statistics.mean(apart),
        "losses_first_and_last": [[run["losses"][at] for at in (0, -1)] for run in (wide, narrow)],
        "heldout_loss": [run["heldout_loss"] for run in (wide, narrow)],
        "heldout_margin": [statistics.mean(run["margins"]) for run in (wide, narrow)],
        "heldout_accuracy": [statistics.mean(one > 0 for one in run["margins"]) for run in (wide, narrow)],
        "ordered_alike": statistics.mean(alike),
        "num_heldout": len(alike),
        "seconds_per_step": [run["seconds_per_step"] for run in (wide, narrow)],
        "company": [run["company"] for run in (wide, narrow)],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="file of pairs")
    parser.add_argument("--pairs", type=int, default=400, help="pairs of the file (default 400)")
    parser.add_argument(
        "--model",
        default="smollm2-135m-instruct",
        help="bundled name, hub id or folder (default smollm2-135m-instruct)",
    )
    parser.add_argument("--steps", type=int, default=40, help="optimizer steps (default 40)")
    parser.add_argument(
        "--max-length", type=int, default=512, help="most tokens of prompt and completion (default 512)"
    )
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak rate (default 2e-4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
