"""Training on a Ray cluster: each worker of a TorchTrainer takes part in one run.

python examples/cluster/ray_train.py my.yaml /shared/runs/mine --workers 16

The run folder lies on a disk that all machines share. A worker that is lost makes Ray start all of them again, and the
run goes on from its last checkpoint. Wants `pip install "ray[train]"`.
"""

from __future__ import annotations

import argparse
from typing import Any


def train(told: dict[str, Any]) -> None:
    """Take part in the run, as one process of it; Ray has told this one its rank and set up the process group."""
    import tiebreak  # noqa: PLC0415 - in the worker, once it knows its device

    tiebreak.train(told["config"], {"output.dir": told["run"]})


def main() -> None:
    """Start the workers and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file, at a path that all machines share")
    parser.add_argument("run", help="run folder, at a path that all machines share")
    parser.add_argument("--workers", type=int, default=8, help="processes, one for each GPU")
    parser.add_argument("--restarts", type=int, default=10, help="how often lost workers may be replaced")
    parser.add_argument("--cpu", action="store_true", help="without GPUs, to try it")
    given = parser.parse_args()

    from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415 - so that --help needs no ray
    from ray.train.torch import TorchTrainer  # noqa: PLC0415

    trainer = TorchTrainer(
        train,
        train_loop_config={"config": given.config, "run": given.run},
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=not given.cpu),
        run_config=RunConfig(failure_config=FailureConfig(max_failures=given.restarts)),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
