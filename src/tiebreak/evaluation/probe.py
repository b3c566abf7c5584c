"""A small probe of what a model could do before: neutral texts and simple questions that come with tiebreak.

Owns which they are (neutral.jsonl, written for this project), how they are put to a model, and what is read off. Policy
and reference are scored by the scorer of training. A text is plain text, as in pre-training, without a chat template. A
question is a chat of the model, and its four answers are completions of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

import torch
from torch import Tensor

from tiebreak.config import DataConfig
from tiebreak.data.render import Renderer
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import RenderError, TrainingError
from tiebreak.progress import Advance, Progress, Silent
from tiebreak.records import Ids, Message, Pair

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


@dataclass(frozen=True)
class ProbeExample:
    """A text, or a question with its answers, the right one first and each with its EOS, as token ids."""

    example_id: str
    prompt_ids: Ids
    completions: tuple[Ids, ...]
    weight: float = 1.0

    @property
    def prompt_id(self) -> str:
        """The same as the example's: no two share a prompt."""
        return self.example_id

    @property
    def is_text(self) -> bool:
        """Whether there is nothing to choose from."""
        return len(self.completions) == 1


class NeutralProbe:
    """Neutral texts and questions, scored by policy and reference."""

    def __init__(self, policy: Model, reference: Reference, cut: Cut) -> None:
        """`cut` groups examples so that each group fits in memory."""
        self._policy = policy
        self._reference = reference
        self._cut = cut

    def rows(self, progress: Progress | None = None) -> list[ProbeItem]:
        """Return one item for each text and question, in the order of the file.

        A question that the chat template does not take is left out, and the progress told. Raises TrainingError where
        a log-probability is not finite.
        """
        progress = progress or Silent()
        examples = self._examples(progress)
        with progress.stage("neutral texts and questions", 2 * len(examples)) as advance:
            after = self._read(self._policy, examples, advance)
            with self._reference.model() as frozen:
                before = self._read(frozen, examples, advance)
        _require_finite(before, "reference", "start from other weights")
        _require_finite(after, "policy", "lower training.learning_rate")
        items = []
        for one in examples:
            (before_value, before_right), (after_value, after_right) = before[one.example_id], after[one.example_id]
            kind: Literal["text", "question"] = "text" if one.is_text else "question"
            num = len(one.completions[0]) - (not one.is_text)
            items.append(ProbeItem(one.example_id, kind, before_value, after_value, before_right, after_right, num))
        return items

    def _examples(self, progress: Progress) -> list[ProbeExample]:
        renderer = self._policy.renderer(DataConfig())
        room = self._policy.context.limit(DataConfig().max_length)
        found: list[ProbeExample] = []
        left_out: dict[str, list[str]] = {}
        for item in neutral_items():
            try:
                found.append(_question(item, renderer) if "question" in item else _text(item, self._policy, room))
            except RenderError as error:
                left_out.setdefault(error.reason, []).append(str(error))
        for reason, told in left_out.items():
            progress.warn(f"neutral questions: {len(told)} are left out ({reason}: {told[0]})")
        return found

    def _read(
        self, model: Model, examples: Sequence[ProbeExample], advance: Advance
    ) -> dict[str, tuple[float, float | None]]:
        """Return for each example what `ProbeItem` says of one side: its value, and whether the answer is right."""
        found: dict[str, tuple[float, float | None]] = {}
        for group in self._cut(examples):
            with evaluation_mode(model.network), torch.no_grad():
                rows = iter(row.double().cpu() for row in model.score(group).rows())
            for one in group:
                scored = [next(rows) for _ in one.completions]
                found[one.example_id] = _of_text(scored[0]) if len(scored) == 1 else _of_answers(scored)
            advance(len(group))
        return found


@cache
def neutral_items() -> tuple[dict[str, Any], ...]:
    """Return the lines of neutral.jsonl: `id`, and `text` or `question`, `right` and three `wrong` answers."""
    file = resources.files("tiebreak.evaluation") / "neutral.jsonl"
    return tuple(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())


def _text(item: Mapping[str, Any], model: Model, room: int) -> ProbeExample:
    """Return a text as the tokenizer writes one, with a BOS where it puts one, cut at the end where it has no room."""
    ids = list(model.tokenizer.encode(item["text"]))
    while ids[-1] in model.eos_ids:
        del ids[-1]
    given = min(NUM_GIVEN, room // 2)
    return ProbeExample(item["id"], tuple(ids[:given]), (tuple(ids[given:room]),))


def _question(item: Mapping[str, Any], renderer: Renderer) -> ProbeExample:
    """Return a question as a chat; raises RenderError."""
    prompt, right = (Message("user", item["question"]),), Message("assistant", item["right"])
    # Each wrong answer beside the right one: what renders pairs for training renders these.
    pairs = [renderer.pair(Pair(prompt, right, Message("assistant", wrong))) for wrong in item["wrong"]]
    answers = (pairs[0].chosen_ids, *(pair.rejected_ids for pair in pairs))
    return ProbeExample(item["id"], pairs[0].prompt_ids, answers)


def _of_text(logps: Tensor) -> tuple[float, None]:
    return float(logps.mean()), None


def _of_answers(logps: Sequence[Tensor]) -> tuple[float, float]:
    """Return the logarithm of the first answer's share, and whether it is the likeliest; the EOS is left out of both.

    An EOS would count for more the shorter an answer is, and training moves it the most.
    """
    per_token = torch.stack([row[:-1].mean() for row in logps])
    best = per_token[1:].max()
    right = 0.5 if per_token[0] == best else float(per_token[0] > best)
    return float(per_token.log_softmax(0)[0]), right


def _require_finite(values: Mapping[str, tuple[float, float | None]], side: str, advice: str) -> None:
    bad = [item_id for item_id, (value, _) in values.items() if not math.isfinite(value)]
    if bad:
        raise TrainingError(
            f"neutral texts and questions: the {side}'s log-probabilities are not finite for {len(bad)} of "
            f"{len(values)} ({', '.join(bad[:4])}): its weights are broken; {advice}"
        )
