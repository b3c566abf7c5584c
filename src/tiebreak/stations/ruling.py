"""Answers in, verdicts out: a judge stands over the answers to each prompt.

Owns what is kept on the way, and when a judge is not heard: it left too much without a verdict, it went by the place of
an answer, or it told hardly any answers apart. A file of verdicts is there only where its judge was heard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tiebreak import faults, files
from tiebreak.config import JudgeConfig
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import JudgeError, RunError, one_line
from tiebreak.evaluation.judges.capped import BYTES_PER_TOKEN, Estimate, Spent
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import Question, Standing, distinct
from tiebreak.evaluation.judges.table import JUDGES, named
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress
from tiebreak.stations.journal import Journal
from tiebreak.stations.rows import Answered, Verdict

_MANY = 10
"""Prompts from which on a share of them says something of a judge; of fewer, all of them have to be level."""
_SHOWN = 3


@dataclass(frozen=True)
class Limits:
    """What a judge may leave open, and what it may cost."""

    max_unjudged: float = 0.1
    """Share of answers or comparisons without a verdict."""
    max_level: float = 0.8
    """Share of prompts whose answers, differing in their texts, all have one score; 1: any."""
    max_cost: float | None = None
    """Of these answers, in the currency of the prices: what is left of a budget, all goes at them together."""
    refuses: bool = True
    """Whether a judge that is not to be heard is refused; not where its word is only compared with another one."""
    judge: str | None = None
    """Identity that the judge has to have, where verdicts are held against earlier ones; None: any."""


@dataclass(frozen=True)
class Ruled:
    """What a judge said of all answers, in the order of the prompts."""

    verdicts: Sequence[Verdict]
    judge: str
    """Identity of who said it: a changed judge has another one."""
    num_asked: int
    """Comparisons that were asked, or texts that were to be rated: equal texts of a prompt are one."""
    unjudged: Mapping[str, int]
    """How many of these have no verdict, by reason, the most frequent first."""
    level: Sequence[int]
    """Places of prompts whose answers differ and all have one score."""
    num_apart: int
    """Prompts with answers that differ."""
    spent: Spent | None
    """What was spent by all goes together; None where nothing is asked over a network."""

    @property
    def num_unjudged(self) -> int:
        """How many comparisons or texts have no verdict."""
        return sum(self.unjudged.values())

    @property
    def share_unjudged(self) -> float:
        """Their share."""
        return self.num_unjudged / self.num_asked if self.num_asked else 0.0

    @property
    def num_compared(self) -> int:
        """Comparisons that were asked."""
        return sum(one.num_compared for one in self.verdicts)

    @property
    def flip_rate(self) -> float | None:
        """Share of the judged comparisons where the order of the answers changed the verdict; None without any."""
        judged = self.num_compared - self.num_unjudged
        return sum(one.num_flipped for one in self.verdicts) / judged if judged > 0 else None

    @property
    def cost(self) -> float:
        """What was spent, where it is priced."""
        return (self.spent and self.spent.cost) or 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, without the verdicts."""
        return {
            "identity": self.judge,
            "num_asked": self.num_asked,
            "num_compared": self.num_compared,
            "flip_rate": self.flip_rate,
            "unjudged": dict(self.unjudged),
            "num_level": len(self.level),
            "spent": self.spent and asdict(self.spent),
        }


def rule(
    answered: Sequence[Answered], settings: JudgeConfig, file: Path, given: Given, limits: Limits | None = None
) -> Ruled:
    """Return verdicts on all answers, and write them to a file that appears whole.

    What was said is kept beside it as it comes, so that a second go asks for what is missing, and gives the same file.
    Where the file is there, nobody is asked. The judge's own caps and that of `limits` are of all goes together. Raises
    JudgeError where the judge stopped or is not to be heard, Waiting where people have votes to give, ConfigError where
    settings make no judge, RunError where it is another judge than it has to be, before it is asked or paid.
    """
    limits = limits or Limits()
    journal = Journal(file)
    if file.exists():
        _same_judge(file, journal.judge, limits)
        return _ruled(_read(file, answered), answered, journal)
    kind, name = JUDGES[settings.kind], named(settings)
    if limits.max_cost is not None:
        settings = kind.within(settings, limits.max_cost)

    def spent(told: Spent) -> None:
        journal.pay(told)
        given.spent(told)

    asked = [(one.chat, one.answers) for one in answered]
    own = replace(given, answered=asked, folder=file.parent, spent=spent)
    own = replace(own, spending=journal.pay, paid=journal.spent)
    with kind.make(settings, own) as judge:
        _same_judge(file, judge.identity, limits)
        key = fingerprint([judge.identity, kind.batch, [row.as_dict() for row in answered]])
        journal.open(judge.identity, key)
        known = {place: one for place, one in journal.known.items() if kind.batch or not one.reasons}
        verdicts = _judged(answered, judge.stand, kind.batch, known, journal, given.progress)
    ruled = _ruled(verdicts, answered, journal)
    if limits.refuses:
        _refuse(ruled, answered, f"judge {name}", limits)
    files.write_jsonl(file, [one.as_dict() for one in verdicts])
    return ruled


def _same_judge(place: Path, identity: str, limits: Limits) -> None:
    if limits.judge not in (None, identity):
        raise another_judge(place)


def another_judge(place: Path) -> RunError:
    """Return the refusal of verdicts of two judges, which are of two kinds."""
    return RunError(
        f"{place}: the judge is another one than the loop began with (its function, its model or its settings "
        "changed); put it back, or begin another loop with another output.dir"
    )


