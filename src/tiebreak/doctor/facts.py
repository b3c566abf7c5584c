"""What the audit remembers of every pair: columns of numbers in place of texts, so that memory stays flat.

Owns how a block of records becomes a table of facts, and how the tables of many blocks become one. Each block is looked
at by itself, in any process; the few texts that a report shows are kept in marks, masked and cut.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.growing import Growing, Names
from tiebreak.doctor.table import CODED, COLUMNS, MAX_KEPT, Facts, Floats, Keys, Mark
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import features_of
from tiebreak.doctor.texts.flaws import TEXT_RULES, flaws, visible
from tiebreak.doctor.texts.wordhashes import key, normalised, words
from tiebreak.fingerprint import unit_interval
from tiebreak.records import Dropped, Message, Pair, Record, Source, Vote

__all__ = ["Facts", "Mark", "facts_of", "merged", "message_text", "prompt_text"]

_HIDDEN = np.uint16(1 << TEXT_RULES.index("hidden_text"))

# ------------------------------------------------------------------------------------------------------ of one block


def facts_of(records: Sequence[Record]) -> Facts:
    """Return the facts of one block of records; pure, so that it may run in a worker process."""
    pairs = [pair for record in records for pair in record.pairs]
    sources = [pair.source or record.source for record in records for pair in record.pairs]
    dropped = [record.dropped for record in records if record.dropped]
    kept, num_dropped = _capped(dropped, lambda item: item.reason)
    marks = _marks(pairs, sources)
    kept_marks, num_marks = _capped(marks, lambda mark: (mark.code, mark.kind))
    names = {name: Names() for name in CODED.values()}
    flags = _flags(marks, len(pairs))
    # What differs in hidden characters alone is the same: mending would make it so.
    clear = [_clear(pair) if hides else pair for pair, hides in zip(pairs, flags & _HIDDEN != 0, strict=True)]
    columns = {
        **_text_columns(pairs),
        **_stated_columns(pairs, sources, names),
        **_keys_of(clear),
        **_votes(records, names["annotator_names"]),
        "flags": flags,
    }
    arrays: dict[str, Any] = {name: np.asarray(columns[name], dtype) for name, (dtype, _) in COLUMNS.items()}
    tables: dict[str, Any] = {name: found.known for name, found in names.items()}
    return Facts(
        **arrays,
        **tables,
        num_records_by_file=dict(Counter(record.source.file for record in records)),
        num_ties=sum(record.num_ties for record in records),
        num_tied_dropped=sum(_is_tied(item) for item in dropped),
        num_dropped=num_dropped,
        dropped=kept,
        num_marks=num_marks,
        marks=kept_marks,
    )


def _is_tied(item: Dropped) -> bool:
    stated = item.preference
    return stated.chosen_score is not None and stated.chosen_score == stated.rejected_score


def _capped(items: Iterable[Any], group: Any) -> tuple[tuple[Any, ...], dict[Any, int]]:
    """Return the first MAX_KEPT items of each group, and how many there are of each."""
    counts: Counter[Any] = Counter()
    kept = []
    for item in items:
        counts[group(item)] += 1
        if counts[group(item)] <= MAX_KEPT:
            kept.append(item)
    return tuple(kept), dict(counts)


def message_text(message: Message) -> str:
    """Return what a message says: its content, and its tool calls as JSON."""
    if not message.tool_calls:
        return message.content
    calls = json.dumps(list(message.tool_calls), sort_keys=True, ensure_ascii=False)
    return f"{message.content}\n{calls}" if message.content else calls


def prompt_text(pair: Pair) -> str:
    """Return what the messages of a prompt say, one after the other."""
    return "\n".join([message_text(message) for message in pair.prompt])


def _text_columns(pairs: Sequence[Pair]) -> dict[str, Any]:
    texts = {
        "prompt": [prompt_text(pair) for pair in pairs],
        "chosen": [message_text(pair.chosen) for pair in pairs],
        "rejected": [message_text(pair.rejected) for pair in pairs],
    }
    normals = {side: [normalised(text) for text in side_texts] for side, side_texts in texts.items()}
    found = {side: words(side_normals) for side, side_normals in normals.items()}
    asked = [pair.prompt[-1].content for pair in pairs]
    chosen, rejected = (features_of(asked, texts[side], found[side]) for side in ("chosen", "rejected"))
    return {
        **{f"{side}_words": found[side].counts for side in texts},
        **{f"{side}_characters": [len(text) for text in texts[side]] for side in texts},
        **{f"{side}_norm": _keys([key(normal) for normal in normals[side]]) for side in ("chosen", "rejected")},
        "features": chosen - rejected,
        "pair_signatures": np.concatenate([near.signatures_of(found[side]) for side in texts], axis=1),
    }


def _clear(pair: Pair) -> Pair:
    shown = visible(pair)
    return pair if message_text(shown.chosen) == message_text(shown.rejected) else shown


def _keys_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what tells whether two prompts or two completions are the same."""
    return {
        "prompt_key": _keys([int(pair.prompt_id[:16], 16) for pair in pairs]),
        "chosen_key": [_key(message_text(pair.chosen)) for pair in pairs],
        "rejected_key": [_key(message_text(pair.rejected)) for pair in pairs],
    }


def _key(text: str) -> int:
    return key(text.encode("utf-8", "surrogatepass"))


def _keys(values: Sequence[int]) -> Keys:
    return np.array(values, np.uint64)


