"""Exports of Argilla: records with fields and the answers of annotators to questions about them.

Owns these shapes, of version 1 (`FeedbackDataset`) and of version 2, nested and flat. Only submitted answers count;
suggestions are a model's and do not. Several annotators are several votes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.data.formats.candidates import PROMPTS, completion, has_text, is_paired, prompt_in
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.verdicts import side_of
from tiebreak.data.formats.votes import name_of

FIELD_PROMPTS = (*PROMPTS, "input", "context", "user-message", "chat", "conversation")
_NUMBERED = re.compile(
    r"(?:completion|response|reply|answer|generation|output|text|option)[-_ ]?(?:\d{1,3}|[a-z])", re.I
)
_ENDING = re.compile(r"(\d{1,3}|[-_ ][a-z])$", re.I)
_RATING = re.compile(r"rating|score|quality|grade|stars")
_FLAT = ".responses"


@dataclass(frozen=True)
class _Answer:
    """What one annotator said to one question."""

    question: str
    value: Any
    annotator: str
    place: int
    """Its place among the answers to this question: tells annotators apart who have no name."""


def _is_argilla(row: Row) -> bool:
    if is_paired(row):
        return False
    is_nested = isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), list | Mapping)
    return is_nested or (len(_completion_names(row)) > 1 and any(map(_is_question, row.items())))


def _is_question(item: tuple[str, Any]) -> bool:
    name, value = item
    is_flat = name.endswith(_FLAT) and isinstance(value, list)
    first = value[0] if isinstance(value, list) and value else value
    return is_flat or (isinstance(first, Mapping) and {"value", "status"} <= first.keys())


def _read_argilla(row: Row, pairing: Pairing) -> Reading:
    """Rankings, ratings of single completions, and labels that name the better one, whichever the record has."""
    fields = row["fields"] if isinstance(row.get("fields"), Mapping) else row
    names = [name for name in _completion_names(fields) if _has_text(fields[name], name)]
    answers = list(_answers(row))
    ranked = [ballot for answer in answers for ballot in _ranked(answer, names)]
    ballots = ranked or _rated(answers, names)
    if not ballots:
        raise RowError("no_completion", "no submitted response compares two completions")
    completions = tuple(completion(fields[name], name) for name in names)
    judged = Judged(_prompt(fields), completions, tuple(ballots), is_scored=not ranked, is_voted=True)
    return pairs_of(judged, pairing)


def _completion_names(fields: Row) -> list[str]:
    return [name for name in fields if _NUMBERED.fullmatch(name)]


def _has_text(value: Any, name: str) -> bool:
    return value is not None and has_text(completion(value, name))


def _prompt(fields: Row) -> Any:
    return prompt_in(fields, FIELD_PROMPTS)


def _answers(row: Row) -> Iterator[_Answer]:
    responses = row.get("responses")
    if isinstance(responses, list):
        yield from _whole_responses(responses)
        return
    questions = responses if isinstance(responses, Mapping) else row
    for name, value in questions.items():
        if name.endswith(_FLAT) and isinstance(value, list):
            yield from _flat_answers(row, name, value)
        elif isinstance(responses, Mapping) or _is_question((name, value)):
            yield from _listed_answers(name, value)


def _whole_responses(responses: Sequence[Any]) -> Iterator[_Answer]:
    """Version 1: each response is one annotator's answers to all the questions."""
    for place, response in enumerate(responses):
        values = response.get("values") if isinstance(response, Mapping) and _is_submitted(response) else None
        for question, answer in values.items() if isinstance(values, Mapping) else ():
            value = answer.get("value") if isinstance(answer, Mapping) else answer
            yield _Answer(question, value, name_of(response.get("user_id")), place)


def _listed_answers(question: str, value: Any) -> Iterator[_Answer]:
    """Version 2, and version 1 on the Hub: a list of answers for each question, or the same as columns."""
    if isinstance(value, Mapping):
        columns = [items for items in value.values() if isinstance(items, list)]
        value = [{name: items[place] for name, items in value.items() if isinstance(items, list) and place < len(items)}
                 for place in range(max(map(len, columns), default=0))]  # fmt: skip
    for place, answer in enumerate(value if isinstance(value, list) else ()):
        if isinstance(answer, Mapping) and _is_submitted(answer):
            yield _Answer(question, answer.get("value"), name_of(answer.get("user_id")), place)