def _judged(
    answered: Sequence[Answered],
    stand: Any,
    batch: int | None,
    known: Mapping[int, Verdict],
    journal: Journal,
    progress: Progress,
) -> list[Verdict]:
    """Return verdicts: those that are known, and those that are asked for in batches cut from the whole list.

    A batch is asked for whole, or not at all, so that no number hangs on where a go before was cut off.
    """
    found, size = dict(known), batch or max(1, len(answered))
    with progress.stage("judged", len(answered)) as advance:
        advance(len(found))
        for start in range(0, len(answered), size):
            places = range(start, min(start + size, len(answered)))
            missing = [place for place in places if place not in found]
            asked = list(places) if batch and missing else missing

            def done(made: Sequence[tuple[int, Standing]], asked: Sequence[int] = asked) -> None:
                faults.point("rounds:verdicts")
                told = [(asked[index], _verdict(answered[asked[index]], standing)) for index, standing in made]
                journal.take(told)
                advance(sum(place not in found for place, _ in told))
                found.update(told)

            if asked:
                stand([answered[at].chat for at in asked], [answered[at].answers for at in asked], done)
    return [found[place] for place in range(len(answered))]


def _verdict(row: Answered, said: Standing) -> Verdict:
    """Return a standing as it is written down: reasons in one line, and short."""
    reasons = tuple(one_line(reason, 300) for reason in said.reasons)
    return Verdict(row.prompt_id, said.scores, reasons, said.rates, said.num_compared, said.num_flipped, said.wins)


def _read(file: Path, answered: Sequence[Answered]) -> list[Verdict]:
    try:
        found = [Verdict.from_dict(row) for row in files.read_jsonl(file)]
        told = [(one.prompt_id, len(one.scores)) for one in found]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file}: holds no verdicts ({one_line(error, 100)}); move it away, and judge again") from None
    if told != [(one.prompt_id, len(one.answers)) for one in answered]:
        raise RunError(f"{file}: its verdicts are of other answers; move it away, and judge again")
    return found


def _ruled(verdicts: Sequence[Verdict], answered: Sequence[Answered], journal: Journal) -> Ruled:
    texts = [len(distinct(one.answers)) for one in answered]
    asked = sum(one.num_compared or (0 if one.rates else num) for one, num in zip(verdicts, texts, strict=True))
    reasons = Counter(reason.partition(":")[0] for one in verdicts for reason in one.reasons)
    apart = [place for place, num in enumerate(texts) if num > 1]
    level = [place for place in apart if None not in (scores := verdicts[place].scores) and len(set(scores)) == 1]
    return Ruled(verdicts, journal.judge, asked, dict(reasons.most_common()), level, len(apart), journal.spent)


def _refuse(ruled: Ruled, answered: Sequence[Answered], judge: str, limits: Limits) -> None:
    """Raise JudgeError where the judge is not to be heard; what it said is kept."""
    if ruled.share_unjudged > limits.max_unjudged:
        reasons = ", ".join(f"{num} {reason}" for reason, num in ruled.unjudged.items())
        raise JudgeError(
            f"{judge}: {ruled.num_unjudged} of {ruled.num_asked} have no verdict ({reasons}), and at most "
            f"{limits.max_unjudged:.0%} may be without; mend that and run the same command again, or allow more with "
            "rounds.stop.unjudged"
        )
    if ruled.flip_rate == 1.0:
        raise JudgeError(
            f"{judge}: in all {ruled.num_compared - ruled.num_unjudged} comparisons it changed its word with the order "
            "of the answers: it goes by their place, not by what they say; take another judge"
        )
    is_telling = len(ruled.level) == ruled.num_apart > 0 or ruled.num_apart >= _MANY
    if is_telling and limits.max_level < 1 and len(ruled.level) > limits.max_level * ruled.num_apart:
        examples = "; ".join(
            f"prompt {answered[place].prompt_id[:12]}: all {ruled.verdicts[place].scores[0]:g}, "
            + " and ".join(one_line(repr(text), 40) for text in list(distinct(answered[place].answers))[:2])
            for place in ruled.level[:_SHOWN]
        )
        raise JudgeError(
            f"{judge}: the judge does not tell the answers apart: {len(ruled.level)} of {ruled.num_apart} prompts have "
            f"answers that differ and all have one score ({examples}); take another judge, or draw answers that differ "
            "more"
        )


# ---------------------------------------------------------------------------------------------------------- beforehand


@dataclass(frozen=True)
class Foreseen:
    """What judging would take; nothing was asked."""

    num_ratings: int
    num_comparisons: int
    """Each in both orders, where the judge is asked in both."""
    estimate: Estimate
    """Of what is asked over a network, at most: no answer is longer, and none equals another."""


def foreseen(
    settings: JudgeConfig, chats: Sequence[Chat], num_answers: int, max_new_tokens: int, given: Given
) -> Foreseen:
    """Return what standing over so many answers of so many tokens to each of these prompts would take.

    One answer to a prompt is rated, where answers are rated; where they are compared it takes nothing.
    """
    kind = JUDGES[settings.kind]
    rates = not kind.num_couples(settings, 2)
    couples = kind.num_couples(settings, num_answers)
    one, two = (letter * (max_new_tokens * BYTES_PER_TOKEN) for letter in "xy")
    estimate = kind.estimate(settings, [Question(chat, one, two) for chat in chats], given)
    num = len(chats)
    return Foreseen(num * num_answers if rates else 0, num * couples, estimate.times(couples))
