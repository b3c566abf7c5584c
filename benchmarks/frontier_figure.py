"""The table and the figures of `frontier.py`: medians over seeds, and from the lowest seed to the highest.

`apart` is a run's win rate less what the runs of its seed, rate and labels win on the whole at its KL, in points: the
curve through them is a logit of the win rate, quadratic in the logarithm of KL. Seeds differ more than objectives do,
and this compares within a seed.

Of five seeds the lowest and the highest enclose the median of all seeds in 15 of 16 cases (1 − 2 · 0.5⁵ = 94 %).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from frontier_stories import best_possible

from tiebreak.files import write_text
from tiebreak.reporting.figures import MUTED, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#e69f00", "#cc79a7", "#8c564b", "#808080")
"""Of Okabe and Ito, but for yellow and black, which not every background shows."""
MARKERS = "vo^sD"
COLUMNS = {
    "kl": ".1f",
    "win": ".1%",
    "apart": "+.1f",
    "accuracy": ".0%",
    "chosen": "+.1f",
    "tokens": ".0f",
    "strange": ".1%",
}
FEWEST_OF_A_CURVE = 12
STRENGTHS = [0.25 * step for step in range(49)]
MOST_GUESSED = 1.5
"""Nats to which the reference's few answers to a prompt say what is possible."""


def groups(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows of all seeds by flips, rate, objective and scale, in the order in which they first come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["flips"], row["rate"])):
        found.setdefault((row["flips"], row["rate"], row["loss"], row["scale"]), []).append(row)
    return found


def with_apart(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, with how far each is above the curve of its seed where enough runs make one."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["flips"], row["rate"], row["seed"]), []).append(row)
    return [own | {"apart": above} for some in found.values() for own, above in zip(some, _above(some), strict=True)]


def _above(rows: Sequence[Row]) -> list[float | None]:
    kls, wins = (np.array([row[key] for row in rows]) for key in ("kl", "win"))
    if len(rows) < FEWEST_OF_A_CURVE or kls.min() <= 0 or wins.min() <= 0 or wins.max() >= 1:
        return [None] * len(rows)
    by = np.log(kls)
    curve = np.polyval(np.polyfit(by, np.log(wins / (1 - wins)), 2), by)
    return [float(above) for above in 100 * (wins - 1 / (1 + np.exp(-curve)))]


def spread(rows: Sequence[Row], key: str) -> tuple[float, float, float]:
    """Return the median over seeds, the lowest and the highest."""
    values = [row[key] for row in rows]
    return statistics.median(values), min(values), max(values)


def table(rows: Sequence[Row]) -> str:
    """Return a table for each share of turned labels and rate, with a line for each objective and scale."""
    lines: list[str] = []
    titles, order = set(), list(dict.fromkeys(row["loss"] for row in rows))
    found = groups(with_apart(rows))
    for key in sorted(found, key=lambda key: (*key[:2], order.index(key[2]), key[3])):
        flips, rate, loss, _ = key
        settings, title = found[key][0]["settings"], f"{flips:.0%} of labels turned round, rate {rate:g}"
        if title not in titles:
            lines += ["", title, "", "| loss | beta | seeds | " + " | ".join(COLUMNS) + " |"]
            lines.append("|---" * (3 + len(COLUMNS)) + "|")
        titles.add(title)
        beta = settings.get("beta", settings.get("tau"))
        cells = [_cell(found[key], column, form) for column, form in COLUMNS.items()]
        lines.append(f"| {loss} | {beta:g} | {len(found[key])} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:])


def draw(rows: Sequence[Row], rewards: Sequence[Sequence[float]], folder: Path) -> None:
    """Write a figure for each share of flips, on the same axes; `rewards` are those of the reference's answers."""
    folder.mkdir(parents=True, exist_ok=True)
    guessed = [best_possible(rewards, strength) for strength in STRENGTHS]
    best = [(kl, win) for kl, win in guessed if kl <= MOST_GUESSED]
    span = max(row["kl"] for row in rows), min(row["win"] for row in rows)
    for flips in sorted({row["flips"] for row in rows}):
        some = [row for row in rows if row["flips"] == flips]
        name = f"{flips:.0%} of labels turned round" if flips else "Clean labels"
        caption = "Win rate by the true reward against KL; markers are medians over seeds, lines the span of seeds."
        made = plot(name, caption, partial(_frontier, rows=some, best=best, span=span), height=4.4)
        write_text(folder / f"frontier-{flips * 100:.0f}.svg", made.svg)


def _frontier(axes: Axes, rows: Sequence[Row], best: Sequence[tuple[float, float]], span: tuple[float, float]) -> None:
    axes.plot(*zip(*best, strict=True), color=MUTED, linewidth=0.9, linestyle="--", label="best possible")
    found, scales = groups(rows), sorted({row["scale"] for row in rows})
    for colour, loss in zip(COLOURS, dict.fromkeys(row["loss"] for row in rows), strict=False):
        own = sorted((key, some) for key, some in found.items() if key[2] == loss)
        points = [[spread(some, axis) for axis in ("kl", "win")] for _, some in own]
        axes.plot([kl[0] for kl, _ in points], [win[0] for _, win in points], color=colour, linewidth=1.3, label=loss)
        for (key, _), (kl, win) in zip(own, points, strict=True):
            axes.plot(kl[1:], [win[0]] * 2, color=colour, linewidth=0.7, alpha=0.6)
            axes.plot([kl[0]] * 2, win[1:], color=colour, linewidth=0.7, alpha=0.6)
            axes.plot(kl[0], win[0], MARKERS[scales.index(key[3]) % len(MARKERS)], color=colour, markersize=5)
    for scale, marker in zip(scales, MARKERS, strict=False):
        axes.plot([], [], marker, color=MUTED, markersize=5, label=f"beta × {scale:g}")
    axes.set_xlim(-0.5, span[0] * 1.03)
    axes.set_ylim(min(0.48, span[1] - 0.02), 1.0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("KL of policy to reference, nats a sequence")
    axes.set_ylabel("win rate by the true reward")
    axes.legend(loc="lower right", ncols=2)


def _cell(rows: Sequence[Row], key: str, form: str) -> str:
    if any(row[key] is None for row in rows):
        return ""
    median, low, high = (format(one, form) for one in spread(rows, key))
    return median if low == high else f"{median} ({low} … {high})"
