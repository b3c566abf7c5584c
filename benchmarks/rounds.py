"""The contest: rounds of contestants, one after the other, each alone in a process, the order turning.

Owns which pairs a round takes: windows of one random order of the file, the same for every contestant of the round and
new ones in the next, so that the figure does not hang on a few pairs. A small file is gone through again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jobs import Job, JobError, Result, Row, Settings, call
from reckoning import OURS, all_operations, operations, rated, summary


def contest(settings: Settings, contestants: Sequence[str], folder: str) -> dict[str, Any]:
    """Return the whole result: settings, facts about data and machine, raw rounds and what follows from them."""
    say(f"preparing pairs of {settings.data}")
    facts = call(Job("prepare", folder, settings))
    rows = facts.pop("rows")
    job = Job("", folder, replace(settings, model=facts["base"]), facts=facts)
    failures: dict[str, str] = {}
    rounds: list[dict[str, Any]] = []
    before = _yardstick(job)
    for number in range(settings.rounds):
        names = _turned([name for name in contestants if name not in failures], number)
        found = _round(job, rows, number, names, failures)
        after = _yardstick(job)
        rounds.append(_with_shares(job, rows, number, found, [before, after]))
        before = after
    return {
        **summary(rounds, settings.dtype),
        "rounds": rounds,
        "failures": failures,
        "settings": named(settings),
        "recipe": facts["recipe"],
        "data": facts["data"] | {"num_pairs": len(rows)},
        "shape": facts["shape"],
        "versions": facts["versions"],
        "machine": facts["machine"],
    }


def growth(settings: Settings, counts: Sequence[int], folder: str) -> dict[str, Any]:
    """Return what tiebreak's data path and steps cost at each number of pairs."""
    facts = call(Job("prepare", folder, settings))
    facts.pop("rows")
    path = Path(folder) / "many.jsonl"
    found = []
    for num in counts:
        job = Job("synthesize", folder, settings, facts={"num": num, "path": str(path), "base": facts["base"]})
        call(job)
        one = call(replace(job, kind="scale"))
        seconds = one["data_seconds"]
        say(f"{num} pairs: data {seconds:.1f} s, {one['data_path_peak_bytes'] / 2**20:.0f} MiB at its peak")
        found.append(one)
    settings = replace(settings, model=facts["base"])
    kept = {key: facts[key] for key in ("recipe", "shape", "versions", "machine")}
    return {"scaling": found, "settings": named(settings), **kept}


def named(settings: Settings) -> dict[str, Any]:
    """Return the settings with file names in place of the paths of this machine."""
    return asdict(settings) | {"data": Path(settings.data).name, "model": Path(settings.model).name}


def say(text: str) -> None:
    """Tell how far it is, on stderr."""
    print(text, file=sys.stderr, flush=True)


def window(rows: Sequence[Row], number: int, size: int) -> list[Row]:
    """Return `size` rows of round `number`; the file's end is followed by its beginning."""
    return [rows[index % len(rows)] for index in range(number * size, (number + 1) * size)]


def warmup_of(rows: Sequence[Row], taken: Sequence[Row], num: int) -> list[Row]:
    """Return `num` pairs for the step before the first, which no step of the round takes, if the file has so many.

    A live reference must know nothing of the pairs of the steps when the clock starts.
    """
    steps = {row["pair_id"] for row in taken}
    return [*(row for row in rows if row["pair_id"] not in steps), *rows][:num]


def _round(
    job: Job, rows: Sequence[Row], number: int, names: Sequence[str], failures: dict[str, str]
) -> dict[str, Result]:
    """Return the results of those that came through; who fails is noted and not asked again."""
    settings = job.settings
    taken = window(rows, number, settings.steps * settings.pairs_per_step)
    pool = window(rows, number, min(settings.group_pool, len(rows)))
    found: dict[str, Result] = {}
    for name in names:
        mine = pool if name == "trl_tuned_grouped" else taken
        try:
            found[name] = rated(
                call(replace(job, kind=name, rows=mine, warmup=warmup_of(rows, mine, settings.pairs_per_step)))
            )
        except JobError as failure:
            failures[name] = str(failure)
            say(f"round {number + 1}: {failure}")
            continue
        rate, seconds = found[name]["pairs_per_second"], found[name]["step_seconds"]
        shown = " ".join(f"{each:.2f}" for each in seconds)
        say(f"round {number + 1}: {name}: {rate:.3g} pairs/s, seconds per step {shown}")
    return found


def _with_shares(
    job: Job, rows: Sequence[Row], number: int, found: dict[str, Result], yardsticks: Sequence[Result]
) -> dict[str, Any]:
    """Return the record of a round, tiebreak's arithmetic rate beside the matrix products around it."""
    settings = job.settings
    gflops = sum(one["gflops"] for one in yardsticks) / len(yardsticks)
    taken = window(rows, number, settings.steps * settings.pairs_per_step)
    for name in OURS:
        if name in found:
            lora, live = settings.method == "lora", name == "tiebreak"
            rate, all_rate = (
                count(taken, settings.pairs_per_step, job.facts["shape"], lora=lora, live=live)
                / (1e9 * sum(found[name]["step_seconds"]))
                for count in (operations, all_operations)
            )
            shares = {"sgemm_share": rate / gflops, "sgemm_share_all_products": all_rate / gflops}
            found[name] |= {"arithmetic_gflops": rate} | shares
    order = list(found)
    return {
        "round": number + 1,
        "order": order,
        "sgemm_gflops": gflops,
        "sgemm_around": list(yardsticks),
        "contestants": found,
    }


def _turned(names: Sequence[str], by: int) -> list[str]:
    by = by % len(names) if names else 0
    return [*names[by:], *names[:by]]


def _yardstick(job: Job) -> Result:
    found = call(replace(job, kind="sgemm"))
    say(f"sgemm: {found['gflops']:.1f} GFLOP/s")
    return found
