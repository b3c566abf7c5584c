"""Tiny pairs and policies that tests share. Token ids are drawn here, so nothing depends on a tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from tiebreak.config import Config, load_config
from tiebreak.engine.model import Model
from tiebreak.engine.ranks import Alone
from tiebreak.engine.reference.kinds import Reference
from tiebreak.evaluation.watching import Seen, Watcher
from tiebreak.files import write_jsonl
from tiebreak.maths.logps import PairLogps
from tiebreak.maths.losses import Losses
from tiebreak.maths.metrics import Metrics
from tiebreak.maths.objectives import Objective, Pairs, Side, gaps
from tiebreak.progress import Progress, Silent
from tiebreak.records import Example, TokenizedPair, TokenizedThumb
from tiebreak.runs import Run
from tiebreak.training.checkpoint import Checkpoints
from tiebreak.training.loop import Course, Outcome, train
from tiebreak.training.optimizer import build_optimizer
from tiebreak.training.order import Step
from tiebreak.training.preemption import Stop
from tiebreak.training.recorder import Recorder
from tiebreak.training.step import learn
from tiebreak.training.trained import Loaded, load

PAD, EOS = 0, 2


def token_pairs(
    num: int, *, vocabulary: int = 250, seed: int = 0, num_prompts: int | None = None
) -> list[TokenizedPair]:
    """Pairs of odd, unequal lengths; with `num_prompts`, some share their prompt."""
    draw = random.Random(seed)
    ids = lambda low, high: tuple(draw.randrange(3, vocabulary) for _ in range(draw.randint(low, high)))  # noqa: E731
    prompts = [ids(1, 9) for _ in range(num_prompts or num)]
    found = []
    for index in range(num):
        which = index % len(prompts)
        chosen, rejected = (*ids(1, 11), EOS), (*ids(3, 7), EOS)
        found.append(TokenizedPair(f"pair{index:03}{'0' * 20}", f"prompt{which}", prompts[which], chosen, rejected))
    return found


def stated(pairs: Sequence[TokenizedPair], *, seed: int = 5) -> list[TokenizedPair]:
    """The pairs with all that annotators can say of one, drawn."""
    draw = random.Random(seed)
    return [
        replace(
            pair,
            soft_label=draw.random(),
            margin=draw.uniform(0.2, 3),
            chosen_win_rate=draw.random(),
            rejected_win_rate=draw.random(),
        )
        for pair in pairs
    ]


def token_thumbs(num: int, *, seed: int = 0, num_prompts: int | None = None) -> list[TokenizedThumb]:
    """Completions on their own, of odd, unequal lengths; two of three are liked."""
    pairs = token_pairs(num, seed=seed, num_prompts=num_prompts)
    sides = [(pair, pair.chosen_ids if at % 2 else pair.rejected_ids) for at, pair in enumerate(pairs)]
    return [
        TokenizedThumb(pair.example_id, pair.prompt_id, pair.prompt_ids, ids, at % 3 != 1)
        for at, (pair, ids) in enumerate(sides)
    ]


def settings(model: Path, adapter: str = "lora", **changes: Any) -> Config:
    """A configuration for the tiny model; `changes` are dotted keys with '__' for the dot."""
    base = {
        "model.name": str(model),
        "model.device": "cpu",
        "adapter.kind": adapter,
        "adapter.rank": 4,
        "adapter.alpha": 8.0,
        "loss.beta": 0.3,
        "reference.store": "off",
        # Dear beside so small a model; what looks at them switches them on.
        "evaluation.neutral_probe": False,
        "evaluation.num_draws": 0,
        "signals.looks": 0,
        "training.pairs_per_step": 5,
        "training.token_budget": 64,
        "training.learning_rate": 1e-3,
        "training.warmup_share": 0.0,
    }
    if "loss" in changes:
        del base["loss.beta"]
    return load_config(None, base | {key.replace("__", "."): value for key, value in changes.items()})


def run_of_cats(model: Path, folder: Path, num: int, adapter: str = "lora", **changes: Any) -> Config:
    """A configuration of a whole run in a folder, on `num` pairs written there; nothing is answered or probed."""
    rows = [{"prompt": f"the cat {n}", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(num)]
    write_jsonl(folder / "pairs.jsonl", rows)
    base = {
        "data__train": str(folder / "pairs.jsonl"),
        "data__heldout_share": 0.3,
        "evaluation__num_samples": 0,
        "output__dir": str(folder / "run"),
        "output__trackers": [],
    }
    return settings(model, adapter, **base | changes)


def drawn_pairs(folder: Path) -> str:
    """Write forty pairs of drawn words, of which chosen says yes and rejected no, and return the file."""
    draw, rows = random.Random(0), []
    for _ in range(40):
        prompt, tail = (" ".join(draw.choices(_WORDS, k=draw.randint(2, 6))) for _ in range(2))
        rows.append({"prompt": prompt, "chosen": f"yes {tail}", "rejected": f"no {tail}"})
    write_jsonl(folder / "pairs.jsonl", rows)
    return str(folder / "pairs.jsonl")


_WORDS = ["the", "cat", "sat", "on", "mat", "and", "dog", "ran", "to", "park", "user"]


@dataclass(frozen=True)
class Ran:
    """A run that came to its end."""

    loaded: Loaded
    folder: Path
    outcome: Outcome

    def rows(self) -> list[dict[str, Any]]:
        """What was recorded of each step."""
        return [row for row in recorded(self.folder) if "loss" in row]


@dataclass(frozen=True)
class Always:
    """A watcher that looks after the steps named, all by default, and sees what a function says."""

    seen: Callable[[], Mapping[str, float]]
    steps: Collection[int] | None = None

    def due(self, step: int) -> bool:
        return self.steps is None or step in self.steps

    def look(self, step: int, objective: Objective) -> Seen:
        return Seen(self.seen())

    def hear(self, row: Mapping[str, float]) -> None:
        pass


def run(
    config: Config,
    pairs: Sequence[Example],
    folder: Path,
    *,
    loaded: Loaded | None = None,
    watchers: Sequence[Watcher] = (),
    stop: Stop | None = None,
    objective: Objective | None = None,
    progress: Progress | None = None,
) -> Ran:
    """Train on the pairs into a folder, from its newest checkpoint on where it holds one."""
    loaded, opened = loaded or load(config), Run(folder)
    folder.mkdir(exist_ok=True)
    checkpoints = Checkpoints(opened, {}, 2)
    with Recorder(opened) as recorder:
        course = Course(
            policy=loaded.policy,
            reference=loaded.compared,
            objective=objective or Objective.of(config.loss),
            examples=pairs,
            settings=config.training,
            rate=config.learning_rate,
            budget=loaded.budget,
            watchers=watchers,
            recorder=recorder,
            checkpoints=checkpoints,
            asked=pairs,
            parts=loaded.parts(opened.values_folder),
        )
        outcome = train(course, progress or Silent(), start=checkpoints.latest(), stop=stop or Stop())
    return Ran(loaded, folder, outcome)


def cut_off(config: Config, pairs: Sequence[Example], folder: Path, last: int, **more: Any) -> None:
    """Train until the last step named is taken, and end as if killed."""
    done = []

    def killed(*_: Any) -> None:
        done.append(None)
        if len(done) == last:
            raise SystemError("as if killed")

    hook = register_optimizer_step_post_hook(killed)
    with pytest.raises(SystemError):
        run(config, pairs, folder, **more)
    hook.remove()


def step(
    loaded: Loaded, config: Config, pairs: Sequence[Example], objective: Objective | None = None
) -> tuple[Metrics, float]:
    """Take one optimizer step on all the pairs; return their metrics and the gradient norm."""
    optimizer = build_optimizer([p for _, p in loaded.policy.trainable], config.training, config.learning_rate)
    loaded.policy.network.train()
    return learn(
        loaded.policy,
        loaded.reference,
        objective or Objective.of(config.loss),
        Step(0, 0, tuple(pairs)),
        optimizer,
        budget=loaded.budget,
        ranks=Alone(),
        max_grad_norm=config.training.max_grad_norm,
    )


def scores(policy: Model, pairs: Sequence[Example]) -> PairLogps:
    """What a model says about pairs, with a gradient."""
    return policy.score(pairs).summed().paired()


def said(reference: Reference, pairs: Sequence[Example]) -> PairLogps:
    """What a reference says about pairs."""
    return reference.logps(pairs).summed().paired()


def recorded(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run's metrics, of steps and of probes."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def logps(chosen: Iterable[float], rejected: Iterable[float], dtype: torch.dtype = torch.float64) -> PairLogps:
    """PairLogps of plain numbers, in float64 so that formulas can be compared closely."""
    sides = [torch.tensor(list(side), dtype=dtype) for side in (chosen, rejected)]
    count = torch.ones(len(sides[0]), dtype=torch.long)
    return PairLogps(sides[0], sides[1], count, count)


def dpo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float) -> Losses:
    """The formula dpo, of what policy and reference say about both sides."""
    chosen, rejected = (
        Side(getattr(policy, side), getattr(reference, side), getattr(policy, f"{side}_num_tokens"))
        for side in ("chosen", "rejected")
    )
    return gaps.dpo(Pairs(chosen, rejected), beta=beta, label_smoothing=label_smoothing, soft_labels=False)


def disturb(loaded: Loaded, scale: float = 0.05) -> Loaded:
    """Move the policy, and not its reference, so that no pair is at a margin of zero."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for _, parameter in loaded.policy.trainable:
            parameter.add_(scale * torch.randn_like(parameter))
    return loaded


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are equal bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def unsealed(run: Run) -> Run:
    """A run as versions wrote it that kept no digests of its files: whatever a test then writes is read."""
    added = ("files", "being_written", "trained_logps", "model_name", "model_base")
    told = {key: value for key, value in run.manifest.items() if key not in added}
    run.manifest_file.write_text(json.dumps(told))
    return run