def _stated_columns(pairs: Sequence[Pair], sources: Sequence[Source], names: Mapping[str, Names]) -> dict[str, Any]:
    origins = [pair.origin for pair in pairs]
    groups = [-1 if origin.group is None else _key(origin.group) >> 1 for origin in origins]
    scores = ("chosen_score", "rejected_score", "margin", "soft_label", "weight")
    return {
        "file": names["file_names"].codes(source.file for source in sources),
        "line": [source.line for source in sources],
        "group": groups,
        "split": names["split_names"].codes(origin.split for origin in origins),
        "dataset": names["dataset_names"].codes(origin.dataset for origin in origins),
        "licence": names["licence_names"].codes(origin.licence for origin in origins),
        "split_position": [unit_interval(pair.split_key) for pair in pairs],
        **{name: _numbers([getattr(pair.preference, name) for pair in pairs]) for name in scores},
    }


def _numbers(values: Sequence[float | None]) -> Floats:
    """Return numbers as 32-bit floats, the largest of them where a number is larger; None is NaN."""
    limit = float(np.finfo(np.float32).max)
    return np.clip(np.array(values, np.float64), -limit, limit).astype(np.float32)


def _votes(records: Sequence[Record], annotators: Names) -> dict[str, Any]:
    values = {"chosen": 1.0, "tie": 0.5, "rejected": 0.0}
    voted = [(item, vote, turned) for item, votes, turned in _voted(records) for vote in votes]
    return {
        "vote_item": [item for item, _, _ in voted],
        "vote_annotator": annotators.codes(vote.annotator or None for _, vote, _ in voted),
        "vote_value": [1.0 - values[vote.choice] if turned else values[vote.choice] for _, vote, turned in voted],
    }


def _voted(records: Sequence[Record]) -> Iterator[tuple[int, tuple[Vote, ...], bool]]:
    """Yield items that were voted on, with their votes, and whether the rejected completion counts as 1."""
    num_pairs = num_unused = 0
    for record in records:
        for pair in record.pairs:
            if pair.preference.votes:
                yield num_pairs, pair.preference.votes, _turned(pair)
            num_pairs += 1
        if record.dropped and record.dropped.preference.votes:
            num_unused += 1
            # Its texts are gone; where it stands is as good as chance.
            yield -num_unused, record.dropped.preference.votes, _key(str(record.source)) % 2 == 1


def _turned(pair: Pair) -> bool:
    return _key(message_text(pair.chosen)) > _key(message_text(pair.rejected))


def _marks(pairs: Sequence[Pair], sources: Sequence[Source]) -> list[Mark]:
    found: list[Mark] = []
    for row, (pair, source) in enumerate(zip(pairs, sources, strict=True)):
        prompt = prompt_text(pair)
        completions = (("chosen", pair.chosen), ("rejected", pair.rejected))
        texts = [("prompt", prompt, None), *((name, message_text(side), prompt) for name, side in completions)]
        for name, text, asked in texts:
            found += [Mark(code, kind, row, source, name, shown) for code, kind, _, shown in flaws(text, prompt=asked)]
    return found


def _flags(marks: Sequence[Mark], num_pairs: int) -> NDArray[np.uint16]:
    flags = np.zeros(num_pairs, np.uint16)
    for mark in marks:
        flags[mark.pair] |= np.uint16(1 << TEXT_RULES.index(mark.code))
    return flags


# --------------------------------------------------------------------------------------------------- of many blocks


def merged(blocks: Iterable[Facts]) -> Facts:
    """Return the facts of all blocks, in their order; a generator of blocks is held once and not twice."""
    columns = {name: Growing(dtype, width) for name, (dtype, width) in COLUMNS.items()}
    names = {name: Names() for name in CODED.values()}
    files: Counter[str] = Counter()
    num_dropped: Counter[str] = Counter()
    num_marks: Counter[tuple[str, str]] = Counter()
    dropped: list[Dropped] = []
    marks: list[Mark] = []
    num_ties = num_tied_dropped = num_pairs = num_unused_votes = 0
    for block in blocks:
        _append(columns, names, block, num_pairs, num_unused_votes)
        dropped += _room(block.dropped, num_dropped, lambda item: item.reason)
        marks += [mark._replace(pair=mark.pair + num_pairs) for mark in _room(block.marks, num_marks, lambda m: m[:2])]
        files.update(block.num_records_by_file)
        num_dropped.update(block.num_dropped)
        num_marks.update(block.num_marks)
        num_ties += block.num_ties
        num_tied_dropped += block.num_tied_dropped
        num_pairs += block.num_pairs
        num_unused_votes -= int(block.vote_item.min(initial=0))
    arrays: dict[str, Any] = {name: column.whole() for name, column in columns.items()}
    tables: dict[str, Any] = {name: found.known for name, found in names.items()}
    return Facts(
        **arrays,
        **tables,
        num_records_by_file=dict(files),
        num_ties=num_ties,
        num_tied_dropped=num_tied_dropped,
        num_dropped=dict(num_dropped),
        dropped=tuple(dropped),
        num_marks=dict(num_marks),
        marks=tuple(marks),
    )


def _append(
    columns: Mapping[str, Growing], names: Mapping[str, Names], block: Facts, num_pairs: int, num_unused_votes: int
) -> None:
    for name, column in columns.items():
        values = getattr(block, name)
        if name in CODED:
            values = names[CODED[name]].recoded(values, getattr(block, CODED[name]))
        elif name == "vote_item":
            values = np.where(values < 0, values - num_unused_votes, values + num_pairs)
        column.append(values)


def _room(items: Iterable[Any], counts: Mapping[Any, int], group: Any) -> list[Any]:
    """Return the items for whose group there is room below MAX_KEPT, where `counts` have gone before."""
    taken: Counter[Any] = Counter()
    found = []
    for item in items:
        taken[group(item)] += 1
        if counts.get(group(item), 0) + taken[group(item)] <= MAX_KEPT:
            found.append(item)
    return found
