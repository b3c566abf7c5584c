"""Runs of one side beside its undisturbed run, and what is said of them: exit codes, message, weights."""

from __future__ import annotations

import re
import shutil
import signal
from dataclasses import dataclass, field
from typing import Any

import torch
from faults_sides import Ended, Side, ended
from faults_stage import Stage
from safetensors.torch import load_file

STOP_AT = 10
EXCEPTION = re.compile(r"[\w.]+(Error|Exception): ")
Weights = dict[str, torch.Tensor]


@dataclass
class Finding:
    """What one side did in one case."""

    exits: list[int] = field(default_factory=list)
    message: str = ""  # first line that no calm run prints; '' is silent
    weights: str = ""
    notes: list[str] = field(default_factory=list)
    between: str = " → "  # exits of runs one after another; ", " for runs beside each other

    def words(self) -> str:
        """Return a cell of the table."""
        told = f"`{shortened(self.message)}`" if self.message else "silent"
        codes = self.between.join(map(code_name, self.exits))
        return "; ".join(part for part in (f"exit {codes}", told, self.weights, *self.notes) if part)


class Laboratory:
    """One side, what it does undisturbed, and a run that was stopped half way, to be damaged again and again."""

    def __init__(self, side: Side, stage: Stage) -> None:
        self.side, self.stage = side, stage
        self._calm: set[str] = set()
        self._stopped = stage.folder / f"{side.name}-stopped"
        self.undisturbed: Weights = {}
        self.first_exit: int | None = None
        self.num_steps = 0

    def set_up(self) -> None:
        """Run undisturbed, then stop at a step and resume: the lines of both are what calm runs print."""
        calm = [self.run()]
        self.undisturbed = self.weights() or {}
        self.num_steps = max((row["step"] for row in self.side.log()), default=0)
        if not self.undisturbed:
            raise RuntimeError(f"{self.side.name}: the undisturbed run left no weights: {calm[0]}")
        self.clear()
        stopped = self.run("stop", STOP_AT)
        self.first_exit = stopped.code
        shutil.copytree(self.side.output, self._stopped)
        calm += [stopped, self.run()]
        self._calm = {without_digits(line) for ended in calm for line in ended.lines}

    def run(self, fault: str = "", at: int = 0, **changes: Any) -> Ended:
        return ended(self.side.start(fault, at, **changes))

    def clear(self) -> None:
        shutil.rmtree(self.side.output, ignore_errors=True)

    def restore_stopped(self) -> None:
        """Put the run that was stopped at a step back in place."""
        self.clear()
        shutil.copytree(self._stopped, self.side.output)

    def weights(self) -> Weights | None:
        path = self.side.final()
        return load_file(path) if path.exists() else None

    def finding(self, *runs: Ended, wanted: Weights | None = None) -> Finding:
        """Describe the processes of a case and the weights that are there now."""
        compared = compare(self.weights(), wanted or self.undisturbed)
        return Finding([run.code for run in runs], self.message(runs[-1]), compared)

    def message(self, run: Ended) -> str:
        """Return the last line of a failure, or the first line that a calm run does not print."""
        if run.code > 0:
            line = next(filter(EXCEPTION.match, reversed(run.lines)), run.lines[-1] if run.lines else "")
        else:
            line = next((line for line in run.lines if without_digits(line) not in self._calm), "")
        return line.replace(f"{self.side.output.parent}/", "").replace(f"{self.stage.folder}/", "")


def compare(found: Weights | None, wanted: Weights) -> str:
    """Return in words how far trained weights are from those of the undisturbed run."""
    if found is None:
        return "no final weights"
    broken = sum(not bool(tensor.isfinite().all()) for tensor in found.values())
    if broken:
        return f"final weights saved with NaN or Inf in {broken} of {len(found)} tensors"
    if found.keys() != wanted.keys():
        return "final weights of other names"
    if all(torch.equal(found[name], wanted[name]) for name in wanted):
        return "bit-equal"
    worst = max(float((found[name] - wanted[name]).abs().max()) for name in wanted)
    return f"final weights differ by up to {worst:.1e}"


def without_digits(line: str) -> str:
    return re.sub(r"[0-9a-f]{8,}|[\d.]+(e[+-]?\d+)?", "#", line)


def shortened(text: str, limit: int = 120) -> str:
    text = re.sub(r"[0-9a-f]{24,}", "…", text.replace("|", "¦").replace("`", "'"))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def code_name(code: int) -> str:
    return str(code) if code >= 0 else signal.Signals(-code).name
