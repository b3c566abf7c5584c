"""Exports of Label Studio: tasks with annotations (JSON), one annotation a row (JSON-MIN), pairwise or ranked.

Owns these shapes. Cancelled annotations say nothing; several annotators of a task are several votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from tiebreak.data.formats.annotations import number
from tiebreak.data.formats.candidates import (
    PROMPTS,
    completion,
    completions_of,
    has_text,
    is_paired,
    names_of_sides,
    prompt_in,
    sides_of,
    two_sides,
)
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.doubts import refuse_unmapped
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.tallies import name_of, refuse_worse
from tiebreak.data.formats.verdicts import says_side
from tiebreak.data.formats.votes import ballot, side_in
from tiebreak.records import Message

TEMPLATE_PROMPTS = (*PROMPTS, "input", "context")
TEMPLATE_SIDES = (("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"), ("left", "right"))
LISTS = ("items", "answers", "responses", "completions", "candidates", "outputs", "generations")
MIN_NAMES = ("comparison", "pairwise", "pw", "preference", "selected")


def _is_labelstudio(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list) and not is_paired(row)


@dataclass(frozen=True)
class _Answer:
    """What one annotator said with one control of the labelling page."""

    control: str
    told: Any
    annotator: str
    is_choice: bool = False
    """Whether a verdict is only what it may be: the same control asks how hard or how sure, too."""
    is_ranking: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    """The task's own names of its two completions."""

    @property
    def says_side(self) -> bool:
        """Whether it says which of two completions is better, or that none is."""
        return says_side(self.told, self.words)


def _answers(row: Row) -> Iterator[_Answer]:
    """Yield the answers that are verdicts, or that may be: selections, rankings, and single choices."""
    words = _words(row["data"])
    for annotation in row["annotations"]:
        counts = isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
        results = annotation.get("result") if counts else None
        for result in results if isinstance(results, list) else ():
            value = result.get("value") if isinstance(result, Mapping) else None
            if not isinstance(value, Mapping):
                continue
            control, annotator = str(result.get("from_name", ""))[:100], name_of(annotation.get("completed_by"))
            choices = value.get("choices")
            if "ranker" in value:
                yield _Answer(control, value["ranker"], annotator, is_ranking=True)
            elif "selected" in value:
                yield _Answer(control, value["selected"], annotator, words=words)
            elif isinstance(choices, list) and len(choices) == 1:
                yield _Answer(control, choices[0], annotator, is_choice=True, words=words)


def _judging(answers: Sequence[_Answer]) -> tuple[str, ...]:
    """Return the controls that say who won: those of selections and rankings, else those of choices alone.

    Of choices, it is those with words for a verdict; one with other numbers than 0, 1 and 2 is a scale.
    """
    sure = tuple(dict.fromkeys(answer.control for answer in answers if not answer.is_choice))
    others = [answer.control for answer in answers if not answer.says_side and number(answer.told) is not None]
    may_be = (answer.control for answer in answers if answer.says_side and answer.control not in others)
    return sure or tuple(dict.fromkeys(may_be))


def _settled(form: Format, rows: Sequence[Row]) -> Format:
    """Ask all rows which control says who won: a row in which it was left out has no verdict."""
    tasks = [row for row in rows if _is_labelstudio(row)]
    answers = [answer for row in tasks for answer in _answers(row)]
    controls = _judging(answers)
    if len(controls) == 1:
        refuse_worse(controls[0])
        told = [(one.told, one.words) for one in answers if one.control in controls and not one.is_ranking]
        _refuse_numbers(controls[0], told, [row["data"] for row in tasks])
    read, why = partial(_read_labelstudio, controls=controls), partial(_why_labelstudio, controls=controls)
    return replace(form, read=read, why=why)


def _refuse_numbers(name: str, told: Sequence[tuple[Any, Mapping[str, str]]], tasks: Sequence[Row]) -> None:
    """Ask where verdicts on two completions may mean either; of more than two each task is refused for itself."""
    sides = next((both for data in tasks if len(completions_of(data)) < 3 and (both := _sides(data))), None)
    if sides is not None:
        refuse_unmapped(name, told, sides)


def _why_labelstudio(row: Row, controls: Sequence[str] = ()) -> str:
    told = [answer for answer in _answers(row) if answer.control in controls or not controls][:5]
    return ", ".join(f"{answer.control or 'selected'} {shown(answer.told)}" for answer in told)


def _read_labelstudio(row: Row, pairing: Pairing, controls: tuple[str, ...] | None = None) -> Reading:
    """Tasks as Label Studio exports them; the templates for pairwise comparison, choices and rankings."""
    answers = list(_answers(row))
    judging = _judging(answers) if controls is None else controls
    if len(judging) > 1:
        raise RowError(
            "wrong_type",
            f"several controls may say which completion is better: {', '.join(map(repr, judging))[:200]}; leave only "
            "the results of one of them in the export",
        )
    told = [answer for answer in answers if answer.control in judging]
    if any(answer.is_ranking for answer in told):
        return _ranked(row["data"], [(answer.told, answer.annotator) for answer in told if answer.is_ranking], pairing)
    cast = [(side_in(one.told, one.control, one.words), one.annotator) for one in told if one.says_side]
    return _compared(row["data"], [ballot(side, annotator) for side, annotator in cast], pairing)


