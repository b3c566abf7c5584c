"""From what contestants measured to what is reported: rates, ratios, arithmetic, agreement. Pure, stdlib only.

Rates. Pairs/s and unique tokens/s over the optimizer steps of a contestant in a round. Unique tokens of a pair are
prompt + chosen + rejected, the prompt once: never padding, never a prompt twice.

Ratios are tiebreak over TRL, taken within each round, where all had the same pairs and the machine the same mood; the
main figure is their median. The ratio of the medians over rounds stands beside it.

    trl_default         tiebreak, live reference     over TRL's defaults, live reference           pairs/s
    trl_default_cached  tiebreak, cached reference   over TRL's defaults                           pairs/s
    trl_tuned           tiebreak, cached reference   over TRL without checkpointing, precomputed   pairs/s
    trl_tuned_grouped   tiebreak, cached reference   over the same, grouped by length              unique tokens/s

Grouping moves pairs between steps, so the last one cannot take the pairs of the others: it takes whole batches spread
evenly over a pool sorted by length, and is compared by unique tokens/s of its own pairs; with pairs of equal size that
is the ratio of pairs/s. Its losses cannot be compared step by step and are left out of the trajectory.

Arithmetic of tiebreak, in operations that the mathematics needs: what an implementation computes twice counts once.
Tokens are those fed to the body, each different prompt of a step once and no completion's last token: P + C + R − 2.
N is the matrices of the blocks; embeddings, the head, biases, LoRA's own matrices and attention scores are left out.

    body   forward 2 N, backward 4 N (all weights) or 2 N (LoRA: input gradients only), live reference 2 N per token
    head   2 V d per scored position and product: 2 products with a frozen head, 3 with a trained one, 1 more for a
           live reference; the last position of a prompt predicts two tokens and counts once

`all_operations` adds what that leaves out and is matrix products all the same:

    LoRA       forward 2 A, backward 4 A per token for A numbers in the adapter
    attention  4 w for each token and each token that it sees, w the width of all heads of all layers; twice that
               backward, once more for a live reference
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from jobs import Result, Row

LOSS_BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2}
"""By the arithmetic of all contestants. bfloat16 keeps 8 bits: a completion's log-probability comes out some tenths of
a nat apart where the same numbers are added in two ways, and the loss of a step by up to 0.04 (widths.py)."""
RATIOS = {
    "trl_default": ("tiebreak", "trl_default", "pairs_per_second"),
    "trl_default_cached": ("tiebreak_cached", "trl_default", "pairs_per_second"),
    "trl_tuned": ("tiebreak_cached", "trl_tuned", "pairs_per_second"),
    "trl_tuned_grouped": ("tiebreak_cached", "trl_tuned_grouped", "unique_tokens_per_second"),
}
OURS = ("tiebreak", "tiebreak_cached")
COMPARABLE = ("trl_default", "trl_tuned")


def rated(result: Result) -> Result:
    """Return a contestant's result with its rates."""
    seconds = sum(result["step_seconds"])
    return result | {
        "pairs_per_second": result["num_pairs"] / seconds,
        "unique_tokens_per_second": result["unique_tokens"] / seconds,
    }


def work_of(rows: Sequence[Row], pairs_per_step: int) -> tuple[int, int]:
    """Return the tokens that the body has to see and the positions that the head has to score."""
    tokens = scored = 0
    for start in range(0, len(rows), pairs_per_step):
        step = rows[start : start + pairs_per_step]
        prompts = {tuple(row["prompt_ids"]) for row in step}
        continued = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) - 2 for row in step)
        tokens += sum(map(len, prompts)) + continued
        scored += len(prompts) + continued
    return tokens, scored


def operations(rows: Sequence[Row], pairs_per_step: int, shape: dict[str, int], *, lora: bool, live: bool) -> int:
    """Return the floating-point operations that the steps over `rows` need; see the module."""
    tokens, scored = work_of(rows, pairs_per_step)
    body = shape["body"] * tokens * (2 + (2 if lora else 4) + 2 * live)
    head = 2 * shape["vocabulary"] * shape["width"] * scored * ((2 if lora else 3) + live)
    return body + head


