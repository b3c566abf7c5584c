"""What must hold before the first step: the model gives numbers, and policy and reference are what they are said to be.

Where they are one model they agree. Where they are two, each says what the model of its name says, loaded on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tiebreak.config import ModelConfig, ReferenceConfig
from tiebreak.diagnosis.harms import NEVER_TUNED
from tiebreak.diagnosis.lessons import DIFFER, NOT_AS_SAID
from tiebreak.diagnosis.strides import AT_THE_START, NOT_FINITE
from tiebreak.engine.comparison import compared
from tiebreak.engine.model import Model
from tiebreak.engine.models import load_alone, resolve_reference
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference, asked_now
from tiebreak.engine.reference.stored import TOLERANCE
from tiebreak.engine.scorer import Cut
from tiebreak.engine.sources import same_model
from tiebreak.errors import TrainingError
from tiebreak.maths.logps import Logps, TokenLogps
from tiebreak.maths.objectives import Objective, Stated, slopes
from tiebreak.progress import Progress
from tiebreak.records import Example, unit_of
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.training.order import named

PRECISION = {torch.float32: 1e-6, torch.bfloat16: 4e-3}
"""Of a summed log-probability, relative to its size: two forward passes of the same weights in the same layout agree
bit for bit on a CPU; an adapter's detour through zero and bf16 kernels cost a little."""


NUM_PROVEN = 4
"""Examples on which policy and reference are held against the models of their names."""


@dataclass(frozen=True)
class Claim:
    """What one of the two is said to be: the model of a name, loaded whenever it is called for."""

    what: str
    """The setting, and the name."""
    load: Callable[[], Model]


Claims = tuple[Claim, Claim]
"""Of the policy, and of its reference."""


def claims_of(config: ModelConfig, named: ReferenceConfig, policy: Model, reference: Reference) -> Claims | None:
    """Return what policy and reference, as named, are said to be at the start; None where that is one model."""
    if named.model is None or same_model(policy.source, reference.source):
        return None
    at = f" at {named.revision}" if named.revision else ""
    return (
        Claim(f"model.name {config.name}", lambda: load_alone(config, policy)),
        Claim(
            f"reference.model {named.model}{at}",
            lambda: load_alone(config, policy, resolve_reference(config, named, policy.source)),
        ),
    )


def has_told(run: Run) -> bool:
    """Whether a run was warned that its model does not end answers."""
    with as_a_run_writes(run.path):
        return any(NEVER_TUNED in one["text"] for one in run.manifest.get("warnings", ()))


def check_start(
    policy: Model,
    reference: Reference,
    objective: Objective,
    examples: Sequence[Example],
    cut: Cut,
    progress: Progress,
    *,
    is_told: bool = False,
    claims: Claims | None = None,
) -> None:
    """Stop unless policy and reference agree on some examples: the loss is what it is where they are one model.

    The tolerance is the rounding of a summed log-probability, carried into the loss by its own slope. Where there are
    `claims`, each has to say what the model says that it is said to be, loaded on its own. Where there is a reference,
    warns of a model that does not end answers where examples do, unless that `is_told`.
    """
    shown, objective = cut(examples)[0], objective.unweighted
    with evaluation_mode(policy.network), torch.no_grad():
        tokens = policy.score(shown)
    _require_numbers(policy, shown, tokens.summed())
    if claims:
        _require_claims(policy, reference, claims, shown[:NUM_PROVEN], progress)
    if not objective.asks_reference:
        return
    if not is_told and (finding := untuned(tokens, int(policy.tokenizer.vocab_size))):
        progress.warn(finding)
    with evaluation_mode(policy.network), torch.no_grad():
        said, start = objective.summed(*compared(policy, reference, objective, shown, afresh=True))
    assert start is not None, "it was asked"  # noqa: S101
    apart = float((said.sums - start.sums).abs().max())
    tolerance = PRECISION[policy.dtype] * max(1.0, float(said.sums.abs().max()))
    stated = objective.with_no_gain(Stated.of(shown, objective.facts, start.sums), start)
    wanted, found = (
        float(losses.losses.mean()) for losses in (objective.at_start(start, stated), objective(said, start, stated))
    )
    if not math.isfinite(wanted):
        raise TrainingError(
            f"{AT_THE_START} the loss is {wanted}, policy and reference being one model: a setting of loss "
            f"({', '.join(f'{key} {value}' for key, value in objective.settings.items())}) is out of range"
        )
    ones = torch.ones(len(shown), device=start.sums.device)
    # Some losses have a kink exactly where they start.
    near = (replace(said, sums=start.sums + shift) for shift in (-tolerance, 0.0, tolerance))
    bend = float(max(slopes(objective, one, start, ones, stated)[0].abs().max() for one in near))
    bend *= max(len(example.completions) for example in shown)
    if claims:
        told = f"each proven to be the one named: the loss starts at {found:.4f}, and not at {wanted:.4f}"
        progress.say(f"policy and reference are two models, {told}")
    elif apart > tolerance or not abs(found - wanted) <= 1e-6 + bend * tolerance:
        raise TrainingError(
            f"{AT_THE_START} the loss is {found:.6f} instead of {wanted:.6f} and the largest difference of a "
            f"log-probability {apart:.3g} nats instead of 0: {DIFFER} (reference: "
            f"{reference.identity}); check model.name and the adapter it carries, nothing was trained"
        )


