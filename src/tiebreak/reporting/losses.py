"""Objectives on the screen: all of them in a table, or one with its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
from rich.table import Table
from rich.text import Text

from tiebreak.reporting.console import print_text
from tiebreak.reporting.terminal import terminal


def print_losses(losses: Sequence[Mapping[str, Any]]) -> None:
    """Print objectives, one a row."""
    table = Table(box=rich.box.SIMPLE_HEAD)
    for column in ("name", "formula", "needs", "when"):
        table.add_column(column, overflow="fold")
    for loss in losses:
        needs = [
            *(loss["facts"] if loss["learns_from"] == "pairs" else [f"{loss['learns_from']} on their own"]),
            *([] if loss["reference"] else ["no reference"]),
            *(["whole step"] if loss["whole_step"] else []),
        ]
        table.add_row(*map(Text, (loss["name"], loss["formula"], ", ".join(needs), loss["use"])))
    terminal().print(table)


def print_loss(loss: Mapping[str, Any]) -> None:
    """Print one objective with its settings."""
    told = {
        "when": loss["use"],
        "watch": loss["watch"],
        "source": loss["source"],
        "also called": ", ".join(loss["aliases"]),
    }
    apart = loss["learns_from"] != "pairs"
    told |= {"learns from": f"{loss['learns_from']}, each on its own" if apart else ""}
    told |= {
        "reads": "" if apart else ", ".join(loss["facts"]),
        "reference": "" if loss["reference"] else "none is asked",
    }
    told |= {"step": "the loss of a pair depends on the others of its step" if loss["whole_step"] else ""}
    lines = [f"{loss['name']}: {loss['title']}", f"  {loss['formula']}", ""]
    lines += [f"{key + ':':<13}{text}" for key, text in told.items() if text]
    own = [_told_of(one) for one in loss["settings"] if one["name"] not in loss["modifiers"]]
    more = [_told_of(one) for one in loss["settings"] if one["name"] in loss["modifiers"]]
    lines += ["", *own, *(["", "modifiers:", *more] if more else [])] if own or more else ["", "no settings"]
    print_text("\n".join(lines))


def _told_of(setting: Mapping[str, Any]) -> str:
    known = [setting["range"], f"safe {setting['safe']}" if setting["safe"] else ""]
    bounds = f" ({'; '.join(filter(None, known))})" if any(known) else ""
    return f"loss.{setting['name']}: {setting['default']}{bounds}  {setting['description']}"
