"""Logs of chats whose turns carry what users did: thumbs, regenerated completions, edits.

Owns these shapes. The kept completion is chosen over each that the user had regenerated, the edit over the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import origin_of
from tiebreak.data.formats.candidates import completion, has_text, is_paired, sides_of, system_in
from tiebreak.data.formats.cells import kind_of, value_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.messages import SYSTEM_ROLES, message_of, tools_of, turns
from tiebreak.data.formats.pairing import weighed
from tiebreak.data.formats.pieces import prompt_of, with_system
from tiebreak.data.formats.ratings import COMPLETIONS
from tiebreak.data.formats.thumbs import DIALOGUE, LABELS, refuse_scale
from tiebreak.data.formats.verdicts import liked, word_of
from tiebreak.records import Message, Pair, Thumb

DIALOGUES = (*DIALOGUE, "turns")
FEEDBACK = ("feedback", "rating", "thumb", "thumbs", "vote", "score", "annotation", "reaction")
_WITHIN = (*FEEDBACK, "value", "type")
ABANDONED = ("regenerations", "alternatives", "variants")
EDITS = ("edited", "edit", "edited_content")
ORIGINALS = ("original", "edited_from", "original_content")


def _is_chatlog(row: Row) -> bool:
    """Any list of turns, so that the rows of a log in which nobody judged anything are read as what they are."""
    name = _dialogue(row)
    others = (*LABELS, *COMPLETIONS, "data", "fields")
    if name is None or is_paired(row) or sides_of(row) or value_in(row, others) is not None:
        return False
    return any(isinstance(turn, Mapping) and {"role", "from"} & turn.keys() for turn in row[name])


def _dialogue(row: Row) -> str | None:
    return next((name for name in DIALOGUES if isinstance(row.get(name), list)), None)


@dataclass(frozen=True)
class _Turn:
    """One turn: what the conversation went on with; of the assistant's, what else was said and how it was judged."""

    kept: Message
    original: Message
    abandoned: tuple[Message, ...] = ()
    judged: tuple[tuple[Message, bool], ...] = ()

    @property
    def is_edited(self) -> bool:
        return self.original != self.kept and has_text(self.original)


def _read_chatlog(row: Row, pairing: Pairing, zero_says_no: bool = False) -> Reading:
    """Each turn of the assistant that users judged, after what was finally said before it.

    With `all` the kept completion is paired with every abandoned one, which weigh 1 together; else with the last of
    them, which the user saw right before. A thumb on an edited turn is on its original.
    """
    name = _dialogue(row) or DIALOGUES[0]
    tools, origin = tools_of(row.get("tools")), origin_of(row)
    before = with_system(system_in(row), [])
    pairs: list[Pair] = []
    thumbs: list[Thumb] = []
    for index, item in enumerate(row[name]):
        turn = _turn(item, f"{name}[{index}]", zero_says_no)
        if turn.judged or turn.abandoned or turn.is_edited:
            prompt = prompt_of(turns(before))
            thumbs += [Thumb(prompt, message, verdict, tools, None, origin) for message, verdict in turn.judged]
            if turn.is_edited:
                pairs.append(Pair(prompt, turn.kept, turn.original, tools))
            others = turn.abandoned if pairing.choose == "all" else turn.abandoned[-1:]
            pairs += weighed([Pair(prompt, turn.kept, other, tools) for other in others], 1.0)
        if turn.kept.role not in SYSTEM_ROLES or turn.kept.content.strip():
            before.append(turn.kept)
    if not pairs and not thumbs:
        raise RowError("no_completion", "no turn of the log has feedback, an alternative or an edit")
    return Reading(tuple(pairs), tuple(thumbs))


def _turn(item: Any, field: str, zero_says_no: bool) -> _Turn:
    if not isinstance(item, Mapping):
        raise RowError("wrong_type", f"'{field}' is a message, found {kind_of(item)}")
    message = message_of(item, field)
    if message.role != "assistant":
        return _Turn(message, message)
    kept, original = _edited(message, _text(item, EDITS)), _edited(message, _text(item, ORIGINALS))
    name = next((name for name in ABANDONED if item.get(name)), ABANDONED[0])
    others = item.get(name) or []
    if not isinstance(others, list):
        raise RowError("wrong_type", f"'{field}.{name}' is a list, found {kind_of(others)}")
    found = [(completion(other, f"{field}.{name}"), other) for other in others if other is not None]
    told = [(said, other) for said, other in found if has_text(said)]
    judged_ones = [(said, one) for said, one in ((original, item), *told) if isinstance(one, Mapping)]
    verdicts = [(said, _verdict(one, zero_says_no)) for said, one in judged_ones]
    judged = tuple((said, verdict) for said, verdict in verdicts if verdict is not None)
    return _Turn(kept, original, tuple(said for said, _ in told if said not in (kept, original)), judged)


def _edited(message: Message, text: str | None) -> Message:
    return message if text is None else replace(message, content=text)


def _text(item: Row, names: Sequence[str]) -> str | None:
    return next((item[name] for name in names if isinstance(item.get(name), str) and item[name].strip()), None)


def _feedback(item: Row) -> list[Any]:
    """Return what was said of a completion, told alone or in an object such as `{"rating": 1}`."""
    told = [item.get(name) for name in FEEDBACK]
    return [value_in(value, _WITHIN) if isinstance(value, Mapping) else value for value in told]


def _settled_chatlog(form: Format, rows: Sequence[Row]) -> Format:
    """Refuse a scale, of which 1 is no thumb; zero says no beside 1 alone, and nothing where there is -1 as well."""
    turns_told = [turn for row in rows if form.matches(row) for turn in row[_dialogue(row) or ""]]
    items = [item for turn in turns_told if isinstance(turn, Mapping) for item in (turn, *_others(turn))]
    told = [values for item in items if not any(map(_is_word, values := _feedback(item)))]
    numbers = refuse_scale(
        "feedback", [value for values in told for value in values if isinstance(value, int | float)], None
    )
    is_yes_or_no = {0.0, 1.0} == set(numbers)
    return replace(form, read=partial(_read_chatlog, zero_says_no=True)) if is_yes_or_no else form


def _others(turn: Row) -> list[Row]:
    return [item for name in ABANDONED for item in turn.get(name) or () if isinstance(item, Mapping)]


def _is_word(value: Any) -> bool:
    return isinstance(value, str | bool) and liked(value) is not None


def _verdict(item: Row, zero_says_no: bool) -> bool | None:
    """Return the thumb on a completion.

    Other words are comments; a number on another scale is refused.
    """
    values = _feedback(item)
    verdicts = [verdict for value in values if (verdict := liked(value)) is not None]
    if verdicts:
        return verdicts[0]
    numbers = [value for value in values if isinstance(value, int | float) and value != 0]
    if numbers:
        raise RowError("wrong_type", f"feedback on a turn is up or down, 1 or -1; found {numbers[0]!r:.40}")
    return False if zero_says_no and any(word_of(value) == "0" for value in values) else None


CHATLOG = Format(
    "chatlog",
    "logs of chats with feedback, regenerated turns or edits",
    '{"messages": [{"role": "user", …}, {"role": "assistant", "content": …, "feedback": "up"}]}',
    _is_chatlog,
    _read_chatlog,
    _settled_chatlog,
)
