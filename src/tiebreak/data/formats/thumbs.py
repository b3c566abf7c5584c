"""Completions judged one at a time, liked or not, and how those of one prompt become pairs across records.

Owns the shapes of such rows (TRL's KTO form, LLaMA-Factory's) and which thumb finds which partner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product
from typing import Any

from tiebreak.data.formats.annotations import number, origin_of, weight_of
from tiebreak.data.formats.candidates import (
    are_several,
    completion,
    has_prompt,
    is_paired,
    prompt_in,
    score_of,
    sides_of,
    system_in,
)
from tiebreak.data.formats.cells import column_in, shown, value_in
from tiebreak.data.formats.form import Ambiguous, Format, Pairing, Reading, Row, RowError, as_options
from tiebreak.data.formats.messages import messages_of, tools_of
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.pairing import weighed
from tiebreak.data.formats.pieces import prompt_of, with_system
from tiebreak.data.formats.verdicts import liked, word_of
from tiebreak.fingerprint import fingerprint
from tiebreak.records import Dropped, Message, Pair, Source, Thumb

LABELS = ("label", "kto_tag", "liked", "thumb", "thumbs", "feedback", "desirable")
COMPLETION = ("completion", "response", "output", "answer", "generation")
RATED_SCORE = ("score", "reward", "rating", "helpfulness", "overall_score", "quality")
DIALOGUE = ("messages", "conversations", "conversation")


def _is_labelled(row: Row) -> bool:
    """Whether a column says yes or no; beside a score, what says neither is a comment."""
    _, label = _label_in(row)
    is_told = label is not None and (verdict_of(label) is not None or score_of(value_in(row, RATED_SCORE)) is None)
    return is_told and not is_paired(row) and sides_of(row) is None


def _label_in(row: Row) -> tuple[str, Any]:
    """Return the first of the columns for labels that holds a verdict, else the first that holds something."""
    told = [(name, row[name]) for name in LABELS if row.get(name) is not None]
    return next((item for item in told if verdict_of(item[1]) is not None), told[0] if told else (LABELS[0], None))


def verdict_of(label: Any) -> bool | None:
    """Return whether a label says yes; zero says no here, as in a column of 0 and 1."""
    return False if word_of(label) == "0" else liked(label)


def answer_in(row: Row) -> Any:
    """Return what is said in answer to a prompt; None where nothing is, or several completions are."""
    said = value_in(row, COMPLETION)
    return None if are_several(said) else said


def _is_thumbs(row: Row) -> bool:
    return _is_labelled(row) and has_prompt(row) and answer_in(row) is not None


def _read_thumbs(row: Row, _: Pairing, is_signed: bool = False) -> Reading:
    """TRL's unpaired form (KTO, Ethayarajh et al. 2024): a prompt, a completion and a label."""
    _refuse_zero(row, is_signed)
    name, value = column_in(row, COMPLETION)
    return _thumb(row, prompt_in(row), completion(value, name))


def _is_labelled_dialogue(row: Row) -> bool:
    return _is_labelled(row) and any(isinstance(row.get(name), list) for name in DIALOGUE)


def _read_labelled_dialogue(row: Row, _: Pairing, is_signed: bool = False) -> Reading:
    """LLaMA-Factory's KTO form: a dialogue whose last turn, the assistant's, is labelled."""
    _refuse_zero(row, is_signed)
    name = next(name for name in DIALOGUE if isinstance(row.get(name), list))
    messages = with_system(system_in(row), messages_of(row[name], name))
    if not messages or messages[-1].role != "assistant":
        raise RowError("no_completion", f"'{name}' does not end with an assistant turn")
    return _thumb(row, prompt_of(messages[:-1]), messages[-1])


def _thumb(row: Row, prompt: tuple[Message, ...], judged: Message) -> Reading:
    name, label = _label_in(row)
    verdict = verdict_of(label)
    if verdict is None:
        own = "for other words map the column: label.yes=WORD label.no=WORD"
        raise RowError("wrong_type", f"'{name}' is true or false, found {shown(label)} ({own})")
    tools, origin, weight = tools_of(row.get("tools")), origin_of(row), weight_of(row)
    return Reading(thumbs=(Thumb(prompt, judged, verdict, tools, origin=origin, weight=weight),))


def _refuse_zero(row: Row, is_signed: bool) -> None:
    """Refuse a label of zero where other rows say 1 and -1; beside 1 alone it says no."""
    name, label = _label_in(row)
    if is_signed and word_of(label) == "0":
        raise RowError("tie", f"'{name}' is 0, neither 1 nor -1")


