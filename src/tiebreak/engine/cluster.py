"""A plan for GPUs that are not here: what each would hold and send, how long a step takes, and what breaks first.

Owns how the parts of such a plan go together. Nothing is loaded and no data is read, so it says how long a pair is
taken to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tiebreak.config import DistributedConfig, TrainingConfig
from tiebreak.config.commands import PLANNED_GPU
from tiebreak.engine.outline import Outline
from tiebreak.engine.planner import USABLE, chosen_budget, head_bytes
from tiebreak.engine.strategy import Chosen, Needs, choose_strategy, size
from tiebreak.errors import ConfigError
from tiebreak.maths.gpus import GPUS, Gpu
from tiebreak.maths.scale import FP32, Held, Sent, computing_seconds, held, operations, sent
from tiebreak.reporting.notebook import card

PAIR_TOKENS = 657
"""Of a mean pair of UltraFeedback, its prompt once: 161 + 259 + 237."""
SEEN = 0.36
"""Share of these tokens that one of them sees, on average: of a prompt half of it, of a completion its prompt, too."""
Strategy = Literal["single", "ddp", "fsdp", "hsdp"]


@dataclass(frozen=True)
class Case:
    """One strategy: what a process holds, and what a step takes."""

    strategy: Strategy
    held: Held
    peak_bytes: int
    """On the GPU, with the activations of a micro-batch."""
    fits: bool
    gradient_checkpointing: bool
    token_bytes: int
    token_budget: int
    longest_that_fits: int
    """Tokens of a pair, activations computed twice."""
    micro_batches: int
    sent: tuple[Sent, ...]
    computing_seconds: float
    step_seconds: float
    """Where shares are gathered, the longer of computing and sending; of ddp, both, one after the other."""

    @property
    def sending_seconds(self) -> float:
        """Of all collectives."""
        return sum(one.seconds for one in self.sent)


@dataclass(frozen=True)
class ClusterPlan:
    """What was reckoned, and from what."""

    model: str
    num_parameters: int
    num_trainable_parameters: int
    gpu: Gpu
    gpus: int
    chosen: Chosen
    usable_bytes: int
    head_bytes: int
    reference_bytes: int
    """Of a reference that stays in memory, whole."""
    first_process_bytes: int
    """Main memory of the process that reads the weights, once."""
    longest_pair: int
    pair_tokens: int
    pairs_per_step: int
    case: Case
    others: tuple[Case, ...]
    breaks: tuple[str, ...]
    """What sets a limit, the nearest first."""

    def lines(self) -> list[str]:
        """Return the plan in words."""
        one, gpu = self.case, self.gpu
        kept = "activations computed twice" if one.gradient_checkpointing else "activations kept"
        machines = -(-self.gpus // gpu.per_machine)
        many = f"{machines} machines" if machines > 1 else "one machine"
        micro = "one micro-batch" if one.micro_batches == 1 else f"{one.micro_batches} micro-batches"
        return [
            f"{self.model}: {self.num_parameters / 1e9:.2f} billion weights, {self.num_trainable_parameters / 1e9:.3f} "
            f"billion trained; {self.gpus} × {gpu.name} in {many}",
            f"strategy {one.strategy}: {self.chosen.why}",
            f"a process holds {size(one.peak_bytes)} of the {size(self.usable_bytes)} that are planned with: "
            + ", ".join(f"{size(num)} {what}" for what, num in self.parts() if num),
            f"micro-batches of at most {one.token_budget} tokens (longest pair {self.longest_pair}), "
            f"{one.token_bytes / 2**20:.2f} MiB a token, {kept}",
            f"a step of {self.pairs_per_step} pairs of {self.pair_tokens} tokens: {micro} a process; sends "
            + (", ".join(f"{size(s.num_bytes)} {s.what} in {s.seconds:.2f} s" for s in one.sent) or "nothing"),
            f"about {one.step_seconds:.2f} s a step: {one.computing_seconds:.2f} s of computing, "
            f"{one.sending_seconds:.2f} s of sending",
            *(f"{'breaks first' if not at else 'then'}: {told}" for at, told in enumerate(self.breaks)),
            *(
                f"{other.strategy} instead: {size(other.peak_bytes)}, "
                + (f"{other.step_seconds:.2f} s a step" if other.fits else "does not fit")
                for other in self.others
            ),
            f"the first process reads all weights once: {size(self.first_process_bytes)} of main memory",
        ]

    def parts(self) -> list[tuple[str, int]]:
        """Return what the memory of a process is taken by, with its bytes."""
        one, of = self.case, self.case.held
        shares = max(self.chosen.shares, 1)
        return [
            ("weights", of.weights),
            ("gradients", of.gradients),
            ("moments", of.moments),
            ("gathered layers", of.gathered),
            ("weights cast for the arithmetic", of.cast),
            ("reference", -(-self.reference_bytes // shares) if not of.host else 0),
            ("head", self.head_bytes),
            ("activations", one.token_budget * one.token_bytes),
        ]

    def _repr_html_(self) -> str:
        return card("plan", None, self.lines())

    def as_dict(self) -> dict[str, Any]:
        """Return the plan for `--json`."""
        cases = {one.strategy: _told(one) for one in self.others}
        return {
            **{
                key: value for key, value in dataclasses.asdict(self).items() if key not in ("case", "others", "chosen")
            },
            "strategy": self.chosen.strategy,
            "why": self.chosen.why,
            "shares": self.chosen.shares,
            **_told(self.case),
            "parts": dict(self.parts()),
            "instead": cases,
        }


def _told(case: Case) -> dict[str, Any]:
    return dataclasses.asdict(case) | {"sending_seconds": case.sending_seconds}


@dataclass(frozen=True)
class _Setting:
    """What all strategies have in common."""

    outline: Outline
    training: TrainingConfig
    distributed: DistributedConfig
    gpu: Gpu
    gpus: int
    max_length: int
    pair_tokens: int
    keeps_reference: bool

    @property
    def per_machine(self) -> int:
        return min(self.gpus, self.gpu.per_machine)

    @property
    def usable(self) -> int:
        return int(self.gpu.memory_bytes * USABLE)

    @property
    def head(self) -> int:
        return head_bytes(self.outline.vocabulary)

    @property
    def longest(self) -> int:
        """Both completions with a prompt of next to nothing: the most that a pair can have."""
        return 2 * self.max_length

    @property
    def reference(self) -> int:
        return self.outline.anatomy.whole.trainable * FP32 if self.keeps_reference else 0

    def held(self, shares: int | None) -> Held:
        """Return what a process holds; a reference that stays in memory is among what does not train."""
        told = self.distributed
        return held(self.outline.anatomy, shares, reshard=told.reshard_after_forward, offload=told.cpu_offload)

    def case(self, strategy: Strategy, shares: int | None, twice: bool | None = None) -> Case:
        """Return what one strategy takes; activations are computed twice where the settings or `twice` say so."""
        of, training = self.held(shares), self.training
        beside = -(-self.reference // (shares or 1)) if not of.host else 0
        room = self.usable - of.device - beside - self.head
        twice = training.gradient_checkpointing if twice is None else twice
        if twice is None:
            twice = self.outline.token_bytes(checkpointed=False) * self.longest > room
        per_token = self.outline.token_bytes(checkpointed=twice)
        budget, _ = chosen_budget(max(room, 0) // per_token, self.longest, training.token_budget, "cuda")
        mine = -(-training.pairs_per_step // self.gpus) * self.pair_tokens
        passes = -(-mine // budget)
        work = operations(self.outline.anatomy, mine, SEEN * self.pair_tokens, checkpointed=twice)
        computing = computing_seconds(work, self.gpu)
        collectives = sent(
            self.outline.anatomy, self.gpu, self.gpus, self.per_machine, shares, passes,
            reshard=self.distributed.reshard_after_forward,
        )  # fmt: skip
        sending = sum(one.seconds for one in collectives)
        return Case(
            strategy=strategy,
            held=of,
            peak_bytes=self.usable - room + budget * per_token,
            fits=per_token * self.longest <= room,
            gradient_checkpointing=twice,
            token_bytes=per_token,
            token_budget=budget,
            longest_that_fits=max(0, room) // self.outline.token_bytes(checkpointed=True),
            micro_batches=passes,
            sent=tuple(collectives),
            computing_seconds=computing,
            step_seconds=computing + sending if shares is None else max(computing, sending),
        )

    def needs(self) -> Needs:
        """Return what the choice of a strategy asks for; activations are computed twice before anything is shared."""
        of, whole = self.outline.anatomy, self.held(None)
        twice = self.training.gradient_checkpointing is not False
        longest = self.outline.token_bytes(checkpointed=twice) * self.longest
        return Needs(
            frozen_bytes=of.whole.frozen * of.stored + self.reference,
            trainable_bytes=of.whole.trainable * FP32,
            optimizer_bytes=whole.gradients + whole.moments,
            longest_bytes=self.head + longest,
            gathered_bytes=self.held(max(self.gpus, 1)).gathered,
            cast_bytes=whole.cast,
        )


def plan_cluster(
    outline: Outline,
    training: TrainingConfig,
    distributed: DistributedConfig,
    *,
    gpus: int,
    gpu: str = PLANNED_GPU,
    max_length: int,
    pair_tokens: int | None = None,
    keeps_reference: bool = False,
) -> ClusterPlan:
    """Return the plan of training on so many GPUs of a kind, eight to a machine.

    A mean pair has `pair_tokens`, its prompt once, and no completion with its prompt more than `max_length`. A
    reference may stay in memory. Raises ConfigError for a kind that is not known, for less than one of it, or for a
    strategy that so many processes cannot follow.
    """
    if gpu not in GPUS:
        raise ConfigError(f"gpu {gpu!r}: is not known; wanted one of {', '.join(GPUS)}")
    if gpus < 1 or (pair_tokens is not None and pair_tokens < 2):
        raise ConfigError("gpus: wanted at least 1, and pairs of at least 2 tokens")
    tokens = pair_tokens or min(PAIR_TOKENS, 2 * max_length)
    setting = _Setting(outline, training, distributed, GPUS[gpu], gpus, max_length, tokens, keeps_reference)
    needs = setting.needs()
    chosen = choose_strategy(distributed, gpus, setting.per_machine, needs, setting.usable)
    ways = dict(_ways(setting))
    shares = None if chosen.strategy in ("single", "ddp") else chosen.shares
    case = setting.case(chosen.strategy, shares)
    return ClusterPlan(
        model=outline.name,
        num_parameters=outline.anatomy.whole.total,
        num_trainable_parameters=outline.anatomy.whole.trainable,
        gpu=setting.gpu,
        gpus=gpus,
        chosen=chosen,
        usable_bytes=setting.usable,
        head_bytes=setting.head,
        reference_bytes=setting.reference,
        first_process_bytes=outline.anatomy.bytes_of(outline.anatomy.whole),
        longest_pair=setting.longest,
        pair_tokens=setting.pair_tokens,
        pairs_per_step=training.pairs_per_step,
        case=case,
        others=tuple(setting.case(way, shares) for way, shares in ways.items() if way != chosen.strategy),
        breaks=tuple(_breaks(setting, needs, case, shares)),
    )


def _ways(setting: _Setting) -> Iterator[tuple[Strategy, int | None]]:
    """Yield the strategies that so many GPUs can follow, with their shares."""
    if setting.gpus == 1:
        yield "single", None
        return
    if not setting.distributed.cpu_offload:
        yield "ddp", None
    yield "fsdp", setting.gpus
    if setting.gpus > setting.per_machine > 1 and setting.gpus % setting.per_machine == 0:
        yield "hsdp", setting.per_machine


def _breaks(setting: _Setting, needs: Needs, case: Case, shares: int | None) -> Iterator[str]:
    """Yield what sets a limit, in words, the nearest first."""
    pairs = setting.training.pairs_per_step
    if not case.fits:
        room = setting.usable - needs.gathered_bytes - needs.longest_bytes
        least = -(-needs.shared_bytes // max(room, 1))
        least = -(-least // setting.per_machine) * setting.per_machine
        told = f"in shares it fits on {least} of them" if room > 0 else "a pair or a layer is too large for any number"
        yield f"memory, by {size(max(case.peak_bytes - setting.usable, 0))} a process; {told}"
    if pairs < setting.gpus:
        idle = setting.gpus - pairs
        yield f"work: {pairs} pairs a step leave {idle} of {setting.gpus} GPUs without any (training.pairs_per_step)"
    if case.sending_seconds > case.computing_seconds:
        longer = case.sending_seconds / case.computing_seconds
        once = shares is None or case.micro_batches == 1
        even = longer * setting.pair_tokens * -(-pairs // setting.gpus) / (1 if once else case.micro_batches)
        yield (
            f"the network: sending takes {longer:.1f} times as long as computing; with about {round(even)} tokens a "
            f"process in a {'step' if once else 'micro-batch'} they would take the same time"
        )
        larger = setting.case(case.strategy, shares, twice=True)
        if larger.step_seconds < case.step_seconds and larger.fits:
            yield (
                f"training.gradient_checkpointing=true makes micro-batches larger: about {larger.step_seconds:.2f} s a "
                "step"
            )
    if case.fits:
        yield (
            f"memory, where a pair has more than {case.longest_that_fits} tokens; data.max_length "
            f"{setting.max_length} admits {setting.longest}"
        )