def _flat_answers(row: Row, name: str, values: Sequence[Any]) -> Iterator[_Answer]:
    """Version 2, flat: values, annotators and states in three columns."""
    users, states = row.get(f"{name}.users"), row.get(f"{name}.status")
    for place, value in enumerate(values):
        answer = {"user_id": _at(users, place), "status": _at(states, place)}
        if _is_submitted(answer):
            yield _Answer(name.removesuffix(_FLAT), value, name_of(answer["user_id"]), place)


def _at(items: Any, place: int) -> Any:
    return items[place] if isinstance(items, list) and place < len(items) else None


def _is_submitted(answer: Row) -> bool:
    status = answer.get("status")
    return status is None or str(status).rpartition(".")[2].casefold() == "submitted"


def _ranked(answer: _Answer, names: Sequence[str]) -> list[Ballot]:
    """Return the ballots of an answer that ranks completions or names the better one; none where it does neither."""
    value = answer.value
    if isinstance(value, str):
        return _named(answer, names)
    if isinstance(value, Mapping) and isinstance(value.get("value"), list) and isinstance(value.get("rank"), list):
        places = dict(zip(map(_plain, value["value"]), value["rank"], strict=False))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) and "rank" in item for item in value):
        places = {_plain(item.get("value")): item["rank"] for item in value}
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        places = {_plain(item): place for place, item in enumerate(value)}
    else:
        return []
    ranks = [places.get(_plain(name)) for name in names]
    scores = tuple(-float(rank) if isinstance(rank, int | float) and abs(rank) < 1000 else None for rank in ranks)
    return [Ballot(scores, answer.annotator)] if sum(score is not None for score in scores) > 1 else []


def _named(answer: _Answer, names: Sequence[str]) -> list[Ballot]:
    """Return the ballots of a label that names the best completion: better than each of the others, which are equal."""
    same = [place for place, name in enumerate(names) if _plain(name) == _plain(answer.value)]
    side = side_of(answer.value) if len(names) == 2 else None
    best = same[0] if same else {"first": 0, "second": 1}.get(side or "")
    if best is None:
        return [Ballot(tuple(0.0 for _ in names), answer.annotator)] if side == "tie" else []
    others = [place for place in range(len(names)) if place != best]
    return [Ballot(_against(len(names), best, other), answer.annotator) for other in others]


def _against(count: int, best: int, other: int) -> tuple[float | None, ...]:
    return tuple({best: 1.0, other: 0.0}.get(place) for place in range(count))


def _plain(name: Any) -> str:
    return re.sub(r"[-_ ]", "", str(name)[:100].casefold())


def _rated(answers: Sequence[_Answer], names: Sequence[str]) -> list[Ballot]:
    """Return a ballot for each annotator, of the ratings whose questions are of one completion."""
    ballots: dict[str | int, list[float | None]] = {}
    for answer in answers:
        place = next((place for place, name in enumerate(names) if _is_about(answer.question, name)), None)
        if place is not None and isinstance(answer.value, int | float) and abs(answer.value) < 1e9:
            scores = ballots.setdefault(answer.annotator or answer.place, [None] * len(names))
            scores[place] = float(answer.value)
    return [Ballot(tuple(scores), key if isinstance(key, str) else "") for key, scores in ballots.items()]


def _is_about(question: str, name: str) -> bool:
    """Whether a question is of one completion: `response-1`, `response-1-rating`, `rating_1`."""
    about = _RATING.sub("", _plain(question))
    return about == _plain(name) or (about != _plain(question) and about == _ending(name) != "")


def _ending(name: str) -> str:
    found = _ENDING.search(name[:100])
    return _plain(found.group()) if found else ""


ARGILLA = Format(
    "argilla",
    "Argilla",
    '{"fields": {"prompt": …, "response-1": …, "response-2": …}, "responses": {"ranking": [{"value": […]}]}}',
    _is_argilla,
    _read_argilla,
)
