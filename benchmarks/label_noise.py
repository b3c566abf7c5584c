"""How good the estimate of flipped labels is, and how well it finds them: labels flipped on purpose, then estimated.

Owns the planted-noise experiment. Reads a file of JSON rows with prompt, chosen, rejected (gzip or not); rows with tied
scores, equal or empty completions are left out, and scores are never shown to the estimator. For each rate and seed a
random share of the labels is flipped, and each feature set is fitted and asked:

estimate    share of flipped labels with its 95 % interval (`noise.lapse_rate`); the data's own errors come on top of
            the planted ones, so at a planted rate of 0 the truth is unknown and at e the truth is at least about e.
auc         probability that a flipped label looks more suspicious than one that was left alone.
precision, recall, and kept   of quarantining the pairs whose suspicion is above `--threshold`, and the share of
            flipped labels among the pairs that are kept then.
top         precision among as many most suspicious pairs as were flipped; a blind guess has the planted rate.
threshold_count   the estimate of confident learning (Northcutt et al. 2021, eq. 1–2, two classes), for comparison.

`shape` is a handful of superficial counts, `words` and `bigrams` are hashed differences (`words.word_differences`).

    python benchmarks/label_noise.py --data ultrafeedback.jsonl.gz --flips 0 0.1 0.3 --seeds 5 --json
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import diags

from tiebreak.doctor.labels.crossfit import sigmoid
from tiebreak.doctor.labels.margins import Margins, fit_margins, side_by_side
from tiebreak.doctor.labels.noise import label_noise, lapse_rate
from tiebreak.doctor.texts.vocabulary import word_differences

Row = dict[str, Any]
_WORD = re.compile(r"\w+")
_LIST = re.compile(r"^[ \t]*(?:[-*•]|\d+[.)])", re.MULTILINE)
_REFUSAL = re.compile(r"\b(?:sorry|cannot|can't|unable|as an ai)\b", re.IGNORECASE)


def main() -> None:
    """Run the experiment and print one line a fit, or one JSON object."""
    arguments = _arguments()
    rows = _rows(Path(arguments.data))
    clusters = np.unique([str(row.get("group", row["prompt"])) for row in rows], return_inverse=True)[1]
    built = {name: build(rows) for name, build in SETS.items() if name in arguments.sets}
    results = []
    for name, features in built.items():
        for rate in arguments.flips:
            for seed in range(arguments.seeds if rate > 0 else 1):
                results.append({"features": name} | _measured(features, clusters, rate, seed, arguments.threshold))
                print(_line(results[-1]), file=sys.stderr, flush=True)
    report = {"data": Path(arguments.data).name, "num_pairs": len(rows), "runs": results, "summary": _summary(results)}
    print(json.dumps(report, indent=1) if arguments.json else _table(report["summary"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="JSON lines with prompt, chosen, rejected (.gz or not)")
    parser.add_argument("--flips", nargs="+", type=float, default=[0.0, 0.1, 0.3], help="shares of labels to flip")
    parser.add_argument("--seeds", type=int, default=5, help="different random flips per share")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), help="feature sets")
    parser.add_argument("--threshold", type=float, default=0.5, help="suspicion above which a pair is set aside")
    parser.add_argument("--json", action="store_true", help="one JSON object with every run")
    return parser.parse_args()


def _rows(path: Path) -> list[Row]:
    content = path.read_bytes()
    lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().strip().split("\n")
    return [row for row in map(_plain, map(json.loads, lines)) if _usable(row)]


def _plain(row: Row) -> Row:
    if "conversations" in row:
        last = row["conversations"][-1]["value"]
        return {"prompt": last, "chosen": row["chosen"]["value"], "rejected": row["rejected"]["value"]}
    return row if "prompt" in row else row | {"prompt": row["document"]}


def _usable(row: Row) -> bool:
    tied = "score_chosen" in row and row["score_chosen"] == row["score_rejected"]
    return not tied and bool(row["chosen"].strip() and row["rejected"].strip()) and row["chosen"] != row["rejected"]


def _shape(row: Row, text: str) -> list[float]:
    words, asked = _WORD.findall(text.lower()), set(_WORD.findall(row["prompt"].lower()))
    different = set(words)
    counts = (len(text), len(words), text.count("\n"), len(_LIST.findall(text)), text.count("**") + text.count("`"))
    return [
        *(float(np.log1p(count)) for count in counts),
        len(different) / max(len(words), 1),
        len(different & asked) / max(len(asked), 1),
        len(different & asked) / max(len(different), 1),
        float(np.mean([len(word) for word in words])) if words else 0.0,
        float(np.log1p(sum(word.isdigit() for word in words))),
        float(bool(_REFUSAL.search(text))),
        float(text.rstrip()[-1:] in ".!?`)"),
        float("?" in text),
    ]


def _shapes(rows: list[Row]) -> Any:
    return np.array([np.subtract(_shape(row, row["chosen"]), _shape(row, row["rejected"])) for row in rows])


def _words(rows: list[Row], bigrams: bool) -> Any:
    return word_differences([(row["chosen"], row["rejected"]) for row in rows], bigrams=bigrams)


def _nothing(rows: list[Row]) -> Any:
    return np.zeros((len(rows), 1))


SETS: dict[str, Callable[[list[Row]], Any]] = {
    "shape": lambda rows: side_by_side(_shapes(rows), _words(rows, False) * 0),
    "words": lambda rows: side_by_side(_nothing(rows), _words(rows, False)),
    "bigrams": lambda rows: side_by_side(_nothing(rows), _words(rows, True)),
    "shape+words": lambda rows: side_by_side(_shapes(rows), _words(rows, False)),
    "shape+bigrams": lambda rows: side_by_side(_shapes(rows), _words(rows, True)),
    "shape+bigrams, words x1": lambda rows: side_by_side(_shapes(rows), _words(rows, True), 1.0),
    "shape+bigrams, words x10": lambda rows: side_by_side(_shapes(rows), _words(rows, True), 10.0),
}


def _measured(features: Any, clusters: np.ndarray, rate: float, seed: int, threshold: float) -> dict[str, Any]:
    flipped = np.random.default_rng(seed).random(len(clusters)) < rate
    started = time.perf_counter()
    margins = fit_margins(diags(np.where(flipped, -1.0, 1.0)) @ features, clusters)
    estimate = lapse_rate(margins).estimate
    suspicion = label_noise(len(clusters), margins=margins).suspicion
    seconds = time.perf_counter() - started
    found = {
        "flips": rate,
        "seed": seed,
        "flipped_share": float(flipped.mean()),
        "accuracy": margins.accuracy.value,
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "threshold_count": _threshold_count(margins),
        "seconds": seconds,
    }
    return found | _found(flipped, suspicion, threshold)


def _found(flipped: np.ndarray, suspicion: np.ndarray, threshold: float) -> dict[str, Any]:
    aside, num = suspicion > threshold, int(flipped.sum())
    top = np.argsort(-suspicion, kind="stable")[:num]
    return {
        "num_aside": int(aside.sum()),
        "precision": _share(flipped[aside]) if num else None,
        "recall": _share(aside[flipped]),
        "kept": _share(flipped[~aside]),
        "top": _share(flipped[top]),
        "auc": _auc(suspicion, flipped) if 0 < num < len(flipped) else None,
    }


def _share(flags: np.ndarray) -> float | None:
    return float(flags.mean()) if len(flags) else None


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    order = np.sort(scores)
    rank = (np.searchsorted(order, scores, "left") + np.searchsorted(order, scores, "right") + 1) / 2
    num = int(positive.sum())
    return float((rank[positive].sum() - num * (num + 1) / 2) / (num * (len(scores) - num)))


def _threshold_count(margins: Margins) -> float:
    """Count what is as sure of the other label as labels are sure of themselves on average."""
    sure = sigmoid(margins.values)
    other, own = int((1 - sure >= sure.mean()).sum()), int((sure >= sure.mean()).sum())
    return other / max(other + own, 1)


def _summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = sorted({(run["features"], run["flips"]) for run in results}, key=lambda kind: (kind[0], kind[1]))
    return [_mean([run for run in results if (run["features"], run["flips"]) == kind]) for kind in kinds]


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    shown = {"features": runs[0]["features"], "flips": runs[0]["flips"], "runs": len(runs)}
    for name in (*COLUMNS, "num_aside", "recall", "kept"):
        values = [run[name] for run in runs if run[name] is not None]
        shown[name] = round(float(np.mean(values)), 3) if values else None
    estimates = [run["estimate"] for run in runs]
    return shown | {
        "estimate_spread": [round(min(estimates), 3), round(max(estimates), 3)],
        "covered": round(float(np.mean([run["low"] <= run["flipped_share"] <= run["high"] for run in runs])), 3),
        "warned": round(float(np.mean([run["low"] > 0.05 for run in runs])), 3),
    }


COLUMNS = ("accuracy", "estimate", "low", "high", "threshold_count", "auc", "top", "precision", "seconds")


def _line(run: dict[str, Any]) -> str:
    numbers = " ".join(f"{name} {run[name]:.3f}" for name in COLUMNS if run[name] is not None)
    return f"{run['features']:24s} flips {run['flips']:.2f} seed {run['seed']} {numbers} aside {run['num_aside']}"


def _table(summary: list[dict[str, Any]]) -> str:
    columns = list(summary[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(str(row[name]) for name in columns) + " |" for row in summary)])


if __name__ == "__main__":
    main()
