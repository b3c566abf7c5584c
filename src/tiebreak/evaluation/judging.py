"""What is said of answers before and after: by the rule, by a judge, or else by the data's own judge.

Owns who is asked, and whether what was said may be believed: a judge is tried on held-out pairs first, and one that
agrees with people no better than chance decides nothing. A rule is what its user calls better, and is not tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from tiebreak.config import DataJudge, EvaluationConfig
from tiebreak.data.formats.form import Pairing
from tiebreak.data.formats.thumbs import paired_thumbs
from tiebreak.errors import DataError, JudgeError, ModelError, one_line
from tiebreak.evaluation.judges.calibration import Agreement, agreement
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import TIE, Judge, Preference, Question, num_heard, unsaid, where_they_differ
from tiebreak.evaluation.judges.table import JUDGES, named
from tiebreak.evaluation.rows import Row
from tiebreak.evaluation.samples import choose_prompts
from tiebreak.fingerprint import fingerprint
from tiebreak.maths.length_control import length_controlled, pseudo_values
from tiebreak.records import Judgement, Pair, Thumb
from tiebreak.secrecy import masked

Samples = Sequence[dict[str, Any]]
MIN_JUDGED = 0.8
"""Share of the answers that differ that must have been judged: a judge leaves out the long and the odd ones."""
MOST_GROWN = math.log(1.15)
"""Mean log of the ratio of lengths beyond which a win rate has to be known at equal length."""


@dataclass(frozen=True)
class Judgements:
    """What was said of each sample, the answer after against the one before."""

    by: str
    """Who said it."""
    samples: Samples
    preferences: Sequence[Preference]
    is_weak: bool = False
    is_definition: bool = False
    """Whether what it prefers is better by definition: then length is a part of it, where it plays one."""
    refusal: str | None = None
    """Why nothing may be decided on it."""
    may_be_heard: bool = False
    """Whether the same judge, asked again, may be heard: it could not be asked, or said too little."""
    agreement: Agreement | None = None
    """With people, on held-out pairs; None where it was not tried."""
    note: str = ""
    identity: str | None = None
    """What the preferences depend on besides the answers; None where no judge could be made."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each sample: who is preferred (1 after, 0 before, None not judged), and what was said."""
        return [
            {"prompt_id": sample["prompt_id"], "preferred": said.first, "flipped": said.flipped, "says": said.says}
            for sample, said in zip(self.samples, self.preferences, strict=True)
        ]

    def measured(self) -> list[Row]:
        """Return what the gate reads: nothing where it may not be believed, or where nothing was judged."""
        wins, prompts, differences = self._judged()
        if self.refusal or not wins:
            return []
        controlled = None if self.is_definition else pseudo_values(wins, differences)
        columns = {"answers/preferred": wins, "answers/length_controlled": controlled}
        half = [0.5] * len(wins)
        return [
            Row.of(key, prompts, half, values, weak=self.is_weak, note=self.note)
            for key, values in columns.items()
            if values is not None
        ]

    def untold(self) -> str | None:
        """Return why what was said does not tell whether answers got better; None where it does."""
        wins, _, differences = self._judged()
        if self.is_partial:
            num, of = self._heard
            reasons = ", ".join(f"{num} {reason}" for reason, num in islice(unsaid(self.preferences).items(), 3))
            return f"it judged {num} of {of} pairs of answers that differ ({reasons})"
        ratios = [
            math.log((1 + len(sample["after"]["text"])) / (1 + len(sample["before"]["text"])))
            for sample in self.samples
        ]
        grown = math.fsum(ratios) / len(ratios)
        if not self.is_definition and abs(grown) > MOST_GROWN and pseudo_values(wins, differences) is None:
            return (
                f"answers changed in length all alike (× {math.exp(grown):.2f}), so that it cannot be told from merit"
            )
        return None

    @property
    def is_partial(self) -> bool:
        """Whether too few of the answers that differ were judged to decide anything on them."""
        num, of = self._heard
        return num < MIN_JUDGED * of

    @property
    def _heard(self) -> tuple[int, int]:
        return num_heard([Question.of_sample(sample) for sample in self.samples], self.preferences)

    def as_dict(self, seed: int) -> dict[str, Any]:
        """Return it as JSON takes it."""
        wins, prompts, differences = self._judged()
        controlled = length_controlled(wins, differences, prompts, seed) if wins else None
        return {
            "by": self.by,
            "identity": self.identity,
            "is_weak": self.is_weak,
            "refusal": self.refusal,
            "may_be_heard": self.may_be_heard,
            "note": self.note,
            "agreement": self.agreement and self.agreement.as_dict(),
            "num_judged": len(wins),
            "not_judged": unsaid(self.preferences),
            "ties": sum(win == TIE for win in wins) / len(wins) if wins else None,
            "flip_rate": sum(one.flipped for one in self.preferences) / len(wins) if wins else None,
            "length_controlled": controlled and asdict(controlled),
        }

    def _judged(self) -> tuple[list[float], list[str], list[float]]:
        """Return of each judged sample whether after wins, its prompt, and how many characters longer after is."""
        judged = [
            (said.first, sample["prompt_id"], float(len(sample["after"]["text"]) - len(sample["before"]["text"])))
            for sample, said in zip(self.samples, self.preferences, strict=True)
            if said.first is not None
        ]
        return [win for win, _, _ in judged], [prompt for _, prompt, _ in judged], [more for _, _, more in judged]