def _require_claims(
    policy: Model, reference: Reference, claims: Claims, examples: Sequence[Example], progress: Progress
) -> None:
    """Stop where policy or reference says something else than the model that it is said to be, and name which.

    Both are scored in the layout of training, the models of their names one after the other in padded rows. Swapped
    are also two models that differ by less than the rounding that is allowed, where each is nearer to the other's name.
    """
    progress.say(f"holding policy and reference against {' and '.join(claim.what for claim in claims)}, loaded alone")
    with evaluation_mode(policy.network), torch.no_grad():
        said = [policy.score(examples).values]
    said.append(asked_now(reference, examples).values)
    alone = []
    for claim in claims:
        with torch.no_grad():
            alone.append(claim.load().score(examples).values)
    apart = [[_apart(ours, theirs) for theirs in alone] for ours in said]
    allowed = TOLERANCE[policy.dtype]
    own, other = apart[0][0] + apart[1][1], apart[0][1] + apart[1][0]
    if own > 2 * other and max(apart[0][1], apart[1][0]) <= allowed:
        raise TrainingError(
            f"{AT_THE_START} the policy scores as {claims[1].what} and the reference as {claims[0].what}: they "
            f"are swapped, and each {NOT_AS_SAID}; nothing was trained"
        )
    faults = [
        f"the {name} {NOT_AS_SAID}, {claims[at].what}: log-probabilities differ by {apart[at][at]:.2g} of their size, "
        f"and rounding is at most {allowed:g}" + (f" (it scores as {claims[1 - at].what})" if nearer else "")
        for at, name in enumerate(("policy", "reference"))
        for nearer in [apart[at][1 - at] <= allowed]
        if not apart[at][at] <= allowed  # not ">": a NaN is a difference
    ]
    if faults:
        raise TrainingError(f"{AT_THE_START} {'; and '.join(faults)}; nothing was trained")


def _apart(one: Tensor, two: Tensor) -> float:
    return float((one - two).abs().mean() / two.abs().mean().clamp(min=1))


def untuned(tokens: TokenLogps, vocabulary: int) -> str | None:
    """Return why a model looks as if it was never tuned to answer, in words; None where it does not.

    Completions end with EOS. Where that is less likely than a token drawn blindly, the model never ends an answer, and
    a preference between answers is not what it has to learn first.
    """
    ends = torch.stack([row[-1] for row in tokens.rows()]).double().mean().item()
    if ends > -math.log(vocabulary):
        return None
    return (
        f"where completions end, the model gives its EOS a probability of {math.exp(ends):.1g}, less than to a token "
        f"drawn blindly: {NEVER_TUNED}; train it on answers first "
        "(stages: sft before dpo, docs/stages.md), or name the template that it was tuned with as model.chat_template"
    )


def _require_numbers(policy: Model, examples: Sequence[Example], said: Logps) -> None:
    """Stop where the model itself is broken: neither the data nor the settings can be at fault before a step."""
    finite = torch.split(said.sums.isfinite().cpu(), [len(example.completions) for example in examples])
    bad = [example for example, numbers in zip(examples, finite, strict=True) if not numbers.all()]
    if bad:
        raise TrainingError(
            f"{AT_THE_START} the model's log-probabilities are {NOT_FINITE} for {len(bad)} of {len(examples)} "
            f"{unit_of(examples)} ({named(bad)}): its weights hold NaN or overflow in {policy.dtype}; load it "
            "anew or take another model.dtype; nothing was trained"
        )
