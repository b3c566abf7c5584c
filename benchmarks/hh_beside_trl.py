"""One LoRA run on real pairs, and its first steps again through TRL: the same pairs, order, weights and settings.

    python benchmarks/hh_beside_trl.py --data hh_harmless_base_test.raw.jsonl.gz --out runs/hh

Prints one JSON object: per-step losses of both, their largest difference, held-out accuracy before and after. TRL comes
with the test extra. About 20 minutes on two CPU cores; `--trl-only` repeats only the second half on a finished run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch

import tiebreak
from tiebreak.config import Config
from tiebreak.data.preparation import prepare
from tiebreak.files import read_jsonl, write_text
from tiebreak.reporting.curves import figures
from tiebreak.reporting.figures import drawn
from tiebreak.training.order import steps
from tiebreak.training.trained import load

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "parity"))
from trl_harness import Trace, trl_trace  # noqa: E402 - the harness that the parity tests use


def main() -> None:
    """Run both sides and print what they measured."""
    arguments = _arguments()
    settings = {"data.train": arguments.data, "output.dir": arguments.out}
    config = tiebreak.load_config(HERE / "hh.yaml", settings)
    run = tiebreak.open_run(arguments.out) if arguments.trl_only else tiebreak.train(config)
    ours = [row for row in run.metrics if "loss" in row]
    theirs = first_steps_through_trl(config, arguments.trl_steps)
    pairs = list(zip([row["loss"] for row in ours], theirs.losses, strict=False))
    result = {
        "num_train_pairs": run.data["num_train_pairs"],
        "num_heldout_pairs": run.data["num_heldout_pairs"],
        "table": run.evaluation["table"],
        "verdict": run.evaluation["verdict"],
        "threads": torch.get_num_threads(),
        "tiebreak": {"losses": [a for a, _ in pairs], "grad_norms": [row["grad_norm"] for row in ours[: len(pairs)]]},
        "trl": {"losses": theirs.losses, "grad_norms": theirs.grad_norms},
        "max_loss_difference": max(abs(a - b) for a, b in pairs),
    }
    print(json.dumps(result, indent=2))
    if arguments.figures:
        write_figures(run, Path(arguments.figures))


def first_steps_through_trl(config: Config, num: int) -> Trace:
    """Take the first optimizer steps with TRL, from the same adapter, on the same ids in the same order."""
    policy = load(config).policy
    data = prepare(config.data, policy.renderer(config.data))
    ordered = [pair for step in steps(data.train, config.training) for pair in step.examples]
    in_order = {"model.name": policy.source.base, "training.shuffle": False}
    theirs = tiebreak.load_config(HERE / "hh.yaml", in_order)
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / "adapter"
        policy.save(adapter)
        output = Path(scratch) / "trl"
        return trl_trace(theirs, ordered, micro_batch_pairs=4, start=adapter, output=output, stop_after=num)


def write_figures(run: tiebreak.Run, folder: Path) -> None:
    """Write the run's curves as SVG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for plot in map(drawn, figures(run.metrics, read_jsonl(run.path / "evidence.jsonl"), (), {})):
        write_text(folder / f"{run.path.name}-{plot.name.lower().replace(' ', '-')}.svg", plot.svg)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the HH-RLHF file")
    parser.add_argument("--out", default="runs/hh", help="run folder")
    parser.add_argument("--trl-steps", type=int, default=10, help="optimizer steps to take with TRL")
    parser.add_argument("--trl-only", action="store_true", help="use the finished run in --out")
    parser.add_argument("--figures", help="folder for the curves as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    main()