def all_operations(rows: Sequence[Row], pairs_per_step: int, shape: dict[str, int], *, lora: bool, live: bool) -> int:
    """Return `operations` with those of LoRA's own matrices and of attention scores; see the module."""
    tokens, _ = work_of(rows, pairs_per_step)
    seen = sum(_seen(*(len(row[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))) for row in rows)
    attention = 4 * shape["attention"] * seen * (3 + live)
    return operations(rows, pairs_per_step, shape, lora=lora, live=live) + 6 * shape["adapter"] * tokens + attention


def _seen(prompt: int, chosen: int, rejected: int) -> int:
    """Return how many (token, seen token) there are in a pair whose prompt stands once."""
    completions = sum((num - 1) * prompt + (num - 1) * num // 2 for num in (chosen, rejected))
    return prompt * (prompt + 1) // 2 + completions


def summary(rounds: Sequence[dict[str, Any]], dtype: str = "float32") -> dict[str, Any]:
    """Return everything that is derived from the rounds; a figure whose contestants did not run is null."""
    names = list(dict.fromkeys(name for one in rounds for name in one["contestants"]))
    per_round = {name: _ratios(rounds, *wanted) for name, wanted in RATIOS.items()}
    return {
        "ratios": {name: _median(found) for name, found in per_round.items()},
        "ratios_of_medians": {name: _ratio_of_medians(rounds, *wanted) for name, wanted in RATIOS.items()},
        "ratios_per_round": per_round,
        "pairs_per_second": {name: _median(_values(rounds, name, "pairs_per_second")) for name in names},
        "unique_tokens_per_second": {
            name: _median(_values(rounds, name, "unique_tokens_per_second")) for name in names
        },
        "seconds_per_step": {name: statistics.median(_each_step(rounds, name)) for name in names},
        "reference_seconds_per_pair": {
            name: found for name in names if (found := _median(_reference_seconds(rounds, name))) is not None
        },
        "memory": memory(rounds, names),
        "sgemm": sgemm(rounds),
        "trajectory": trajectory(rounds, LOSS_BOUNDS[dtype]),
    }


def memory(rounds: Sequence[dict[str, Any]], names: Iterable[str]) -> dict[str, Any]:
    """Return the most resident bytes of each contestant's process in any round, and its ratio to TRL's defaults."""
    peaks = {name: max(_values(rounds, name, "peak_rss_bytes")) for name in names}
    default = peaks.get("trl_default")
    ratios = {name: peak / default for name, peak in peaks.items()} if default else None
    return {"peak_rss_bytes": peaks, "ratio_to_trl_default": ratios}


def sgemm(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the yardstick and the share of it that tiebreak reaches, each round by what was measured around it."""
    shares = {name: _values(rounds, name, "sgemm_share") for name in OURS}
    return {
        "gflops": statistics.median(one["sgemm_gflops"] for one in rounds),
        "arithmetic_gflops": {name: _median(_values(rounds, name, "arithmetic_gflops")) for name in OURS},
        "share": {name: _median(found) for name, found in shares.items()},
        "share_per_round": shares,
        "share_all_products": {name: _median(_values(rounds, name, "sgemm_share_all_products")) for name in OURS},
    }


def trajectory(rounds: Sequence[dict[str, Any]], bound: float = LOSS_BOUNDS["float32"]) -> dict[str, Any]:
    """Return the largest difference of a step's loss between tiebreak's first run and each other contestant."""
    found: dict[str, float | None] = {}
    for name in (*COMPARABLE, "tiebreak_cached"):
        pairs = [
            (one, other)
            for each in rounds
            if {"tiebreak", name} <= each["contestants"].keys()
            for one, other in zip(*(each["contestants"][who]["losses"] for who in ("tiebreak", name)), strict=True)
        ]
        found[name] = max(abs(one - other) for one, other in pairs) if pairs else None
    known = [difference for difference in found.values() if difference is not None]
    return {
        "max_loss_difference": found,
        "bound": bound,
        "passed": all(difference <= bound for difference in known),  # NaN does not pass
        "not_compared": {"trl_tuned_grouped": "grouping by length puts other pairs into its steps"},
    }


def _values(rounds: Sequence[dict[str, Any]], name: str, key: str) -> list[float]:
    return [one["contestants"][name][key] for one in rounds if name in one["contestants"]]


def _each_step(rounds: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [seconds for one in rounds for seconds in one["contestants"].get(name, {}).get("step_seconds", [])]


def _reference_seconds(rounds: Sequence[dict[str, Any]], name: str) -> list[float]:
    found = [one["contestants"][name] for one in rounds if name in one["contestants"]]
    return [one["reference_seconds"] / one["num_pairs"] for one in found if one.get("reference_seconds") is not None]


def _ratios(rounds: Sequence[dict[str, Any]], ours: str, theirs: str, rate: str) -> list[float]:
    both = [one["contestants"] for one in rounds if {ours, theirs} <= one["contestants"].keys()]
    return [one[ours][rate] / one[theirs][rate] for one in both]


def _ratio_of_medians(rounds: Sequence[dict[str, Any]], ours: str, theirs: str, rate: str) -> float | None:
    top, bottom = (_median(_values(rounds, name, rate)) for name in (ours, theirs))
    return None if top is None or bottom is None else top / bottom


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
