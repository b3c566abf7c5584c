"""Answers at the table: which are under way together, and whether a model may answer there at all.

Owns who has which slot of the table (`engine.answers.table`). A prompt goes through the model once, whatever the number
of its answers; an answer that has ended leaves, and one that waits takes its place. A model comes to the table only
where its attention can be exchanged and a short trial finds the logits that its own forward pass gives.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tiebreak import faults
from tiebreak.engine.answers.drawing import Pick, Wanted, differ_by_rounding
from tiebreak.engine.answers.table import ANSWERING, Layers, Prompts, Table, UnderWay
from tiebreak.engine.attention import causal_model, use_attention, use_plain_attention
from tiebreak.engine.compatibility import LONGEST_PROBED_WINDOW, refused_by_design
from tiebreak.engine.head import head_of
from tiebreak.engine.products import BLOCK, filling, is_sped_up

MAX_BATCH = 64
"""Answers under way at once."""
REFILL = 8
"""Answers that wait are seated when so many places are free: prompts are cheaper together."""
PROMPT_TOKENS = 1024
"""Of the prompts that go through the model in one row, unless a single one is longer."""


@contextlib.contextmanager
def _answering(network: Any) -> Iterator[None]:
    use_attention(network, ANSWERING)
    try:
        yield
    finally:
        use_plain_attention(network)


def at_the_table(
    network: Any,
    prompts: Sequence[Sequence[int]],
    waiting: Sequence[Wanted],
    pick: Pick,
    eos_ids: Sequence[int],
    _pad_id: int,
    _positions: int | None,
) -> Iterator[list[Wanted]]:
    """Yield answers as they end."""
    causal, table, queue = causal_model(network), Table(min(MAX_BATCH, len(waiting))), deque(waiting)
    seats: list[Wanted | None] = []
    opened: dict[int, tuple[Layers, Tensor]] = {}
    by_blocks = is_sped_up(causal)
    with _answering(network):
        while queue or any(seats):
            free = [slot for slot in range(table.num_slots) if slot >= len(seats) or seats[slot] is None]
            is_open = bool(queue and free) and queue[0].prompt in opened
            if is_open or (queue and len(free) >= min(REFILL, table.num_slots, len(queue))):
                faults.point("generate")
                coming = [queue.popleft() for _ in range(min(len(free), len(queue)))]
                missing = [index for index in dict.fromkeys(one.prompt for one in coming) if index not in opened]
                for group in _rows_of(missing, prompts):
                    opened |= zip(group, _opened(causal, [prompts[index] for index in group]), strict=True)
                for slot, one in zip(free, coming, strict=False):
                    table.seat(slot, opened[one.prompt][0])
                    seats += [None] * (slot + 1 - len(seats))
                    seats[slot] = one
                taken = list(zip(free, coming, strict=False))
                logits = torch.stack([opened[one.prompt][1] for one in coming])
                # The next answers to the last prompt may still wait; all others are seated.
                opened = {index: opened[index] for index in opened if queue and queue[0].prompt == index}
            else:
                if not queue:
                    _close_ranks(seats, table, by_blocks=by_blocks)
                logits = _stepped(causal, table, [0 if one is None else one.ids[-1] for one in seats])
                taken = [(slot, one) for slot, one in enumerate(seats) if one is not None]
                for slot, _ in taken:
                    table.lengths[slot] += 1
                logits = logits if len(taken) == len(seats) else logits[[slot for slot, _ in taken]]
            tokens = pick(logits, [one.noise for _, one in taken]).tolist()
            ended = [slot for (slot, one), token in zip(taken, tokens, strict=True) if one.take(token, eos_ids)]
            if ended:
                yield [answer for slot in ended if (answer := seats[slot]) is not None]
                for slot in ended:
                    seats[slot] = None


def _rows_of(missing: Sequence[int], prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield prompts that go through the model together."""
    ends = list(accumulate(len(prompts[index]) for index in missing))
    for _, group in groupby(zip(missing, ends, strict=True), key=lambda one: one[1] // PROMPT_TOKENS):
        yield [index for index, _ in group]


def _close_ranks(seats: list[Wanted | None], table: Table, *, by_blocks: bool) -> None:
    """Move answers to the first slots where fewer rows are cheaper: a few more by oneDNN cost no more than without."""
    num = sum(one is not None for one in seats)
    rows = -(-num // BLOCK) * BLOCK if by_blocks and num % BLOCK > BLOCK * 7 / 8 else num
    if len(seats) <= rows:
        return
    holes = [slot for slot in range(num) if seats[slot] is None]
    for source in range(num, len(seats)):
        if seats[source] is not None:
            target = holes.pop(0)
            table.move(source, target)
            seats[target] = seats[source]
    del seats[num:]


def _opened(causal: Any, prompts: Sequence[Sequence[int]]) -> list[tuple[Layers, Tensor]]:
    """Return for each prompt its keys and values, and the logits of the token behind it."""
    lengths = list(map(len, prompts))
    device, dtype = next(causal.parameters()).device, next(causal.parameters()).dtype
    more = filling(sum(lengths), causal, device, dtype)
    under_way = Prompts([*lengths, *([more] if more else [])])
    ids = [token for prompt in prompts for token in prompt] + [0] * more
    positions = [place for length in (*lengths, more) for place in range(length)]
    last = [end - 1 for end in accumulate(lengths)]
    logits = _logits(causal, ids, positions, under_way, last)
    return list(zip(under_way.layers()[: len(prompts)], logits, strict=True))


def _stepped(causal: Any, table: Table, tokens: Sequence[int]) -> Tensor:
    """Return the logits behind one more token in each of the first slots."""
    return _logits(causal, tokens, table.lengths[: len(tokens)], table.step(len(tokens)), None)


def _logits(
    causal: Any, ids: Sequence[int], positions: Sequence[int], under_way: UnderWay, of: Sequence[int] | None
) -> Tensor:
    """Return [wanted, vocabulary] in fp32, of all tokens or of some."""
    device = next(causal.parameters()).device
    hidden = causal.base_model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        use_cache=False,
        answers_under_way=under_way,
    ).last_hidden_state[0]
    head = head_of(causal)
    assert head is not None, "nobody without a plain head comes to the table"  # noqa: S101
    return head.logits((hidden if of is None else hidden[of]).to(head.weight.dtype))


_FOUND_FIT: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def may_come_to_the_table(network: Any, positions: int | None) -> bool:
    """Whether the table gives a model's own logits: asked of its configuration, then tried once for a few tokens."""
    if refused_by_design(network, trains=False):
        return False
    if network not in _FOUND_FIT:
        try:
            with torch.inference_mode(), _answering(network):
                _FOUND_FIT[network] = _fits(network, positions)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError):
            _FOUND_FIT[network] = False
    return _FOUND_FIT[network]