def _compared(data: Row, ballots: list[Ballot], pairing: Pairing) -> Reading:
    names = two_sides(data) or _sides(data)
    if names is None:
        raise RowError("no_completion", "no two columns such as 'answer1' and 'answer2' hold completions")
    if not ballots:
        raise RowError("no_completion", "no annotation that counts says which completion is better")
    completions = completion(data[names[0]], names[0]), completion(data[names[1]], names[1])
    return pairs_of(Judged(_prompt(data), completions, tuple(ballots), is_voted=True), pairing)


def _sides(data: Row) -> tuple[str, str] | None:
    found = sides_of(data)
    return found or next((names for names in TEMPLATE_SIDES if names[0] in data and names[1] in data), None)


def _words(data: Row) -> dict[str, str]:
    return names_of_sides(data, sides) if (sides := _sides(data)) else {}


def _prompt(data: Row) -> tuple[Message, ...]:
    return prompt_in(data, TEMPLATE_PROMPTS)


def _ranked(data: Row, rankings: list[tuple[Any, str]], pairing: Pairing) -> Reading:
    """Each annotator's order of the items, the best first; items that were left out are not compared."""
    name = next((name for name in LISTS if isinstance(data.get(name), list)), None)
    if name is None:
        raise RowError("no_completion", f"a ranking needs a list of completions: one of {', '.join(LISTS)}")
    items: dict[str, Message] = {}
    for index, item in enumerate(data[name]):
        key, told = str(index), item
        if isinstance(item, Mapping):  # an item of Label Studio's `List` has its text in `body`, or `html`
            key = str(item.get("id", index))
            told = next((item[part] for part in ("body", "html") if item.get(part)), item)
        items[key] = completion(told, f"{name}[{index}]")
    items = {key: message for key, message in items.items() if has_text(message)}
    ballots = []
    for ranker, annotator in rankings:
        lists = list(ranker.values()) if isinstance(ranker, Mapping) else []
        if len(lists) != 1 or not isinstance(lists[0], list):
            raise RowError("wrong_type", "'ranker' is an object with one ordered list of ids; buckets have no order")
        places = {str(item): float(-place) for place, item in enumerate(lists[0])}
        ballots.append(Ballot(tuple(places.get(key) for key in items), annotator))
    return pairs_of(Judged(_prompt(data), tuple(items.values()), tuple(ballots), is_voted=True), pairing)


def _is_labelstudio_min(row: Row) -> bool:
    return _sides(row) is not None and bool(_min_columns(row)) and not is_paired(row)


def _min_columns(row: Row) -> list[str]:
    """Return the columns of what was selected: an object, alone or in a list; or a word beside an annotation's id."""
    selected = [name for name, value in row.items() if not isinstance(value, str) and _selected(value) is not None]
    words = [name for name in MIN_NAMES if isinstance(row.get(name), str)] if "annotation_id" in row else []
    return selected or words


def _selected(value: Any) -> str | None:
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    told = inner.get("selected") if isinstance(inner, Mapping) else value
    return told if isinstance(told, str) else None


def _read_labelstudio_min(row: Row, pairing: Pairing) -> Reading:
    """JSON-MIN: the columns of the task and one annotation of it, so that each row has one vote."""
    names = _min_columns(dict(row))  # of a copy: a column that is only looked at is not read
    if len(names) > 1:
        told = ", ".join(map(repr, names))[:200]
        raise RowError("wrong_type", f"several columns say which completion is better: {told}; leave one of them")
    said, words = _selected(row[names[0]]) if names else None, _words(dict(row))
    if not says_side(said, words):
        found = shown(said) if names else "nothing"
        raise RowError("wrong_type", f"a pairwise selection is left or right, found {found}")
    side = side_in(said, names[0], words)
    return _compared(row, [ballot(side, name_of(row.get("annotator")))], pairing)


def _settled_min(form: Format, rows: Sequence[Row]) -> Format:
    tasks = [row for row in rows if _is_labelstudio_min(row)]
    for name in dict.fromkeys(name for row in tasks for name in _min_columns(row)):
        refuse_worse(name)
        told = [(_selected(row[name]), _words(row)) for row in tasks if name in _min_columns(row)]
        _refuse_numbers(name, told, tasks)
    return form


def _why_min(row: Row) -> str:
    return ", ".join(f"{name} {shown(_selected(row[name]))}" for name in _min_columns(row))


LABELSTUDIO = Format(
    "labelstudio",
    "Label Studio, JSON export",
    '{"data": {"prompt": …, "answer1": …, "answer2": …}, "annotations": [{"result": [{"value": …}]}]}',
    _is_labelstudio,
    _read_labelstudio,
    _settled,
    _why_labelstudio,
)
LABELSTUDIO_MIN = Format(
    "labelstudio_min",
    "Label Studio, JSON-MIN export",
    '{"prompt": …, "answer1": …, "answer2": …, "comparison": [{"selected": "left"}]}',
    _is_labelstudio_min,
    _read_labelstudio_min,
    _settled_min,
    _why_min,
)
