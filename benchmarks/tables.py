"""A result of the benchmark as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

MIB = 2**20


def show(result: dict[str, Any]) -> None:
    """Print a result on stdout."""
    console = Console()
    if "scaling" in result:
        console.print(_scaling(result["scaling"]))
        return
    console.print(_contestants(result))
    console.print(_ratios(result))
    trajectory, sgemm, machine = result["trajectory"], result["sgemm"], result["machine"]
    apart = ", ".join(f"{name} {_number(value, '.1e')}" for name, value in trajectory["max_loss_difference"].items())
    console.print(f"largest difference of a loss to tiebreak: {apart} (bound {trajectory['bound']:g})")
    shares = ", ".join(f"{name} {_number(value, '.0%')}" for name, value in sgemm["share"].items())
    console.print(f"share of sgemm ({sgemm['gflops']:.0f} GFLOP/s): {shares}")
    told = ", ".join([machine["cpu"], *machine["instructions"], f"{machine['threads']} threads"])
    console.print(f"{told}, {result['settings']['dtype']}", highlight=False)
    for failure in result["failures"].values():
        console.print(f"failed: {failure}", markup=False, highlight=False)


def _contestants(result: dict[str, Any]) -> Table:
    head = ("contestant", "pairs/s", "tokens/s", "s/step", "peak MiB", "of TRL's")
    rows = []
    memory = result["memory"]
    for name, rate in result["pairs_per_second"].items():
        share = (memory["ratio_to_trl_default"] or {}).get(name)
        numbers = (
            _number(rate, ".3g"),
            _number(result["unique_tokens_per_second"][name], ".0f"),
            _number(result["seconds_per_step"][name], ".3g"),
            _number(memory["peak_rss_bytes"][name] / MIB, ".0f"),
            _number(share, ".0%"),
        )
        rows.append((name, *numbers))
    return _table("medians over rounds, unique tokens, memory beside TRL's defaults", head, rows)


def _ratios(result: dict[str, Any]) -> Table:
    rows = [
        (
            name,
            _number(ratio, ".2f"),
            _number(result["ratios_of_medians"][name], ".2f"),
            " ".join(_number(each, ".2f") for each in result["ratios_per_round"][name]),
        )
        for name, ratio in result["ratios"].items()
    ]
    return _table("tiebreak over TRL", ("ratio", "median of rounds", "ratio of medians", "rounds"), rows)


def _scaling(found: Sequence[dict[str, Any]]) -> Table:
    head = ("pairs", "data µs/token", "step µs/token", "data path MiB", "peak MiB")
    rows = [
        (
            str(one["num_pairs"]),
            _number(one["data_seconds_per_unique_token"] * 1e6, ".2f"),
            _number(one["step_seconds_per_unique_token"] * 1e6, ".2f"),
            _number(one["data_path_peak_bytes"] / MIB, ".0f"),
            _number(one["peak_rss_bytes"] / MIB, ".0f"),
        )
        for one in found
    ]
    return _table("cost by number of pairs, per unique token", head, rows)


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
