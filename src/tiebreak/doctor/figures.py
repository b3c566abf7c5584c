"""The plots of the doctor's report as inline SVG.

Owns what is drawn of an audit; how it looks is `figures`' own. Pure: the report as plain JSON in, SVG text out. What
the report does not hold, or holds in a shape that cannot be drawn, is left out. Names from data are made harmless here,
because SVG text is trusted by the page.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tiebreak.doctor.sentences import unit_of
from tiebreak.reporting.figures import CHOSEN, HELDOUT, INK, MUTED, PAGE, REJECTED, TRAIN, Plot, plot
from tiebreak.reporting.numbers import is_number
from tiebreak.reporting.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Report = Mapping[str, Any]

MAX_ROWS = 16
MAX_TICKS = 8
MAX_POWERS = 20
SIDES = (("prompt", TRAIN), ("chosen", CHOSEN), ("rejected", REJECTED), ("liked", CHOSEN), ("disliked", REJECTED))
"""Of what lengths are drawn: a report holds those that its examples have."""


@dataclass(frozen=True)
class Histogram:
    """Counts between ascending edges."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    def place(self, value: float) -> float:
        """Where a value lies on an axis on which all bars have the same width."""
        return float(np.interp(value, self.edges, range(len(self.edges))))


@dataclass(frozen=True)
class Row:
    """A named share with its interval, as one row of a plot."""

    name: str
    share: float
    low: float
    high: float
    colour: str


def audit_plots(report: Report) -> list[Plot]:
    """Return every plot that the report holds numbers for."""
    parts = (_lengths, _differences, _prompts, _shortcut, _agreement, _tokens)
    return [drawn for part in parts for drawn in part(report)]


def _histogram(found: Any, key: str = "counts") -> Histogram | None:
    """Return the counts under `key` if there are any and they fit their edges."""
    found = found if isinstance(found, Mapping) else {}
    edges, counts = found.get("edges") or (), found.get(key) or ()
    listed = isinstance(edges, list | tuple) and isinstance(counts, list | tuple)
    whole = listed and len(edges) == len(counts) + 1 and all(is_number(value) for value in (*edges, *counts))
    if not whole or sum(counts) <= 0 or any(right <= left for left, right in itertools.pairwise(edges)):
        return None
    return Histogram(tuple(edges), tuple(counts))


def _lengths(report: Report) -> Iterator[Plot]:
    found = (report.get("histograms") or {}).get("words")
    sides = [(side, colour, drawn) for side, colour in SIDES if (drawn := _histogram(found, side))]

    def draw(axes: Axes) -> None:
        for side, colour, drawn in sides:
            axes.stairs(drawn.counts, range(len(drawn.edges)), color=colour, linewidth=1.7, label=side)
        _edge_ticks(axes, sides[0][2])
        axes.set_xlabel("words")
        axes.set_ylabel(unit_of(report))
        axes.set_ylim(bottom=0)
        _legend_above(axes, len(sides))

    if sides:
        says = "".join(_middle(drawn, f"of {side}") for side, _, drawn in sides)
        names = ", ".join(side for side, _, _ in sides)
        yield plot("Lengths", f"Words of {names}; bars of equal width.", draw, says=says)


def _differences(report: Report) -> Iterator[Plot]:
    found = report.get("histograms") or {}
    lengths, margins = _histogram(found.get("length_difference")), _histogram(found.get("margin"))

    def draw_lengths(axes: Axes, drawn: Histogram) -> None:
        _two_sided(axes, drawn)
        powers = range(math.ceil(drawn.edges[0]), math.floor(drawn.edges[-1]) + 1)[:MAX_POWERS]
        axes.set_xticks(powers, [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers])
        axes.set_xlabel("words of chosen ÷ words of rejected")

    def draw_margins(axes: Axes, drawn: Histogram) -> None:
        _two_sided(axes, drawn)
        axes.set_xlabel("margin as stated in the file")

    if lengths:
        caption = "Left of the line the rejected completion is the longer one."
        yield plot("Length difference", caption, functools.partial(draw_lengths, drawn=lengths), says=_sides(lengths))
    if margins:
        caption = "Score of chosen minus score of rejected. Left of the line they contradict the label."
        yield plot("Margins", caption, functools.partial(draw_margins, drawn=margins), says=_sides(margins))


def _prompts(report: Report) -> Iterator[Plot]:
    unit = unit_of(report)
    drawn = _histogram((report.get("histograms") or {}).get(f"{unit}_per_prompt"))
    if drawn is None or sum(value > 0 for value in drawn.counts) < 2:
        return

    def draw(axes: Axes) -> None:
        bars = axes.bar(range(len(drawn.counts)), drawn.counts, color=HELDOUT, width=0.8)
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8, color=MUTED)
        spans = itertools.pairwise(drawn.edges)  # whole numbers, the right one not among them
        names = [_plain(low) if high - low <= 1 else f"{_plain(low)}–{_plain(high - 1)}" for low, high in spans]
        axes.set_xticks(range(len(names)), names)
        axes.margins(y=0.12)
        axes.set_xlabel(f"{unit} on one prompt")
        axes.set_ylabel("prompts")

    caption = f"{unit.capitalize()} of one prompt are no independent evidence."
    yield plot(f"{unit.capitalize()} per prompt", caption, draw, says=_middle(drawn, f"{unit} on a prompt"))


