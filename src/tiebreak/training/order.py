"""Which examples are learned from at which step.

Owns the sample order: a pure function of the examples' count, the epoch and the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiebreak.config import LossConfig, TrainingConfig
from tiebreak.data.tokens import TokenTable
from tiebreak.errors import ConfigError
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.records import Example, num_unique_tokens


@dataclass(frozen=True)
class Step:
    """The examples behind one optimizer step; `index` counts from 0 over the whole run."""

    index: int
    epoch: int
    examples: tuple[Example, ...]

    @property
    def num_unique_tokens(self) -> int:
        """Tokens of the step, each example's prompt counted once."""
        return sum(map(num_unique_tokens, self.examples))


def num_steps(num_examples: int, config: TrainingConfig) -> int:
    """Return the optimizer steps of a run; the last step of an epoch may hold fewer examples."""
    return config.epochs * -(-num_examples // config.pairs_per_step)


def steps(examples: Sequence[Example], config: TrainingConfig, first: int = 0) -> Iterator[Step]:
    """Yield every step of a run from index `first` on; each epoch takes every example exactly once."""
    for index, (epoch, places) in enumerate(orders(len(examples), config)):
        if index >= first:
            yield Step(index, epoch, tuple(examples[place] for place in places))


def orders(num_examples: int, config: TrainingConfig) -> Iterator[tuple[int, list[int]]]:
    """Yield of every step of a run its epoch, from 0, and the places of its examples."""
    for epoch in range(config.epochs):
        order = list(range(num_examples))
        if config.shuffle:
            random.Random(derive_seed(config.seed, "order", epoch)).shuffle(order)  # noqa: S311 - not for secrets
        for start in range(0, len(order), config.pairs_per_step):
            yield epoch, order[start : start + config.pairs_per_step]


def refuse_steps(examples: TokenTable, config: TrainingConfig, loss: LossConfig) -> None:
    """Raise ConfigError where a step would lack what the objective compares: several prompts, or both verdicts.

    Names a number of examples a step by which none does, where one is near.
    """
    if not (loss.wants_prompts_in_a_step or loss.wants_both_in_a_step):
        return
    columns = []
    if loss.wants_prompts_in_a_step:
        columns.append([examples.prompt_id(place) for place in range(len(examples))])
    if loss.wants_both_in_a_step:
        columns.append([str(liked) for liked in examples.stated("liked").tolist()])
    if (found := _step_of_one_kind(columns, len(examples), config)) is None:
        return
    near = (config.model_copy(update={"pairs_per_step": config.pairs_per_step + more}) for more in range(1, 65))
    works = next((one.pairs_per_step for one in near if _step_of_one_kind(columns, len(examples), one) is None), None)
    index, num = found
    lacks = "prompts" if loss.wants_prompts_in_a_step else "good completions and bad ones"
    remedy = "bring more data" if works is None else f"{works} works"
    delta = ", or set loss.delta to a number" if loss.wants_both_in_a_step else ""
    raise ConfigError(
        f"training.pairs_per_step {config.pairs_per_step}: step {index + 1} has {num} completions and no two {lacks} "
        f"to compare, which {loss.name} does; {remedy}{delta}"
    )


def _step_of_one_kind(
    columns: Sequence[Sequence[str]], num_examples: int, config: TrainingConfig
) -> tuple[int, int] | None:
    """Return the first step whose examples are all alike in some column, and their number; None where there is none."""
    for index, (_, places) in enumerate(orders(num_examples, config)):
        if any(len({column[place] for place in places}) < 2 for column in columns):
            return index, len(places)
    return None


def order_digest(before: str, step: Step) -> str:
    """Return the digest of the sample order up to and with a step, from that of the order before it."""
    return fingerprint([before, [example.example_id for example in step.examples]])


def named(examples: Sequence[Example]) -> str:
    """Return the first few content hashes, as messages give them."""
    return ", ".join(example.example_id[:12] for example in examples[:4]) + ("…" if len(examples) > 4 else "")
