"""Reports of the doctor, made by hand in the shape that `AuditReport.as_dict()` and a verdict have."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

MINIMAL: dict[str, Any] = {
    "schema": 1,
    "files": [],
    "num_records": 0,
    "num_used_records": 0,
    "num_dropped": 0,
    "num_pairs": 0,
    "num_prompts": 0,
    "findings": [],
    "verdict": "clean",
}

HOSTILE = (
    "<script>alert(1)</script>",
    "</svg></style><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b]0;title\x07\x9b1m",
    "left\u202eright\u2066\u200b\ufeff",
    "nul\x00and\ud800surrogate",
    "\"><b onmouseover='x'>",
    "[red]{{ 7 * 7 }}{% raw %}[/red]",
    "$\\frac{1}$ 100% _^",
    "w" * 3000,
    "many words " * 1000,
    "two\nlines\r\nand\u2028more\tof\x85it",
    "漢字 עברית العربية 🦊",
)


def finding(code: str, severity: str, count: int, of: str, share: float, **more: Any) -> dict[str, Any]:
    return {
        "code": code,
        "severity": severity,
        "title": f"the title of {code}",
        "count": count,
        "of": of,
        "share": share,
        "detail": "",
        "examples": [],
        "remedy": f"the remedy of {code}",
        "action": "quarantine",
    } | more


def example(line: int, excerpt: str = "How do I boil an egg? | chosen: Gently. | rejected: No.") -> dict[str, Any]:
    return {"file": "pairs.jsonl.gz", "line": line, "excerpt": excerpt}


def clean() -> dict[str, Any]:
    """A file without errors: one warning, lengths, nothing that needs scores, annotators or a model."""
    return deepcopy(MINIMAL) | {
        "files": [{"path": "my pairs.jsonl", "sha256": "ab" * 32, "format": "trl", "title": "TRL", "num_records": 300}],
        "num_records": 300,
        "num_used_records": 300,
        "num_pairs": 300,
        "num_prompts": 300,
        "num_groups": 0,
        "num_ties": 0,
        "num_duplicates": 0,
        "dropped_by_reason": {},
        "severities": {"error": 0, "warning": 1, "info": 0},
        "findings": [finding("licence", "warning", 1, "files", 1.0, action="warn")],
        "words": {side: {"mean": 12.5, "median": 11, "max": 40} for side in ("prompt", "chosen", "rejected")},
        "histograms": {
            "words": {
                "edges": [0, 10, 20, 40],
                "prompt": [200, 90, 10],
                "chosen": [90, 200, 10],
                "rejected": [9, 1, 0],
            },
            "margin": None,
        },
        "chosen_longer_share": 0.5,
        "shortcut": {"note": "too few pairs to measure it"},
        "agreement": None,
        "label_noise": None,
        "tokens": None,
        "prompts": {"num_prompts": 300, "effective": 300.0, "largest": 1},
        "licences": {},
        "split": {"heldout_share": 0.1, "num_train_pairs": 270, "num_heldout_pairs": 30},
        "given_splits": {},
    }


def full() -> dict[str, Any]:
    """A file with everything that can be measured, and errors."""
    return clean() | {
        "files": [
            {"path": "pairs.jsonl.gz", "sha256": "0123456789abcdef" * 4, "format": "openai", "num_records": 1200},
            {"path": "more/pairs.parquet", "sha256": "f" * 64, "format": "trl", "title": "TRL", "num_records": 800},
        ],
        "num_records": 2000,
        "num_used_records": 1993,
        "num_dropped": 7,
        "num_pairs": 2193,
        "num_prompts": 1500,
        "num_groups": 71,
        "num_ties": 12,
        "num_duplicates": 3,
        "dropped_by_reason": {"identical": 5, "empty_completion": 2},
        "severities": {"error": 2, "warning": 2, "info": 1},
        "findings": [
            finding("repeated_prompt", "info", 400, "prompts", 0.266, action="warn"),
            finding("contradiction", "error", 4, "pairs", 0.0018, examples=[example(n) for n in (17, 18, 40, 41)]),
            finding("shortcut_length", "warning", 1993, "pairs", 1.0, detail="measured in words", action="warn"),
            finding("secret", "error", 1, "pairs", 0.0002, examples=[example(9)], action="quarantine"),
            finding("duplicate", "warning", 3, "pairs", 0.0014, action="reject"),
        ],
        "words": {
            "prompt": {"mean": 120.14, "median": 60, "max": 3000},
            "chosen": {"mean": 85.5, "median": 80.5, "max": 1100},
            "rejected": {"mean": 71.0, "median": 66, "max": 900},
        },
        "histograms": {
            "words": {
                "edges": [0, 10, 20, 40, 80, 160, 320, 640, 1280],
                "prompt": [10, 90, 400, 700, 500, 300, 150, 43],
                "chosen": [5, 60, 350, 800, 600, 250, 100, 28],
                "rejected": [20, 120, 500, 800, 450, 220, 70, 13],
            },
            "length_difference": {
                "edges": [-4, -3, -2, -1.5, -1, -0.5, -0.1, 0.1, 0.5, 1, 1.5, 2, 3, 4],
                "counts": [3, 20, 60, 120, 220, 300, 160, 420, 380, 260, 150, 80, 20],
            },
            "margin": {"edges": [-1, 0, 1, 2, 3, 4], "counts": [12, 900, 700, 400, 181]},
            "pairs_per_prompt": {"edges": [1, 2, 3, 5, 10, 20, 50], "counts": [1100, 250, 100, 40, 9, 1]},
        },
        "chosen_longer_share": 0.61,
        "shortcut": {
            "length": {"accuracy": 0.661, "low": 0.632, "high": 0.689},
            "features": {"accuracy": 0.68, "low": 0.65, "high": 0.71},
            "num_pairs": 2193,
            "num_clusters": 1500,
            "by_feature": [
                {"name": name, "accuracy": 0.5 + 0.016 * place, "coefficient": 0.1 * place}
                for place, name in enumerate(
                    ("first_token", "language", "refusal", "digits", "links", "code", "bold", "headings", "lists")
                )
            ]
            + [{"name": "log_length", "accuracy": 0.66, "coefficient": 0.8}],
            "note": "",
        },
        "agreement": {
            "num_annotators": 3,
            "num_items": 993,
            "krippendorff_alpha": 0.5,
            "low": 0.45,
            "high": 0.55,
            "fleiss_kappa": 0.49,
            "cohen_kappa": [{"a": "ann", "b": "bob", "kappa": 0.5, "num_items": 993}],
            "annotators": [
                {"name": "ann", "num_votes": 993, "agreement": 0.8, "low": 0.78, "high": 0.83},
                {"name": "bob", "num_votes": 900, "agreement": 0.74, "low": 0.7, "high": 0.78},
                {"name": "漢字 $x^2$", "num_votes": 20, "agreement": 0.4, "low": 0.2, "high": 0.6, "unreliable": True},
            ],
            "num_votes": 2979,
            "num_tie_votes": 326,
            "unanimous_share": 0.6,
        },
        "label_noise": {
            "estimate": 0.08,
            "low": 0.0,
            "high": 0.2,
            "sources": [
                {"name": "surface model", "estimate": 0.08, "low": 0.0, "high": 0.2, "num": 1193, "note": "wide"}
            ],
        },
        "prompts": {"num_prompts": 1500, "effective": 950.2, "largest": 34},
        "licences": {"MIT": 1200, "CC-BY-4.0": 800},
        "split": {"heldout_share": 0.1, "num_train_pairs": 1974, "num_heldout_pairs": 219},
        "given_splits": {"train": 1974, "eval": 219},
        "tokens": {
            "model": "smollm2-135m-instruct",
            "max_length": 1024,
            "prompt": {"mean": 160.0, "median": 81, "max": 4100, "p95": 900},
            "chosen": {"mean": 110.0, "median": 104, "max": 1500, "p95": 380},
            "rejected": {"mean": 92.0, "median": 85, "max": 1200, "p95": 300},
            "row": {"mean": 270.0, "median": 200, "max": 5200, "p95": 1200, "p99": 2048},
            "num_too_long": 0,
            "num_truncated": 153,
            "fits": [
                {"max_length": 512, "share": 0.71},
                {"max_length": 1024, "share": 0.93},
                {"max_length": 2048, "share": 0.9998},
            ],
            "histogram": {
                "edges": [0, 64, 128, 256, 512, 1024, 2048, 5200],
                "counts": [40, 420, 900, 450, 230, 100, 53],
            },
        },
        "verdict": "errors",
    }


def hostile() -> dict[str, Any]:
    """The full report with something nasty wherever text from data or from a saved file can stand."""

    def spoiled(value: Any, place: int = 0) -> Any:
        nasty = HOSTILE[place % len(HOSTILE)]
        if isinstance(value, dict):
            return {key: spoiled(one, place + number) for number, (key, one) in enumerate(value.items())}
        if isinstance(value, list):
            return [spoiled(one, place + number) for number, one in enumerate(value)]
        return nasty if isinstance(value, str) else value

    made = spoiled(full())
    nasty = {text: number for number, text in enumerate(HOSTILE, 1)}
    severe = [
        found | {"severity": "error", "examples": [example(1, text) for text in HOSTILE]} for found in made["findings"]
    ]
    people = [{"name": text, "num_votes": 9, "agreement": 0.5, "low": 0.4, "high": 0.6} for text in HOSTILE]
    return made | {
        "files": [{"path": text, "sha256": text, "format": text, "title": text, "num_records": 1} for text in HOSTILE],
        "findings": severe,
        "dropped_by_reason": nasty,
        "licences": nasty,
        "given_splits": nasty,
        "words": {text: {"mean": 1, "median": 1, "max": 1} for text in HOSTILE},
        "agreement": made["agreement"] | {"annotators": people},
    }
