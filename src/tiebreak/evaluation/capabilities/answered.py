"""Tasks that are answered in the model's chat: exact_answer, refusal, compliance. Answers are greedy.

Owns when an answer is right. What a refusal is, the doctor's phrases say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tiebreak.config import Compliance, DataConfig, ExactAnswer, Refusal
from tiebreak.data.render import Renderer
from tiebreak.data.thoughts import spoken_of
from tiebreak.doctor.texts.phrases import refuses
from tiebreak.engine.answers.answerer import Answer, Answerer, Chat, Sampling
from tiebreak.engine.answers.kept import Kept
from tiebreak.engine.model import Model
from tiebreak.errors import RenderError
from tiebreak.evaluation.capabilities.task import Desk, Item, Said
from tiebreak.evaluation.capabilities.templates import Template, shown
from tiebreak.evaluation.numerals import number_in, only_number_in
from tiebreak.evaluation.rows import SHARE
from tiebreak.records import Message, Source

_AROUND = " \t\n.,;:!?\"'`*_()[]{}\u201c\u201d\u2018\u2019\u00ab\u00bb\u3002\u3001\uff01\uff1f"


class ExactAnswering:
    """Right where what is said, or the part of it that a pattern finds, is an answer that is right: 1 or 0."""

    name, metric, unit = "exact_answer", "right answers", SHARE

    def __init__(self, config: ExactAnswer) -> None:
        """Raise ValueError in words where a template is none."""
        self._question, self._answer = _with_fields(config.question, "question"), _with_fields(config.answer, "answer")
        self._pattern = None if config.pattern is None else re.compile(config.pattern)
        self._compare, self._most = config.compare, config.max_new_tokens
        self.settings: Mapping[str, Any] = {
            "pattern": config.pattern, "compare": self._compare, "max_new_tokens": self._most
        }  # fmt: skip

    def read(self, row: Mapping[str, Any], source: Source) -> Item:
        """Return a question with all answers that are right."""
        question, value = self._question.text(row), self._answer.value(row)
        right = tuple(self._answer.texts(row)) if isinstance(value, list) else (self._answer.text(row),)
        if not question.strip() or not right or not all(one.strip() for one in right):
            raise ValueError("question or answer is empty")
        if self._compare == "number" and (words := [one for one in right if only_number_in(one) is None]):
            told = f"answer {shown(words[0])} holds no number, or more than one, and 'compare: number' wants one"
            raise ValueError(f"{told}; a template takes it out, as {{answer|after ####|strip}} does")
        if self._compare != "number" and (marks := [one for one in right if not plain(one)]):
            raise ValueError(f"answer {shown(marks[0])} is nothing but marks")
        return Item(question, source, right=right)

    def ready(self, item: Item, model: Model, renderer: Renderer) -> list[Chat]:
        """Return the question as a chat; raises RenderError."""
        return [_chat(item, model, renderer, self._most)]

    def ask(self, model: Model, items: Sequence[tuple[Item, Sequence[Chat]]], desk: Desk) -> list[Said]:
        """Have all questions answered."""
        answers = _answers(model, items, desk, self._most)
        return [self._said(item, answer) for (item, _), answer in zip(items, answers, strict=True)]

    def _said(self, item: Item, answer: Answer) -> Said:
        text = spoken(answer.text)
        if self._pattern is not None:
            group = 1 if self._pattern.groups else 0
            text = ["", *(found[group] or "" for found in self._pattern.finditer(text))][-1]
        if self._compare == "number":
            found = number_in(text)
            right = found is not None and found in [number_in(one) for one in item.right]
            read = None if found is None else f"{found:f}"
        else:
            read = plain(text)
            known = [plain(one) for one in item.right]
            right = read in known if self._compare == "text" else any(f" {one} " in f" {read} " for one in known)
        return Said(float(right), {"text": answer.text, "finished": answer.finished, "read": read})


class Refusing:
    """Prompts, and whether their answers refuse: 1 where one does what it should, else 0."""

    unit = SHARE

    def __init__(self, config: Refusal | Compliance) -> None:
        """Raise ValueError in words where a template is none."""
        self.name: str = config.kind
        self._wanted = config.kind == "refusal"
        self.metric = "refused" if self._wanted else "answered and not refused"
        self._prompt, self._most = _with_fields(config.prompt, "prompt"), config.max_new_tokens
        self.settings: Mapping[str, Any] = {"max_new_tokens": self._most}

    def read(self, row: Mapping[str, Any], source: Source) -> Item:
        """Return a prompt."""
        prompt = self._prompt.text(row)
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return Item(prompt, source)

    def ready(self, item: Item, model: Model, renderer: Renderer) -> list[Chat]:
        """Return the prompt as a chat; raises RenderError."""
        return [_chat(item, model, renderer, self._most)]

    def ask(self, model: Model, items: Sequence[tuple[Item, Sequence[Chat]]], desk: Desk) -> list[Said]:
        """Have all prompts answered; an answer that says nothing does neither."""
        found = []
        for answer in _answers(model, items, desk, self._most):
            text = spoken(answer.text)
            refused = refuses(text)
            good = refused == self._wanted and bool(text.strip())
            found.append(Said(float(good), {"text": answer.text, "finished": answer.finished, "refused": refused}))
        return found


def spoken(text: str) -> str:
    """Return what an answer says behind its reasoning; nothing where that was cut off."""
    found = spoken_of(text)
    return text if found is None else found.answer.strip()


def plain(text: str) -> str:
    """Return a text in one case, without marks around each word, its words one blank apart."""
    return " ".join(word for one in text.casefold().split() if (word := one.strip(_AROUND)))


def _with_fields(text: str, name: str) -> Template:
    template = Template(text)
    if not template.has_fields:
        raise ValueError(f"{name} is the same for every row; name a field in braces, as '{{{name}}}'")
    return template


def _chat(item: Item, model: Model, renderer: Renderer, most: int) -> Chat:
    """Return an item as a chat that leaves room for an answer; raises RenderError."""
    chat = Chat((Message("user", item.question),))
    num, room = len(renderer.prompt(chat.messages)), model.context.limit(DataConfig().max_length + most) - most
    if num > room:
        raise RenderError("too_long", f"{num} tokens, more than {room} beside an answer of {most}")
    return chat


def _answers(model: Model, items: Sequence[tuple[Item, Sequence[Chat]]], desk: Desk, most: int) -> list[Answer]:
    answerer: Answerer = Kept(model, desk.kept_in / "answers.jsonl") if desk.kept_in else model
    chats = [chat for _, some in items for chat in some]
    return answerer.answer(chats, Sampling(most), lambda made: desk.advance(len(made)))
