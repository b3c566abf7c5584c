"""What a policy gained on completions of other prompts: the baseline that KTO holds each completion against.

Owns which completion is put behind which prompt. Ethayarajh et al. 2024 (2402.01306), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tiebreak.engine.memory import all_or_none
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.ranks import Alone, Ranks
from tiebreak.engine.reference.kinds import Asked
from tiebreak.engine.scorer import Cut
from tiebreak.records import Example, TokenizedThumb


def mismatched(examples: Sequence[Example], most: int | None = None) -> list[TokenizedThumb]:
    """Return, for each example of a step, the completion of the next example that has another prompt.

    Each example has one completion. Where both have more than `most` tokens, the start of the prompt gives way. Empty
    where all have one prompt.
    """
    num, found = len(examples), []
    for place, example in enumerate(examples):
        after = (examples[(place + ahead) % num] for ahead in range(1, num))
        other = next((one for one in after if one.prompt_id != example.prompt_id), None)
        if other is not None:
            [ids] = other.completions
            prompt = example.prompt_ids if most is None else example.prompt_ids[-max(most - len(ids), 1) :]
            found.append(TokenizedThumb(example.example_id + other.example_id, example.prompt_id, prompt, ids, False))
    return found


def baseline(
    policy: Model, reference: Asked, examples: Sequence[Example], cut: Cut, ranks: Ranks | None = None
) -> Tensor:
    """Return max(0, mean of log π(y_j|x_i) − log π_ref(y_j|x_i)) over the whole step, nats, without a gradient.

    Costs a forward pass of both models; neither drops anything out. Clamped once, after the mean over all processes.
    Raises ValueError where all examples have one prompt.
    """
    ranks, others = ranks or Alone(), mismatched(examples, policy.context.most)
    if not others:
        raise ValueError("a baseline needs completions of at least two prompts")
    own = list(cut(ranks.deal(others)))

    def gained() -> Tensor:
        with torch.no_grad():
            with evaluation_mode(policy.network), policy.asked():
                gains = [policy.score(group).summed().sums.double() for group in own]
            with reference.model() as frozen, frozen.asked():
                gains = [gain - frozen.score(group).summed().sums for gain, group in zip(gains, own, strict=True)]
        nothing = torch.zeros((), dtype=torch.float64, device=policy.device)
        return torch.stack([gain.sum() for gain in gains]).sum() if gains else nothing

    total = ranks.total(all_or_none(ranks, gained, in_shares=policy.in_shares))
    return (total / len(others)).clamp(min=0)