def judge_answers(
    samples: Samples, judged: Sequence[Judgement], settings: EvaluationConfig, given: Given, seed: int
) -> Judgements | None:
    """Return what is said of the samples; None where there are none, or nobody to ask.

    `judged` is held out, and a judge is tried on it. Of a judge that stopped half-way nothing is read: a part of all
    prompts, and not a random one. What it said is kept where it keeps it, so that asking again goes on there.
    """
    if not samples:
        return None
    pairs = _held_against(judged)
    if settings.rule and not settings.judge:
        won = [(1 + s["after"]["matches_rule"] - s["before"]["matches_rule"]) / 2 for s in samples]
        said = [Preference(one) for one in won]
        who = fingerprint(["rule", settings.rule.model_dump(mode="json")])
        return Judgements(f"the rule: {settings.rule.name}", samples, said, is_definition=True, identity=who)
    asked = settings.judge or DataJudge()
    if given.fitting is None and settings.judge is None:
        return None
    kind = JUDGES[asked.kind]
    said, tried, refusal = [Preference(None, says="the judge is not heard")] * len(samples), None, None
    notes: list[str] = []
    identity, may_be_heard = None, False
    try:
        with kind.make(asked, replace(given, noted=notes.append)) as judge:
            identity = judge.identity
            if not kind.defines_better:
                tried = _tried(judge, pairs, settings.calibration_pairs, given, seed)
            if tried and not tried.is_usable:
                refusal, may_be_heard = tried.says, tried.is_partial
            else:
                said = _asked(judge, samples, given)
    except (DataError, ModelError) as error:  # none can be made of these pairs, or of this model
        # A model that could not be had may be on a hub that was not reached.
        refusal, may_be_heard = masked(one_line(error)), isinstance(error, ModelError) and identity is None
    except JudgeError as error:
        refusal, may_be_heard = f"{masked(one_line(error))} (of a run that is trained: evaluate)", True
    untried = not (tried or kind.defines_better or refusal)
    notes += [tried.says] if tried else ["not tried on pairs that people judged"] * untried
    weak = kind.is_weak or untried
    note = "; ".join(notes)
    found = Judgements(
        named(asked), samples, said, weak, kind.defines_better, refusal, may_be_heard, tried, note, identity
    )
    if refusal or not (untold := found.untold()):
        return found
    return replace(found, refusal=untold, may_be_heard=found.is_partial)


def _held_against(judged: Sequence[Judgement]) -> list[Pair]:
    """Return pairs; of completions that were judged on their own, good against bad where a prompt has both."""
    alone = [one for one in judged if isinstance(one, Thumb)]
    return [one for one in judged if isinstance(one, Pair)] + paired_thumbs(alone, Pairing())[0]


def _tried(judge: Judge, pairs: Sequence[Pair], num: int, given: Given, seed: int) -> Agreement | None:
    """Return how a judge agrees with people on one held-out pair of each of `num` prompts."""
    chosen = choose_prompts(pairs, num)
    questions = [Question.of_pair(one) for one in chosen]
    if not questions:
        return None
    with given.progress.stage("trying the judge", len(questions)) as advance:
        said = judge.prefer(questions, lambda made: advance(len(made)))
    lengths = [(len(one.first), len(one.second)) for one in questions]
    return agreement(said, [one.prompt_id for one in chosen], lengths, seed=seed)


def _asked(judge: Judge, samples: Samples, given: Given) -> list[Preference]:
    """Ask about the samples whose answers differ; the others are ties."""
    questions = [Question.of_sample(sample) for sample in samples]
    with given.progress.stage("judged", sum(one.first != one.second for one in questions)) as advance:
        return where_they_differ(judge, questions, lambda made: advance(len(made)))
