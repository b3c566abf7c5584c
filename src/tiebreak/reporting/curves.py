"""Which figures a run has: a table of curves over its steps, and a few of its answers and pairs.

Owns what is drawn of which file, and what each figure says. How a figure looks is known to `figures` (printed, or where
no script runs) and to the script of the page (with zoom); both draw the same value. Pure: rows in, figures out.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tiebreak.reporting.numbers import is_number, rounded

Rows = Sequence[Mapping[str, Any]]
Form = Literal["points", "line", "marked", "place", "bars", "steps"]

MOST_POINTS = 600
"""Of a line; of a longer one evenly spaced points are drawn, the first and the last among them."""
TRAINING, WRITING, OPTIMIZER = "Pairs and loss", "What it writes itself", "Optimizer"
STEP = "optimizer step"


@dataclass(frozen=True)
class Line:
    """Numbers of one colour. Of bars and steps `x` are the edges between counts, one more than `y`."""

    label: str
    colour: str
    form: Form
    x: tuple[float, ...]
    y: tuple[float, ...]
    hover: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """What is drawn in one pair of axes; `level` is a dashed line, `source` the file and keys that it is made of."""

    part: str
    name: str
    caption: str
    source: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    says: str
    share: bool = False
    from_zero: bool = False
    level: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as the script of the page reads it."""
        lines = [
            {
                **{"label": line.label, "colour": line.colour, "form": line.form, "hover": line.hover},
                **{"x": [*map(rounded, line.x)], "y": [*map(rounded, line.y)]},
            }
            for line in self.lines
        ]
        axes = {"x": self.x_label, "y": self.y_label, "share": self.share, "zero": self.from_zero}
        return {"name": self.name, "axes": axes, "level": self.level, "lines": lines}


@dataclass(frozen=True)
class Curve:
    """A row of the table: numbers of metrics.jsonl over the steps. `lines` are key, label, colour and form.

    `level` is a number, or a key whose first value it is.
    """

    part: str
    name: str
    caption: str
    y_label: str
    lines: tuple[tuple[str, str, str, Form], ...]
    share: bool = False
    from_zero: bool = False
    level: float | str | None = None


_CHOSEN, _REJECTED, _LOSS = "rewards/chosen", "rewards/rejected", "heldout/loss"
CURVES = (
    Curve(TRAINING, "Loss", "Mean of the pairs of a step. Dashed: where it starts, policy and reference agreeing.",
          "mean loss of a pair", (("loss", "training", "train", "points"), (_LOSS, "held-out", "blue", "marked")),
          level="loss"),
    Curve(TRAINING, "Preference accuracy", "Share of pairs whose margin is positive. Dashed: chance.", "share of pairs",
          (("rewards/accuracies", "training", "train", "points"),
           ("heldout/rewards/accuracies", "held-out", "blue", "marked")), share=True, level=0.5),
    Curve(TRAINING, "Margins", "Chosen reward − rejected reward, mean of pairs.", "margin (nats × beta)",
          (("rewards/margins", "training", "train", "points"),
           ("heldout/rewards/margins", "held-out", "blue", "marked")), level=0.0),
    Curve(TRAINING, "Implicit rewards", "Training pairs. Both falling means displacement.", "reward (nats × beta)",
          ((_CHOSEN, "chosen", "chosen", "line"), (_REJECTED, "rejected", "rejected", "line")), level=0.0),
    Curve(TRAINING, "Likelihood of held-out pairs", "Mean log-probability of a completion. Where chosen falls too, it "
          "is displaced.", "nats a completion", (("heldout/logps/chosen", "chosen", "chosen", "marked"),
                                              ("heldout/logps/rejected", "rejected", "rejected", "marked"))),
    Curve(TRAINING, "Moved since the start", "Change of the log-probability of held-out completions, a token.",
          "nats a token", (("heldout/chosen_moved", "chosen", "chosen", "marked"),
                           ("heldout/rejected_moved", "rejected", "rejected", "marked")), level=0.0),
    Curve(TRAINING, "Displaced pairs", "Held-out pairs whose chosen completion became less likely.", "share of pairs",
          (("heldout/displaced", "displaced", "rejected", "marked"),), share=True),
    Curve(TRAINING, "Reward and length", "Correlation of a pair's log-ratio gap with its difference in tokens. Near 1, "
          "length is what was learned.", "correlation",
          (("heldout/reward_length_correlation", "held-out", "blue", "marked"),), level=0.0),
    Curve(WRITING, "KL to the reference", "Of the policy's own answers to held-out prompts: two estimates of one "
          "number.", "nats an answer", (("sampled/kl", "mean log-ratio (k1)", "blue", "marked"),
                             ("sampled/kl_k3", "always positive (k3)", "train", "marked")), level=0.0),
    Curve(WRITING, "Length of its answers", "Mean of the sampled answers. Dashed: before training.", "tokens",
          (("sampled/num_tokens", "tokens", "blue", "marked"),), from_zero=True, level="sampled/before/num_tokens"),
    Curve(WRITING, "Repetition and variety", "Share of an answer that repeats itself, answers that go in circles, "
          "different pairs of words.", "share",
          (("sampled/repetition", "repeated", "rejected", "marked"),
           ("sampled/looping", "in circles", "train", "marked"),
           ("sampled/distinct_2", "different pairs of words", "chosen", "marked")), share=True),
    Curve(WRITING, "Answers that end by themselves", "The others reach the most tokens of an answer. Dashed: before.",
          "share of answers", (("sampled/eos_rate", "ended", "blue", "marked"),), share=True,
          level="sampled/before/eos_rate"),
    Curve(WRITING, "Entropy of the next token", "Of sampled answers. Near 0, one answer is left. Dashed: before.",
          "nats a token", (("sampled/entropy", "entropy", "blue", "marked"),), from_zero=True,
          level="sampled/before/entropy"),
    Curve(OPTIMIZER, "Gradient norm", "Before clipping.", "norm of the gradient",
          (("grad_norm", "norm of the gradient", "train", "line"),), from_zero=True),
    Curve(OPTIMIZER, "Learning rate", "As used by each step.", "learning rate",
          (("learning_rate", "learning rate", "blue", "line"),), from_zero=True),
)  # fmt: skip
"""In the order of the page; a curve whose numbers a run does not hold is left out."""


