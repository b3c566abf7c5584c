"""Planted evidence: what the gate would see of policies whose faults are known, and how often it lets them pass.

    python tests/planted.py        # draws 200 series of each and writes the table into docs/gate.md (a minute)

Every number is drawn: no model runs.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tiebreak.config import GateConfig
from tiebreak.evaluation.gate import Decision, decide
from tiebreak.evaluation.rows import Row
from tiebreak.maths.length_control import pseudo_values

PAGE = Path(__file__).parents[1] / "docs" / "gate.md"
NUM_SEEDS, NUM_RESAMPLES = 200, 1000
NUM_QUESTIONS, NUM_TEXTS = 2000, 64


@dataclass(frozen=True)
class Policy:
    """A policy as the gate sees it: how its numbers are drawn. By default sound, and better in no respect."""

    accuracy: float = 0.5
    margin: float = 0.2
    preferred: float = 0.5
    ties: float = 0.2
    unchanged: float = 0.1
    loops: float = 0.0
    """Share of answers that became one loop."""
    repetition: float = 0.0
    """Added to the repetition of every answer."""
    longer: float = 0.0
    """Mean log of the ratio of lengths."""
    likes_length: bool = False
    """Whether the longer answer is preferred in nine of ten cases, and nothing else."""
    cut_off: float = 0.0
    """Share of answers that do not end any more."""
    variety: float = 0.0
    chosen: float = -0.1
    """Change of chosen's log-probability, nats per token."""
    neutral: float = -0.01
    questions: float = 0.0
    """Change of the share of questions answered rightly; 10 % of them change sides."""
    spoilt: str = ""
    """Measure of which one value is NaN."""

    def rows(self, rng: np.random.Generator, num: int) -> dict[str, Row]:
        """Draw what would be measured on that many held-out prompts, a pair and an answer each."""
        same = rng.random(num) < self.unchanged
        wins = (rng.random(num) < self.accuracy).astype(float)
        sizes = self.margin * np.abs(rng.normal(1, 0.5, num))
        # Where some are ties the others win more often, so that the win rate is what was planted.
        better = rng.random(num) < 0.5 + (self.preferred - 0.5) / max(1 - self.ties, 1e-9)
        half, none = np.full(num, 0.5), np.zeros(num)
        repeated, (cut, cuts) = rng.beta(1, 12, num), _turned(rng, num, 0.2, 0.0)
        repeats = np.clip(rng.beta(1, 12, num) + self.repetition, 0, 1)
        cuts = np.where(rng.random(num) < self.cut_off, 1.0, cuts)
        length, variety = np.exp(rng.normal(4, 0.6, num)), rng.beta(30, 4, num)
        lengths = np.maximum(length * np.exp(rng.normal(self.longer, 0.5, num)), 1)
        lengths = np.where(same, length, lengths)
        if self.likes_length:
            better = (lengths > length) ^ (rng.random(num) < 0.1)
        preferred = np.where(rng.random(num) < self.ties, 0.5, better)
        controlled = pseudo_values(preferred.tolist(), (lengths - length).tolist())
        varieties = np.clip(variety + rng.normal(self.variety, 0.08, num), 0, 1)
        chosen, neutral = rng.normal(-2, 0.5, num), rng.normal(-3, 0.6, NUM_TEXTS)
        right, now_right = _turned(rng, NUM_QUESTIONS, 0.6, self.questions)
        columns = {
            "accuracy": ("share", "higher", half, wins),
            "margin": ("nats", "higher", none, sizes * (2 * wins - 1)),
            "logratio_gap": ("nats", "higher", none, 10 * sizes * (2 * wins - 1)),  # of beta 0.1,
            "answers/preferred": ("share", "higher", half, preferred),
            "answers/repetition": ("share", "lower", repeated, np.where(same, repeated, repeats)),
            "answers/unfinished": ("share", "lower", cut, np.where(same, cut, cuts)),
            "answers/length": ("tokens", "neither", length, lengths),
            "answers/distinct": ("share", "higher", variety, np.where(same, variety, varieties)),
            "answers/unchanged": ("share", "lower", none, same.astype(float)),
            "chosen_logps": ("nats", "higher", chosen, chosen + rng.normal(self.chosen, 0.2, num)),
            "neutral_logps": ("nats", "higher", neutral, neutral + rng.normal(self.neutral, 0.05, NUM_TEXTS)),
            "capability/questions": ("share", "higher", right, now_right),
        }
        if controlled is not None:
            columns["answers/length_controlled"] = ("rate", "higher", half, np.array(controlled))
        after = columns["answers/repetition"][3]
        after[rng.random(num) < self.loops] = 1.0
        if self.spoilt:
            columns[self.spoilt][3][0] = np.nan
        return {
            key: Row(key, key, unit, better, [str(i) for i in range(len(one))], one.tolist(), two.tolist())
            for key, (unit, better, one, two) in columns.items()
        }


