"""The plots of a run as inline SVG, and the look that all our plots share.

Owns what is drawn of a run, how plots look, and what is said of each to whoever cannot see it. Pure: metric rows and
evidence in, SVG text out. Colours are those of the page, in the scheme that it is read in.
"""

from __future__ import annotations

import functools
import html
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiebreak.reporting.look import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[Mapping[str, Any]]
Draw = Callable[["Axes"], None]

INK, MUTED, GRID, PAGE = (COLOURS[name][0] for name in ("ink", "muted", "line", "page"))
TRAIN, HELDOUT, CHOSEN, REJECTED = (COLOURS[name][0] for name in ("train", "blue", "chosen", "rejected"))
FONT = "system-ui, sans-serif"
"""What a reader's machine shows text in; places are measured with the font that matplotlib brings."""
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
    of_steps = [*_of_losses(train, heldout), _of_rewards(train)] if train else []
    return [*of_steps, *([_of_margins(evidence)] if evidence else []), *(_of_optimizer(train) if train else ())]


def _of_losses(train: Rows, heldout: Rows) -> Iterator[Plot]:
    captions = {
        "loss": ("Loss", "Mean of the pairs of a step. Dashed: where it starts, policy and reference agreeing."),
        "rewards/accuracies": ("Preference accuracy", "Share of pairs whose margin is positive. Dashed: chance."),
    }
    for key, (name, caption) in captions.items():
        start = float(train[0]["loss"]) if key == "loss" else 0.5
        says = _ends(train, key, "training") + _ends(heldout, f"heldout/{key}", "held-out")
        yield plot(
            name, caption, functools.partial(_both, train=train, heldout=heldout, key=key, start=start), says=says
        )


def _of_rewards(train: Rows) -> Plot:
    says = _ends(train, "rewards/chosen", "chosen") + _ends(train, "rewards/rejected", "rejected")
    caption = "Training pairs. Both falling means displacement."
    return plot("Implicit rewards", caption, functools.partial(_rewards, train=train), says=says)


def _of_margins(evidence: Rows) -> Plot:
    margins = _column(evidence, "margin")
    preferred, span = sum(margin > 0 for margin in margins), f"{min(margins):.3g} to {max(margins):.3g}"
    says = f" {preferred} of {len(margins)} pairs right of zero, from {span} nats × beta."
    draw = functools.partial(_margins, margins=margins)
    return plot("Held-out margins", "Right of zero: the policy prefers chosen.", draw, says=says)


def _of_optimizer(train: Rows) -> Iterator[Plot]:
    for key, name, caption, label, colour in (
        ("grad_norm", "Gradient norm", "Before clipping.", "norm of the gradient", TRAIN),
        ("learning_rate", "Learning rate", "As used by each step.", "learning rate", HELDOUT),
    ):
        draw = functools.partial(_one, rows=train, key=key, colour=colour, label=label)
        yield plot(name, caption, draw, says=_ends(train, key, label))


def plot(name: str, caption: str, draw: Draw, height: float = 2.7, says: str = "") -> Plot:
    """Return what `draw` puts on the axes, under the title `name`; the same input gives the same text.

    `says` is told with name and caption to whoever does not see it: numbers that a glance would tell.
    """
    # Slow to load, and the screens that borrow our numbers draw nothing.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    text = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # Names may hold letters that the font for measuring lacks; the browser has its own fonts.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(4.6, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(name)
        draw(axes)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Plot(name, caption, _embedded(text.getvalue(), html.escape(f"{name}. {caption}{says}")))


def _embedded(svg: str, label: str) -> str:
    """Return SVG as a part of a page: with a label, each id there once, in the page's colours and the reader's font."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    # Ids that nothing refers to repeat from plot to plot, and a page may have an id only once.
    used = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r' id="([\w.]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {FONT}", svg)
    # Outside of a page, in a file of its own, a plot has the colours of the light scheme.
    return re.sub(r"(fill|stroke): (#[0-9a-f]{6})", lambda found: f"{found[1]}: {_variable(found[2])}", svg)


def _variable(colour: str) -> str:
    name = next((name for name, (light, _) in COLOURS.items() if light == colour), None)
    return f"var(--{name}, {colour})" if name else colour


def _ends(rows: Rows, key: str, what: str) -> str:
    values = _column(rows, key)
    return f" {what}: {values[0]:.3g} at first, {values[-1]:.3g} at last." if values else ""


def _both(axes: Axes, train: Rows, heldout: Rows, key: str, start: float) -> None:
    """Draw a number of every step and of the held-out pairs; dashed is what it is before the policy moves."""
    is_share = key == "rewards/accuracies"
    axes.axhline(start, color=MUTED, linewidth=0.9, linestyle="--")
    x, y = _points(train, key)
    if x:  # completions on their own have no accuracy of a step
        axes.plot(x, y, ".", color=TRAIN, markersize=4, alpha=0.7, label="training step")
    if len(x) >= 10:
        axes.plot(x, _smoothed(y), color=TRAIN, linewidth=1.6)
    if heldout:
        x, y = _points(heldout, f"heldout/{key}")
        axes.plot(x, y, color=HELDOUT, marker="o", markersize=4.5, linewidth=1.8, label="held-out")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("share of pairs" if is_share else "mean loss of a pair")
    axes.legend(loc="best")
    if is_share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _rewards(axes: Axes, train: Rows) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.9)
    for key, colour in (("rewards/chosen", CHOSEN), ("rewards/rejected", REJECTED)):
        axes.plot(*_points(train, key), color=colour, linewidth=1.6, label=key.split("/")[1])
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("reward (nats × beta)")
    axes.legend(loc="best")


def _margins(axes: Axes, margins: Sequence[float]) -> None:
    bins = np.histogram_bin_edges(margins, bins=min(30, max(8, len(margins) // 4)))
    for colour, side in ((REJECTED, [m for m in margins if m < 0]), (CHOSEN, [m for m in margins if m >= 0])):
        axes.hist(side, bins=bins.tolist(), color=colour, edgecolor=PAGE)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_xlabel("margin (nats × beta)")
    axes.set_ylabel("pairs")


def _one(axes: Axes, rows: Rows, key: str, colour: str, label: str) -> None:
    axes.plot(*_points(rows, key), color=colour, linewidth=1.6)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)


def _points(rows: Rows, key: str) -> tuple[list[float], list[float]]:
    """Return the steps that have a number, and the number."""
    some = [row for row in rows if key in row]
    return _column(some, "step"), _column(some, key)


def _column(rows: Rows, key: str) -> list[float]:
    return [float(row[key]) for row in rows if key in row]


def _smoothed(values: Sequence[float], weight: float = 0.8) -> list[float]:
    """Return the bias-corrected exponential mean (Kingma & Ba 2015, Sec. 3)."""
    total, mass, out = 0.0, 0.0, []
    for value in values:
        total, mass = weight * total + (1 - weight) * value, weight * mass + (1 - weight)
        out.append(total / mass)
    return out
