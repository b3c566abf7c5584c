"""A small probe of what a model could do before: neutral texts and simple questions that come with tiebreak.

Owns which they are (neutral.jsonl, written for this project) and what is read off. A text is plain text, as in
pre-training, without a chat template. A question is a chat of the model, and its four answers are completions of it.
How these are scored is known to `capabilities.scoring`, as for a user's own tasks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import torch

from tiebreak.config import DataConfig
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import RenderError
from tiebreak.evaluation.capabilities.scoring import (
    Likelihood,
    Passage,
    chat_passage,
    likelihoods,
    require_finite,
    text_passage,
)
from tiebreak.maths.stats import preferred
from tiebreak.progress import Progress, Silent
from tiebreak.records import Message

NUM_GIVEN = 8
"""Tokens at the start of a text that are given and not scored: what comes first is a guess for any model."""


@dataclass(frozen=True)
class ProbeItem:
    """What reference (before) and policy (after) make of one text or question.

    `before` and `after` are in nats: of a text its log-probability per token; of a question the logarithm of the right
    answer's share, which is a softmax over the answers' log-probabilities per token. `right_before` and `right_after`
    say of a question whether the right answer is the likeliest per token: 1, 0.5 where others are as likely, or 0.
    `num_tokens` are those that are scored, of a question those of its right answer.
    """

    item_id: str
    kind: Literal["text", "question"]
    before: float
    after: float
    right_before: float | None
    right_after: float | None
    num_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the item for JSON."""
        return asdict(self)


class NeutralProbe:
    """Neutral texts and questions, scored by policy and reference."""

    def __init__(self, policy: Model, reference: Reference, cut: Cut) -> None:
        """`cut` groups examples so that each group fits in memory."""
        self._policy = policy
        self._reference = reference
        self._cut = cut

    def rows(self, progress: Progress | None = None) -> list[ProbeItem]:
        """Return one item for each text and question, in the order of the file.

        A question that the chat template does not take is left out, and the progress told. Raises Diverged where
        a log-probability is not finite.
        """
        progress = progress or Silent()
        passages = self._passages(progress)
        with progress.stage("neutral texts and questions", 2 * len(passages)) as advance:
            after = likelihoods(self._policy, passages, self._cut, advance)
            with self._reference.model() as frozen:
                before = likelihoods(frozen, passages, self._cut, advance)
        items = []
        for one in passages:
            kind: Literal["text", "question"] = "text" if len(one.completions) == 1 else "question"
            sides = [_read(said[one.example_id]) for said in (before, after)]
            (value_before, right_before), (value_after, right_after) = sides
            num = len(one.completions[0])
            items.append(ProbeItem(one.example_id, kind, value_before, value_after, right_before, right_after, num))
        for side, values in (("reference", [one.before for one in items]), ("policy", [one.after for one in items])):
            named = {one.item_id: value for one, value in zip(items, values, strict=True)}
            require_finite(named, "neutral texts and questions", side)
        return items

    def _passages(self, progress: Progress) -> list[Passage]:
        renderer = self._policy.renderer(DataConfig())
        room = self._policy.context.limit(DataConfig().max_length)
        found: list[Passage] = []
        left_out: dict[str, list[str]] = {}
        for item in neutral_items():
            try:
                if "question" in item:
                    asked, answers = Message("user", item["question"]), (item["right"], *item["wrong"])
                    found.append(chat_passage(item["id"], [asked], answers, renderer))
                else:
                    found.append(text_passage(item["id"], item["text"], self._policy, NUM_GIVEN, room))
            except RenderError as error:
                left_out.setdefault(error.reason, []).append(str(error))
        for reason, told in left_out.items():
            progress.warn(f"neutral questions: {len(told)} are left out ({reason}: {told[0]})")
        return found


@cache
def neutral_items() -> tuple[dict[str, Any], ...]:
    """Return the lines of neutral.jsonl: `id`, and `text` or `question`, `right` and three `wrong` answers."""
    file = resources.files("tiebreak.evaluation") / "neutral.jsonl"
    return tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def _read(found: Sequence[Likelihood]) -> tuple[float, float | None]:
    """Return what `ProbeItem` says of one side: its value, and whether the right answer is the likeliest."""
    per_token = torch.tensor([one.per_token for one in found], dtype=torch.float64)
    if len(found) == 1:
        return float(per_token[0]), None
    return float(per_token.log_softmax(0)[0]), preferred(float(per_token[0]), float(per_token[1:].max()))
