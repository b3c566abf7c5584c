"""A sweep on the screen and on one self-contained page: who is best, at which KL, and what of it was luck.

Owns both. They take the sweep as sweep.json holds it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.box
import rich.console
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from tiebreak.files import write_text
from tiebreak.reporting.console import print_text, printable
from tiebreak.reporting.figures import CHOSEN, HELDOUT, INK, MUTED, REJECTED, TRAIN, Plot, plot
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import NOTHING, duration, numbered, percent, shown
from tiebreak.reporting.terminal import terminal
from tiebreak.reporting.visible import harmless, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[str, Any]
MOST_LINES = 12
"""Trials whose course is drawn: more cannot be told apart."""


def write_sweep_page(found: Found, target: Path) -> None:
    """Write the page, whole or not at all."""
    write_text(target, render_sweep_page(found))


def render_sweep_page(found: Found) -> str:
    """Return the page as text."""
    environment = page_environment(lambda value: harmless(value) if type(value) is str else value)
    environment.filters |= {"duration": duration}
    return environment.get_template("sweep.html.j2").render(
        found=found,
        name=visible(_written(found["best_settings"]), 120),
        keys=[*(found["settings"]["grid"] or found["settings"]["search"])],
        says=[*verdict(found)],
        rows=rows(found),
        ended=_not_measured(found),
        # The only markup that is trusted: drawn here, from numbers and cleaned names.
        plots=[{"name": one.name, "caption": one.caption, "svg": Markup(one.svg)} for one in plots(found)],  # noqa: S704
    )


def print_sweep(found: Found) -> None:
    """Print the ranking and what it says."""
    table = Table(box=rich.box.SIMPLE_HEAD)
    for column in (
        "trial",
        "held-out accuracy",
        "gap, nats",
        "behind, points",
        "win rate",
        "KL",
        "at the same KL",
        "front",
    ):
        table.add_column(column, overflow="fold")
    for row in rows(found):
        table.add_row(*(Text(printable(str(row[key]))) for key in _COLUMNS))
    terminal().print(table)
    print_text("\n".join(verdict(found)))


_COLUMNS = ("name", "accuracy", "gap", "behind", "win_rate", "kl", "matched", "front")


def rows(found: Found) -> list[dict[str, Any]]:
    """Return a row for each trial in words, the best first; those that were not measured come last."""
    ranked = [
        {
            "name": one["name"],
            "state": "done",
            "accuracy": shown(one["accuracy"], "share"),
            "gap": "{:.2f} ({:.2f} … {:.2f})".format(*(one["gap"][key] for key in ("mean", "low", "high"))),
            "behind": _points(one["behind"]),
            "win_rate": _shown(one["win_rate"], "share"),
            "kl": _nats(one["kl"]),
            "matched": _matched(one),
            "front": "yes" if one["on_front"] else "",
        }
        for one in found["ranking"]
    ]
    others = _not_measured(found)
    return ranked + [
        dict.fromkeys(_COLUMNS, NOTHING)
        | {"name": one["name"], "state": one["state"], "accuracy": one["state"], "front": ""}
        for one in others
    ]


def _not_measured(found: Found) -> list[Found]:
    return [one for one in found["trials"] if one["state"] != "done"]


def verdict(found: Found) -> Iterator[str]:
    """Yield what a sweep found, a sentence each, the most important first."""
    best, luck, reference = found["ranking"][0], found["luck"], found["reference"]
    by = found["decided_by"].replace("_", " ")
    accuracy, pairs = shown(best["accuracy"], "share"), numbered(best["accuracy"]["num"], "pair")
    told = _written(found["best_settings"])
    if found["best_has_moved"]:
        yield f"best: {told} (by {by}), held-out accuracy {accuracy} on {pairs} that it was chosen by"
    else:
        yield (
            f"no trial is best: none has a mean log-ratio gap above {found['least_gap']:g} nats, so that none has "
            f"learned more than rounding; the first of them is {told}, held-out accuracy {accuracy} on {pairs}"
        )
    yield from _of_the_choice(found)
    if luck:
        again = f"on prompts that no trial was chosen by: {shown(luck['accuracy'], 'share')}"
        yield again + (f", win rate {shown(luck['win_rate'], 'share')}" if luck["win_rate"] else "")
        yield luck["says"]
    else:
        yield found["no_luck_because"]
    far = "behind" if found["decided_by"] == "accuracy" else "matched_behind"
    equal = [one["name"] for one in found["ranking"][1:] if one[far] and one[far]["low"] <= 0]
    if equal:
        yield f"not told apart from it: {', '.join(equal)}"
    yield from _of_win_rate(found)
    yield from (f"{one['name']} {one['state']}: {one['says']}" for one in _not_measured(found))
    if found["num_left_out"]:
        yield f"{numbered(found['num_left_out'], 'pair')} left out, which not all trials were measured on"
    trials = numbered(len(found["trials"]) + len(found["not_asked_any_more"]), "trial")
    more = reference["num_asked_confirming"]
    yield (
        f"the reference was asked about {numbered(reference['num_asked'], 'pair')} for {trials}: "
        f"{reference['passes']:.2f} passes over {reference['num_pairs']}; what it says and answers is stored"
        + (f"; and {numbered(more, 'time')} for the last word, about pairs that no trial saw" if more else "")
    )


def _of_the_choice(found: Found) -> Iterator[str]:
    """Yield what has to be known of how the best one was chosen."""
    if tied := found["tied"]["trials"]:
        yield (
            f"{len(tied)} trials tie at that accuracy ({', '.join(tied)}): the larger mean log-ratio gap decided, "
            "which favours whoever went furthest from the reference"
        )
    if found["decided_by"] != found["settings"]["best_by"]:
        yield "accuracy decided: win rates at the same KL can be compared for fewer than two trials"
    still = [one["name"] for one in found["ranking"] if not one["has_moved"]]
    if still and found["best_has_moved"]:
        bound = f"{found['least_gap']:g} nats"
        yield f"learned no more than rounding (gap at most {bound}), and not best: {', '.join(still)}"
    if gone := [one["name"] for one in found["not_asked_any_more"]]:
        yield f"not asked for any more, and not ranked: {', '.join(gone)}"


def _of_win_rate(found: Found) -> Iterator[str]:
    kl, best = found["matched_kl"], found["best_by_win_rate"]
    if kl is None or best is None:
        yield (
            "win rate at the same KL: not known; it takes answers that are judged, and two trials whose KL, of drawn "
            "ones, is told from 0"
        )
        yield from _not_compared(found)
        return
    standing = next(one for one in found["ranking"] if one["name"] == best)
    weak = " (weak evidence: the judge is)" if found["win_rate_is_weak"] else ""
    rivals = [one for one in found["ranking"] if one["matched_behind"]]
    equal = [one["name"] for one in rivals if one["matched_behind"]["low"] <= 0]
    rate = shown(standing["matched"], "share")
    if equal:
        others = f"not told apart from {', '.join(equal)}"
        yield f"highest at the same KL of {kl:.2f} nats: {best}, win rate {rate}{weak}, {others}"
    else:
        yield f"best at the same KL of {kl:.2f} nats: {best}, win rate {rate}{weak}"
    yield from _not_compared(found)


def _not_compared(found: Found) -> Iterator[str]:
    for one in found["ranking"]:
        if one["not_compared"]:
            yield f"{one['name']} is not compared at the same KL: {one['not_compared']}"


def _matched(one: Found) -> str:
    if one["matched"]:
        return shown(one["matched"], "share")
    return "not compared" if one["not_compared"] else NOTHING


def _shown(estimate: Found | None, unit: str) -> str:
    return NOTHING if estimate is None else shown(estimate, unit)


def _nats(estimate: Found | None) -> str:
    if estimate is None:
        return NOTHING
    if estimate["mean"] <= 0:  # k1 is noisy and may fall below what a KL can be
        return f"about 0 (at most {max(estimate['high'], 0.0):.2f})"
    return "{:.2f} ({:.2f} … {:.2f})".format(estimate["mean"], max(estimate["low"], 0.0), estimate["high"])


def _points(estimate: Found | None) -> str:
    """Return a difference of shares in points."""
    if estimate is None:
        return NOTHING
    return "{:.1f} ({:.1f} … {:.1f})".format(*(100 * estimate[key] for key in ("mean", "low", "high")))


def _written(settings: Found) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


# ---------------------------------------------------------------------------------------------------------------- plots


def plots(found: Found) -> list[Plot]:
    """Return what can be drawn of a sweep."""
    ranking = found["ranking"]
    drawn = [
        plot(
            "Held-out accuracy",
            "Of each trial, on the prompts that trials are chosen by, with its 95 % interval. Dashed: chance.",
            functools.partial(_accuracies, ranking=ranking),
            height=1.2 + 0.28 * len(ranking),
            says="".join(f" {visible(one['name'], 60)} {percent(one['accuracy']['mean'])}." for one in ranking),
        )
    ]
    known = [one for one in ranking if one["kl"] and one["win_rate"]]
    if known:
        draw = functools.partial(_frontier, known=known, matched=found["matched_kl"])
        caption = "Where each trial ended: right is further from the reference. Green: nobody wins more for less KL."
        ends = [(visible(one["name"], 60), _nats(one["kl"]), percent(one["win_rate"]["mean"])) for one in known]
        says = "".join(f" {name}: KL {kl}, {rate}." for name, kl, rate in ends)
        drawn.append(plot("Win rate and KL", caption, draw, height=3.2, says=says))
    if luck := found["luck"]:
        caption = "Of the best trial: where it was chosen, and on prompts that nobody had looked at."
        draw = functools.partial(_leads, luck=luck)
        says = f" Points: {_points(luck['choosing'])}, then {_points(luck['confirming'])}."
        drawn.append(plot(visible(f"Lead over {luck['against']}", 60), caption, draw, height=2.0, says=says))
    courses = [one for one in found["trials"] if one["probes"]][:MOST_LINES]
    if courses:
        caption = "Probes of held-out pairs while trials were trained. Orange: ended early."
        says = "".join(f" {visible(one['name'], 60)} ends at {percent(one['probes'][-1][1])}." for one in courses)
        draw = functools.partial(_courses, courses=courses, best=found["best"])
        drawn.append(plot("On the way", caption, draw, says=says))
    return drawn


def _accuracies(axes: Axes, ranking: Sequence[Found]) -> None:
    for place, one in enumerate(reversed(ranking)):
        told, colour = one["accuracy"], CHOSEN if one is ranking[0] else HELDOUT
        axes.plot([told["low"], told["high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot([told["mean"]], [place], "o", color=colour, markersize=5)
    axes.axvline(0.5, color=MUTED, linewidth=0.9, linestyle="--")
    axes.set_ylim(-0.6, len(ranking) - 0.4)
    axes.set_yticks(range(len(ranking)), [_label(one["name"]) for one in reversed(ranking)])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _frontier(axes: Axes, known: Sequence[Found], matched: float | None) -> None:
    axes.axhline(0.5, color=MUTED, linewidth=0.9, linestyle="--")
    if matched is not None:
        axes.axvline(matched, color=MUTED, linewidth=0.9, linestyle=":", label="the same KL")
    for one in known:
        colour = CHOSEN if one["on_front"] else TRAIN
        kl, rate = max(one["kl"]["mean"], 0.0), one["win_rate"]
        axes.plot([0, kl], [0.5, rate["mean"]], color=colour, linewidth=0.8)
        axes.plot([kl, kl], [rate["low"], rate["high"]], color=colour, linewidth=1.4)
        axes.plot([kl], [rate["mean"]], "o", color=colour, markersize=5)
        axes.annotate(
            _label(one["name"]), (kl, rate["mean"]), (4, 4), textcoords="offset points", fontsize=7, color=INK
        )
    axes.set_xlabel("KL to the reference (nats an answer)")
    axes.set_ylabel("win rate against the reference")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    if matched is not None:
        axes.legend(loc="best")


def _leads(axes: Axes, luck: Found) -> None:
    for place, (key, colour) in enumerate((("confirming", CHOSEN), ("choosing", TRAIN))):
        told = luck[key]
        axes.plot([told["low"], told["high"]], [place, place], color=colour, linewidth=1.6)
        axes.plot([told["mean"]], [place], "o", color=colour, markersize=5)
    axes.axvline(0, color=MUTED, linewidth=0.9, linestyle="--")
    axes.set_yticks([0, 1], ["on other prompts", "where it was chosen"])
    axes.set_ylim(-0.5, 1.5)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("points")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}")


def _courses(axes: Axes, courses: Sequence[Found], best: str) -> None:
    for one in courses:
        colour = CHOSEN if one["name"] == best else REJECTED if one["state"] == "stopped" else TRAIN
        shares, scores = zip(*one["probes"], strict=True)
        axes.plot(shares, scores, color=colour, marker="o", markersize=3, linewidth=1.2)
    axes.set_xlabel("share of its steps")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("held-out accuracy")
    axes.set_ylim(None, min(1.02, axes.get_ylim()[1]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _label(name: str) -> str:
    """Return a name as it stands in a drawing: short, and no formula for matplotlib."""
    return visible(name, 40).replace("$", "\\$")