def figures(
    metrics: Rows, evidence: Rows = (), samples: Rows = (), ends: Mapping[str, float] | None = None
) -> list[Figure]:
    """Return every figure that the data of a run allow; `ends` are means after training by measure."""
    over_steps = [figure for curve in CURVES if (figure := _over_steps(curve, metrics))]
    others = [*_margins(evidence), *_frontier(metrics, ends or {}), *_lengths(samples)]
    parts = (TRAINING, WRITING, OPTIMIZER)
    return sorted([*over_steps, *others], key=lambda figure: parts.index(figure.part))


def _over_steps(curve: Curve, metrics: Rows) -> Figure | None:
    lines: list[Line] = []
    says = ""
    for key, label, colour, form in curve.lines:
        x, y = points(metrics, key)
        if not x:
            continue
        says += f" {label}: {y[0]:.3g} at first, {y[-1]:.3g} at last."
        lines.append(Line(label, colour, form, *_thinned(x, y)))
        if form == "points" and len(x) >= 10:
            lines.append(Line("smoothed", colour, "line", *_thinned(x, smoothed(y))))
    if not lines:
        return None
    level = points(metrics, curve.level)[1][:1] if isinstance(curve.level, str) else [curve.level]
    source = f"metrics.jsonl: {', '.join(key for key, *_ in curve.lines)}"
    return Figure(
        part=curve.part,
        name=curve.name,
        caption=curve.caption,
        source=source,
        x_label=STEP,
        y_label=curve.y_label,
        lines=tuple(lines),
        says=says,
        share=curve.share,
        from_zero=curve.from_zero,
        level=level[0] if level else None,
    )


