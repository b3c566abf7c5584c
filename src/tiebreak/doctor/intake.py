"""From a block of records to its facts: columns of numbers in place of texts, so that memory stays flat.

Owns how the columns of `facts` are filled. Each block is looked at by itself, in any process; the few texts that a
report shows are kept in marks, masked and cut.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.facts import CODED, COLUMNS, Facts, Keys, Mark, Names, room
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import features_of
from tiebreak.doctor.texts.flaws import TEXT_RULES, flaws, visible
from tiebreak.doctor.texts.wordhashes import key, normalised, words
from tiebreak.fingerprint import unit_interval
from tiebreak.records import FACTS, Message, Pair, Record, Source

_HIDDEN = np.uint16(1 << TEXT_RULES.index("hidden_text"))
_VALUES = {"chosen": 1.0, "tie": 0.5, "rejected": 0.0}


def facts_of(records: Sequence[Record]) -> Facts:
    """Return the facts of one block of records; pure, so that it may run in a worker process."""
    pairs = [pair for record in records for pair in record.pairs]
    sources = [pair.source or record.source for record in records for pair in record.pairs]
    dropped = [record.dropped for record in records if record.dropped]
    stated = [item.preference for item in dropped]
    marks, flags = _marks(pairs, sources)
    names = {name: Names() for name in CODED.values()}
    keys = _keys_of(pairs, flags & _HIDDEN != 0)
    columns = {
        **_text_columns(pairs),
        **_stated_columns(pairs, sources, names),
        **keys,
        **_votes(records, keys["chosen_key"] > keys["rejected_key"], names["annotator_names"]),
        "flags": flags,
    }
    arrays: dict[str, Any] = {name: np.asarray(columns[name], dtype) for name, (dtype, _) in COLUMNS.items()}
    tables: dict[str, Any] = {name: found.known for name, found in names.items()}
    return Facts(
        **arrays,
        **tables,
        num_records_by_file=dict(Counter(record.source.file for record in records)),
        num_ties=sum(record.num_ties for record in records),
        num_tied_dropped=sum(one.chosen_score is not None and one.chosen_score == one.rejected_score for one in stated),
        num_dropped=dict(Counter(item.reason for item in dropped)),
        dropped=tuple(room(dropped, {}, lambda item: item.reason)),
        num_marks=dict(Counter((mark.code, mark.kind) for mark in marks)),
        marks=tuple(room(marks, {}, lambda mark: mark[:2])),
    )


def _message_text(message: Message) -> str:
    """Return what a message says: its reasoning, its content, and its tool calls as JSON."""
    if not (message.tool_calls or message.reasoning):
        return message.content
    calls = json.dumps(list(message.tool_calls), sort_keys=True, ensure_ascii=False) if message.tool_calls else ""
    return "\n".join(text for text in (message.reasoning, message.content, calls) if text)


def _prompt_text(pair: Pair) -> str:
    """Return what the messages of a prompt say, one after the other."""
    return "\n".join([_message_text(message) for message in pair.prompt])


def _text_columns(pairs: Sequence[Pair]) -> dict[str, Any]:
    texts = {
        "prompt": [_prompt_text(pair) for pair in pairs],
        "chosen": [_message_text(pair.chosen) for pair in pairs],
        "rejected": [_message_text(pair.rejected) for pair in pairs],
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


def _keys_of(pairs: Sequence[Pair], hides: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what tells whether two prompts or two completions are the same.

    What differs in hidden characters, in blanks around a message or in its Unicode form alone is the same: no reader
    sees it, many chat templates trim it. But not the two sides of a pair, which would be no pair then.
    """
    clear = []
    for pair, hidden in zip(pairs, hides, strict=True):
        shown = _trimmed(visible(pair) if hidden else pair)
        alike = _message_text(shown.chosen) == _message_text(shown.rejected)
        clear.append(replace(shown, chosen=pair.chosen, rejected=pair.rejected) if alike else shown)
    return {
        "prompt_key": _keys([int(pair.prompt_id[:16], 16) for pair in clear]),
        "chosen_key": _keys([_key(_message_text(pair.chosen)) for pair in clear]),
        "rejected_key": _keys([_key(_message_text(pair.rejected)) for pair in clear]),
    }


