"""Runs of several processes in tests: the same cases alone and together, whose steps and weights are held together.

    python tests/joined_runs.py FOLDER MODEL RANK SIZE NAME…

is one process of them. The first one writes what it found to FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ports import free_port
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.ranks import Ranks
from tiebreak.engine.together import joined
from tiebreak.records import Example
from tiebreak.training.interpreter import end
from tiebreak.training.parts import Weights
from tiebreak.training.trained import load
from tiny import recorded, run, settings, stated, token_pairs, token_thumbs

PAIRS, THUMBS = stated(token_pairs(11, num_prompts=5)), token_thumbs(11, num_prompts=5)
"""In steps of five: two of five, and one of a single example, of which the second process has none."""


@dataclass(frozen=True)
class Case:
    """What is trained, and how its weights lie."""

    adapter: str = "lora"
    strategy: str = "ddp"
    changes: Mapping[str, Any] = field(default_factory=dict)
    thumbs: bool = False
    seed: int = 0

    @property
    def examples(self) -> Sequence[Example]:
        return THUMBS[:10] if self.thumbs else PAIRS

    def trained(self, model: Path, folder: Path, ranks: Ranks | None = None) -> dict[str, Any]:
        """Train it into a folder, and return its steps; its weights are kept beside them."""
        changes = {**self.changes, "distributed.strategy": self.strategy if ranks else "auto"}
        changes |= {"data.pairing": "none"} if self.thumbs else {}
        config = settings(model, self.adapter, **{"training.checkpoint_steps": 1, **changes})
        ran = run(config, self.examples, folder, loaded=load(config, ranks=ranks))
        save_file(dict(Weights(ran.loaded.policy).tensors()), folder / "weights.safetensors")
        policy = ran.loaded.policy
        with evaluation_mode(policy.network), torch.no_grad():
            said = policy.score(self.examples[:5]).values.tolist()
            states = policy.read(self.examples[:3])[1].sum(1).tolist() if policy.scorer.layout == "packed" else []
        prompts = [example.prompt_ids for example in self.examples[:3]]
        answers = [list(ids) for ids, _ in policy.generated(prompts, Sampling(3, 0.0, 1, 0))]
        rows, in_shares = recorded(folder), policy.in_shares
        return {"rows": rows, "in_shares": in_shares, "said": said, "states": states, "answers": answers}


SMALL, LARGE, PLAIN = {"training.token_budget": 30}, {"training.token_budget": 4096}, {"model.layout": "plain"}
LOSSES: dict[str, dict[str, Any]] = {
    "ipo": {"loss": "ipo"},
    "sft": {"loss": "sft"},
    "mallows": {"loss": "mallows"},
    "aot": {"loss": "aot"},
    "beta_dpo": {"loss": "beta_dpo"},
    "tdpo1": {"loss": "tdpo1"},
    "moving": {"reference.moves": {"every": 2, "share": 0.5}},
    "wpo": {"loss": {"name": "dpo", "confidence_weights": "raw"}},
}
CASES = {
    **{
        f"{strategy}, {adapter}, {name}": Case(adapter, strategy, changes)
        for strategy in ("ddp", "fsdp")
        for adapter in ("lora", "none")
        for name, changes in {"small": SMALL, "large": LARGE, "plain": {**SMALL, **PLAIN}}.items()
    },
    **{
        f"{strategy}, {name}": Case("lora", strategy, changes)
        for strategy in ("ddp", "fsdp")
        for name, changes in LOSSES.items()
    },
    **{
        f"{strategy}, {adapter}, {loss}": Case(adapter, strategy, {"loss": loss}, thumbs=True)
        for strategy in ("ddp", "fsdp")
        for adapter, loss in (("lora", "kto"), ("none", "kto"), ("lora", "bco_unpaired"), ("lora", "sft_unpaired"))
    },
    "ddp, none, moving": Case("none", "ddp", LOSSES["moving"]),
    "fsdp, none, moving": Case("none", "fsdp", LOSSES["moving"]),
    "ddp, none, tdpo1": Case("none", "ddp", LOSSES["tdpo1"]),
    "fsdp, none, tdpo1": Case("none", "fsdp", LOSSES["tdpo1"]),
    "fsdp, kept": Case("none", "fsdp", {"distributed.reshard_after_forward": False}),
    "fsdp, offloaded": Case("lora", "fsdp", {"distributed.cpu_offload": True}),
    "fsdp, checkpointed": Case("none", "fsdp", {"training.gradient_checkpointing": True}),
}


def launched(size: int, names: Sequence[str], model: Path, folder: Path, timeout: float = 400) -> dict[str, Any]:
    """Train cases in so many processes, each case into a folder of its name; return what the first process found."""
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    common |= {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": str(size)}
    words = [sys.executable, __file__, str(folder), str(model)]
    processes = [
        subprocess.Popen(
            [*words, *names], env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    told = [process.communicate(timeout=timeout)[1] for process in processes]
    failed = [f"rank {rank}: exit {process.returncode}: {told[rank][-1500:]}" for rank, process in enumerate(processes)]
    assert all(process.returncode == 0 for process in processes), "\n".join(failed)
    return json.loads((folder / "found.json").read_text())


def main(folder: Path, model: Path, names: Sequence[str]) -> None:
    """Be one of several processes."""
    torch.set_num_threads(1)
    with joined(60) as ranks:
        if ranks.writes:
            found = {name: CASES[name].trained(model, folder / name, ranks) for name in names}
            (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    end(0)  # as the command ends