def _fits(network: Any, positions: int | None) -> bool:
    """Compare three short answers to two prompts with the model's own forward pass over each of them alone."""
    causal = causal_model(network)
    config = causal.config.get_text_config()
    settings, draw = config.to_dict(), random.Random(0)  # noqa: S311 - not for secrets
    window = settings.get("sliding_window") or 0
    lengths = (9 + (window if window <= LONGEST_PROBED_WINDOW else 0), 5)
    if positions is not None and max(lengths) + 3 > positions:
        return False
    prompts = [[draw.randrange(config.vocab_size) for _ in range(length)] for length in lengths]
    answers = [[draw.randrange(config.vocab_size) for _ in range(3)] for _ in range(3)]
    of = (0, 0, 1)
    opened = _opened(causal, prompts)
    table = Table(3)
    for slot, prompt in enumerate(of):
        table.seat(slot, opened[prompt][0])
    found = [[opened[prompt][1]] for prompt in of]
    for place in range(3):
        logits = _stepped(causal, table, [answer[place] for answer in answers])
        table.lengths = [length + 1 for length in table.lengths]
        for row, one in zip(found, logits, strict=True):
            row.append(one)
    # A model may slide its window by a mask alone (Qwen2-MoE).
    kinds = settings.get("layer_types") or ("sliding_attention",)
    slides = window and settings.get("use_sliding_window", True) and "sliding_attention" in kinds
    if slides and not table.windows:
        return False
    use_plain_attention(network)
    for prompt, answer, row in zip(of, answers, found, strict=True):
        ids = torch.tensor([[*prompts[prompt], *answer]], device=row[0].device)
        wanted = network(input_ids=ids, use_cache=False).logits[0, -4:].float()
        if not differ_by_rounding(network, torch.stack(row), wanted):
            return False
    return True
