"""The answers of a round: drawn batch by batch, so that a loop that is killed loses the batch under way and no other.

Owns how prompts are cut into batches and what is kept of them. The cut is of the whole list, once; a batch is made
whole or again whole, since who shares a batch decides how its numbers are rounded. What an answer hangs on besides is
known to `engine.answers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak import faults
from tiebreak.config.rounds import SamplingConfig
from tiebreak.engine.answers.answerer import Answer, Answerer, Chat, Sampling
from tiebreak.errors import RunError
from tiebreak.evaluation.diversity import distinct_n, shared_length, unfinished_share
from tiebreak.files import append_jsonl, appended_jsonl, read_jsonl, write_jsonl
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.progress import Progress
from tiebreak.stations.rows import Answered

PER_BATCH = 128
"""Answers that are drawn together; more of them lose more work when a loop is killed."""


def sampling_of(settings: SamplingConfig, number: int) -> Sampling:
    """Return how the answers of a round, counted from 1, are drawn: no two rounds draw alike. 0: held-out prompts."""
    seed = derive_seed(settings.seed, "round", number)
    return Sampling(settings.max_new_tokens, settings.temperature, settings.n, seed)


@dataclass(frozen=True)
class Extent:
    """How much is asked, before anything is."""

    num_prompts: int
    num_answers: int
    most_tokens: int
    """No answer is longer than it may be."""


def extent(num_prompts: int, sampling: Sampling) -> Extent:
    """Return how many answers to so many prompts there will be, and how many tokens at most."""
    num = num_prompts * sampling.num
    return Extent(num_prompts, num, num * sampling.max_new_tokens)


def harvest(
    answerer: Answerer, chats: Sequence[Chat], sampling: Sampling, path: Path, progress: Progress
) -> list[Answered]:
    """Return the answers to each prompt, in their order, written whole to `path`.

    A file that is there is read, and nobody is asked. Batches that are done are kept in a hidden file beside it, under
    who answers, how, and what; it goes with the last one. Raises RunError where the file answers other prompts.
    """
    if path.exists():
        return read_answered(path, chats, sampling.num)
    journal = _journal_of(path)
    kept = {str(row.get("key")): row.get("answers") for row in appended_jsonl(journal)}
    found: dict[int, tuple[Answer, ...]] = {}
    num_tokens = 0
    with progress.stage("answers", len(chats) * sampling.num) as advance:

        def told(made: Sequence[tuple[int, Answer]]) -> None:
            nonlocal num_tokens
            num_tokens += sum(len(one.ids) for _, one in made)
            advance(len(made), {"tokens": num_tokens})

        for batch in cut(chats, sampling.num):
            some = [chats[place] for place in batch]
            key = fingerprint([answerer.identity, sampling.as_dict(), [chat.as_dict() for chat in some]])
            answers = _read(kept.get(key), len(some) * sampling.num)
            if answers is None:
                faults.point("sample:batch")
                answers = answerer.answer(some, sampling, told)
                append_jsonl(journal, [{"key": key, "answers": [asdict(one) for one in answers]}])
            else:
                told([*enumerate(answers)])
            for at, place in enumerate(batch):
                found[place] = tuple(answers[at * sampling.num : (at + 1) * sampling.num])
    rows = [Answered(chat, found[place]) for place, chat in enumerate(chats)]
    faults.point("sample:file")
    write_jsonl(path, (row.as_dict() for row in rows))
    journal.unlink(missing_ok=True)
    return rows


def cut(chats: Sequence[Chat], num: int) -> list[list[int]]:
    """Return the places of prompts, batch by batch, for `num` answers to each.

    Prompts of similar length stand together, and the longest come first: what is too much for the memory shows at once.
    """
    lengths = [sum(len(message.content) for message in chat.messages) for chat in chats]
    order = sorted(range(len(chats)), key=lambda place: (-lengths[place], chats[place].prompt_id))
    size = max(1, PER_BATCH // num)
    return [order[start : start + size] for start in range(0, len(order), size)]


def read_answered(path: Path, chats: Sequence[Chat], num: int) -> list[Answered]:
    """Return the rows of a file of answers; raises RunError where they are not `num` to each of these prompts.

    What was kept on the way to it, and is still there where a loop was killed as it was done, is removed.
    """
    try:
        rows = [Answered.from_dict(row) for row in read_jsonl(path)]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error!r}); move it away, and it is made again") from None
    wanted = [(chat.prompt_id, num) for chat in chats]
    if [(row.prompt_id, len(row.answers)) for row in rows] != wanted:
        raise RunError(
            f"{path}: holds answers to {len(rows)} prompts, and not {num} to each of the {len(chats)} of this round; "
            "move it away, and it is made again"
        )
    _journal_of(path).unlink(missing_ok=True)
    return rows


def tally(rows: Sequence[Answered], at_length: int | None = None) -> Mapping[str, Any]:
    """Return what is counted of answers, for the ledger.

    `distinct_2` is over the first `at_length` words of answers that have as many (the most that three of four have,
    where nobody says); numbers of as many answers at the same length compare. None where no answer has as many, or two.
    """
    answers = [one for row in rows for one in row.answers]
    texts = [one.text for one in answers]
    words = shared_length(texts) if at_length is None else at_length
    num_tokens = sum(len(one.ids) for one in answers)
    distinct: float | None = None
    with contextlib.suppress(ValueError):
        distinct = distinct_n(texts, 2, words)
    return {
        "num_prompts": len(rows),
        "num_answers": len(answers),
        "num_tokens": num_tokens,
        "mean_tokens": num_tokens / max(len(answers), 1),
        "finished": 1 - unfinished_share([one.finished for one in answers]) if answers else None,
        "distinct_2": distinct,
        "distinct_words": words,
    }


def _journal_of(path: Path) -> Path:
    """Return where batches are kept until the file is whole."""
    return path.with_name(f".{path.stem}.kept.jsonl")


def _read(told: Any, num: int) -> list[Answer] | None:
    """Return the answers of a batch that was kept; None where they are not all there."""
    try:
        answers = [Answer(str(one["text"]), tuple(map(int, one["ids"])), bool(one["finished"])) for one in told]
    except (KeyError, TypeError, ValueError):
        return None
    return answers if len(answers) == num else None
