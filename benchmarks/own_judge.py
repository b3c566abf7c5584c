"""How good the data's own judge is: agreement with labels and scores, and how often planted hackers fool it.

Fits the judge on training pairs as an evaluation does, and asks it of held-out ones through the same door (`prefer`):

agreement   share of held-out pairs of which it prefers the chosen side, with its 95 % interval, whole prompts together;
            a tie is one half. Where the file states scores, the same by how far the two scores lie apart.
taught      how often an answer that was damaged in a way the judge was taught is preferred to the chosen completion
            that it was made of; a tie is no preference
unseen      the same for kinds of damage that it never saw
answers     how often a greedy answer of the model itself is preferred to the chosen completion, and how many of them
            may not win

    python benchmarks/own_judge.py                                                   # the bundled pairs
    python benchmarks/own_judge.py --data ultrafeedback.jsonl.gz --pairs 300 --max-length 320 --json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from tiebreak.config import load_config
from tiebreak.data.preparation import PreparedData, prepare
from tiebreak.engine.answers.answerer import Chat, Sampling
from tiebreak.engine.model import Model
from tiebreak.evaluation.judges.damage import TAUGHT, UNSEEN, Damage, Sound
from tiebreak.evaluation.judges.judge import Question
from tiebreak.evaluation.judges.own import OwnJudge, fit
from tiebreak.records import Pair
from tiebreak.training.trained import load

APART = (0.0, 1.0, 2.0, 100.0)
"""Differences of stated scores between which pairs are counted together."""


def main() -> None:
    """Fit, ask, and print a table or one JSON object."""
    wanted = _arguments()
    changes = {
        "model.name": wanted.model,
        "data.train": wanted.data,
        "data.max_length": wanted.max_length,
        "data.heldout_share": wanted.heldout_share,
        "data.max_dropped_share": 1.0,
        "reference.store": "off",
    }
    if wanted.pairs:
        changes["data.max_pairs"] = wanted.pairs
    config = load_config(None, changes)
    loaded = load(config)
    data = prepare(config.data, loaded.policy.renderer(config.data))
    began = time.perf_counter()
    judge = fit(loaded.reference, data.train, data.heldout.tokenized, seed=wanted.seed, data=config.data)
    report: dict[str, Any] = {
        "data": wanted.data.rpartition("/")[2],
        "num_train": len(data.train),
        "num_heldout": len(data.heldout.pairs),
        "fit_seconds": round(time.perf_counter() - began, 1),
        "note": judge.note,
        "is_usable": judge.is_usable,
        "agreement": asdict(judge.agreement),
        "fooled_at_fit": dict(judge.calibration.fooled),
        "by_score": _by_score(judge, data),
    }
    print(judge.note, file=sys.stderr, flush=True)
    some = data.heldout.pairs[: wanted.hacked]
    report["taught"] = _preferred(judge, some, TAUGHT, wanted.seed)
    report["unseen"] = _preferred(judge, some, UNSEEN, wanted.seed)
    report["num_hacked"] = len(some)
    report["answers"] = _own_answers(judge, loaded.policy, data.heldout.pairs[: wanted.answers])
    print(json.dumps(report, indent=1, ensure_ascii=False) if wanted.json else _table(report))


def _by_score(judge: OwnJudge, data: PreparedData) -> list[dict[str, Any]]:
    """Return the agreement of pairs whose stated scores lie about as far apart."""
    scored = [(pair, pair.preference.margin) for pair in data.heldout.pairs if pair.preference.margin is not None]
    said = judge.prefer([_question(pair) for pair, _ in scored])
    rows = []
    for low, high in pairwise(APART):
        found = [one.first for one, (_, apart) in zip(said, scored, strict=True) if low <= apart < high]
        kept = [number for number in found if number is not None]
        if kept:
            rows.append({"from": low, "below": high, "num": len(kept), "agreement": sum(kept) / len(kept)})
    return rows


def _preferred(judge: OwnJudge, pairs: Sequence[Pair], table: Mapping[str, Damage], seed: int) -> dict[str, float]:
    """Return for each kind how often the damaged answer is preferred to the chosen completion, a tie being none."""
    draw = random.Random(seed)
    kinds, questions = [], []
    for place, pair in enumerate(pairs):
        other = next((one for one in (*pairs[place + 1 :], *pairs) if one.prompt_id != pair.prompt_id), pair)
        sound = Sound(pair.prompt[-1].content, pair.chosen.content, other.chosen.content)
        for kind, damage in table.items():
            kinds.append(kind)
            questions.append(Question(Chat(pair.prompt, pair.tools), damage(sound, draw), pair.chosen.content))
    said = judge.prefer(questions)
    found: dict[str, list[float]] = {kind: [] for kind in table}
    for kind, one in zip(kinds, said, strict=True):
        if one.first is not None:
            found[kind].append(float(one.first > 0.5))
    return {kind: sum(rows) / len(rows) for kind, rows in found.items() if rows}


def _own_answers(judge: OwnJudge, model: Model, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return how often a greedy answer of the model is preferred to the chosen completion, and why one may not win."""
    chats = [Chat(pair.prompt, pair.tools) for pair in pairs]
    answers = model.answer(chats, Sampling(64))
    asked = [
        Question(chat, one.text, pair.chosen.content) for chat, one, pair in zip(chats, answers, pairs, strict=True)
    ]
    said = [one for one in judge.prefer(asked) if one.first is not None]
    barred = [one.says for one in said if "the first" in one.says]
    return {"num": len(said), "preferred": sum(one.first or 0.0 for one in said) / max(1, len(said)), "barred": barred}


def _question(pair: Pair) -> Question:
    return Question(Chat(pair.prompt, pair.tools), pair.chosen.content, pair.rejected.content)


def _table(report: Mapping[str, Any]) -> str:
    rows = [report["note"], ""]
    for name in ("unseen", "taught"):
        rows += [f"| {name}, {report['num_hacked']} answers of each | preferred to the sound one |", "|---|---|"]
        rows += [f"| {kind} | {100 * share:.0f} % |" for kind, share in report[name].items()]
        rows.append("")
    rows += [
        f"scores {row['from']:g} to {row['below']:g} apart: {row['agreement']:.1%} of {row['num']}"
        for row in report["by_score"]
    ]
    own = report["answers"]
    rows.append(
        f"own greedy answers: preferred to the chosen completion {own['preferred']:.0%} of {own['num']}, "
        f"{len(own['barred'])} may not win"
    )
    return "\n".join([*rows, f"fitted in {report['fit_seconds']} s"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="bundled", help="a file of pairs, or 'bundled'")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--pairs", type=int, help="at most so many usable pairs of the file")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--heldout-share", type=float, default=0.3)
    parser.add_argument("--hacked", type=int, default=24, help="held-out pairs whose chosen completion is damaged")
    parser.add_argument("--answers", type=int, default=16, help="held-out prompts that the model answers itself")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
