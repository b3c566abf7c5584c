"""Completions judged one at a time, liked or not, and how those of one prompt become pairs across records.

Owns the shapes of such rows (TRL's KTO form, LLaMA-Factory's) and which thumb finds which partner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

from tiebreak.data.formats.annotations import origin_of
from tiebreak.data.formats.candidates import completion, has_prompt, is_paired, prompt_in, sides_of, system_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import weighed
from tiebreak.data.formats.pieces import kind_of, messages_of, prompt_of, tools_of, with_system
from tiebreak.data.formats.verdicts import liked
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Dropped, Message, Pair, Preference, Source, Thumb

LABELS = ("label", "kto_tag", "liked", "thumb", "thumbs", "feedback", "desirable")
COMPLETION = ("completion", "response", "output", "answer", "generation")
DIALOGUE = ("messages", "conversations", "conversation")


def _is_labelled(row: Row) -> bool:
    return any(row.get(name) is not None for name in LABELS) and not is_paired(row) and sides_of(row) is None


def _is_thumbs(row: Row) -> bool:
    return _is_labelled(row) and has_prompt(row) and any(row.get(name) is not None for name in COMPLETION)


def _read_thumbs(row: Row, _: Pairing) -> Reading:
    """TRL's unpaired form (KTO, Ethayarajh et al. 2024): a prompt, a completion and a label."""
    name = next(name for name in COMPLETION if row.get(name) is not None)
    return _thumb(row, prompt_in(row), completion(row[name], name))


def _is_labelled_dialogue(row: Row) -> bool:
    return _is_labelled(row) and any(isinstance(row.get(name), list) for name in DIALOGUE)


def _read_labelled_dialogue(row: Row, _: Pairing) -> Reading:
    """LLaMA-Factory's KTO form: a dialogue whose last turn, the assistant's, is labelled."""
    name = next(name for name in DIALOGUE if isinstance(row.get(name), list))
    messages = with_system(system_in(row), messages_of(row[name], name))
    if not messages or messages[-1].role != "assistant":
        raise RowError("no_completion", f"'{name}' does not end with an assistant turn")
    return _thumb(row, prompt_of(messages[:-1]), messages[-1])


def _thumb(row: Row, prompt: tuple[Message, ...], judged: Message) -> Reading:
    return Reading(thumbs=(Thumb(prompt, judged, _verdict(row), tools_of(row.get("tools")), origin=origin_of(row)),))


def _verdict(row: Row) -> bool:
    name = next(name for name in LABELS if row.get(name) is not None)
    value = row[name]
    is_zero = value in (0, "0") and not isinstance(value, bool)  # a label that is 0 or 1 says no, or yes
    verdict = False if is_zero else liked(value)
    if verdict is None:
        found = repr(value)[:40] if isinstance(value, str | int | float) else kind_of(value)
        raise RowError("wrong_type", f"'{name}' is true or false, found {found}")
    return verdict


def paired_thumbs(thumbs: Sequence[Thumb], pairing: Pairing) -> tuple[list[Pair], list[Dropped], int]:
    """Pair the liked and the disliked completions of each prompt; return pairs, dropped records, and ties.

    `best_worst` and `best_random` pair one to one in the file's order, so that each completion is used at most once;
    `all` pairs every liked with every disliked one, and the pairs of a prompt weigh together as much as those one to
    one would. A completion that is both liked and disliked is a tie: it counts once in the ties, is paired with
    nothing, and its thumbs have the reason `contradictory_thumbs`. Thumbs without a partner have `unpaired`. A record
    is dropped where none of its thumbs is in a pair: every thumb's record is in a pair, or dropped, never both.
    """
    groups = _by_prompt(thumbs)
    contradicted = [same for group in groups for same in _contradicted(thumbs, group)]
    contradictory = {index for same in contradicted for index in same}
    matches = [
        _matches(thumbs, [index for index in group if index not in contradictory], pairing.choose == "all")
        for group in groups
    ]
    pairs = [pair for match in matches for pair in _pairs(thumbs, match)]
    used = {index for match in matches for couple in match for index in couple}
    return pairs, _dropped(thumbs, used, contradictory), len(contradicted)


def _by_prompt(thumbs: Sequence[Thumb]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, thumb in enumerate(thumbs):
        groups[thumb.prompt_id].append(index)
    return list(groups.values())


def _contradicted(thumbs: Sequence[Thumb], group: Sequence[int]) -> list[list[int]]:
    """Return, for each completion of a prompt that is both liked and disliked, its thumbs."""
    same: dict[str, list[int]] = defaultdict(list)
    for index in group:
        same[fingerprint(thumbs[index].completion.as_dict())].append(index)
    return [indices for indices in same.values() if len({thumbs[index].liked for index in indices}) > 1]


def _matches(thumbs: Sequence[Thumb], group: Sequence[int], takes_all: bool) -> list[tuple[int, int]]:
    liked_ones = [index for index in group if thumbs[index].liked]
    disliked_ones = [index for index in group if not thumbs[index].liked]
    return list(product(liked_ones, disliked_ones) if takes_all else zip(liked_ones, disliked_ones, strict=False))


def _pairs(thumbs: Sequence[Thumb], match: Sequence[tuple[int, int]]) -> list[Pair]:
    couples = [(thumbs[good], thumbs[bad]) for good, bad in match]
    pairs = [
        Pair(good.prompt, good.completion, bad.completion, good.tools, good.source, Preference(), good.origin)
        for good, bad in couples
    ]
    one_to_one = min(len({good for good, _ in match}), len({bad for _, bad in match}))
    return weighed(pairs, float(one_to_one))


def _dropped(thumbs: Sequence[Thumb], used: set[int], contradictory: set[int]) -> list[Dropped]:
    """Return the records of which no thumb is in a pair, each once, with the reason of its first thumb."""
    in_pairs = {thumbs[index].source or index for index in used}
    lost: dict[Source | int, Dropped] = {}
    for index, thumb in enumerate(thumbs):
        record = thumb.source or index
        if record not in in_pairs and record not in lost:
            lost[record] = Dropped(thumb.source or Source("", 0), *_reason(thumb, index in contradictory))
    return list(lost.values())


def _reason(thumb: Thumb, is_contradictory: bool) -> tuple[str, str]:
    if is_contradictory:
        return "contradictory_thumbs", "the same completion of this prompt is liked in one record, disliked in another"
    verdict, wanted = ("liked", "disliked") if thumb.liked else ("disliked", "liked")
    return "unpaired", f"{verdict}, and no {wanted} completion of its prompt is left to pair it with"


THUMBS = Format(
    "thumbs",
    "TRL's unpaired form (KTO)",
    '{"prompt": …, "completion": …, "label": true}',
    _is_thumbs,
    _read_thumbs,
)
DIALOGUE_THUMBS = Format(
    "labelled_dialogue",
    "LLaMA-Factory's KTO form",
    '{"messages": […], "label": true}',
    _is_labelled_dialogue,
    _read_labelled_dialogue,
)
