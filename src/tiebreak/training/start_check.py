"""What must hold before the first step: the model gives numbers, and policy and reference agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from tiebreak.diagnosis.harms import NEVER_TUNED
from tiebreak.engine.comparison import compared
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
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
) -> None:
    """Stop unless policy and reference agree on some examples: the loss is what it is where they are one model.

    The tolerance is the rounding of a summed log-probability, carried into the loss by its own slope. Warns of a model
    that does not end answers where examples do, unless that `is_told`.
    """
    shown, objective = cut(examples)[0], objective.unweighted
    with evaluation_mode(policy.network), torch.no_grad():
        tokens = policy.score(shown)
    _require_numbers(policy, shown, tokens.summed())
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
    ones = torch.ones(len(shown), device=start.sums.device)
    bends = [
        slopes(objective, replace(said, sums=start.sums + shift), start, ones, stated)[0].abs().max()
        for shift in (-tolerance, 0.0, tolerance)  # some losses have a kink exactly where they start
    ]
    bend = float(max(bends)) * max(len(example.completions) for example in shown)
    if not math.isfinite(wanted):
        raise TrainingError(
            f"before the first step the loss is {wanted}, policy and reference being one model: a setting of loss "
            f"({', '.join(f'{key} {value}' for key, value in objective.settings.items())}) is out of range"
        )
    if apart > tolerance or not abs(found - wanted) <= 1e-6 + bend * tolerance:
        raise TrainingError(
            f"before the first step the loss is {found:.6f} instead of {wanted:.6f} and the largest difference of a "
            f"log-probability {apart:.3g} nats instead of 0: policy and reference differ (reference: "
            f"{reference.identity}); check model.name and the adapter it carries, nothing was trained"
        )


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
            f"before the first step the model's log-probabilities are not finite for {len(bad)} of {len(examples)} "
            f"{unit_of(examples)} ({named(bad)}): its weights hold NaN or overflow in {policy.dtype}; load it "
            "anew or take another model.dtype; nothing was trained"
        )
