"""Exports of Argilla: records with fields and the answers of annotators to questions about them.

Owns these shapes, of version 1 (`FeedbackDataset`) and of version 2, nested and flat. Only submitted answers count;
suggestions are a model's and do not. Several annotators are several votes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tiebreak.data.formats.candidates import (
    PROMPTS,
    SYSTEMS,
    completion,
    has_text,
    is_paired,
    names_of_sides,
    prompt_in,
)
from tiebreak.data.formats.cells import shown
from tiebreak.data.formats.doubts import refuse_unmapped
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.pairing import Ballot, Judged, pairs_of
from tiebreak.data.formats.pieces import with_system
from tiebreak.data.formats.tallies import name_of, refuse_worse
from tiebreak.data.formats.verdicts import says_side
from tiebreak.data.formats.votes import side_in

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


def _read_argilla(row: Row, pairing: Pairing, questions: Sequence[str] | None = None) -> Reading:
    """Rankings, else labels that name the better one, of one question; where there are none, ratings of single ones."""
    fields = _fields(row)
    stated = {name: completion(fields[name], name) for name in _completion_names(fields) if fields[name] is not None}
    completions = {name: message for name, message in stated.items() if has_text(message)}
    answers = list(_answers(row))
    judging = _judging([row]) if questions is None else questions
    if len(judging) > 1:
        raise RowError(
            "wrong_type",
            f"several questions may say which completion is better: {', '.join(map(repr, judging))[:200]}; leave only "
            "the answers to one of them in the export",
        )
    words, names = _words(fields), list(completions)
    ranked = [ballot for one in answers if one.question in judging for ballot in _ranked(one, names, words)]
    ballots = ranked or _rated(answers, names)
    if not ballots:
        raise RowError("no_completion", "no submitted response compares two completions")
    system = next((fields[name] for name in fields if _underscored(name) in SYSTEMS and fields[name]), None)
    prompt, messages = with_system(system, prompt_in(fields, FIELD_PROMPTS)), tuple(completions.values())
    return pairs_of(Judged(tuple(prompt), messages, tuple(ballots), is_scored=not ranked, is_voted=True), pairing)


def _fields(row: Row) -> Row:
    return row["fields"] if isinstance(row.get("fields"), Mapping) else row


def _judging(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the questions that say which completion is better: those of rankings, else those of labels."""
    found: dict[str, bool] = {}
    for row in rows:
        fields = _fields(row)
        names, words = _completion_names(fields), _words(fields)
        for answer in _answers(row):
            is_label = isinstance(answer.value, str)
            if _is_verdict(answer.value, names, words) if is_label else _ranked(answer, names, words):
                found[answer.question] = found.get(answer.question, False) or not isinstance(answer.value, str)
    return tuple(name for name, is_ranking in found.items() if is_ranking) or tuple(found)


def _settled(form: Format, rows: Sequence[Row]) -> Format:
    """Ask all rows which question says what is better; refuse one that asks for the worse one."""
    records = [row for row in rows if _is_argilla(row)]
    questions = _judging(records)
    if len(questions) == 1:
        refuse_worse(questions[0])
        _refuse_labels(questions[0], records)
    return replace(form, read=partial(_read_argilla, questions=questions), why=partial(_why, questions=questions))


def _refuse_labels(question: str, rows: Sequence[Row]) -> None:
    """Ask where labels of two completions, which are no names of theirs, may mean either."""
    told: list[tuple[Any, Mapping[str, str]]] = []
    known: list[tuple[str, str]] = []
    for row in rows:
        fields = _fields(row)
        names = _completion_names(fields)
        if (sides := _two(names)) is None:
            continue
        known, words = [*known, sides][:1], _words(fields)
        labels = [one.value for one in _answers(row) if one.question == question and isinstance(one.value, str)]
        told += [(label, words) for label in labels if not _places(label, names)]
    if told:
        refuse_unmapped(question, told, known[0])


def _why(row: Row, questions: Sequence[str] | None = None) -> str:
    told = [answer for answer in _answers(row) if not questions or answer.question in questions][:5]
    return ", ".join(f"{answer.question} {shown(answer.value)}" for answer in told)


def _underscored(name: str) -> str:
    return name.replace("-", "_").casefold()


def _completion_names(fields: Row) -> list[str]:
    """Return the fields of completions, as they count where they are called alike: labels mean them, not an order."""
    names = [name for name in fields if _NUMBERED.fullmatch(name)]
    are_alike = len({_underscored(_ENDING.sub("", name)) for name in names}) == 1
    return sorted(names, key=lambda name: (len(name), name)) if are_alike else names


def _two(names: Sequence[str]) -> tuple[str, str] | None:
    return (names[0], names[1]) if len(names) == 2 else None


def _words(fields: Row) -> dict[str, str]:
    """Return the record's own words for its two completions, {} where there are not two."""
    sides = _two(_completion_names(fields))
    return {} if sides is None else names_of_sides(dict(fields), sides)


