"""Does an objective learn what it should, and how far does it go for it? Win rate by a known reward against KL.

A model draws pairs of answers to story beginnings; a rule labels them, so the truth is known (`frontier_stories`).
Each objective is trained on them, with three sizes of its beta, clean labels and some turned round, and several seeds.
A run starts from the same weights and takes the same pairs, steps and rate as all others of its seed. Then, on
held-out beginnings, at temperature 1:

win        how often a policy's answer has a higher true reward than the reference's, a tie counting one half
kl         log π − log π_ref of the policy's own answers, nats a sequence: the mean, and its standard error
accuracy   share of held-out pairs, truly labelled, whose log-ratio is larger on the better side
chosen     mean log-ratio of the better side of these pairs, nats
tokens     mean length of the policy's answers       strange    share of their words that the reference never wrote

    python benchmarks/frontier.py --model FOLDER --out runs/frontier                    # half an hour on one core
    python benchmarks/frontier.py --model FOLDER --out runs/frontier --figures docs/images
    python benchmarks/frontier.py --model FOLDER --out runs/frontier --losses dpo --seeds 99 --rates 1e-4 2e-4 4e-4

Every run is a line of OUT/runs.jsonl as soon as it is done, some of its answers one of OUT/answers.jsonl. The same
command again does what is missing, and prints the table of all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from frontier_figure import draw, table
from frontier_stories import Answers, Stories, Teller, apart, labelled, win_rate, words
from machine import description

from tiebreak.config import Config, load_config
from tiebreak.engine.ranks import Alone
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Silent
from tiebreak.records import Example, Ids, TokenizedPair
from tiebreak.training.optimizer import build_optimizer, rate_factor, set_rate
from tiebreak.training.order import num_steps, steps
from tiebreak.training.start_check import check_start
from tiebreak.training.step import learn
from tiebreak.training.trained import Loaded, load

LOSSES: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo", "beta": 0.1},
    "cdpo": {"name": "dpo", "beta": 0.1, "label_smoothing": 0.2},
    "robust": {"name": "robust", "beta": 0.1, "label_smoothing": 0.2},
    "ipo": {"name": "ipo", "tau": 0.1, "length": "sum"},
    "ipo_mean": {"name": "ipo", "tau": 0.1, "length": "mean"},
    "dpo_norm": {"name": "dpo_norm", "beta": 5.0},
    "simpo": {"name": "simpo", "beta": 2.0, "gamma": 1.0},
    "kto": {"name": "kto", "beta": 0.1},
}
"""Objectives with their default beta; smoothing is the true share of turned labels of the noisy half."""
SCALED = ("beta", "tau", "gamma")
"""What a scale multiplies: gamma is to stay at half of simpo's beta."""
NUM_TRAIN_ANSWERS, NUM_REFERENCE_ANSWERS = 4, 16
NUM_SHOWN = 6


@dataclass(frozen=True)
class Laboratory:
    """What all runs share: one model, one reference with its store, pairs and what they are measured on."""

    loaded: Loaded
    teller: Teller
    stories: Stories
    pairs: list[TokenizedPair]
    heldout_pairs: list[TokenizedPair]
    rewards: list[list[int]]
    """Of the reference's answers to held-out beginnings."""
    vocabulary: set[str]
    start: list[torch.Tensor]
    """The weights that training starts from."""


