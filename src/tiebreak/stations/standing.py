"""Where a round's policy stands on held-out prompts: against the first model and the round before, and how far away.

Owns what is measured of a round. The prompts are the same in every round, and no round trains on them. Greedy answers
are judged; drawn ones tell the KL, which is known at temperature 1 alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tiebreak.config import SamplingConfig
from tiebreak.engine.answers.answerer import Sampling
from tiebreak.engine.features import TOKEN_BUDGET
from tiebreak.engine.model import Model
from tiebreak.evaluation.draws import scored_ids
from tiebreak.evaluation.judges.asking import NO_ANSWER
from tiebreak.evaluation.judges.judge import Judge, Question, num_heard, unsaid, where_they_differ
from tiebreak.evaluation.judging import MIN_JUDGED
from tiebreak.evaluation.repetition import is_looping
from tiebreak.evaluation.sampled import scored_tokens, variety
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.kl import Floats, kl_of
from tiebreak.maths.paired import resampled
from tiebreak.maths.stats import Estimate, correlation
from tiebreak.progress import Progress
from tiebreak.stations.rows import Answered


@dataclass(frozen=True)
class Against:
    """How often one policy's answers are preferred over another's: of each prompt 1, 0, or ½ for a tie."""

    rate: Estimate | None
    """None where too little was judged."""
    wins: Sequence[float | None]
    """In the order of the prompts; None where the judge did not say."""
    ties: float | None
    not_judged: Mapping[str, int] = field(default_factory=dict)
    """Prompts without a verdict, by reason."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        told = {"rate": self.rate and asdict(self.rate), "wins": [*self.wins], "ties": self.ties}
        return told | {"not_judged": dict(self.not_judged)}


def may_be_known(against: Mapping[str, Any]) -> bool:
    """Whether a win rate that is not known, as JSON has it, may be so when the judge is asked again: calls failed."""
    return against["rate"] is None and NO_ANSWER in against.get("not_judged", ())


def against(judge: Judge, now: Sequence[Answered], then: Sequence[Answered], seed: int, progress: Progress) -> Against:
    """Return how often the first answers of `now` are preferred over those of `then`, prompt by prompt.

    Where the judge left too many out no rate is known: it would be one of other prompts than another round's.
    """
    questions = [
        Question(one.chat, one.answers[0].text, two.answers[0].text) for one, two in zip(now, then, strict=True)
    ]
    with progress.stage("judged", sum(one.first != one.second for one in questions)) as advance:
        said = where_they_differ(judge, questions, lambda made: advance(len(made)))
    wins = [one.first for one in said]
    judged = [(win, row.prompt_id) for win, row in zip(wins, now, strict=True) if win is not None]
    num, of = num_heard(questions, said)
    reasons = unsaid(said)
    if not judged or num < MIN_JUDGED * of:
        told = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
        progress.warn(
            f"{of - num} of {of} held-out answers that differ have no verdict ({told}), and those are no random part; "
            f"no win rate is known where more than {1 - MIN_JUDGED:.0%} have none"
        )
        return Against(None, wins, None, reasons)
    values, prompts = [win for win, _ in judged], [prompt for _, prompt in judged]
    rate = resampled(values, prompts, (0.0, 1.0), derive_seed(seed, "against")).interval()
    return Against(rate, wins, sum(win == 0.5 for win in values) / len(values), reasons)


def counted(answers: Sequence[Answered]) -> dict[str, float]:
    """Return length, ends, loops and variety of greedy answers, one to each prompt."""
    first = [one.answers[0] for one in answers]
    texts, num = [one.text for one in first], len(first)
    return {
        "num_tokens": sum(len(one.ids) for one in first) / num,
        "finished": sum(one.finished for one in first) / num,
        "looping": sum(map(is_looping, texts)) / num,
    } | variety(texts)


def scored(judge: Judge, answers: Sequence[Answered], seed: int) -> dict[str, Any] | None:
    """Return the mean score of greedy answers, and how scores go with length; None where a judge gives none alone."""
    stood = judge.stand([one.chat for one in answers], [one.answers for one in answers])
    told = [
        (one, value) for one, each in zip(answers, stood, strict=True)
        if (value := each.scores[0]) is not None and not each.rates
    ]  # fmt: skip
    if not told:
        return None
    values = [value for _, value in told]
    mean = resampled(values, [one.prompt_id for one, _ in told], None, derive_seed(seed, "score")).interval()
    lengths = [float(len(one.answers[0].ids)) for one, _ in told]
    return {"mean": asdict(mean), "length_correlation": correlation(values, lengths)}


def token_logps(model: Model, answers: Sequence[Answered], sampling: Sampling) -> list[Floats]:
    """Return [answer][token] what a model says of each answer (nats), answer after answer of each prompt."""
    prompts = [model.prompt_ids(one.chat, sampling) for one in answers for _ in one.answers]
    ids = [scored_ids(model.eos_ids, answer) for one in answers for answer in one.answers]
    return scored_tokens(model, prompts, ids, lambda examples: model.scorer.micro_batches(examples, TOKEN_BUDGET))[0]


def divergence(
    own: Sequence[Floats], other: Sequence[Floats], answers: Sequence[Answered], seed: int
) -> dict[str, Any] | None:
    """Return the KL (nats an answer) to another model, of answers that the policy drew at temperature 1.

    The mean and its interval are of k1, which is noisy and may fall below 0 over few prompts; `k3` is the other
    estimate of the same number, which cannot (`maths.kl`).
    """
    prompts = [one.prompt_id for one in answers for _ in one.answers]
    known = [(one, two, prompt) for one, two, prompt in zip(own, other, prompts, strict=True) if len(one)]
    values = [float((one - two).sum()) for one, two, _ in known]
    if not values:
        return None
    found = resampled(values, [prompt for *_, prompt in known], None, derive_seed(seed, "kl")).interval()
    return asdict(found) | {"k3": kl_of([one - two for one, two, _ in known]).sequence_k3}


def drawn(settings: SamplingConfig, num: int) -> Sampling:
    """Return how answers are drawn for the KL: at temperature 1, the same noise in every round."""
    return Sampling(settings.max_new_tokens, 1.0, num, derive_seed(settings.seed, "heldout draws"))