def _margins(evidence: Rows) -> Iterator[Figure]:
    _, margins = points(evidence, "margin", x="margin")
    if not margins:
        return
    edges = _edges(margins, min(30, max(8, len(margins) // 4)))
    sides = (("rejected preferred", "rejected", [m for m in margins if m < 0]),
             ("chosen preferred", "chosen", [m for m in margins if m >= 0]))  # fmt: skip
    preferred, span = sum(m > 0 for m in margins), f"{min(margins):.3g} to {max(margins):.3g}"
    yield Figure(
        part=TRAINING,
        name="Held-out margins",
        caption="Right of zero: the policy prefers chosen.",
        source="evidence.jsonl: margin",
        x_label="margin (nats × beta)",
        y_label="pairs",
        lines=tuple(Line(label, colour, "bars", edges, _counted(some, edges)) for label, colour, some in sides if some),
        says=f" {preferred} of {len(margins)} pairs right of zero, from {span} nats × beta.",
    )


def _frontier(metrics: Rows, ends: Mapping[str, float]) -> Iterator[Figure]:
    """Yield what was won against how far the policy went: at each look, and at the end."""
    steps, accuracies = points(metrics, "heldout/rewards/accuracies")
    looks = [row for row in metrics if is_number(row.get("sampled/kl")) and is_number(row.get("step"))]
    way = [
        (float(row["sampled/kl"]), accuracies[place - 1], f"step {row['step']:g}")
        for row in looks
        if (place := bisect.bisect_right(steps, float(row["step"])))
    ]
    lines = []
    if way:
        x, y, hover = zip(*way, strict=True)
        lines.append(Line("on the way", "train", "marked", x, y, hover))
    if "kl" in ends and "accuracy" in ends:
        lines.append(Line("at the end", "blue", "place", (ends["kl"],), (ends["accuracy"],), ("at the end",)))
    if len(way) + len(lines) > 1:
        told = "; ".join(
            f"{one}: {y:.1%} at {x:.3g} nats"
            for line in lines
            for x, y, one in zip(line.x, line.y, line.hover, strict=True)
        )
        yield Figure(
            part=WRITING,
            name="How far it went for what it won",
            caption="Held-out accuracy over KL. Up and left is better.",
            source="metrics.jsonl: sampled/kl, heldout/rewards/accuracies; evaluation.json: kl, accuracy",
            x_label="KL to the reference (nats an answer)",
            y_label="held-out accuracy",
            lines=tuple(lines),
            says=f" {told}.",
            share=True,
        )


def _lengths(samples: Rows) -> Iterator[Figure]:
    sides = {
        label: [float(row[side]["num_tokens"]) for row in samples if is_number(row[side].get("num_tokens"))]
        for side, label in (("before", "before"), ("after", "after"))
    }
    lengths = [length for some in sides.values() for length in some]
    if not all(sides.values()) or min(lengths) == max(lengths):
        return
    edges = _edges(lengths, 16)
    colours = {"before": "train", "after": "blue"}
    means = "; ".join(f"{label}: {sum(some) / len(some):.1f} tokens on average" for label, some in sides.items())
    yield Figure(
        part=WRITING,
        name="Lengths of answers",
        caption="Greedy answers to held-out prompts.",
        source="samples.jsonl: before.num_tokens, after.num_tokens",
        x_label="tokens",
        y_label="answers",
        lines=tuple(
            Line(label, colours[label], "steps", edges, _counted(some, edges)) for label, some in sides.items()
        ),
        says=f" {means}.",
        from_zero=True,
    )


def points(rows: Rows, key: str, x: str = "step") -> tuple[list[float], list[float]]:
    """Return the steps that have a number, and the number."""
    some = [(row[x], row[key]) for row in rows if key in row]
    # What is there has to be a number: of a list or a text nothing is drawn, and the run is told to be no run.
    pairs = [(float(one), float(other)) for one, other in some]
    pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
    return [one for one, _ in pairs], [other for _, other in pairs]


def smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Return the bias-corrected exponential mean (Kingma & Ba 2015, Sec. 3)."""
    total, mass, out = 0.0, 0.0, []
    for value in values:
        total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        out.append(total / mass)
    return out


def _thinned(x: Sequence[float], y: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(x) <= MOST_POINTS:
        return tuple(x), tuple(y)
    places = [round(index * (len(x) - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)]
    return tuple(x[place] for place in places), tuple(y[place] for place in places)


def _edges(values: Sequence[float], num: int) -> tuple[float, ...]:
    """Return about `num` + 1 edges of one width, of which one is zero where values lie on both sides of it."""
    low, high = min(values), max(values)
    width = (high - low) / num or 1.0
    first, last = math.floor(low / width), math.floor(high / width) + 1
    return tuple(index * width for index in range(first, last + 1))


def _counted(values: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    counts = [0.0] * (len(edges) - 1)
    for value in values:
        counts[min(max(bisect.bisect_right(edges, value) - 1, 0), len(counts) - 1)] += 1
    return tuple(counts)
