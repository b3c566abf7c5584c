"""The plots of a run as inline SVG, and the look that all our plots share.

Owns what is drawn of a run, and how plots look. Pure: metric rows and evidence in, SVG text out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
TRAIN, HELDOUT, CHOSEN, REJECTED = "#9fb3c8", "#2251a3", "#1d8a6b", "#c2500a"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
}


@dataclass(frozen=True)
class Plot:
    """A drawn figure: what it shows in words, and the SVG."""

    name: str
    caption: str
    svg: str


def plots(metrics: Rows, evidence: Rows) -> list[Plot]:
    """Return every plot that the data of a run allow."""
    train = [row for row in metrics if "loss" in row]
    heldout = [row for row in metrics if "heldout/loss" in row]
    drawn: list[tuple[str, str, Callable[[Axes], None]]] = []
    if train:
        drawn += [
            (
                "Loss",
                "Dashed: where it starts, policy and reference agreeing.",
                lambda a: _both(a, train, heldout, "loss", float(train[0]["loss"])),
            ),
            (
                "Preference accuracy",
                "Share of pairs whose margin is positive.",
                lambda a: _both(a, train, heldout, "rewards/accuracies", 0.5),
            ),
            ("Implicit rewards", "Training pairs. Both falling means displacement.", lambda a: _rewards(a, train)),
        ]
    if evidence:
        drawn.append(("Held-out margins", "Right of zero: the policy prefers chosen.", lambda a: _margins(a, evidence)))
    if train:
        drawn += [
            ("Gradient norm", "Before clipping.", lambda a: _one(a, train, "grad_norm", TRAIN)),
            ("Learning rate", "As used by each step.", lambda a: _one(a, train, "learning_rate", HELDOUT)),
        ]
    return [Plot(name, caption, draw_svg(name, draw)) for name, caption, draw in drawn]


def draw_svg(name: str, draw: Callable[[Axes], None], height: float = 2.7) -> str:
    """Return what `draw` puts on the axes as SVG text under the title `name`; the same input gives the same text."""
    # Slow to load, and the screens that borrow our numbers draw nothing.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(name)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = text.getvalue()
    return body[body.index("<svg") :]


def _both(axes: Axes, train: Rows, heldout: Rows, key: str, start: float) -> None:
    """Draw a number of every step and of the held-out pairs; dashed is what it is before the policy moves."""
    is_share = key == "rewards/accuracies"
    axes.axhline(start, color=MUTED, linewidth=0.9, linestyle="--")
    x, y = _column(train, "step"), _column(train, key)
    axes.plot(x, y, ".", color=TRAIN, markersize=4, alpha=0.7, label="training step")
    if len(x) >= 10:
        axes.plot(x, _smoothed(y), color=TRAIN, linewidth=1.6)
    if heldout:
        x, y = _column(heldout, "step"), _column(heldout, f"heldout/{key}")
        axes.plot(x, y, color=HELDOUT, marker="o", markersize=4.5, linewidth=1.8, label="held-out")
    axes.set_xlabel("step")
    axes.legend(loc="best")
    if is_share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _rewards(axes: Axes, train: Rows) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.9)
    x = _column(train, "step")
    for key, colour in (("rewards/chosen", CHOSEN), ("rewards/rejected", REJECTED)):
        axes.plot(x, _column(train, key), color=colour, linewidth=1.6, label=key.split("/")[1])
    axes.set_xlabel("step")
    axes.set_ylabel("nats × beta")
    axes.legend(loc="best")


def _margins(axes: Axes, evidence: Rows) -> None:
    margins = _column(evidence, "margin")
    bins = np.histogram_bin_edges(margins, bins=min(30, max(8, len(margins) // 4)))
    for colour, side in ((REJECTED, [m for m in margins if m < 0]), (CHOSEN, [m for m in margins if m >= 0])):
        axes.hist(side, bins=bins.tolist(), color=colour, edgecolor="white")
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlabel("margin (nats × beta)")
    axes.set_ylabel("pairs")


def _one(axes: Axes, rows: Rows, key: str, colour: str) -> None:
    axes.plot(_column(rows, "step"), _column(rows, key), color=colour, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
    axes.set_xlabel("step")


def _column(rows: Rows, key: str) -> list[float]:
    return [float(row[key]) for row in rows if key in row]


def _smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Return the bias-corrected exponential mean (Kingma & Ba 2015, Sec. 3)."""
    total, mass, out = 0.0, 0.0, []
    for value in values:
        total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        out.append(total / mass)
    return out
