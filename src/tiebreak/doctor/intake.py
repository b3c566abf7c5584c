"""From a block of records to its facts: columns of numbers in place of texts, so that memory stays flat.

Owns how the columns of `facts` are filled. Each block is looked at by itself, in any process; the few texts that a
report shows are kept in marks, masked and cut.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray

from tiebreak.doctor.blocks import Names, R, room
from tiebreak.doctor.facts import Facts, Keys, Mark, Rows, ThumbFacts
from tiebreak.doctor.texts import near
from tiebreak.doctor.texts.features import features_of
from tiebreak.doctor.texts.flaws import TEXT_RULES, flaws, visible
from tiebreak.doctor.texts.wordhashes import key, normalised, words
from tiebreak.fingerprint import unit_interval
from tiebreak.records import FACTS, Judgement, Message, Record, Source

_HIDDEN = np.uint16(1 << TEXT_RULES.index("hidden_text"))
_VALUES = {"chosen": 1.0, "tie": 0.5, "rejected": 0.0}


def facts_of(records: Sequence[Record]) -> Facts:
    """Return the facts of the pairs of one block of records; pure, so that it may run in a worker process."""
    pairs = [pair for record in records for pair in record.pairs]
    common = _Common.of(records, pairs, Facts)
    limit = float(np.finfo(np.float32).max)
    numbers = {
        name: np.clip(np.array([getattr(pair.preference, name) for pair in pairs], np.float64), -limit, limit)
        for name in ("chosen_score", "rejected_score", "weight", *FACTS)  # None is NaN
    }
    keys = {f"{side}_key": common.columns[f"{side}_key"] for side in Facts.sides}
    own = {
        **numbers,
        **{f"{side}_norm": _keys([key(text) for text in common.normals[side]]) for side in Facts.sides},
        **_votes(records, keys["chosen_key"] > keys["rejected_key"], common.names["annotator_names"]),
        "features": common.features["chosen"] - common.features["rejected"],
    }
    stated = [record.dropped.preference for record in records if record.dropped]
    num_tied = sum(one.chosen_score is not None and one.chosen_score == one.rejected_score for one in stated)
    return common.whole(Facts, own, num_tied_dropped=num_tied)


def thumb_facts_of(records: Sequence[Record]) -> ThumbFacts:
    """Return the facts of the completions on their own of one block of records, as `facts_of` does those of pairs."""
    thumbs = [thumb for record in records for thumb in record.unpaired]
    common = _Common.of(records, thumbs, ThumbFacts)
    own = {
        "weight": [thumb.weight for thumb in thumbs],
        "liked": [thumb.liked for thumb in thumbs],
        "features": common.features["completion"],
    }
    return common.whole(ThumbFacts, own)


@dataclass(frozen=True)
class _Common:
    """What is taken of every judgement alike, and what the rest is made of."""

    columns: Mapping[str, Any]
    names: Mapping[str, Names]
    normals: Mapping[str, Sequence[bytes]]
    """Texts without case, spacing and punctuation, by side."""
    features: Mapping[str, NDArray[np.float32]]
    """By side."""
    numbers: Mapping[str, Any]

    @classmethod
    def of(cls, records: Sequence[Record], judged: Sequence[Judgement], kind: type[Rows]) -> _Common:
        sources = [one.source or record.source for record in records for one in record.judged]
        marks, flags = _marks(judged, sources)
        names = {name: Names() for name in kind.CODED.values()}
        said = [tuple(one.verdicts.values()) for one in judged]
        texts = {"prompt": [_prompt_text(one) for one in judged]}
        texts |= {side: [_message_text(one[place]) for one in said] for place, side in enumerate(kind.sides)}
        normals = {side: [normalised(text) for text in side_texts] for side, side_texts in texts.items()}
        found = {side: words(side_normals) for side, side_normals in normals.items()}
        asked = [one.prompt[-1].content for one in judged]
        columns = {
            **{f"{side}_words": found[side].counts for side in texts},
            **{f"{side}_characters": [len(text) for text in texts[side]] for side in texts},
            **_keys_of(judged, flags & _HIDDEN != 0, kind.sides),
            **_stated_columns(judged, sources, names),
            "signatures": np.concatenate([near.signatures_of(found[side]) for side in texts], axis=1),
            "flags": flags,
        }
        dropped = [record.dropped for record in records if record.dropped]
        numbers = {
            "num_records_by_file": dict(Counter(record.source.file for record in records)),
            "num_ties": sum(record.num_ties for record in records),
            "num_dropped": dict(Counter(item.reason for item in dropped)),
            "dropped": tuple(room(dropped, {}, lambda item: item.reason)),
            "num_marks": dict(Counter((mark.code, mark.kind) for mark in marks)),
            "marks": tuple(room(marks, {}, lambda mark: mark[:2])),
        }
        features = {side: features_of(asked, texts[side], found[side]) for side in kind.sides}
        return cls(columns, names, normals, features, numbers)

    def whole(self, kind: type[R], own: Mapping[str, Any], **numbers: Any) -> R:
        """Return the facts with the columns that only this kind has."""
        columns = {**self.columns, **own}
        arrays: dict[str, Any] = {name: np.asarray(columns[name], dtype) for name, (dtype, _) in kind.COLUMNS.items()}
        tables: dict[str, Any] = {name: found.known for name, found in self.names.items()}
        return kind(**arrays, **tables, **self.numbers, **numbers)


def _message_text(message: Message) -> str:
    """Return what a message says: its reasoning, its content, and its tool calls as JSON."""
    if not (message.tool_calls or message.reasoning):
        return message.content
    calls = json.dumps(list(message.tool_calls), sort_keys=True, ensure_ascii=False) if message.tool_calls else ""
    return "\n".join(text for text in (message.reasoning, message.content, calls) if text)


def _prompt_text(judged: Judgement) -> str:
    """Return what the messages of a prompt say, one after the other."""
    return "\n".join([_message_text(message) for message in judged.prompt])


def _keys_of(judged: Sequence[Judgement], hides: NDArray[np.bool_], sides: Sequence[str]) -> dict[str, Any]:
    """Return what tells whether two prompts or two completions are the same.

    What differs in hidden characters, in blanks around a message or in its Unicode form alone is the same: no reader
    sees it, many chat templates trim it. But not the two sides of a pair, which would be no pair then.
    """
    clear: list[Judgement] = []
    for one, hidden in zip(judged, hides, strict=True):
        shown = _trimmed(visible(one) if hidden else one)
        alike = len({_message_text(message) for message in shown.verdicts.values()}) < len(sides)
        clear.append(shown.saying(shown.prompt, *one.verdicts.values()) if alike else shown)
    texts = [[_message_text(message) for message in one.verdicts.values()] for one in clear]
    return {"prompt_key": _keys([int(one.prompt_id[:16], 16) for one in clear])} | {
        f"{side}_key": _keys([_key(one[place]) for one in texts]) for place, side in enumerate(sides)
    }


def _trimmed(judged: Judgement) -> Judgement:
    """Return the judgement in NFC without blanks around its messages; itself, with the ids it knows, if it has none."""
    messages = (*judged.prompt, *judged.verdicts.values())
    texts = [text for message in messages for text in (message.content, message.reasoning)]
    clear = [normalize("NFC", text.strip()) for text in texts]
    if clear == texts:
        return judged
    told = [
        replace(message, content=content, reasoning=reasoning)
        for message, content, reasoning in zip(messages, clear[::2], clear[1::2], strict=True)
    ]
    num = len(judged.prompt)
    return judged.saying(tuple(told[:num]), *told[num:])


def _key(text: str) -> int:
    return key(text.encode("utf-8", "surrogatepass"))


def _keys(values: Sequence[int]) -> Keys:
    return np.array(values, np.uint64)


def _stated_columns(
    judged: Sequence[Judgement], sources: Sequence[Source], names: Mapping[str, Names]
) -> dict[str, Any]:
    origins = [one.origin for one in judged]
    return {
        "file": names["file_names"].codes(source.file for source in sources),
        "line": [source.line for source in sources],
        "group": [-1 if origin.group is None else _key(origin.group) >> 1 for origin in origins],
        "split": names["split_names"].codes(origin.split for origin in origins),
        "dataset": names["dataset_names"].codes(origin.dataset for origin in origins),
        "licence": names["licence_names"].codes(origin.licence for origin in origins),
        "split_position": [unit_interval(one.split_key) for one in judged],
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


def _marks(judged: Sequence[Judgement], sources: Sequence[Source]) -> tuple[list[Mark], NDArray[np.uint16]]:
    """Return what the rules on single texts found, and which of them did in which row."""
    found: list[Mark] = []
    flags = np.zeros(len(judged), np.uint16)
    for row, (one, source) in enumerate(zip(judged, sources, strict=True)):
        prompt = _prompt_text(one)
        texts: list[tuple[str, str, str | None]] = [("prompt", prompt, None)]
        texts += [(name, _message_text(said), prompt) for name, said in one.verdicts.items()]
        for name, text, asked in texts:
            for code, kind, _, shown in flaws(text, prompt=asked, asked=one.prompt[-1].content):
                found.append(Mark(code, kind, row, source, name, shown))
                flags[row] |= np.uint16(1 << TEXT_RULES.index(code))
    return found, flags
