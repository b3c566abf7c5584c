"""Exports of Label Studio: tasks with annotations (JSON), one annotation a row (JSON-MIN), pairwise or ranked.

Owns these shapes. Cancelled annotations say nothing; several annotators of a task are several votes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiebreak.data.formats.candidates import PROMPTS, completion, has_text, is_paired, prompt_in, sides_of
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.verdicts import side_of
from tiebreak.data.formats.votes import ballot, name_of
from tiebreak.records import Message

TEMPLATE_PROMPTS = (*PROMPTS, "input", "context")
TEMPLATE_SIDES = (("text1", "text2"), ("text_1", "text_2"), ("text_a", "text_b"), ("left", "right"))
LISTS = ("items", "answers", "responses", "completions", "candidates", "outputs", "generations")
MIN_NAMES = ("comparison", "pairwise", "pw", "preference", "selected")


def _is_labelstudio(row: Row) -> bool:
    return isinstance(row.get("data"), Mapping) and isinstance(row.get("annotations"), list) and not is_paired(row)


def _read_labelstudio(row: Row, pairing: Pairing) -> Reading:
    """Tasks as Label Studio exports them; the templates for pairwise comparison, choices and rankings."""
    data = row["data"]
    rankings: list[tuple[Any, str]] = []
    ballots: list[Ballot] = []
    for annotation in row["annotations"]:
        counts = isinstance(annotation, Mapping) and not annotation.get("was_cancelled")
        results = annotation.get("result") if counts else None
        for result in results if isinstance(results, list) else ():
            value = result.get("value") if isinstance(result, Mapping) else None
            if not isinstance(value, Mapping):
                continue
            annotator, choices = name_of(annotation.get("completed_by")), value.get("choices")
            selected = choices[0] if isinstance(choices, list) and len(choices) == 1 else value.get("selected")
            if "ranker" in value:
                rankings.append((value["ranker"], annotator))
            elif side := side_of(selected):
                ballots.append(ballot(side, annotator))
    return _ranked(data, rankings, pairing) if rankings else _compared(data, ballots, pairing)


def _compared(data: Row, ballots: list[Ballot], pairing: Pairing) -> Reading:
    names = _sides(data)
    if names is None:
        raise RowError("no_completion", "no two columns such as 'answer1' and 'answer2' hold completions")
    if not ballots:
        raise RowError("no_completion", "no annotation that counts says which completion is better")
    completions = completion(data[names[0]], names[0]), completion(data[names[1]], names[1])
    return pairs_of(Judged(_prompt(data), completions, tuple(ballots), is_voted=True), pairing)


def _sides(data: Row) -> tuple[str, str] | None:
    found = sides_of(data)
    return found or next((names for names in TEMPLATE_SIDES if names[0] in data and names[1] in data), None)


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
    return _sides(row) is not None and _min_verdict(row) is not None and not is_paired(row)


def _min_verdict(row: Row) -> Any:
    """Return what was selected: an object, alone or in a list, in any column; or a word beside an annotation's id."""
    for value in row.values():
        inner = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(inner, Mapping) and isinstance(inner.get("selected"), str):
            return inner["selected"]
    words = [row[name] for name in MIN_NAMES if isinstance(row.get(name), str)]
    return words[0] if words and "annotation_id" in row else None


def _read_labelstudio_min(row: Row, pairing: Pairing) -> Reading:
    """JSON-MIN: the columns of the task and one annotation of it, so that each row has one vote."""
    side = side_of(_min_verdict(row))
    if side is None:
        raise RowError("wrong_type", f"a pairwise selection is left or right, found {_min_verdict(row)!r:.40}")
    return _compared(row, [ballot(side, name_of(row.get("annotator")))], pairing)


LABELSTUDIO = Format(
    "labelstudio",
    "Label Studio, JSON export",
    '{"data": {"prompt": …, "answer1": …, "answer2": …}, "annotations": [{"result": [{"value": …}]}]}',
    _is_labelstudio,
    _read_labelstudio,
)
LABELSTUDIO_MIN = Format(
    "labelstudio_min",
    "Label Studio, JSON-MIN export",
    '{"prompt": …, "answer1": …, "answer2": …, "comparison": [{"selected": "left"}]}',
    _is_labelstudio_min,
    _read_labelstudio_min,
)