def _tokens(report: Report) -> Iterator[Plot]:
    found = report.get("tokens") or {}
    drawn, limit = _histogram(found.get("histogram")), found.get("max_length")
    if drawn is None:
        return

    def draw(axes: Axes) -> None:
        axes.stairs(drawn.counts, range(len(drawn.edges)), fill=True, color=TRAIN)
        if is_number(limit):
            axes.axvline(drawn.place(limit), color=REJECTED, linestyle="--", label=f"max_length {limit:,}")
            _legend_above(axes, 1)
        _edge_ticks(axes, drawn)
        axes.set_xlabel("tokens of a row: prompt and the longest completion")
        axes.set_ylabel(unit_of(report))

    caption = "Bars of equal width. What lies right of the line is cut or dropped."
    yield plot("Tokens", caption, draw, says=_middle(drawn, "tokens of a row"))


_SHORTCUT_SAYS = {
    "pairs": "Held-out pairs told right by their surface alone.",
    "completions": "How often a liked completion has more of it than a disliked one; of all features, held out.",
}


def _shortcut(report: Report) -> Iterator[Plot]:
    found = report.get("shortcut") or {}
    models = [("length alone", found.get("length")), ("all features", found.get("features"))]
    rows = [row for name, one in models if (row := _row(name, one, "accuracy", HELDOUT))]
    single = [row for one in found.get("by_feature") or () if (row := _row(_name(one), one, "accuracy", TRAIN))]
    rows += sorted(single, key=lambda row: -abs(row.share - 0.5))[: MAX_ROWS - len(rows)]
    if rows:
        caption = f"{_SHORTCUT_SAYS[unit_of(report)]} Dashed: chance. Lines: 95 % intervals."
        draw = functools.partial(_forest, rows=rows, label="accuracy", chance=0.5)
        yield plot("Shortcuts", caption, draw, _height(rows), _listed(rows))


def _agreement(report: Report) -> Iterator[Plot]:
    people = (report.get("agreement") or {}).get("annotators") or ()
    coloured = [(one, REJECTED if one.get("unreliable") else HELDOUT) for one in people if one]
    known = [row for one, colour in coloured if (row := _row(_name(one), one, "agreement", colour))]
    rows = sorted(known, key=lambda row: row.share)[:MAX_ROWS]
    if rows:
        which = f" The {MAX_ROWS} lowest." if len(known) > MAX_ROWS else ""
        caption = f"How often an annotator votes as the others do; orange: unreliable. Lines: intervals.{which}"
        draw = functools.partial(_forest, rows=rows, label="agreement")
        yield plot("Agreement of annotators", caption, draw, _height(rows), _listed(rows))


def _middle(drawn: Histogram, what: str) -> str:
    """Say between which edges the middle one lies, for whoever does not see the bars."""
    place = int(np.searchsorted(np.cumsum(drawn.counts), sum(drawn.counts) / 2))
    return f" {what}: the middle one lies between {_plain(drawn.edges[place])} and {_plain(drawn.edges[place + 1])}."


def _sides(drawn: Histogram) -> str:
    bars = list(zip(itertools.pairwise(drawn.edges), drawn.counts, strict=True))
    left, right = (sum(n for edges, n in bars if edges[1] <= 0), sum(n for edges, n in bars if edges[0] >= 0))
    return f" {left:,g} pairs left of the line, {right:,g} right of it."


def _listed(rows: Sequence[Row]) -> str:
    return " " + ", ".join(f"{row.name} {row.share:.1%}" for row in rows) + "."


def _name(found: Any) -> str:
    return visible(found.get("name"), 18).replace("_", " ") if isinstance(found, Mapping) else ""


def _row(name: str, found: Any, key: str, colour: str) -> Row | None:
    """Return the row if its share is known; where the interval is not, it has no width."""
    found = found if isinstance(found, Mapping) else {}
    share = found.get(key)
    if not is_number(share):
        return None
    low, high = (found.get(end) if is_number(found.get(end)) else share for end in ("low", "high"))
    return Row(name, share, min(low, share), max(high, share), colour)


def _height(rows: Sequence[Row]) -> float:
    return max(2.0, 0.9 + 0.2 * len(rows))


def _forest(axes: Axes, rows: Sequence[Row], label: str, chance: float | None = None) -> None:
    """Draw one line a row, the first on top: a dot at the share, a line for its interval."""
    for place, row in enumerate(reversed(rows)):
        axes.plot([row.low, row.high], [place, place], color=row.colour, linewidth=2.2, alpha=0.6)
        axes.plot([row.share], [place], "o", color=row.colour, markersize=5)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], parse_math=False, color=INK)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(label)
    if chance is not None:
        axes.axvline(chance, color=MUTED, linewidth=0.9, linestyle="--")


def _two_sided(axes: Axes, drawn: Histogram) -> None:
    """Draw bars in the colour of the side that they speak for, and the line between the sides."""
    bars = list(itertools.pairwise(drawn.edges))
    colours = [MUTED if left < 0 < right else REJECTED if left < 0 else CHOSEN for left, right in bars]
    widths = [right - left for left, right in bars]
    axes.bar(drawn.edges[:-1], drawn.counts, widths, align="edge", color=colours, edgecolor=PAGE, linewidth=0.6)
    if drawn.edges[0] <= 0 <= drawn.edges[-1]:
        axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_ylabel("pairs")


def _edge_ticks(axes: Axes, drawn: Histogram) -> None:
    places = range(0, len(drawn.edges), math.ceil(len(drawn.edges) / MAX_TICKS))
    axes.set_xticks(places, [_plain(drawn.edges[place]) for place in places])


def _legend_above(axes: Axes, num_columns: int) -> None:
    """Put the legend beside the title, where it hides no bar."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.3, ncols=num_columns, columnspacing=1.2)


def _plain(edge: float) -> str:
    return f"{edge:,g}" if abs(edge) < 1e6 else f"{edge:.0e}"
