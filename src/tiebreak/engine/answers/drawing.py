"""How the next token is chosen: the likeliest, or one that is drawn.

Owns the randomness of answers. What is drawn hangs on the seed, the prompt's ids, the number of the answer and the
place of the token in it, and on nothing else: no batch, no neighbour, no stream that others draw from as well.

Drawing is greedy decoding over logits / temperature + Gumbel noise, in two levels, so that a token costs a few hundred
random numbers and not one for each word of the vocabulary: first a block of tokens by its summed weight, then a token
of the block. That is exact, P(block) · P(token | block), and as calm as noise on every logit: where rounding moves the
probabilities by d in total variation, another token is drawn in at most a share of about 2 d of all cases, at either
level. (One uniform number through the cumulated softmax would move with the sum of all tokens before.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tiebreak.fingerprint import derive_seed, fingerprint

BLOCK = 128
"""Tokens; another number draws other answers from the same seed."""

LIKELY = 512
"""Of the likeliest tokens, among which a nucleus is looked for first."""

Pick = Callable[[Tensor, Sequence[np.random.Generator]], Tensor]
"""Chooses a token by the logits of each row, and its noise."""


@dataclass
class Wanted:
    """An answer that is wanted: the `number`-th to the `prompt`-th prompt, of at most `room` tokens."""

    prompt: int
    number: int
    room: int
    noise: np.random.Generator
    ids: list[int] = field(default_factory=list)
    finished: bool = False
    heard: Callable[[int], bool] | None = None
    """Is told each token as it is chosen, the EOS among them, and says whether it has heard enough."""

    def take(self, token: int, eos_ids: Sequence[int]) -> bool:
        """Add a token; say whether the answer has come to its end."""
        self.finished = token in eos_ids
        if not self.finished:
            self.ids.append(token)
        enough = self.heard is not None and self.heard(token)
        return enough or self.finished or len(self.ids) == self.room


def noise_of(seed: int, prompt: Sequence[int], number: int) -> np.random.Generator:
    """Return the noise of one answer to a prompt; it is asked once for each token, in their order."""
    return np.random.Generator(np.random.Philox(key=derive_seed(seed, "answer", fingerprint(list(prompt)), number)))


def likeliest(logits: Float[Tensor, "rows vocabulary"]) -> Int[Tensor, " rows"]:
    """Return the greedy choice of each row; of equal ones the first."""
    return logits.argmax(-1)


def drawn(
    logits: Float[Tensor, "rows vocabulary"],
    temperature: float,
    noise: Sequence[np.random.Generator],
    top_p: float = 1.0,
) -> Int[Tensor, " rows"]:
    """Return a token for each row, distributed as softmax(logits / temperature) within its nucleus of `top_p`.

    The winner of weight / waiting time, with waiting times ~ Exp(1), is the winner of log weight + Gumbel noise
    (Maddison, Tarlow & Minka 2014, A* sampling, sec. 2).
    """
    rows, vocabulary = logits.shape
    num_blocks = -(-vocabulary // BLOCK)
    # In place from here on: a row of logits is as long as the vocabulary.
    weights = logits.new_zeros(rows, num_blocks * BLOCK, dtype=torch.float32)
    inside = weights[:, :vocabulary]
    torch.sub(logits, logits.amax(-1, keepdim=True), out=inside)
    inside.div_(temperature).exp_()
    if top_p < 1:
        _keep_nucleus(inside, top_p)
    blocks = weights.view(rows, num_blocks, BLOCK)
    waits = np.stack([one.standard_exponential(num_blocks + BLOCK) for one in noise]).astype(np.float32)
    waiting = torch.from_numpy(waits).clamp_(min=torch.finfo(torch.float32).tiny).to(logits.device)
    block = (blocks.sum(-1) / waiting[:, :num_blocks]).argmax(-1)
    token = (blocks[torch.arange(rows, device=logits.device), block] / waiting[:, num_blocks:]).argmax(-1)
    return block * BLOCK + token


def _keep_nucleus(weights: Float[Tensor, "rows vocabulary"], top_p: float) -> None:
    """Set the weight of every token outside the nucleus to zero, in place.

    The nucleus is the fewest of the likeliest tokens whose probabilities sum to at least `top_p` (Holtzman et al. 2020,
    The curious case of neural text degeneration, eq. 2), and with its last one all that are as likely: which of equals
    stays must not hang on an order of sorting. Sums are in float64. Few tokens are nearly always enough, and are found
    at a tenth of the price of sorting the vocabulary.
    """
    wanted = top_p * weights.sum(-1, keepdim=True, dtype=torch.float64)
    for num in (LIKELY, weights.shape[-1]):
        falling = weights.topk(min(num, weights.shape[-1])).values
        last = (falling.cumsum(-1, dtype=torch.float64) < wanted).sum(-1, keepdim=True)
        if int(last.max()) < falling.shape[-1]:
            break
    weights.masked_fill_(weights < falling.gather(-1, last.clamp(max=falling.shape[-1] - 1)), 0.0)


ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Mean difference of logits, relative to their size, that another way through the model may make."""


def differ_by_rounding(network: Any, found: Tensor, wanted: Tensor) -> bool:
    """Say whether logits of two ways through a network are the same but for rounding in its arithmetic; NaN is not."""
    most = ROUNDING.get(next(network.parameters()).dtype, max(ROUNDING.values()))
    return bool(float((found - wanted).abs().mean() / wanted.abs().mean()) <= most)