def main() -> None:
    """Do the runs that are missing, and print the table of all."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    wanted = [
        {"loss": loss, "scale": scale, "flips": flips, "seed": seed, "rate": rate} | _shared(options)
        for seed, loss, scale, flips, rate in product(
            options.seeds, options.losses, options.scales, options.flips, options.rates
        )
    ]
    known = [{key: row[key] for key in wanted[0]} for row in _rows(out / "runs.jsonl")]
    missing = [one for one in wanted if one not in known]
    if missing:
        _say(f"{len(missing)} runs of {len(wanted)}; {json.dumps(description())}")
        laboratory = opened(options, out)
        began = time.perf_counter()
        for place, one in enumerate(missing, 1):
            row, shown = measured(laboratory, one, options)
            _append(out / "answers.jsonl", {key: one[key] for key in _NAMED} | {"answers": shown})
            _append(out / "runs.jsonl", row)
            left = (time.perf_counter() - began) / place * (len(missing) - place) / 60
            numbers = " ".join(f"{key} {row[key]:.3f}" for key in ("kl", "win", "accuracy", "strange", "seconds"))
            _say(" ".join(str(one[key]) for key in _NAMED) + f": {numbers}; {left:.0f} min left")
    rows = [row for row in _rows(out / "runs.jsonl") if {key: row[key] for key in wanted[0]} in wanted]
    print(json.dumps(rows) if options.json else table(rows))
    if options.figures:
        best = json.loads((out / "reference.json").read_text(encoding="utf-8"))["rewards"]
        draw(rows, best, Path(options.figures))


def opened(options: argparse.Namespace, out: Path) -> Laboratory:
    """Return a model with beginnings and answers of its own, as kept in the folder or drawn now."""
    loaded = load(_config(options, out))
    teller, stories = Teller(loaded.policy), _stories(loaded, options, out / "stories.json")
    pairs = teller.pairs(stories.train, stories.train_answers)
    if len(pairs) < options.pairs:
        raise SystemExit(f"error: {len(pairs)} of {len(stories.train)} beginnings have answers of two rewards; --pool")
    rewards = [[teller.reward(one) for one in own] for own in stories.heldout_answers]
    (out / "reference.json").write_text(json.dumps({"rewards": rewards}), encoding="utf-8")
    said = [teller.text(one) for own in (*stories.train_answers, *stories.heldout_answers) for one in own]
    loaded.reference.begin(pairs, loaded.budget.cut, Silent())
    mean = sum(map(sum, rewards)) / sum(map(len, rewards))
    _say(f"{len(pairs)} pairs of {len(stories.train)} beginnings; the reference's mean reward is {mean:.3f}")
    return Laboratory(
        loaded=loaded,
        teller=teller,
        stories=stories,
        pairs=pairs,
        heldout_pairs=teller.pairs(stories.heldout, stories.heldout_answers),
        rewards=rewards,
        vocabulary={word for text in said for word in words(text)},
        start=[parameter.detach().clone() for _, parameter in loaded.policy.trainable],
    )


def _stories(loaded: Loaded, options: argparse.Namespace, file: Path) -> Stories:
    """Return what the model wrote before, drawn now where the file is not there."""
    wanted = {key: getattr(options, key) for key in ("opening", "pairs", "pool", "prompts")}
    wanted["model"] = loaded.policy.identity
    if not file.exists():
        _say("drawing beginnings and answers")
        pool, num = round(options.pairs * options.pool), (NUM_TRAIN_ANSWERS, NUM_REFERENCE_ANSWERS)
        drawn = Teller(loaded.policy).stories(options.opening, pool, options.prompts, num)
        file.write_text(json.dumps({"of": wanted, **drawn.as_json()}), encoding="utf-8")
    row = json.loads(file.read_text(encoding="utf-8"))
    if row["of"] != wanted:
        raise SystemExit(f"error: {file}: is of another model or of other sizes; take another --out")
    return Stories.from_json(row)


def measured(
    laboratory: Laboratory, one: dict[str, Any], options: argparse.Namespace
) -> tuple[dict[str, Any], list[str]]:
    """Train once from the start; return its row of numbers, and some answers as text."""
    began = time.perf_counter()
    loaded, teller, stories = laboratory.loaded, laboratory.teller, laboratory.stories
    config = _config(options, Path(options.out), one)
    trained = trained_on(laboratory, config, labelled(laboratory.pairs, one["pairs"], one["flips"], one["seed"]))
    seconds = time.perf_counter() - began
    answers = teller.drawn(stories.heldout, one["answers"], 2000 + one["seed"])
    ratios = log_ratios(loaded, stories.heldout, answers)
    judged = laboratory.heldout_pairs
    gains = log_ratios(loaded, [pair.prompt_ids for pair in judged], [pair.completions for pair in judged])
    flat, texts = torch.tensor(ratios).flatten(), [teller.text(answer) for own in answers for answer in own]
    rewards = [[teller.reward(answer) for answer in own] for own in answers]
    said = [word for text in texts for word in words(text)]
    row = one | {
        "settings": trained.settings,
        "kl": float(flat.mean()),
        "kl_error": float(flat.std() / len(flat) ** 0.5),
        "win": win_rate(rewards, laboratory.rewards),
        "reward": sum(map(sum, rewards)) / len(texts),
        "accuracy": sum(better > worse for better, worse in gains) / len(gains),
        "chosen": sum(better for better, _ in gains) / len(gains),
        "tokens": sum(len(answer) for own in answers for answer in own) / len(texts),
        "strange": sum(word not in laboratory.vocabulary for word in said) / max(1, len(said)),
        "seconds": time.perf_counter() - began,
        "training_seconds": seconds,
    }
    return row, [
        f"{teller.text(prompt)} => {teller.text(own[0])}"
        for prompt, own in zip(stories.heldout[:NUM_SHOWN], answers, strict=False)
    ]


def trained_on(laboratory: Laboratory, config: Config, pairs: Sequence[TokenizedPair]) -> Objective:
    """Put the policy back to its start and train it on pairs; return what it was trained with."""
    loaded, objective, settings = laboratory.loaded, Objective.of(config.loss), config.training
    policy, examples = loaded.policy, list[Example](apart(pairs) if config.loss.learns_apart else pairs)
    parameters = [parameter for _, parameter in policy.trainable]
    with torch.no_grad():
        for parameter, value in zip(parameters, laboratory.start, strict=True):
            parameter.copy_(value)
    optimizer, total = build_optimizer(parameters, settings, config.learning_rate), num_steps(len(examples), settings)
    check_start(
        policy, loaded.reference, objective, next(steps(examples, settings)).examples, loaded.budget.cut, Silent()
    )
    policy.network.train()
    for step in steps(examples, settings):
        factor = rate_factor(step.index, total, settings.warmup_share, settings.schedule)
        set_rate(optimizer, config.learning_rate * factor)
        learn(
            policy,
            loaded.reference,
            objective.at(step.index, total),
            step,
            optimizer,
            budget=loaded.budget,
            ranks=Alone(),
            max_grad_norm=settings.max_grad_norm,
        )
    policy.network.eval()
    return objective


def log_ratios(loaded: Loaded, prompts: Sequence[Ids], answers: Sequence[Sequence[Ids]]) -> list[list[float]]:
    """Return log π − log π_ref of each answer to each prompt, nats."""
    asked = [
        Answers(str(place), prompt, tuple(dict.fromkeys(own)))
        for place, (prompt, own) in enumerate(zip(prompts, answers, strict=True))
    ]
    found: dict[tuple[str, Ids], float] = {}
    with torch.no_grad():
        for group in loaded.budget.cut(asked):
            ours = loaded.policy.score(group).summed().sums
            with loaded.reference.model() as frozen:
                theirs = frozen.score(group).summed().sums
            keys = [(one.example_id, completion) for one in group for completion in one.completions]
            found |= zip(keys, (ours - theirs).tolist(), strict=True)
    return [[found[str(place), one] for one in own] for place, own in enumerate(answers)]


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that were written whole."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def _append(path: Path, row: dict[str, Any]) -> None:
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * torn + json.dumps(row) + "\n")


_NAMED = ("loss", "scale", "flips", "seed", "rate")


def _shared(options: argparse.Namespace) -> dict[str, Any]:
    """Return what makes runs comparable: only those that have all of it in common stand in one table."""
    same = {key: getattr(options, key) for key in ("adapter", "opening", "pool", "prompts", "answers", "pairs")}
    return {"model": Path(options.model).name, **same, "pairs_per_step": options.pairs_per_step}


def _config(options: argparse.Namespace, out: Path, one: dict[str, Any] | None = None) -> Config:
    """Return the settings of a run; without one, those that all share."""
    changes: dict[str, Any] = {
        "model.name": options.model,
        "model.device": "cpu",
        "adapter.kind": options.adapter,
        "reference.store": str(out / "reference"),
        "training.token_budget": 4096,
    }
    if one is not None:
        scaled = {key: value * one["scale"] if key in SCALED else value for key, value in LOSSES[one["loss"]].items()}
        changes |= {"loss": scaled, "training.seed": one["seed"], "training.learning_rate": one["rate"]}
        changes["training.pairs_per_step"] = one["pairs_per_step"]
        if load_config(None, {"loss": scaled, "data.pairing": "none"}).loss.learns_apart:
            # Both sides of a pair stand on their own, so that a step has the same completions.
            changes |= {"data.pairing": "none", "training.pairs_per_step": 2 * one["pairs_per_step"]}
    return load_config(None, changes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="a small model of stories: a folder, or a bundled name")
    add("--out", required=True, help="folder for runs.jsonl and what all runs share")
    add("--adapter", default="none", choices=["none", "lora"], help="none: train all weights (default)")
    add("--losses", nargs="+", default=list(LOSSES), choices=list(LOSSES), help="objectives (default: all)")
    add("--scales", nargs="+", type=float, default=[0.2, 1.0, 5.0], help="factors on an objective's default beta")
    add("--flips", nargs="+", type=float, default=[0.0, 0.2], help="shares of labels that are turned round")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], help="of pairs, flips, order and drawn answers")
    add("--rates", nargs="+", type=float, default=[4e-4], help="peak learning rates")
    add("--pairs", type=int, default=384, help="pairs to train on, once each")
    add("--pairs-per-step", type=int, default=16)
    add("--pool", type=float, default=1.8, help="beginnings to draw for each pair of a run; some allow no pair")
    add("--prompts", type=int, default=96, help="held-out beginnings")
    add("--answers", type=int, default=2, help="answers of a policy to each of them")
    add("--opening", default="Once upon a time,", help="how beginnings begin")
    add("--threads", type=int, default=1)
    add("--figures", help="folder for the figures as SVG")
    add("--json", action="store_true", help="print all rows as JSON, and no table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