def _answers(row: Row) -> Iterator[_Answer]:
    """Yield what annotators submitted, each question and each annotator on its own."""
    responses = row.get("responses")
    if isinstance(responses, list):  # version 1: each response is one annotator's answers to all the questions
        for place, response in enumerate(responses):
            values = response.get("values") if isinstance(response, Mapping) and _is_submitted(response) else None
            for question, answer in values.items() if isinstance(values, Mapping) else ():
                value = answer.get("value") if isinstance(answer, Mapping) else answer
                yield _Answer(question, value, name_of(response.get("user_id")), place)
        return
    # Of a copy: a column that is only looked at is not read.
    asked = (
        responses
        if isinstance(responses, Mapping)
        else {item[0]: row[item[0]] for item in dict(row).items() if _is_question(item)}
    )
    for name, value in asked.items():
        question, told = name, value
        if name.endswith(_FLAT) and isinstance(value, list):  # version 2, flat: three columns beside each other
            question = name.removesuffix(_FLAT)
            told = {"value": value, "user_id": row.get(f"{name}.users"), "status": row.get(f"{name}.status")}
        if isinstance(told, Mapping):  # columns, as version 1 has them on the Hub, too
            columns = {key: items for key, items in told.items() if isinstance(items, list)}
            told = [{key: items[place] for key, items in columns.items() if place < len(items)}
                    for place in range(max(map(len, columns.values()), default=0))]  # fmt: skip
        for place, answer in enumerate(told if isinstance(told, list) else ()):
            if isinstance(answer, Mapping) and _is_submitted(answer):
                yield _Answer(question, answer.get("value"), name_of(answer.get("user_id")), place)


def _is_submitted(answer: Row) -> bool:
    status = answer.get("status")
    return status is None or str(status).rpartition(".")[2].casefold() == "submitted"


def _ranked(answer: _Answer, names: Sequence[str], words: Mapping[str, str]) -> list[Ballot]:
    """Return the ballots of an answer that ranks completions or names the best one; none where it does neither."""
    value = answer.value
    if isinstance(value, str):
        return _named(answer, names, words)
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


def _places(label: str, names: Sequence[str]) -> list[int]:
    return [place for place, name in enumerate(names) if _plain(name) == _plain(label)]


def _is_verdict(label: str, names: Sequence[str], words: Mapping[str, str]) -> bool:
    return bool(_places(label, names)) or (bool(words) and says_side(label, words))


def _named(answer: _Answer, names: Sequence[str], words: Mapping[str, str]) -> list[Ballot]:
    """Return the ballots of a label that names the best completion: better than each of the others, which are equal."""
    same = _places(answer.value, names)
    says = not same and len(names) == 2 and _is_verdict(answer.value, names, words)
    side = side_in(answer.value, answer.question, words) if says else None
    best = same[0] if same else {"first": 0, "second": 1}.get(side or "")
    if best is None:
        return [Ballot(tuple(0.0 for _ in names), answer.annotator)] if side == "tie" else []
    duels = [{best: 1.0, other: 0.0} for other in range(len(names)) if other != best]
    return [Ballot(tuple(map(duel.get, range(len(names)))), answer.annotator) for duel in duels]


def _plain(name: Any) -> str:
    return re.sub(r"[-_ ]", "", str(name)[:100].casefold())


def _rated(answers: Sequence[_Answer], names: Sequence[str]) -> list[Ballot]:
    """Return a ballot for each annotator, of the ratings whose questions are of one completion.

    Such a question is called `response-1`, `response-1-rating` or `rating_1`.
    """
    endings = [_plain(found.group()) if (found := _ENDING.search(name[:100])) else None for name in names]
    ballots: dict[str | int, list[float | None]] = {}
    asked: dict[int, str] = {}
    for answer in answers:
        question = _plain(answer.question)
        about = _RATING.sub("", question)
        known = [
            about == _plain(name) or about == ending != question for name, ending in zip(names, endings, strict=True)
        ]
        if any(known) and isinstance(answer.value, int | float) and abs(answer.value) < 1e9:
            place = known.index(True)
            if asked.setdefault(place, answer.question) != answer.question:
                told = f"{asked[place]!r} and {answer.question!r}"[:200]
                raise RowError("wrong_type", f"{told} both rate one completion; leave only one of them in the export")
            scores = ballots.setdefault(answer.annotator or answer.place, [None] * len(names))
            scores[place] = float(answer.value)
    return [Ballot(tuple(scores), key if isinstance(key, str) else "") for key, scores in ballots.items()]


ARGILLA = Format(
    "argilla",
    "Argilla",
    '{"fields": {"prompt": …, "response-1": …, "response-2": …}, "responses": {"ranking": [{"value": […]}]}}',
    _is_argilla,
    _read_argilla,
    _settled,
    _why,
)
