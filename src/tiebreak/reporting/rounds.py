"""A loop of rounds on the screen and on one self-contained page: which round is best, by how much, and how far away.

Owns both. They take the loop as rounds.json holds it, and held-out answers before and after.
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
from tiebreak.reporting.figures import CHOSEN, HELDOUT, MUTED, REJECTED, TRAIN, Plot, plot
from tiebreak.reporting.look import page_environment
from tiebreak.reporting.numbers import NOTHING, count, duration, numbered, percent, shown
from tiebreak.reporting.terminal import terminal
from tiebreak.reporting.visible import harmless, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Found = Mapping[str, Any]
MOST_ANSWERS = 24
"""Held-out prompts whose answers stand on the page."""
_COLUMNS = {
    "round": "round",
    "first": "win rate: first model",
    "previous": "round before",
    "score": "judge's score",
    "kl": "KL, nats",
    "length": "tokens",
    "ended": "ended",
    "pairs": "gave pairs",
}


def write_rounds_page(found: Found, answers: Sequence[Found], target: Path) -> None:
    """Write the page, whole or not at all; `answers` are rows of a prompt with what first and best model say."""
    write_text(target, render_rounds_page(found, answers))


def render_rounds_page(found: Found, answers: Sequence[Found]) -> str:
    """Return the page as text."""
    environment = page_environment(lambda value: harmless(value) if type(value) is str else value)
    environment.filters |= {"duration": duration, "count": count, "brief": lambda text: visible(text, 2000)}
    return environment.get_template("rounds.html.j2").render(
        found=found,
        says=[*verdict(found)],
        columns=_COLUMNS.values(),
        rows=[[row[key] for key in _COLUMNS] for row in rows(found)],
        answers=answers[:MOST_ANSWERS],
        num_more=max(0, len(answers) - MOST_ANSWERS),
        outcomes=_outcomes(found),
        costs=_costs(found),
        # The only markup that is trusted: drawn here, from numbers.
        plots=[{"name": one.name, "caption": one.caption, "svg": Markup(one.svg)} for one in plots(found)],  # noqa: S704
    )


def print_rounds(found: Found) -> None:
    """Print a row for each round and what the loop found."""
    table = Table(box=rich.box.SIMPLE_HEAD)
    for column in _COLUMNS.values():
        table.add_column(column, overflow="fold")
    for row in rows(found):
        table.add_row(*(Text(printable(str(row[key]))) for key in _COLUMNS))
    terminal().print(table)
    print_text("\n".join(verdict(found)))


def rows(found: Found) -> list[dict[str, str]]:
    """Return the first model and each round in words."""
    first = found.get("heldout") or {}
    told = [_row("first", first, {}, "")] if first.get("counted") else []
    return told + [_row(str(one["round"]), one.get("measured") or {}, one, _pairs(one)) for one in found["rounds"]]


def _row(name: str, measured: Found, entry: Found, pairs: str) -> dict[str, str]:
    counted, score = measured.get("counted") or {}, measured.get("score")
    state = "" if measured or not entry else entry["state"]
    return {
        "round": name,
        "first": _rate(measured, "vs_first") or state or NOTHING,
        "previous": _rate(measured, "vs_previous") or NOTHING,
        "score": _number(score["mean"]) if score else NOTHING,
        "kl": _nats(measured["kl_first"]) if measured.get("kl_first") else NOTHING,
        "length": f"{counted['num_tokens']:.1f}" if counted else NOTHING,
        "ended": percent(counted["finished"]) if counted else NOTHING,
        "pairs": pairs,
    }


def verdict(found: Found) -> Iterator[str]:
    """Yield what a loop found, a sentence each, the most important first."""
    best = found.get("best")
    if best is None:
        measured = any(one["state"] == "measured" for one in found["rounds"])
        yield f"{found['status']}: " + ("no judge has measured the rounds" if measured else "no round is measured yet")
    else:
        yield best["says"]
        rival = [one for one in found["rounds"] if one["round"] != best["round"] and one.get("measured")]
        if rival:
            yield "the best of several rounds is chosen by the same prompts, so that a part of its lead may be luck"
    if found.get("stopped"):
        yield f"ended: {found['stopped']['says']}"


def _rate(measured: Found, against: str) -> str | None:
    rate = (measured.get(against) or {}).get("rate")
    return shown(rate, "share") if rate else None


def _number(estimate: Found) -> str:
    return "{:.3g} ({:.3g} … {:.3g})".format(*(estimate[key] for key in ("mean", "low", "high")))


def _nats(estimate: Found) -> str:
    """Return a KL by both estimates: k1, with its interval, is noisy, and may fall below what a KL can be."""
    return f"{_number(estimate)}; k3 {estimate['k3']:.2g}"


def _pairs(entry: Found) -> str:
    pairs = entry.get("pairs")
    return NOTHING if pairs is None else f"{pairs['prompts']['paired']} of {numbered(pairs['num_prompts'], 'prompt')}"


def _outcomes(found: Found) -> list[tuple[str, str]]:
    """Return what became of each round's prompts and answers, in words."""
    told = []
    for name, one in _parts(found):
        if pairs := one.get("pairs"):
            prompts = {key: num for key, num in pairs["prompts"].items() if key != "paired"}
            answers = {f"answers: {key}": num for key, num in (pairs["disqualified"] | pairs["answers"]).items()}
            del answers["answers: candidates"]
            said = "; ".join(f"{key.replace('_', ' ')} {num}" for key, num in (prompts | answers).items() if num)
            told.append(
                (name, f"{numbered(pairs['num_pairs'], 'pair')} of {_pairs(one)}" + (f"; {said}" if said else ""))
            )
    return told