def _trimmed(pair: Pair) -> Pair:
    """Return the pair in NFC without blanks around its messages; itself where it has none, with the ids it knows."""
    messages = (*pair.prompt, pair.chosen, pair.rejected)
    texts = [text for message in messages for text in (message.content, message.reasoning)]
    clear = [normalize("NFC", text.strip()) for text in texts]
    if clear == texts:
        return pair
    *prompt, chosen, rejected = (
        replace(message, content=content, reasoning=reasoning)
        for message, content, reasoning in zip(messages, clear[::2], clear[1::2], strict=True)
    )
    return replace(pair, prompt=tuple(prompt), chosen=chosen, rejected=rejected)


def _key(text: str) -> int:
    return key(text.encode("utf-8", "surrogatepass"))


def _keys(values: Sequence[int]) -> Keys:
    return np.array(values, np.uint64)


def _stated_columns(pairs: Sequence[Pair], sources: Sequence[Source], names: Mapping[str, Names]) -> dict[str, Any]:
    origins = [pair.origin for pair in pairs]
    limit = float(np.finfo(np.float32).max)
    numbers = {
        name: np.clip(np.array([getattr(pair.preference, name) for pair in pairs], np.float64), -limit, limit)
        for name in ("chosen_score", "rejected_score", "weight", *FACTS)  # None is NaN
    }
    return {
        "file": names["file_names"].codes(source.file for source in sources),
        "line": [source.line for source in sources],
        "group": [-1 if origin.group is None else _key(origin.group) >> 1 for origin in origins],
        "split": names["split_names"].codes(origin.split for origin in origins),
        "dataset": names["dataset_names"].codes(origin.dataset for origin in origins),
        "licence": names["licence_names"].codes(origin.licence for origin in origins),
        "split_position": [unit_interval(pair.split_key) for pair in pairs],
        **numbers,
    }


def _votes(records: Sequence[Record], turned: NDArray[np.bool_], annotators: Names) -> dict[str, Any]:
    """Return one entry a vote; `turned` says of each pair, by its keys, whether its rejected completion counts as 1."""
    voted = []  # item, votes, whether the rejected completion counts as 1
    num_pairs = num_unused = 0
    for record in records:
        for pair in record.pairs:
            if pair.preference.votes:
                voted.append((num_pairs, pair.preference.votes, bool(turned[num_pairs])))
            num_pairs += 1
        if record.dropped and record.dropped.preference.votes:
            num_unused += 1
            # Its texts are gone; where it stands is as good as chance.
            voted.append((-num_unused, record.dropped.preference.votes, _key(str(record.source)) % 2 == 1))
    each = [(item, vote, swap) for item, votes, swap in voted for vote in votes]
    return {
        "vote_item": [item for item, _, _ in each],
        "vote_annotator": annotators.codes(vote.annotator or None for _, vote, _ in each),
        "vote_value": [1.0 - _VALUES[vote.choice] if swap else _VALUES[vote.choice] for _, vote, swap in each],
    }


def _marks(pairs: Sequence[Pair], sources: Sequence[Source]) -> tuple[list[Mark], NDArray[np.uint16]]:
    """Return what the rules on single texts found, and which of them did in which pair."""
    found: list[Mark] = []
    flags = np.zeros(len(pairs), np.uint16)
    for row, (pair, source) in enumerate(zip(pairs, sources, strict=True)):
        prompt = _prompt_text(pair)
        completions = (("chosen", pair.chosen), ("rejected", pair.rejected))
        texts = [("prompt", prompt, None), *((name, _message_text(side), prompt) for name, side in completions)]
        for name, text, asked in texts:
            for code, kind, _, shown in flaws(text, prompt=asked):
                found.append(Mark(code, kind, row, source, name, shown))
                flags[row] |= np.uint16(1 << TEXT_RULES.index(code))
    return found, flags
