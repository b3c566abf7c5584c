"""Do rounds raise a reward that is known, and what do wrong verdicts cost? Three rounds on story beginnings.

The policy writes eight answers to each of 200 beginnings a round; a rule judges them (different happy words,
`happy_reward.py`), once as it is and once with the verdicts of 20 % of the prompts turned round. Each round is
measured on the same held-out beginnings by the true reward: greedy answers against the first model's, a tie being one
half.

    python benchmarks/known_reward.py --model FOLDER --out runs/rounds                    # ten minutes on two cores
    python benchmarks/known_reward.py --model FOLDER --out runs/rounds --figures docs/images

The same command again does what is missing, and prints the table of all.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import description

import tiebreak
from tiebreak.files import write_text
from tiebreak.reporting.figures import MUTED, plot
from tiebreak.reporting.numbers import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLIPS = (0.0, 0.2)
COLOURS = ("#0072b2", "#d55e00")
NAMES = ("Lily", "Tom", "Sue", "Ben", "Max", "Anna", "Sam", "Mia", "Jack", "Lucy", "Tim", "Amy")
THINGS = (
    *("ball", "dog", "cat", "boat", "tree", "cake", "car", "bird", "fish", "hat", "box", "kite", "apple", "drum"),
    *("book", "star", "shoe", "frog", "bear", "flower"),
)
VERBS = ("found", "saw", "lost", "wanted")


def beginnings(num: int, seed: int) -> list[str]:
    """Return different beginnings of stories."""
    every = [f"Once upon a time, {who} {did} a {what}." for who in NAMES for did in VERBS for what in THINGS]
    return random.Random(seed).sample(every, num)


def settings(model: Path, prompts: Path, flips: float, seed: int, out: Path) -> dict[str, Any]:
    """Return the configuration of a loop."""
    judge = {"kind": "rule", "reward": f"{Path(__file__).with_name('happy_reward.py')}:happy"}
    return {
        "model.name": str(model),
        "adapter": "none",
        "data.heldout_share": 0.2,
        "training.learning_rate": 1e-4,
        "training.pairs_per_step": 8,
        "training.seed": seed,
        "evaluation.judge": judge,
        "output.dir": str(out),
        "output.trackers": [],
        "rounds": {
            "count": 3,
            "prompts": str(prompts),
            "per_round": 200,
            "num_heldout": 128,
            "sampling": {"n": 8, "max_new_tokens": 64, "seed": seed},
            "judge": judge | {"arguments": {"flipped": flips}},
            "guards": ["no_repetition"],
            "stop": {"patience": None, "worse": False},
        },
    }


def carried_out(model: Path, flips: float, seed: int, out: Path) -> Mapping[str, Any]:
    """Return the ledger of a loop, made where it is not done."""
    folder = out / f"flips-{round(100 * flips)}-seed-{seed}"
    out.mkdir(parents=True, exist_ok=True)
    prompts, config = out / f"prompts-{seed}.jsonl", out / f"{folder.name}.yaml"
    write_text(prompts, "".join(json.dumps({"prompt": one}) + "\n" for one in beginnings(900, seed)))
    write_text(config, "{}\n")
    told = settings(model, prompts, flips, seed, folder)
    write_text(config, json.dumps({"rounds": told.pop("rounds")}) + "\n")
    return tiebreak.rounds(config, told).found


def table(ledgers: Mapping[float, Mapping[str, Any]]) -> str:
    """Return what is measured of each round, as Markdown."""
    rows = ["| verdicts turned round | round | true reward | against the first model | KL, nats | pairs | time |"]
    rows += ["|---|---|---|---|---|---|---|"]
    for flips, ledger in ledgers.items():
        first = ledger["heldout"]
        rows.append(f"| {flips:.0%} | first model | {_told(first['score']['mean'])} | | | | {_time(first)} |")
        for one in ledger["rounds"]:
            measured = one["measured"]
            rate = measured["vs_first"]["rate"]
            shares = " … ".join(f"{100 * rate[key]:.1f}" for key in ("low", "high"))
            rows.append(
                f"| {flips:.0%} | {one['round']} | {_told(measured['score']['mean'])} "
                f"| {rate['mean']:.1%} ({shares}) | {_told(measured['kl_first'])} "
                f"| {one['pairs']['num_pairs']} | {_time(one)} |"
            )
    return "\n".join(rows)


def _told(estimate: Mapping[str, float]) -> str:
    return "{:.2f} ({:.2f} … {:.2f})".format(*(estimate[key] for key in ("mean", "low", "high")))


def _time(entry: Mapping[str, Any]) -> str:
    return duration(sum(entry["seconds"].values()))


def draw(axes: Axes, ledgers: Mapping[float, Mapping[str, Any]]) -> None:
    """Draw the true reward of held-out answers by round."""
    for (flips, ledger), colour in zip(ledgers.items(), COLOURS, strict=True):
        scores = [ledger["heldout"]["score"], *(one["measured"]["score"] for one in ledger["rounds"])]
        places = [place + 0.04 * (colour == COLOURS[1]) for place in range(len(scores))]
        axes.plot(
            places, [one["mean"]["mean"] for one in scores], "o-", color=colour, label=f"{flips:.0%} turned round"
        )
        for place, one in zip(places, scores, strict=True):
            axes.plot([place, place], [one["mean"]["low"], one["mean"]["high"]], color=colour, linewidth=1.4)
    axes.axhline(scores[0]["mean"]["mean"], color=MUTED, linewidth=0.9, linestyle="--")
    axes.set_xticks(range(len(scores)), ["first", *map(str, range(1, len(scores)))])
    axes.set_xlabel("round")
    axes.set_ylabel("different happy words")
    axes.legend(loc="best")


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out both loops, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figures", type=Path)
    told = parser.parse_args(arguments)
    ledgers = {flips: carried_out(told.model, flips, told.seed, told.out) for flips in FLIPS}
    print(description())
    print(table(ledgers))
    if told.figures:
        caption = "Mean true reward of greedy answers to 128 held-out beginnings, with 95 % intervals."
        figure = plot("Reward by round", caption, partial(draw, ledgers=ledgers), height=3.0)
        write_text(told.figures / "rounds-reward.svg", figure.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
