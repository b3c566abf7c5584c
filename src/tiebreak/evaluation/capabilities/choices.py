"""Tasks of the kind multiple_choice: the likeliest of several answers.

Owns what is a choice and which one is right, and what likeliest means: summed, per letter, or per token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.config import DataConfig, MultipleChoice
from tiebreak.data.render import Renderer
from tiebreak.engine.model import Model
from tiebreak.evaluation.capabilities.scoring import (
    Likelihood,
    Passage,
    chat_passage,
    continuation_passages,
    likelihoods,
)
from tiebreak.evaluation.capabilities.task import Desk, Item, Said
from tiebreak.evaluation.capabilities.templates import Template, shown
from tiebreak.evaluation.rows import SHARE
from tiebreak.records import Message, Source

_MOST_CHOICES = 100


class Choosing:
    """Right where the right choice is the likeliest: 1, 0.5 where others are as likely, else 0."""

    name, metric, unit = "multiple_choice", "right answers", SHARE

    def __init__(self, config: MultipleChoice) -> None:
        """Raise ValueError in words where a template is none."""
        self._question, self._answer = Template(config.question), Template(config.answer)
        listed = config.choices if isinstance(config.choices, list) else [config.choices]
        self._choices = [Template(one) for one in listed]
        self._is_list = isinstance(config.choices, list)
        self._by = config.labels if config.labels in ("choices", "places") else None
        self._labels = Template(config.labels) if isinstance(config.labels, str) else config.labels
        self._ending = Template(config.ending or "")
        self._as, self._between, self._metric = config.as_, config.between, config.metric
        self.settings: Mapping[str, Any] = {"as": self._as, "between": self._between, "metric": self._metric}
        varying = {"question": self._question, "answer": self._answer}
        if not self._is_list:
            varying["choices"] = self._choices[0]
        for name, template in varying.items():
            if not template.has_fields:
                raise ValueError(f"{name} is the same for every row; name a field in braces, as '{{{name}}}'")

    def read(self, row: Mapping[str, Any], source: Source) -> Item:
        """Return a question with its choices, and the one that is right."""
        question = self._question.text(row)
        choices = [one.text(row) for one in self._choices] if self._is_list else self._choices[0].texts(row)
        if not question.strip():
            raise ValueError("the question is empty")
        if not 2 <= len(choices) <= _MOST_CHOICES:
            raise ValueError(f"wanted 2 to {_MOST_CHOICES} choices, found {len(choices)}: {shown(choices)}")
        if not all(choice.strip() for choice in choices):
            raise ValueError(f"choice {[bool(choice.strip()) for choice in choices].index(False) + 1} is empty")
        if len(set(choices)) < len(choices):
            twice = next(choice for choice in choices if choices.count(choice) > 1)
            raise ValueError(f"the choice {shown(twice)} is there twice")
        place = self._place(row, choices)
        return Item(question, source, tuple(choices), self._ending.text(row), (choices[place],))

    def _place(self, row: Mapping[str, Any], choices: list[str]) -> int:
        """Return which choice is right, from 0. Nothing is guessed: a text that is no choice is no number either."""
        answer = self._answer.value(row)
        if isinstance(answer, dict) and answer.keys() == set(choices):
            answer = [answer[choice] for choice in choices]
        if isinstance(answer, list):
            if len(answer) != len(choices) or sum(mark in (1, True) for mark in answer) != 1:
                raise ValueError(f"wanted one 1 among a mark for each of {len(choices)} choices, found {shown(answer)}")
            return next(place for place, mark in enumerate(answer) if mark in (1, True))
        if self._by:
            called = choices if self._by == "choices" else [str(place) for place in range(len(choices))]
            text = self._answer.text(row)
            if text not in called:
                raise ValueError(f"answer {shown(answer)} is none of the {self._by} {shown(called)}, as labels wants")
            return called.index(text)
        if self._labels is not None:
            labels = self._labels if isinstance(self._labels, list) else self._labels.value(row)
            if not isinstance(labels, list) or len(labels) < len(choices):
                raise ValueError(f"wanted a label for each of {len(choices)} choices, found {shown(labels)}")
            named = [place for place, label in enumerate(labels[: len(choices)]) if _same(label, answer)]
            if len(named) != 1:
                raise ValueError(f"answer {shown(answer)} is not among the labels {shown(labels)}")
            return named[0]
        _refuse_two_readings(answer, choices)
        if isinstance(answer, int) and not isinstance(answer, bool):
            hint = "; where it is the choice itself, say labels: choices" if shown(answer) in choices else ""
            if not 0 <= answer < len(choices):
                raise ValueError(
                    f"answer {shown(answer)} is no place among {len(choices)} choices, counted from 0" + hint
                )
            return answer
        if answer not in choices:
            raise ValueError(
                f"answer {shown(answer)} is not among the choices {shown(choices)}; where it is what they are called, "
                "name that as labels: [A, B, …]"
            )
        return choices.index(answer)

    def ready(self, item: Item, model: Model, renderer: Renderer) -> list[Passage]:
        """Return the choices behind the question; raises RenderError."""
        if self._as == "chat":
            return [chat_passage(item.item_id, [Message("user", item.question)], item.choices, renderer)]
        joined = [
            (f"{item.question}{self._between}{choice}", f"{self._between}{item.ending}")
            if item.ending
            else (item.question, f"{self._between}{choice}")
            for choice in item.choices
        ]
        return continuation_passages(item.item_id, joined, model, model.context.limit(DataConfig().max_length))

    def ask(self, model: Model, items: Sequence[tuple[Item, Sequence[Passage]]], desk: Desk) -> list[Said]:
        """Score all choices of all items."""
        passages = [passage for _, some in items for passage in some]
        kept = desk.kept_in / "scores.jsonl" if desk.kept_in else None
        found = likelihoods(model, passages, desk.cut, desk.advance, kept)
        return [
            self._said(item, [one for passage in some for one in found[passage.example_id]]) for item, some in items
        ]

    def _said(self, item: Item, found: Sequence[Likelihood]) -> Said:
        lengths = [len(item.ending or choice) for choice in item.choices]
        scores = {
            "acc": [one.logps for one in found],
            "acc_norm": [one.logps / length for one, length in zip(found, lengths, strict=True)],
            "acc_per_token": [one.per_token for one in found],
        }[self._metric]
        details = {"logps": [one.logps for one in found], "num_tokens": [one.num_tokens for one in found]}
        if not all(map(math.isfinite, scores)):
            return Said(math.nan, details)
        best = max(scores)
        likeliest = scores[item.choices.index(item.right[0])] == best
        return Said(likeliest / scores.count(best), details)


def _refuse_two_readings(answer: Any, choices: list[str]) -> None:
    """Raise ValueError where an answer is one of the choices, and the place of another one."""
    text = shown(answer) if isinstance(answer, int) and not isinstance(answer, bool) else answer
    if not (isinstance(text, str) and text in choices and text.isascii() and text.isdigit() and len(text) < 4):
        return
    place = int(text)
    if place < len(choices) and choices[place] != text:
        raise ValueError(
            f"answer {shown(answer)} is the choice {shown(text)}, and the place of {shown(choices[place])}; say which "
            "is meant: labels: choices, or labels: places"
        )


def _same(one: Any, two: Any) -> bool:
    """Whether two values of JSON are equal, 1 and true being different things."""
    return type(one) is type(two) and one == two