def _turned(rng: np.random.Generator, num: int, share: float, change: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ones and noughts before and after: one in ten changes sides, and the share of ones changes."""
    before = (rng.random(num) < share).astype(float)
    turns = np.where(before == 1, (0.05 - change / 2) / share, (0.05 + change / 2) / (1 - share))
    return before, np.abs(before - (rng.random(num) < turns))


@dataclass(frozen=True)
class Planted:
    """A policy, on how many held-out prompts it is judged, and how often it should pass."""

    policy: Policy
    num_prompts: int = 128
    power: float | None = None
    """None: it must not pass."""


LEARNED = {"accuracy": 0.8, "margin": 0.5, "preferred": 0.75}
PLANTED = {
    "no effect": Planted(Policy()),
    "accuracy 80 %, answers no better": Planted(Policy(accuracy=0.8, margin=0.5)),
    "unchanged answers, accuracy 100 %, margin 0.0007": Planted(Policy(1.0, 0.0007, ties=1.0, unchanged=1.0)),
    "length hacker: answers three times as long": Planted(Policy(**LEARNED, longer=1.1, cut_off=0.3)),
    "half as long again, before a judge that likes length": Planted(
        Policy(accuracy=0.8, margin=0.5, longer=0.4, likes_length=True, unchanged=0.0, ties=0.0)
    ),
    "collapsed to one token": Planted(
        Policy(1.0, 5.0, 0.75, unchanged=0.0, longer=-4.0, variety=-0.8, chosen=-5.0, neutral=-2.0, questions=-0.09)
    ),
    "nothing but dashes": Planted(
        Policy(
            1.0, 5.0, 0.75, unchanged=0.0, loops=1.0, longer=0.9, cut_off=1.0, variety=-0.8, chosen=-5.0, neutral=-2.0
        )
    ),
    "every answer repeats 5 points more": Planted(Policy(**LEARNED, unchanged=0.0, repetition=0.05)),
    "one answer in twenty became a loop": Planted(Policy(**LEARNED, unchanged=0.0, loops=0.054)),
    "one capability down 3 points": Planted(Policy(**LEARNED, questions=-0.03)),
    "one value is NaN": Planted(Policy(**LEARNED, spoilt="answers/distinct")),
    "+5 points of win rate": Planted(Policy(**LEARNED | {"preferred": 0.55}, ties=0.0), 851, power=0.8),
    "+10 points of win rate": Planted(Policy(**LEARNED | {"preferred": 0.6}, ties=0.0), 221, power=0.8),
    "+10 points of win rate, more prompts": Planted(Policy(**LEARNED | {"preferred": 0.6}, ties=0.0), 285, power=0.9),
}


@functools.cache
def decisions(name: str, num_seeds: int, num_resamples: int) -> list[Decision]:
    """Return the gate's decisions on that many drawn series of one kind, with the default rules."""
    planted, found = PLANTED[name], []
    for seed in range(num_seeds):
        rng = np.random.default_rng([seed, *name.encode()])
        rows = planted.policy.rows(rng, planted.num_prompts)
        found.append(decide(rows, GateConfig(), seed=seed, num_resamples=num_resamples))
    return found


def line(name: str, found: list[Decision]) -> str:
    """Return one row of the table of error rates."""
    counts = Counter(decision.verdict for decision in found)
    shares = [f"{100 * counts[verdict] / len(found):.1f} %" for verdict in ("pass", "fail", "inconclusive")]
    blamed = Counter(check.name for one in found for check in one.checks if check.verdict != "pass")
    often = [rule for rule, count in blamed.most_common(3) if count >= 0.1 * len(found)]
    planned = PLANTED[name].power
    wanted = "at most 5 %" if planned is None else f"{100 * planned:.0f} %"
    cells = [name, str(PLANTED[name].num_prompts), wanted, *shares, ", ".join(often) or "-"]
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Return the table of error rates."""
    head = "| planted | prompts | should pass | pass | fail | inconclusive | rules that did not hold |\n"
    return (
        head
        + "|---|---|---|---|---|---|---|\n"
        + "\n".join(line(name, decisions(name, NUM_SEEDS, NUM_RESAMPLES)) for name in PLANTED)
    )


def on_the_page() -> str:
    """Return the table that docs/gate.md shows."""
    found = re.search(_MARKED, PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[2]


_MARKED = r"(<!-- error rates: python tests/planted.py -->\n)(.*?)(\n<!-- end -->)"

if __name__ == "__main__":
    made = table()
    print(made)
    if PAGE.exists():
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(re.sub(_MARKED, lambda m: m[1] + made + m[3], text, flags=re.DOTALL), encoding="utf-8")