def _settled_thumbs(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse a scale, of which 1 is no yes, and take zero for nothing where labels have a sign."""
    labels = [(*_label_in(row), row) for row in rows if form.matches(row)]
    if not labels:
        return form
    name, _, row = labels[0]
    mapping = {"completion": column_in(row, COMPLETION)[0]} if form is THUMBS else None
    stated = mapping and mapping_of_prompt([row for *_, row in labels]) | mapping
    numbers = refuse_scale(name, [label for _, label, _ in labels], stated)
    signed = partial(_read_thumbs if form is THUMBS else _read_labelled_dialogue, is_signed=True)
    return replace(form, read=signed) if min(numbers, default=0) < 0 else form


def refuse_scale(column: str, labels: Sequence[Any], mapping: Mapping[str, str] | None) -> list[float]:
    """Return the numbers among what was said of completions (true and false are none).

    Raises Ambiguous where they are those of a scale; `mapping` names prompt and completion, where a mapping can.
    """
    numbers = [found for label in labels if (found := number(label)) is not None]
    if sum(abs(found) > 1 for found in numbers) <= _STRAY * len(labels):
        return numbers
    low, high = min(numbers), max(numbers)
    said = f"'{column}' holds numbers from {word_of(low)} to {word_of(high)}: a scale, of which 1 may be the worst"
    if mapping is None:
        raise Ambiguous(f"{said}; write true or false (up or down, 1 or -1) in their place")
    told = f"{said}. Where higher is better: {as_options({**mapping, 'score': column})}"
    if low == high:
        raise Ambiguous(told)
    words = {word_of(found): found - (low + high) / 2 for found in sorted(numbers)}
    yes, no = ("|".join(word for word, above in words.items() if sign * above > 0) for sign in (1, -1))
    as_label = as_options({**mapping, "label": column, "label.yes": yes, "label.no": no})
    raise Ambiguous(f"{told}; where they are words for yes and no: {as_label}, or with yes and no turned round")


_STRAY = 0.01
"""Of the cells of a column, as many may lie beyond 1 and be slips, each of which is refused on its own."""


def paired_thumbs(thumbs: Sequence[Thumb], pairing: Pairing) -> tuple[list[Pair], list[Dropped], int]:
    """Pair the liked and the disliked completions of each prompt; return pairs, dropped records, and ties.

    The rules with a best one pair one to one in the file's order, so that each completion is used at most once;
    `all` pairs every liked with every disliked one, and the pairs of a prompt weigh together as much as those one to
    one would. A completion that is both liked and disliked is a tie: it counts once in the ties, is paired with
    nothing, and its thumbs have the reason `contradictory_thumbs`. Thumbs without a partner have `unpaired`. A record
    is dropped where none of its thumbs is in a pair: every thumb's record is in a pair, or dropped, never both.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, thumb in enumerate(thumbs):
        groups[thumb.prompt_id].append(index)
    pairs: list[Pair] = []
    used: set[int] = set()
    contradictory: set[int] = set()
    num_ties = 0
    for group in groups.values():
        same: dict[str, list[int]] = defaultdict(list)
        for index in group:
            same[fingerprint(thumbs[index].completion.as_dict())].append(index)
        both = [indices for indices in same.values() if len({thumbs[index].liked for index in indices}) > 1]
        num_ties += len(both)
        contradictory.update(chain.from_iterable(both))
        clear = [index for index in group if index not in contradictory]
        good, bad = ([index for index in clear if thumbs[index].liked is is_liked] for is_liked in (True, False))
        match = list(product(good, bad) if pairing.choose == "all" else zip(good, bad, strict=False))
        used.update(chain.from_iterable(match))
        couples = [(thumbs[one], thumbs[other]) for one, other in match]
        found = [
            Pair(one.prompt, one.completion, other.completion, one.tools, one.source, origin=one.origin)
            for one, other in couples
        ]
        pairs += weighed(found, float(min(len(good), len(bad))))
    return pairs, _dropped(thumbs, used, contradictory), num_ties


def _dropped(thumbs: Sequence[Thumb], used: set[int], contradictory: set[int]) -> list[Dropped]:
    """Return the records of which no thumb is in a pair, each once, with the reason of its first thumb."""
    in_pairs = {thumbs[index].source or index for index in used}
    lost: dict[Source | int, Dropped] = {}
    for index, thumb in enumerate(thumbs):
        record = thumb.source or index
        if record in in_pairs or record in lost:
            continue
        verdict, wanted = ("liked", "disliked") if thumb.liked else ("disliked", "liked")
        reason, detail = "unpaired", f"{verdict}, and no {wanted} completion of its prompt is left to pair it with"
        if index in contradictory:
            reason = "contradictory_thumbs"
            detail = "the same completion of this prompt is liked in one record, disliked in another"
        lost[record] = Dropped(thumb.source or Source("", 0), reason, detail)
    return list(lost.values())


def _why_thumb(row: Row) -> str:
    name, label = _label_in(row)
    return f"{name} {shown(label)}"


THUMBS = Format(
    "thumbs",
    "TRL's unpaired form (KTO)",
    '{"prompt": …, "completion": …, "label": true}',
    _is_thumbs,
    _read_thumbs,
    _settled_thumbs,
    _why_thumb,
)
DIALOGUE_THUMBS = Format(
    "labelled_dialogue",
    "LLaMA-Factory's KTO form",
    '{"messages": […], "label": true}',
    _is_labelled_dialogue,
    _read_labelled_dialogue,
    _settled_thumbs,
    _why_thumb,
)
