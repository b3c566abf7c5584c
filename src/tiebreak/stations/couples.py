"""Judged answers to pairs: who is a candidate, which candidates become pairs, and what became of all the others.

Owns the guards and the account. By which numbers candidates become pairs is known to `maths.pairing`, what no file of
pairs may hold to `data.formats`. No pair is made from evidence that is missing: who was not judged is no candidate.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

from tiebreak.config.rounds import Guard, PairingConfig
from tiebreak.data.formats import RowError
from tiebreak.data.formats.checks import check_completion
from tiebreak.data.formats.pairing import weighed
from tiebreak.engine.answers.answerer import Answer
from tiebreak.errors import RunError
from tiebreak.evaluation.repetition import is_looping
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.pairing import PAIRINGS, Number, chance, known_of, mean_of, rates_of_scores
from tiebreak.records import Message, Origin, Pair, Preference
from tiebreak.stations.rows import Answered, Verdict

Holds = Callable[[Answer], bool]
GUARDS: dict[str, Holds] = {
    "finished": lambda answer: answer.finished,
    "no_repetition": lambda answer: not is_looping(answer.text),
}
"""What an answer has to be, to be a candidate, by name.

`finished`: training writes an EOS behind every completion. An answer that was cut off has none: as chosen it would
teach the policy to stop in the middle of a sentence, as rejected it would teach it never to stop.
`no_repetition`: a judge may well prefer a loop to a wrong answer, and the policy would learn to loop.
"""
OUTCOMES = ("paired", "tied", "all_equal", "unjudged", "guarded", "alone")
"""What becomes of a prompt. Where it is not paired, candidates differ and nobody won (`min_margin`, or those that were
accepted tie); or all are equal; or there are no two candidates for want of verdicts, of answers that no guard holds
back, or of answers that differ at all."""


@dataclass(frozen=True)
class Account:
    """What became of the prompts and of the answers of a round: each of them is in one outcome."""

    num_prompts: int
    num_answers: int
    num_pairs: int
    num_contradicted: int
    """Pairs whose rejected answer won where the two were compared with each other alone; scores or rates decided."""
    prompts: Mapping[str, int]
    """Prompts by what became of them, as `OUTCOMES` has it."""
    answers: Mapping[str, int]
    """Answers that no guard held back: `candidates`, `unjudged` (nobody said how good the text is), and those that
    `repeat` the text of one of them."""
    disqualified: Mapping[str, int]
    """Answers that were held back, by guard, or by why no file of pairs may hold them, as `empty_completion`."""

    def __post_init__(self) -> None:
        if sum(self.prompts.values()) != self.num_prompts:
            raise ValueError("each prompt has one outcome")
        if sum(self.answers.values()) + sum(self.disqualified.values()) != self.num_answers:
            raise ValueError("each answer has one outcome")

    @property
    def unusable_share(self) -> float:
        """The share of prompts that gave no pair, 0 where there are no prompts."""
        return 1 - self.prompts["paired"] / self.num_prompts if self.num_prompts else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Coupled:
    """The pairs of a round, in the order of its prompts, and what became of everything else."""

    pairs: tuple[Pair, ...]
    account: Account


def couple(
    answered: Sequence[Answered],
    verdicts: Sequence[Verdict],
    settings: PairingConfig,
    guards: Iterable[Guard],
    *,
    name: str,
    seed: int,
) -> Coupled:
    """Return the pairs that the answers to each prompt make by their verdicts, which stand in the same order.

    Answers that are the same text are one candidate, and what was said of them is averaged. What a rule draws depends
    on `seed`, `name` and the prompt alone: equal inputs give equal pairs, whatever other prompts there are. The pairs
    of a prompt weigh 1 together. The data set of their origin is `name`, the round's; which of its answers they are is
    told by prompt and text. Win rates are against samples of the policy: answers that a guard held back and answers
    that are the same text are opponents like any other. Raises RunError where verdicts are not of these answers.
    """
    if len(answered) != len(verdicts):
        raise RunError(f"{name}: {len(verdicts)} verdicts of {len(answered)} prompts; judge the answers again")
    tests = [_test_of(guard) for guard in guards]
    held = Counter(dict.fromkeys((guard for guard, _ in tests), 0))
    outcomes = Counter(dict.fromkeys(OUTCOMES, 0))
    answers = Counter({"candidates": 0, "unjudged": 0, "repeat": 0})
    pairs: list[Pair] = []
    num_contradicted = 0
    for prompt, verdict in zip(answered, verdicts, strict=True):
        heard = _Heard.of(prompt, verdict, settings, name)
        faults = [_fault(prompt, answer, tests) for answer in prompt.answers]
        candidates = heard.candidates(faults)
        values = [heard.values[place] for place in candidates]
        draw = np.random.default_rng(derive_seed(seed, "pairs", name, prompt.prompt_id)).random
        found = PAIRINGS[settings.rule].pairs(values, settings, draw)
        sides = [(candidates[won.winner], candidates[won.loser]) for won in found]
        pairs += weighed([heard.pair(*places, name) for places in sides], 1.0)
        num_contradicted += sum(heard.is_contradicted(*places) for places in sides)
        outcomes["paired" if found else heard.outcome(candidates)] += 1
        num_judged = len(known_of(values))
        answers.update(candidates=num_judged, unjudged=len(candidates) - num_judged)
        answers.update(repeat=faults.count(None) - len(candidates))
        held.update(fault for fault in faults if fault is not None)
    num_answers = sum(len(prompt.answers) for prompt in answered)
    told = dict(outcomes), dict(answers), dict(held)
    return Coupled(tuple(pairs), Account(len(answered), num_answers, len(pairs), num_contradicted, *told))


def _test_of(guard: Guard) -> tuple[str, Holds]:
    """Return the name of a guard, and what it asks of an answer; a rule asks for its pattern."""
    if isinstance(guard, str):
        return guard, GUARDS[guard]
    find = re.compile(guard.pattern).search
    return guard.name, lambda answer: find(answer.text) is not None


def _fault(prompt: Answered, answer: Answer, tests: Iterable[tuple[str, Holds]]) -> str | None:
    """Return what holds an answer back: why a file of pairs may not hold it, else the first guard that it fails."""
    try:
        check_completion(prompt.chat.messages, Message("assistant", answer.text), prompt.chat.tools, Origin())
    except RowError as bad:
        return bad.reason
    return next((name for name, holds in tests if not holds(answer)), None)


@dataclass(frozen=True)
class _Heard:
    """A prompt's answers with what was said of each; what was said of equal texts is averaged."""

    prompt: Answered
    texts: Sequence[str]
    scores: Sequence[Number]
    rates: Sequence[Number]
    """Win rates, where the judge compared or the rule asks for them."""
    wins: Sequence[Sequence[Number]]
    values: Sequence[Number]
    """Scores or win rates: what the rule compares."""

    @staticmethod
    def of(prompt: Answered, verdict: Verdict, settings: PairingConfig, name: str) -> _Heard:
        """Return what a verdict says of the answers to a prompt; raises RunError where it is not of them."""
        texts = [answer.text for answer in prompt.answers]
        sizes = {len(told) for told in (verdict.rates, verdict.wins, *verdict.wins) if told}
        if verdict.prompt_id != prompt.prompt_id or {len(verdict.scores), *sizes} != {len(texts)}:
            raise RunError(
                f"{name}: the verdict of prompt {verdict.prompt_id[:12]} is not of the {len(texts)} answers to prompt "
                f"{prompt.prompt_id[:12]} in its place; judge the answers again"
            )
        scores, rates = _averaged(texts, verdict.scores), _averaged(texts, verdict.rates)
        if PAIRINGS[settings.rule].compares == "scores":
            return _Heard(prompt, texts, scores, rates, verdict.wins, scores)
        if verdict.rates:  # then scores decided nothing, and are no evidence for the pair
            return _Heard(prompt, texts, _averaged(texts, ()), rates, verdict.wins, rates)
        rates = rates_of_scores(scores, settings.min_margin)
        return _Heard(prompt, texts, scores, rates, verdict.wins, rates)

    def candidates(self, faults: Sequence[str | None]) -> list[int]:
        """Return where each different text is first among the answers without a fault."""
        sound = [place for place, fault in enumerate(faults) if fault is None]
        return sorted({self.texts[place]: place for place in reversed(sound)}.values())

    def chance(self, one: int, other: int) -> Number:
        """Return how probably one text is better than another, where the two were compared; None where not."""
        ones, others = (_places(self.texts, self.texts[side]) for side in (one, other))
        return mean_of([chance(self.wins, *both) for both in product(ones, others)]) if self.wins else None

    def is_contradicted(self, chosen: int, rejected: int) -> bool:
        """Say whether rejected won where the two were compared with each other alone."""
        label = self.chance(chosen, rejected)
        return label is not None and label < 0.5

    def pair(self, chosen: int, rejected: int, name: str) -> Pair:
        """Return the pair of two answers, with what was said of them; a soft label is stated where it is for chosen."""
        stated: dict[str, Any] = {}
        for kind, said in (("score", self.scores), ("win_rate", self.rates)):
            one, other = said[chosen], said[rejected]
            if one is not None and other is not None:
                stated |= {f"chosen_{kind}": one, f"rejected_{kind}": other}
                if kind == "score" and math.isfinite(one - other):
                    stated["margin"] = one - other
        label = self.chance(chosen, rejected)
        if label is not None and label > 0.5:
            stated["soft_label"] = label
        preferred, against = (Message("assistant", self.texts[place]) for place in (chosen, rejected))
        chat = self.prompt.chat
        return Pair(chat.messages, preferred, against, chat.tools, None, Preference(**stated), Origin(dataset=name))

    def outcome(self, candidates: Sequence[int]) -> str:
        """Return why candidates make no pair, as `OUTCOMES` has it."""
        known = known_of([self.values[place] for place in candidates])
        if len(set(self.texts)) < 2:
            return "alone"
        if len(candidates) < 2:
            return "guarded"
        if len(known) < 2:
            return "unjudged"
        return "all_equal" if len(set(known.values())) == 1 else "tied"


def _averaged(texts: Sequence[str], told: Sequence[Number]) -> list[Number]:
    """Return for each text the mean of what was said of it, None where nothing was."""
    if not told:
        return [None] * len(texts)
    means = {text: mean_of([told[place] for place in _places(texts, text)]) for text in dict.fromkeys(texts)}
    return [means[text] for text in texts]


def _places(texts: Sequence[str], text: str) -> list[int]:
    return [place for place, one in enumerate(texts) if one == text]
