"""Columns that judge the completion beside them under names of no form: `is_harmful`, `stars`, `revised_response`.

Owns these names, and which mapping reads what such a column says. What they hold decides: a column that is the same in
all rows, and nothing bad, tells none of them apart. It knows no form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tiebreak.data.formats.annotations import number
from tiebreak.data.formats.candidates import TEXTS, has_prompt
from tiebreak.data.formats.cells import column_in
from tiebreak.data.formats.form import Row
from tiebreak.data.formats.guesses import plain_name
from tiebreak.data.formats.naming import mapping_of_prompt
from tiebreak.data.formats.proportions import nearly_all
from tiebreak.data.formats.thumbs import COMPLETION, verdict_of
from tiebreak.data.formats.verdicts import word_of

_WHOSE = (
    r"(?:(?:is|was|has|are|num|n|user|human|model|llm|judge|expert|final|overall|avg|mean|average|response|answer|"
    r"completion|output|generation|solution)_){0,3}"
)
_GOOD = re.compile(
    rf"{_WHOSE}(?:safe|safety|correct|correctness|right|valid|good|accept(?:ed|able)?|approved?|pass(?:ed|es)?|success|"
    r"successful|solved|resolved|verified|verdict|judge?ment|judged|decision|outcome|evaluation|assessment|helpful|"
    r"harmless|honest|truthful|factual|faithful|grounded|useful|preferred|satisfied|thumbs?_?up|up_?voted|vote|"
    r"preference|reaction)"
)
_BAD = re.compile(
    rf"{_WHOSE}(?:unsafe|harm|harmful|toxic|toxicity|hallucinat(?:ed|es|ion|ions|ory)|incorrect|wrong|invalid|bad|"
    r"flagged|fail(?:ed|s|ure)?|biased|offensive|unhelpful|useless|down_?voted|disliked|buggy|thumbs?_?down)"
)
_MUCH = re.compile(
    rf"{_WHOSE}(?:stars?|star_rating|rating|grade|score|reward|quality|up_?votes?|ups|votes?|likes?|karma|helpfulness|"
    r"correctness|preference)"
)
_REVISED = re.compile(
    r"(?:revised|edited|improved|corrected|refined|rewritten|fixed|better|preferred|ideal)_"
    rf"(?:{'|'.join(TEXTS)}|message|reply|version)|"
    rf"(?:{'|'.join(TEXTS)})_(?:revised|edited|improved|corrected|refined|rewritten|fixed)|revision|rewrite|correction"
)
_PLAIN = frozenset(("yes", "no", "y", "n", "true", "false", "1", "0", "-1"))
"""Words that answer what the name of their column asks; others, such as pass and fail, judge by themselves."""
_OF_TESTS = frozenset(("positive", "negative"))
"""Words that below a bad name may answer it, as a test does, or judge."""


def opinion_in(rows: Sequence[Row]) -> tuple[str, dict[str, str]] | None:
    """Return the column by which completions of these rows differ in how good they are, and the mapping that reads it.

    The mapping is empty where the rows are dialogues, or where more is worse: none reads these. None where no column
    says anything.
    """
    if not rows:
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    held = {name: [value for row in rows if (value := row.get(name)) is not None] for name in names}
    completion = column_in(rows[0], COMPLETION)[0]
    mapping = mapping_of_prompt(rows) if has_prompt(rows[0]) else {}
    for name in held:
        if _REVISED.fullmatch(plain_name(name)) and _are_other_texts(rows, name, completion):
            return name, mapping and mapping | {"chosen": name, "rejected": completion}
    for name, values in held.items():
        plain = plain_name(name)
        if (told := _verdict(plain, values)) is not None:
            is_sure = bool(mapping) and not (_BAD.fullmatch(plain) and _OF_TESTS & set(map(word_of, values)))
            return name, mapping | {"completion": completion, "label": name, **told} if is_sure else {}
        is_bad = _BAD.fullmatch(plain) is not None
        if (is_bad or _MUCH.fullmatch(plain)) and _are_different_numbers(values):
            return name, {} if is_bad or not mapping else mapping | {"completion": completion, "score": name}
    return None


def _verdict(name: str, values: Sequence[Any]) -> dict[str, str] | None:
    """Return what the words of a column of yes and no mean where more than one is said, or a bad one alone."""
    is_good, is_bad = _GOOD.fullmatch(name), _BAD.fullmatch(name)
    said = {word_of(value): verdict for value in values if (verdict := verdict_of(value)) is not None}
    if not (is_good or is_bad) or not nearly_all(verdict_of(value) is not None for value in values):
        return None
    if len(said) > 2 and nearly_all(number(value) is not None for value in values if not isinstance(value, bool)):
        return None  # votes of -1, 0 and 1 are a scale
    meant = {word: verdict != (is_bad is not None and word in _PLAIN) for word, verdict in said.items()}
    if all(meant.values()):
        return None
    if meant == said:
        return {}
    words = {f"label.{key}": "|".join(word for word in meant if meant[word] is (key == "yes")) for key in ("yes", "no")}
    return {key: told for key, told in words.items() if told}


def _are_other_texts(rows: Sequence[Row], name: str, completion: str) -> bool:
    texts = [(row.get(name), row.get(completion)) for row in rows]
    return nearly_all(isinstance(text, str) and text.strip() for text, _ in texts) and any(
        text != beside for text, beside in texts
    )


def _are_different_numbers(values: Sequence[Any]) -> bool:
    numbers = [found for value in values if (found := number(value)) is not None]
    return nearly_all(number(value) is not None for value in values) and len(set(numbers)) > 1
