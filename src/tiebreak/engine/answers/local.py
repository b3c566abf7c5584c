"""Answers of a model in this process.

Owns how answers are generated: which of them are under way together, when one ends, and whether a model may answer at
the table at all. Prompts come as rendered ids. Each gets the answer that it gets alone.

At the table (`engine.answers.table`) a prompt goes through the model once, whatever the number of its answers; an
answer that has ended leaves, and one that waits takes its place. A model comes there only where its attention can be
exchanged and a short trial finds the logits that its own forward pass gives. All others answer by transformers'
`generate`, padded on the left: models that carry a state along, positions that stretch (`engine.stretching`), biases by
distance. There, prompts whose answers could come so far that positions stretch are answered one by one, and so are all
by a model whose answers hang on their company.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, groupby
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import peft
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tiebreak import faults
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.answers.drawing import drawn, likeliest, noise_of
from tiebreak.engine.answers.table import ANSWERING, Layers, Prompts, Table, UnderWay
from tiebreak.engine.attention import causal_model, use_attention, use_plain_attention
from tiebreak.engine.compatibility import LONGEST_PROBED_WINDOW, refused_by_design
from tiebreak.engine.head import head_of
from tiebreak.engine.products import BLOCK, filling, onednn_is_faster
from tiebreak.engine.stretching import forget_lengths, stretching_of

MAX_BATCH = 64
"""Answers under way at once."""
PLAIN_BATCH = 32
"""Answers in one call of transformers' `generate`."""
REFILL = 8
"""Answers that wait are seated when so many places are free: prompts are cheaper together."""
PROMPT_TOKENS = 1024
"""Of the prompts that go through the model in one row, unless a single one is longer."""
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""Mean difference of logits, relative to their size, that a batch may make."""

Ids = tuple[int, ...]
Pick = Callable[[Tensor, Sequence[np.random.Generator]], Tensor]
"""Chooses a token by the logits of each row, and its noise."""
Told = Callable[[Sequence[tuple[int, Ids, bool]]], None]


@dataclass
class _Answer:
    """An answer that is wanted: the `number`-th to the `prompt`-th prompt, of at most `room` tokens."""

    prompt: int
    number: int
    room: int
    noise: np.random.Generator
    ids: list[int] = field(default_factory=list)
    finished: bool = False

    def take(self, token: int, eos_ids: Sequence[int]) -> bool:
        """Add a token; say whether the answer has come to its end."""
        self.finished = token in eos_ids
        if not self.finished:
            self.ids.append(token)
        return self.finished or len(self.ids) == self.room


def generate(
    network: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    eos_ids: Sequence[int],
    pad_id: int,
    done: Told = lambda _: None,
    positions: int | None = None,
) -> list[tuple[Ids, bool]]:
    """Return `sampling.num` answers for each prompt, prompt after prompt: ids without the EOS, and whether there was one.

    `done` is told the answers of prompts that have all of theirs: place in what is returned, ids, finished. A model
    with so many `positions` is asked for no token beyond; every prompt is shorter than that. Greedy answers to one
    prompt are computed once. A drawn one hangs on seed, prompt and number alone (`engine.answers.drawing`).
    """
    greedy = sampling.temperature <= 0
    pick: Pick = (lambda logits, _: likeliest(logits)) if greedy else partial(_drawn_at, sampling.temperature)
    times, num = (sampling.num, 1) if greedy else (1, sampling.num)
    most = sampling.max_new_tokens
    # Prompts of similar length stand together: their answers are as long for a similar time.
    waiting = [
        _Answer(index, number, most if positions is None else min(most, positions - len(prompts[index])), noise)
        for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for number in range(num)
        for noise in [noise_of(sampling.seed, prompts[index], number)]
    ]
    found: dict[int, list[_Answer]] = {index: [] for index in range(len(prompts))}
    use_plain_attention(network)
    answers = _at_the_table if waiting and _may_come_to_the_table(network, positions) else _plainly
    with torch.inference_mode():
        for ended in answers(network, prompts, waiting, pick, eos_ids, pad_id, positions):
            for answer in ended:
                found[answer.prompt].append(answer)
            whole = [found[index] for index in dict.fromkeys(answer.prompt for answer in ended)]
            told = [
                (one.prompt * sampling.num + one.number + more, tuple(one.ids), one.finished)
                for group in whole
                if len(group) == num
                for one in group
                for more in range(times)
            ]
            if told:
                done(told)
    every = [sorted(found[index], key=lambda one: one.number) for index in range(len(prompts))]
    return [(tuple(one.ids), one.finished) for group in every for one in group for _ in range(times)]


def _drawn_at(temperature: float, logits: Tensor, noise: Sequence[np.random.Generator]) -> Tensor:
    return drawn(logits, temperature, noise)


# ---------------------------------------------------------------------------------------------------------- at the table


@contextlib.contextmanager
def _answering(network: Any) -> Iterator[None]:
    use_attention(network, ANSWERING)
    try:
        yield
    finally:
        use_plain_attention(network)


def _at_the_table(
    network: Any,
    prompts: Sequence[Sequence[int]],
    waiting: Sequence[_Answer],
    pick: Pick,
    eos_ids: Sequence[int],
    _pad_id: int,
    _positions: int | None,
) -> Iterator[list[_Answer]]:
    """Yield answers as they end."""
    causal, table = causal_model(network), Table(min(MAX_BATCH, len(waiting)))
    queue, seats = deque(waiting), list[_Answer | None]()
    opened: dict[int, tuple[Layers, Tensor]] = {}
    with _answering(network):
        while queue or any(seats):
            free = [slot for slot in range(table.num_slots) if slot >= len(seats) or seats[slot] is None]
            if queue and (len(free) >= min(REFILL, table.num_slots) or len(free) >= len(queue)):
                faults.point("generate")
                coming = [queue.popleft() for _ in range(min(len(free), len(queue)))]
                missing = [index for index in dict.fromkeys(one.prompt for one in coming) if index not in opened]
                for group in _rows_of(missing, prompts):
                    opened |= zip(group, _opened(causal, [prompts[index] for index in group]), strict=True)
                logits = torch.stack([opened[one.prompt][1] for one in coming])
                tokens = pick(logits, [one.noise for one in coming]).tolist()
                ended = []
                for one, token in zip(coming, tokens, strict=True):
                    if one.take(token, eos_ids):
                        ended.append(one)
                        continue
                    slot = free.pop(0)
                    table.seat(slot, opened[one.prompt][0])
                    seats += [None] * (slot + 1 - len(seats))
                    seats[slot] = one
                # The next answers to the last prompt may still wait; all others are seated.
                opened = {index: opened[index] for index in opened if queue and queue[0].prompt == index}
                if ended:
                    yield ended
                continue
            if not queue:
                _close_ranks(seats, table)
            logits = _stepped(causal, table, [0 if one is None else one.ids[-1] for one in seats])
            taken = [(slot, one) for slot, one in enumerate(seats) if one is not None]
            if len(taken) < len(logits):
                logits = logits[[slot for slot, _ in taken]]
            tokens = pick(logits, [one.noise for _, one in taken]).tolist()
            ended = []
            for (slot, one), token in zip(taken, tokens, strict=True):
                table.lengths[slot] += 1
                if one.take(token, eos_ids):
                    ended.append(one)
                    seats[slot] = None
            if ended:
                yield ended


def _rows_of(missing: Sequence[int], prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield prompts that go through the model together."""
    ends = list(accumulate(len(prompts[index]) for index in missing))
    for _, group in groupby(zip(missing, ends, strict=True), key=lambda one: one[1] // PROMPT_TOKENS):
        yield [index for index, _ in group]


def _close_ranks(seats: list[_Answer | None], table: Table) -> None:
    """Move answers to the first slots where fewer rows are cheaper; 64 rows by oneDNN cost less than 45 without."""
    num = sum(one is not None for one in seats)
    rows = -(-num // BLOCK) * BLOCK if onednn_is_faster() and num % BLOCK > BLOCK * 0.7 else num
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
    more = filling(sum(lengths), device, dtype)
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


def _may_come_to_the_table(network: Any, positions: int | None) -> bool:
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
    most = ROUNDING.get(next(network.parameters()).dtype, max(ROUNDING.values()))
    for prompt, answer, row in zip(of, answers, found, strict=True):
        ids = torch.tensor([[*prompts[prompt], *answer]], device=row[0].device)
        wanted = network(input_ids=ids, use_cache=False).logits[0, -4:].float()
        if not float((torch.stack(row) - wanted).abs().mean() / wanted.abs().mean()) <= most:
            return False
    return True


# --------------------------------------------------------------------------------------------- by transformers' generate


def _plainly(
    network: Any,
    prompts: Sequence[Sequence[int]],
    waiting: Sequence[_Answer],
    pick: Pick,
    eos_ids: Sequence[int],
    pad_id: int,
    positions: int | None,
) -> Iterator[list[_Answer]]:
    """Yield the answers of each batch; each prompt goes through the model once for every one of its answers."""
    stretching = stretching_of(network)
    batches: list[list[_Answer]] = []
    # What a prompt is answered must not hang on its neighbours: a batch has the same room for all.
    for num_new, some in groupby(waiting, lambda one: one.room):
        same = list(some)
        settled = [one for one in same if stretching.is_settled(len(prompts[one.prompt]) + num_new)]
        alone = len(settled) > 1 and _is_moved_by_company(
            network, prompts[settled[0].prompt], generation_config(num_new, eos_ids, pad_id), positions
        )
        size = 1 if alone else PLAIN_BATCH
        batches += [settled[start : start + size] for start in range(0, len(settled), size)]
        batches += [[one] for one in same if not stretching.is_settled(len(prompts[one.prompt]) + num_new)]
    for batch in batches:
        faults.point("generate")
        if stretching.grows:
            forget_lengths(network)
        settings = generation_config(batch[0].room, eos_ids, pad_id)
        taken = _padded(network, [prompts[one.prompt] for one in batch], pad_id)
        chosen = LogitsProcessorList([_Chosen(pick, [one.noise for one in batch])])
        with _nothing_suggested(network):
            rows = network.generate(**taken, generation_config=settings, logits_processor=chosen)
        for one, row in zip(batch, rows[:, taken["input_ids"].shape[1] :].tolist(), strict=True):
            any(one.take(token, eos_ids) for token in row)
        yield batch


class _Chosen(LogitsProcessor):  # type: ignore[misc]
    """Leaves of all tokens the one that is picked."""

    def __init__(self, pick: Pick, noise: Sequence[np.random.Generator]) -> None:
        self._pick = pick
        self._noise = noise

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self._pick(scores, self._noise).unsqueeze(1)
        return torch.full_like(scores, -torch.inf).scatter_(1, token, 0.0)


def generation_config(num_new: int, eos_ids: Sequence[int], pad_id: int) -> GenerationConfig:
    """Return the settings for transformers: greedy, because tokens are chosen before."""
    return GenerationConfig(max_new_tokens=num_new, eos_token_id=list(eos_ids), pad_token_id=pad_id, do_sample=False)


@contextlib.contextmanager
def _nothing_suggested(network: Any) -> Iterator[None]:
    """Take what a model's folder suggests away for a while: transformers fills in from there what it is not told."""
    owners = [causal_model(network), *([network] if isinstance(network, peft.PeftModel) else [])]
    before = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, config in zip(owners, before, strict=True):
            owner.generation_config = config


def _is_moved_by_company(
    network: Any, prompt: Sequence[int], settings: GenerationConfig, positions: int | None
) -> bool:
    """Whether a longer prompt in the batch, and so padding, changes what is said after one: tried for a few tokens.

    Some recurrent models heed no mask, or lose their state in a batch (RWKV, MiniMax). Where `positions` leave no room
    to try it, it counts as so.
    """
    num_new = min(4, settings.max_new_tokens)
    more = 8 if positions is None else min(8, positions - num_new - len(prompt))
    if more < 1:
        return True
    tried = GenerationConfig(
        max_new_tokens=num_new,
        pad_token_id=settings.pad_token_id,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    longer = (list(prompt) * 9)[: len(prompt) + more]
    with _nothing_suggested(network):
        alone, beside = (
            network.generate(**_padded(network, rows, settings.pad_token_id), generation_config=tried).logits
            for rows in ([prompt], [prompt, longer])
        )
    most = ROUNDING.get(next(network.parameters()).dtype, max(ROUNDING.values()))
    for one, two in zip(alone, beside, strict=False):  # one that has ended is as long as it is
        if not float((one[0] - two[0]).abs().mean() / one[0].abs().mean()) <= most:
            return True
        if one[0].argmax() != two[0].argmax():  # a tie: what follows is another text
            break
    return False


def _padded(network: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """Return prompts as what a network takes, padded on the left."""
    device, width = next(network.parameters()).device, max(map(len, prompts))
    padding = [[0] * (width - len(prompt)) for prompt in prompts]
    ids = [[pad_id] * len(pad) + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    mask = [pad + [1] * len(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}
