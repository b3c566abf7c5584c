"""How a parsed row becomes pairs: one pure function for each form that people have, and one table of them.

Owns the order in which forms are tried. It knows nothing of files, tokenizers or models. A row that cannot be used
raises `RowError` with a short reason code that reports count.

    form         what a form is                    cells        columns, texts, JSON
    messages     roles, content, calls, tools      pieces       prompts, completions, dialogues, transcripts
    checks       what no chat can be               annotations  what stands beside a pair
    media        pictures, sound, video
    pairs        OpenAI, HH-RLHF, TRL              dialogues    ShareGPT, Axolotl, ms-swift
    alpaca       LLaMA-Factory's Alpaca form       ratings      completions with scores
    rankings     completions with ranks            votes        A/B comparisons
    strengths    how much better one is            arena        battles of two models
    verdicts     words for who won                 candidates   names of columns of judged completions
    pairing      judged completions to pairs       thumbs       single verdicts, and their partners
    chatlogs     feedback inside dialogues         argilla, labelstudio   exports
    trees        answers at turns of one dialogue  columns      a mapping of the user's
    guesses      telling names of columns          writing      pairs to rows of a form
    alone        completions on their own to rows
    demonstrations   answers to be imitated    unanswered   prompts alone
    references   completions that a row names  tallies      votes told as objects
    best         the best of several           evidence     words beside a pair
    naming       what a form reads, as a mapping   opinions   columns that judge one completion
    repeats      prompts that completions repeat  thousands  points in numbers
    proportions  how many rows say it for all  doubts       verdicts that admit two readings
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tiebreak.data.formats import (
    alpaca,
    arena,
    argilla,
    best,
    chatlogs,
    dialogues,
    labelstudio,
    pairs,
    rankings,
    ratings,
    strengths,
    thumbs,
    trees,
    votes,
)
from tiebreak.data.formats.annotations import annotated
from tiebreak.data.formats.cells import keys_of, kind_of
from tiebreak.data.formats.checks import check_completion, check_media, check_pair
from tiebreak.data.formats.columns import columns_form
from tiebreak.data.formats.form import Format, Pairing, Reading, Row, RowError
from tiebreak.data.formats.guesses import guessed_columns
from tiebreak.records import Source

__all__ = ["FORMATS", "Format", "Pairing", "Reading", "Row", "RowError", "detect", "read_row"]

# The most telling form first: the first that matches reads the row.
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        pairs.TIEBREAK,
        pairs.OPENAI,
        dialogues.SHAREGPT,
        dialogues.REJECTED_RESPONSE,
        dialogues.AXOLOTL,
        alpaca.ALPACA,
        pairs.HH,
        trees.TREE,
        trees.PRISM,
        labelstudio.LABELSTUDIO,
        labelstudio.LABELSTUDIO_MIN,
        argilla.ARGILLA,
        ratings.ULTRAFEEDBACK,
        ratings.DISTILABEL,
        ratings.RATINGS,
        rankings.RANKING,
        pairs.NAMED,
        arena.SUMMARIES,
        arena.ARENA,
        arena.ARENA_ROUNDS,
        strengths.HELPSTEER,
        best.BEST,
        votes.VOTES,
        ratings.SCORED_SIDES,
        thumbs.THUMBS,
        thumbs.DIALOGUE_THUMBS,
        ratings.RATED,
        pairs.TRL,
        chatlogs.CHATLOG,
    )
}


def detect(row: Any, columns: Mapping[str, str] | None = None) -> Format | None:
    """Return the form whose keys the row has, or None.

    `columns` is the user's mapping (see `columns_form`) and then the form. Where no form is known, columns of telling
    names are taken; the title of that form says which.
    """
    if not isinstance(row, Mapping):
        return None
    if columns:
        return columns_form(columns)
    form = next((form for form in FORMATS.values() if form.matches(row)), None)
    guess = None if form else guessed_columns(row)
    return columns_form(guess) if guess else form


def _check_one_prompt(row: Row) -> None:
    """Refuse completions that are objects, each of which says that it answers another prompt."""
    for items in ([row.get("chosen"), row.get("rejected")], *(row.get(name) for name in ratings.COMPLETIONS)):
        inside = [item.get("prompt") for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
        if len({text.strip() for text in inside if isinstance(text, str) and text.strip()}) > 1:
            raise RowError("prompts_differ", "the completions are objects, and their own prompts differ")


def read_row(
    row: Any,
    form: Format,
    source: Source,
    pairing: Pairing = Pairing(),  # noqa: B008 - frozen
    noted: Row | None = None,
) -> Reading:
    """Return what one parsed row holds, or raise RowError.

    Forms that one function reads are one family: rows of a file may be of any of them. `noted` is the same row, which
    the form reads in its place where somebody wants to know what it reads.
    """
    if not isinstance(row, Mapping):
        raise RowError("not_an_object", f"a row is a JSON object, found {kind_of(row)}")
    family = (other for other in FORMATS.values() if other.read is form.read)
    if not form.matches(row) and not any(other.matches(row) for other in family):
        raise RowError("wrong_format", f"not in the '{form.name}' form of the file: keys {keys_of(row)}")
    check_media(row)
    _check_one_prompt(row)
    reading = form.read(row if noted is None else noted, pairing)
    pairs = tuple(replace(annotated(pair, row), source=source) for pair in reading.pairs)
    for pair in pairs:
        try:
            check_pair(pair)
        except RowError as bad:
            raise RowError(bad.reason, bad.detail, pair.preference) from None
    for one in reading.alone:
        check_completion(one.prompt, one.completion, one.tools, one.origin)
    thumbs = tuple(replace(thumb, source=source) for thumb in reading.thumbs)
    rated = tuple(replace(one, source=source) for one in reading.rated)
    return Reading(pairs, thumbs, rated, reading.num_ties)
