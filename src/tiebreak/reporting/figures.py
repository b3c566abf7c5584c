"""Plots as inline SVG, and the look that all our plots share.

Owns how plots look, and what is said of each to whoever cannot see it. Which figures a run has is known to `curves`.
Pure: numbers in, SVG text out. Colours are those of the page, in the scheme that it is read in.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiebreak.reporting.curves import Figure, Line
from tiebreak.reporting.look import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def plot(name: str, caption: str, draw: Draw, height: float = 2.7, says: str = "") -> Plot:
    """Return what `draw` puts on the axes, under the title `name`; the same input gives the same text.

    `says` is told with name and caption to whoever does not see it: numbers that a glance would tell.
    """
    return Plot(name, caption, _embedded(_svg(name, draw, height), html.escape(f"{name}. {caption}{says}")))


def _svg(name: str, draw: Draw, height: float) -> str:
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
    return text.getvalue()


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


def drawn(figure: Figure) -> Plot:
    """Return a figure of a run as it is printed, and seen where no script runs."""

    def draw(axes: Axes) -> None:
        if figure.level is not None:
            axes.axhline(figure.level, color=MUTED, linewidth=0.9, linestyle="--")
        for line in figure.lines:
            _FORMS[line.form](axes, line)
        axes.set_xlabel(figure.x_label)
        axes.set_ylabel(figure.y_label)
        if len({line.label for line in figure.lines}) > 1:
            axes.legend(loc="best")
        if figure.share:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        elif figure.from_zero:
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 4))

    return plot(figure.name, figure.caption, draw, says=figure.says)


def _bars(axes: Axes, line: Line) -> None:
    axes.stairs(line.y, line.x, fill=True, color=_light(line), label=line.label, edgecolor=PAGE)


def _steps(axes: Axes, line: Line) -> None:
    axes.stairs(line.y, line.x, color=_light(line), linewidth=1.8, label=line.label)


def _light(line: Line) -> str:
    return COLOURS[line.colour][0]


_FORMS: Mapping[str, Callable[[Axes, Line], object]] = {
    "points": lambda axes, line: axes.plot(
        line.x, line.y, ".", color=_light(line), markersize=4, alpha=0.7, label=line.label
    ),
    "line": lambda axes, line: axes.plot(line.x, line.y, color=_light(line), linewidth=1.6, label=line.label),
    "marked": lambda axes, line: axes.plot(
        line.x, line.y, color=_light(line), marker="o", markersize=4.5, linewidth=1.8, label=line.label
    ),
    "place": lambda axes, line: axes.plot(line.x, line.y, "D", color=_light(line), markersize=6, label=line.label),
    "bars": _bars,
    "steps": _steps,
}
"""How each form of a line is drawn; the script of the page draws the same forms."""
