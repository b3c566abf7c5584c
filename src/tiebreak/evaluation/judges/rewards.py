"""The rule rewards that are built in.

Owns what each of them counts. All have the signature of TRL's reward functions: completions, and prompts where they
ask for them, as lists of messages; their own arguments by name; one number for each completion, where larger is better,
None where nothing can be said. A wrong argument is a ValueError, also where there is no completion to rate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from tiebreak.config.section import regular_expression
from tiebreak.data.spacing import num_words
from tiebreak.errors import one_line
from tiebreak.evaluation.numerals import number_of
from tiebreak.evaluation.repetition import looping

Messages = Sequence[Mapping[str, Any]]
Ratings = list[float | None]
_TEXT, _SWITCH, _TABLE = (
    ((str,), "text"),
    ((bool,), "true or false"),
    ((Mapping, str), "a mapping or the name of a file"),
)
_VALUE = ((str, int, float), "text or a number")
_LARGEST = 1e15
_MARKS = " \t\r\n\u00a0\u202f*_`'\"$!?()[]{}:;,"
# A fence that is never closed goes to the end, so that nothing is read twice.
_FENCED = re.compile(r"```(?:json)?[ \t\r]*\n(.*?)(?:\n[ \t]*(```)|\Z)", re.DOTALL)


def regex(completions: Sequence[Messages], *, pattern: str, wanted: bool = True) -> Ratings:
    """Return 1 where the pattern is found in a completion (with `wanted` false: where it is not), else 0."""
    _require("wanted", wanted, _SWITCH)
    compiled = _compiled(pattern)
    return [float((compiled.search(text) is not None) == wanted) for text in map(text_of, completions)]


def json_schema(completions: Sequence[Messages], *, schema: Mapping[str, Any] | str) -> Ratings:
    """Return 1 where a completion is JSON that fits the schema, else 0; a lone ``` fence around it is allowed.

    `schema` is the schema itself or the path of a JSON file. What it refers to must stand in it: nothing is fetched.
    """
    import jsonschema  # noqa: PLC0415 - loads slowly
    import referencing  # noqa: PLC0415 - as above

    _require("schema", schema, _TABLE)
    try:
        told = json.loads(Path(schema).read_text(encoding="utf-8")) if isinstance(schema, str) else schema
        kind = jsonschema.validators.validator_for(told, default=jsonschema.Draft202012Validator)
        kind.check_schema(told)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"schema: no JSON file that can be read ({error})") from None
    except jsonschema.SchemaError as error:
        raise ValueError(f"schema: no JSON schema ({error.message})") from None
    validator = kind(told, registry=referencing.Registry())

    def fits(text: str) -> bool:
        fences = [inside for inside, end in _FENCED.findall(text) if end]
        try:
            value = json.loads(fences[0] if len(fences) == 1 else text, parse_constant=_no_number)
            return bool(validator.is_valid(value))
        except referencing.exceptions.Unresolvable as error:
            raise ValueError(f"schema: refers to what does not stand in it ({error})") from None
        except (ValueError, RecursionError):
            return False

    return [float(fits(text)) for text in map(text_of, completions)]


def length_band(
    completions: Sequence[Messages],
    *,
    least: float = 0,
    most: float | None = None,
    unit: str = "words",
) -> Ratings:
    """Return 1 where a completion has `least` to `most` words (or characters), and the smaller the further it is off.

    Below, it is length / least; above, most / length.
    """
    if unit not in ("words", "characters"):
        raise ValueError(f"unit: found {unit!r}, wanted words or characters")
    for name, bound in (("least", least), ("most", most)):
        told: object = bound  # what a configuration gives may be anything
        if told is None and name == "most":
            continue
        if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= _LARGEST:
            raise ValueError(f"{name}: found {one_line(repr(bound), 80)}, wanted a number of {unit}")
    if most is not None and most < least:
        raise ValueError(f"most: found {most:g}, less than least {least:g}")
    lengths = [num_words(text) if unit == "words" else len(text) for text in map(text_of, completions)]
    limit = math.inf if most is None else most
    return [min(1.0, length / least if least else 1.0, limit / length if length else 1.0) for length in lengths]


def repetition(completions: Sequence[Messages]) -> Ratings:
    """Return the share of a completion, in letters, that does not only go on with what stood before."""
    return [1.0 - looping(text) for text in map(text_of, completions)]


def language(
    completions: Sequence[Messages], prompts: Sequence[Messages] | None = None, *, language: str | None = None
) -> Ratings:
    """Return 1 where a completion is in a language, else 0: an ISO 639-1 code, or none for the prompt's own.

    The prompt's own is that of the last message of a user; None where it or the completion has no letters. It is the
    most probable language that counts, not how probable it is: that grows with the length of a text.
    """
    if language is not None:
        _require("language", language, _TEXT)  # of YAML, no is false: Norwegian is "no"
    identify = _identifier()
    if language is not None and language not in identify.labels:
        raise ValueError(f"language: found {language!r}, wanted a code of ISO 639-1 such as en, de or zh")
    found: Ratings = []
    for place, text in enumerate(map(text_of, completions)):
        wanted = language
        if wanted is None:
            asked = [str(one.get("content") or "") for one in (prompts or [])[place] if one.get("role") == "user"]
            wanted = identify.classify(asked[-1])[0] if asked and _has_letters(asked[-1]) else None
        found.append(float(identify.classify(text)[0] == wanted) if wanted and _has_letters(text) else None)
    return found


def exact_answer(
    completions: Sequence[Messages],
    prompts: Sequence[Messages] | None = None,
    *,
    answer: str | float | None = None,
    answers: Mapping[str, Any] | str | None = None,
    pattern: str | None = None,
) -> Ratings:
    r"""Return 1 where a completion gives the expected answer, else 0; None where none is known for its prompt.

    `answer` is that of all prompts; `answers` gives one for each, by the text of the last message: a mapping, or a file
    of lines {"prompt": …, "answer": …}. Compared is what the last match of `pattern` finds (its group, where it has
    one, as in '#### (.+)'), or else the whole text: without case, outer blanks and marks; numbers by their value.
    """
    if (answer is None) == (answers is None):
        raise ValueError("wanted answer, one for all prompts, or answers, one for each of them")
    compiled = None if pattern is None else _compiled(pattern)
    if answers is not None:
        _require("answers", answers, _TABLE)
    known = _answers_in(answers) if isinstance(answers, str) else dict(answers or {})
    for name, value in (
        [("answer", answer)] if answers is None else [("answers", one) for one in known.values() if one is not None]
    ):
        _require(name, value, _VALUE)
    found: Ratings = []
    for place, text in enumerate(map(text_of, completions)):
        expected = answer
        if expected is None:
            expected = known.get(str((prompts or [])[place][-1].get("content") or "").strip())
        said: str | None = text
        if compiled is not None:
            matches = list(compiled.finditer(text))
            said = (matches[-1][1] if compiled.groups else matches[-1][0]) if matches else None
        same = said is not None and _plain(said) == _plain(str(expected))
        found.append(None if expected is None else float(same))
    return found


REWARDS: dict[str, Callable[..., Ratings]] = {
    one.__name__: one for one in (regex, json_schema, length_band, repetition, language, exact_answer)
}


def text_of(completion: Messages) -> str:
    """Return what a completion says: the text of its messages."""
    return "\n".join(str(message.get("content") or "") for message in completion)


def _require(name: str, value: object, wanted: tuple[tuple[type, ...], str]) -> None:
    """Raise ValueError where an argument is of none of the types: what a configuration gives may be anything."""
    types, words = wanted
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{name}: found {one_line(repr(value), 80)}, wanted {words}")


def _compiled(pattern: object) -> re.Pattern[str]:
    if not isinstance(pattern, str):
        raise ValueError(f"pattern: not a regular expression (found {one_line(repr(pattern), 80)}, wanted text)")
    try:
        return re.compile(regular_expression(pattern))
    except ValueError as error:
        raise ValueError(f"pattern: {error}") from None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - loads slowly
    except ImportError:
        raise ValueError("needs py3langid: pip install 'tiebreak[language]'") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _has_letters(text: str) -> bool:
    return any(map(str.isalpha, text))


def _answers_in(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    number = 0
    try:
        for line in Path(path).read_text(encoding="utf-8").split("\n"):
            number += 1
            if line.strip():
                row = json.loads(line)
                found[str(row["prompt"]).strip()] = row["answer"]
    except OSError as error:
        raise ValueError(f"answers: {path} cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError(f'answers: {path}:{number}: wanted {{"prompt": …, "answer": …}}') from None
    return found


def _plain(text: str) -> str | tuple[Decimal, str]:
    """Return a text as it is compared: without case, blanks at its ends and marks around it; a number by its value."""
    bare = text.lstrip(_MARKS).rstrip(f"{_MARKS}.")  # a point may begin a number
    inner = bare.lstrip(f"{_MARKS}.")
    return number_of(bare) or number_of(inner) or " ".join(inner.casefold().split())