def _parts(found: Found) -> list[tuple[str, Found]]:
    first = [("held-out prompts", found["heldout"])] if found.get("heldout") else []
    return first + [(f"round {one['round']}", one) for one in found["rounds"]]


def _costs(found: Found) -> list[tuple[str, str]]:
    told = []
    for name, one in _parts(found):
        parts = [f"{station} {duration(seconds)}" for station, seconds in (one.get("seconds") or {}).items()]
        samples = one.get("samples")
        if samples:
            parts.append(f"{numbered(samples['num_answers'], 'answer')} of {count(samples['num_tokens'])} tokens")
        if cost := (one.get("cost") or 0.0) + (one.get("measuring_cost") or 0.0):
            parts.append(f"cost {cost:.4g}")
        told.append((name, "; ".join(parts)))
    return told


# ---------------------------------------------------------------------------------------------------------------- plots


def plots(found: Found) -> list[Plot]:
    """Return what can be drawn of a loop."""
    known = [one for one in found["rounds"] if (one.get("measured") or {}).get("vs_first", {}).get("rate")]
    if not known:
        return []
    rates = [one["measured"]["vs_first"]["rate"] for one in known]
    told = [*zip(known, rates, strict=True)]
    drawn = [
        plot(
            "Against the first model",
            "How often each round's answers to held-out prompts are preferred, with its 95 % interval. Dashed: a half.",
            functools.partial(_points, places=[one["round"] for one in known], estimates=rates, level=0.5, share=True),
            says="".join(f" Round {one['round']} {percent(rate['mean'])}." for one, rate in told),
        )
    ]
    first = (found.get("heldout") or {}).get("score")
    scores = [(one["round"], one["measured"]["score"]["mean"]) for one in known if one["measured"].get("score")]
    if first and scores:
        scores = [(0, first["mean"]), *scores]
        drawn.append(
            plot(
                "What the judge gives",
                "Mean score of answers to held-out prompts; round 0 is the first model.",
                functools.partial(_points, places=[at for at, _ in scores], estimates=[one for _, one in scores]),
                says="".join(f" Round {at} {one['mean']:.3g}." for at, one in scores),
            )
        )
    distances = [(one["round"], one["measured"]["kl_first"]) for one in known if one["measured"].get("kl_first")]
    if distances:
        drawn.append(
            plot(
                "KL to the first model",
                "Of answers that each round draws to held-out prompts, nats an answer.",
                functools.partial(
                    _points, places=[at for at, _ in distances], estimates=[one for _, one in distances], level=0.0
                ),
                says="".join(f" Round {at} {one['mean']:.2f}." for at, one in distances),
            )
        )
    made = [one for one in found["rounds"] if one.get("pairs")]
    drawn.append(
        plot(
            "What became of prompts",
            "Prompts of each round that gave a pair, and those that gave none.",
            functools.partial(_bars, made=made),
            says="".join(f" Round {one['round']}: {_pairs(one)}." for one in made),
        )
    )
    return drawn


def _points(
    axes: Axes, places: Sequence[int], estimates: Sequence[Found], level: float | None = None, *, share: bool = False
) -> None:
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=0.9, linestyle="--")
    axes.plot(places, [one["mean"] for one in estimates], color=HELDOUT, linewidth=1.0)
    for place, one in zip(places, estimates, strict=True):
        axes.plot([place, place], [one["low"], one["high"]], color=HELDOUT, linewidth=1.6)
        axes.plot([place], [one["mean"]], "o", color=CHOSEN, markersize=5)
    axes.set_xticks(places)
    axes.set_xlabel("round")
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def _bars(axes: Axes, made: Sequence[Found]) -> None:
    places = [one["round"] for one in made]
    pairs = [one["pairs"]["prompts"]["paired"] for one in made]
    without = [one["pairs"]["num_prompts"] - num for one, num in zip(made, pairs, strict=True)]
    axes.bar(places, pairs, color=TRAIN, width=0.6, label="gave a pair")
    axes.bar(places, without, bottom=pairs, color=REJECTED, width=0.6, label="gave none")
    axes.set_xticks(places)
    axes.set_xlabel("round")
    axes.set_ylabel("prompts")
    axes.legend(loc="best")
