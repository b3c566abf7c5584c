"""The data's own judge: fitted on the training pairs, so that nobody starts without one. Weak evidence.

Owns how it decides, what it is taught, and when it refuses itself. Three things are asked of an answer, in this order:
is it like any completion of the data, is it sound, and which of two sound ones lies further in the direction of what
was chosen. One that fails the first or the second never wins. Tested at each fit with answers that were damaged in ways
that it was not taught.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tiebreak.config import DataConfig
from tiebreak.engine.answers.answerer import Answer, Chat
from tiebreak.engine.features import Completions
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.errors import DataError, RenderError
from tiebreak.evaluation.judges.damage import TAUGHT, UNSEEN, Damage, Sound
from tiebreak.evaluation.judges.judge import (
    FIRST,
    Done,
    Preference,
    Question,
    Standing,
    Stood,
    by_comparing,
    nothing,
)
from tiebreak.evaluation.judges.leaning import Probe, Seen, Shown
from tiebreak.evaluation.judges.vectors import Reader
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.maths.paired import resampled
from tiebreak.maths.stats import Estimate
from tiebreak.progress import Progress, Silent
from tiebreak.records import Ids, TokenizedPair, num_unique_tokens

NUM_TRAIN, TRAIN_TOKENS = 128, 24_000
"""Most training pairs, and most tokens of them, that are read: so a fit stays a matter of minutes on a CPU."""
NUM_HELDOUT, HELDOUT_TOKENS = 128, 16_000
NUM_TESTED = 16
"""Held-out pairs whose chosen completion is damaged in each way that was not taught."""
LEAST_PAIRS = 20
NUM_TAUGHT = 2
"""Ways in which one completion of each training pair is damaged."""
MOST_DAMAGED = 64
"""Tokens of a damaged completion that are read in fitting."""
MOST_FOOLED, MOST_FOOLED_BY_ONE = 0.05, 0.25
"""Shares of damaged answers that may be preferred to the sound one: of all, and of any one kind."""
_AT_ONCE = 16
SCHEMA = 2
"""Of what is taught, tested and kept: a judge by another one is not read."""


@dataclass(frozen=True)
class Calibration:
    """How far a fit may be trusted, measured on held-out pairs."""

    agreement: Estimate
    """Share of pairs of which it prefers the chosen side, whole prompts weighted together; a tie is one half."""
    fooled: Mapping[str, float]
    """For each way of damage that it was not taught: how often the damaged answer was preferred to the sound one."""
    num_damaged: int
    """Answers of all these kinds together."""
    num_train: int

    @property
    def share_fooled(self) -> float:
        """How often any damaged answer was preferred."""
        return sum(self.fooled.values()) / len(self.fooled)

    @property
    def refusal(self) -> str | None:
        """Why the judge is not to be used; None where it is."""
        worst = max(self.fooled, key=lambda kind: self.fooled[kind])
        if not self.agreement.low > 0.5:
            return "it agrees with held-out labels no better than chance may"
        if self.share_fooled > MOST_FOOLED:
            return "it is fooled by damaged answers"
        if self.fooled[worst] > MOST_FOOLED_BY_ONE:
            return f"it is fooled by one kind of damaged answers ({worst}: {self.fooled[worst]:.0%})"
        return None

    @property
    def note(self) -> str:
        """What stands wherever its preferences are shown, or where it is not used, why."""
        found, worst = self.agreement, max(self.fooled, key=lambda kind: self.fooled[kind])
        most = f"; most often: {worst}, {self.fooled[worst]:.0%}" if self.fooled[worst] else ""
        fitted = f"fitted on {self.num_train} training pairs"
        damaged = f"of {self.num_damaged} answers damaged on purpose it preferred {self.share_fooled:.1%} to the sound"
        damaged += f" one{most}"
        if self.refusal is None:  # how it agrees with people is told by whoever tries it, as of every judge
            return f"the data's own judge, {fitted}; {damaged}"
        agrees = f"agrees with {found.mean:.1%} ({100 * found.low:.1f} … {100 * found.high:.1f})"
        return f"{self.refusal} ({fitted}; {agrees} of {found.num} held-out pairs; {damaged})"


class OwnJudge:
    """Prefers what is like the chosen completions of the training pairs; to be used only where `is_usable`."""

    def __init__(
        self,
        reference: Reference,
        probe: Probe,
        elsewhere: tuple[Ids, Ids],
        data: DataConfig,
        calibration: Calibration,
        identity: str,
        cut: Cut | None = None,
    ) -> None:
        """`cut` groups examples so that each group fits in memory."""
        self._cut = cut
        self._reference = reference
        self.probe = probe
        self.elsewhere = elsewhere
        self._data = data
        self.calibration = calibration
        self.identity = identity
        """That of the reference's weights and of the pairs that it was fitted on and tested with."""

    @property
    def agreement(self) -> Estimate:
        """Share of held-out pairs of which it prefers the chosen side."""
        return self.calibration.agreement

    @property
    def is_usable(self) -> bool:
        """Whether it agrees with held-out labels better than chance, and is not fooled by damaged answers."""
        return self.calibration.refusal is None

    @property
    def note(self) -> str:
        """What has to stand wherever its preferences are shown."""
        return self.calibration.note

    def prefer(self, questions: Sequence[Question], done: Done = nothing) -> list[Preference]:
        """Return 1, 0 or a tie for each question; the order of the two answers makes no difference."""
        found: list[Preference] = []
        with self._reference.model() as model:
            reader = Reader(model, self.elsewhere, self._data, self._cut)
            for start in range(0, len(questions), _AT_ONCE):
                some = questions[start : start + _AT_ONCE]
                seen = self._seen(reader, [(one.chat, text) for one in some for text in (one.first, one.second)])
                made = [one.against(two) for one, two in zip(seen[0::2], seen[1::2], strict=True)]
                done(list(enumerate(made, start)))
                found += made
        return found

    def stand(
        self, chats: Sequence[Chat], answers: Sequence[Sequence[Answer]], done: Stood = nothing
    ) -> list[Standing]:
        """Compare every couple of different texts of a prompt, once: their order makes no difference."""
        return by_comparing(self.prefer, chats, answers, done)

    def _seen(self, reader: Reader, asked: Sequence[tuple[Chat, str]]) -> list[Seen]:
        """Return what is made of each answer; blanks may not win, what cannot be rendered is not seen."""
        found: dict[int, Seen] = {}
        rendered: dict[int, tuple[Ids, Ids]] = {}
        for place, (chat, text) in enumerate(asked):
            try:
                rendered[place] = reader.answered(chat, text)
            except RenderError as error:
                found[place] = Seen(f"{error.reason}: {error}", None) if text.strip() else Seen("is empty", 0.0)
        by_prompt: dict[Ids, dict[Ids, None]] = {}
        for prompt, completion in rendered.values():
            by_prompt.setdefault(prompt, {})[completion] = None
        examples = [Completions(prompt, tuple(completions)) for prompt, completions in by_prompt.items()]
        vectors = {
            (example.prompt_ids, completion): vector
            for example, rows in zip(examples, reader.vectors(examples), strict=True)
            for completion, vector in zip(example.completions, rows, strict=True)
        }
        for place, ids in rendered.items():
            [found[place]] = self.probe.seen(vectors[ids][None], [asked[place][1]])
        return [found[place] for place in range(len(asked))]


def fit(
    reference: Reference,
    train: Sequence[TokenizedPair],
    heldout: Sequence[TokenizedPair],
    cut: Cut | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    data: DataConfig | None = None,
) -> OwnJudge:
    """Return the judge of some training pairs, tested on held-out ones; raises DataError where there are too few.

    `cut` groups examples so that each group fits in memory, `data` says how long prompt and answer may be. Two runs on
    the same pairs and weights give the same judge. Cost: a forward pass over some hundreds of pairs.
    """
    settings, progress = data or DataConfig(), progress or Silent()
    taught, tested, draw = _chosen(train, heldout, seed)
    if min(len(taught), len(tested)) < LEAST_PAIRS:
        raise DataError(
            f"there are {len(taught)} training pairs and {len(tested)} held-out pairs; wanted at least "
            f"{LEAST_PAIRS} of each, to fit it and to test it"
        )
    prompts = sorted({pair.prompt_ids for pair in taught}, key=lambda ids: (len(ids), ids))
    elsewhere = prompts[0], prompts[min(1, len(prompts) - 1)]
    with reference.model() as model, progress.stage("the data's own judge", len(taught) + len(tested)) as advance:
        reader = Reader(model, elsewhere, settings, cut)
        damager = _Damager(reader, _between(prompts), draw)
        lessons = [_lesson(place) for place in range(len(taught))]
        known = damager.damaged(taught, lessons, TAUGHT, MOST_DAMAGED)
        exams = [(0, tuple(UNSEEN)) if place < NUM_TESTED else (0, ()) for place in range(len(tested))]
        unknown = damager.damaged(tested, exams, UNSEEN, None)
        seen = reader.states([one.example for one in known], advance)
        shown = [
            Shown(one.pair.prompt_id, rows[0], rows[1], rows[one.side], rows[2:])
            for one, rows in zip(known, seen, strict=True)
        ]
        vectors = reader.vectors([one.example for one in unknown], advance)
        probe = Probe.of(shown, np.concatenate([rows[:2] for rows in vectors]))
        judged = [
            probe.seen(rows, [reader.text(ids) for ids in one.example.completions])
            for one, rows in zip(unknown, vectors, strict=True)
        ]
    identity = identity_of(reference, train, heldout, seed, settings)
    calibration = _calibrated(unknown, judged, len(taught), seed)
    progress.say(calibration.note)
    return OwnJudge(reference, probe, elsewhere, settings, calibration, identity, cut)


def identity_of(
    reference: Reference, train: Sequence[TokenizedPair], heldout: Sequence[TokenizedPair], seed: int, data: DataConfig
) -> str:
    """Return the identity of the judge that `fit` makes of these; no forward pass."""
    taught, tested, _ = _chosen(train, heldout, seed)
    read = [[[pair.example_id, pair.prompt_ids, pair.completions] for pair in pairs] for pairs in (taught, tested)]
    with reference.model() as model:
        return fingerprint([SCHEMA, model.identity, seed, data.max_length, data.truncation, *read])


def _chosen(
    train: Sequence[TokenizedPair], heldout: Sequence[TokenizedPair], seed: int
) -> tuple[list[TokenizedPair], list[TokenizedPair], random.Random]:
    """Return the pairs that it is taught and tested with, and the stream that goes on with their damage."""
    draw = random.Random(derive_seed(seed, "own judge"))  # noqa: S311 - not for secrets
    return _some(train, NUM_TRAIN, TRAIN_TOKENS, draw), _some(heldout, NUM_HELDOUT, HELDOUT_TOKENS, draw), draw


@dataclass(frozen=True)
class _Damaged:
    """A pair, and what was made of one of its completions."""

    pair: TokenizedPair
    side: int
    kinds: tuple[str, ...]
    example: Completions
    """Chosen, rejected, and one completion for each kind."""


@dataclass(frozen=True)
class _Damager:
    """Damages completions of pairs."""

    reader: Reader
    bare: slice
    """What of a prompt's ids is its own, and not what every prompt begins and ends with."""
    draw: random.Random

    def damaged(
        self,
        pairs: Sequence[TokenizedPair],
        wanted: Sequence[tuple[int, Sequence[str]]],
        table: Mapping[str, Damage],
        most: int | None,
    ) -> list[_Damaged]:
        """Return pairs with what is made of the side that is wanted, in the ways that are; no more than `most` tokens.

        What comes out as nothing, or as it was, is left out.
        """
        found = []
        for place, (pair, (side, kinds)) in enumerate(zip(pairs, wanted, strict=True)):
            other = next((one for one in (*pairs[place + 1 :], *pairs) if one.prompt_id != pair.prompt_id), pair)
            prompt = self.reader.text(pair.prompt_ids[self.bare])
            sound = Sound(prompt, *(self.reader.text(one.completions[side]) for one in (pair, other)))
            room = min(most or self.reader.most_tokens, self.reader.most_tokens - len(pair.prompt_ids) - 1)
            made = {kind: self.reader.encoded(table[kind](sound, self.draw), pair.chosen_ids, room) for kind in kinds}
            made = {kind: ids for kind, ids in made.items() if len(ids) > 1 and ids not in pair.completions}
            example = Completions(pair.prompt_ids, (*pair.completions, *made.values()))
            found.append(_Damaged(pair, side, tuple(made), example))
        return found


def _lesson(place: int) -> tuple[int, Sequence[str]]:
    """Return which side of the pair at a place is damaged, and how: all ways in turn, each on either side."""
    kinds, per = list(TAUGHT), NUM_TAUGHT
    first = place * per % len(kinds)
    return place // (len(kinds) // per) % 2, kinds[first : first + per]


def _some(pairs: Sequence[TokenizedPair], num: int, num_tokens: int, draw: random.Random) -> list[TokenizedPair]:
    """Return pairs drawn from all, at most so many, and of so many tokens together."""
    found: list[TokenizedPair] = []
    for place in draw.sample(range(len(pairs)), min(num, len(pairs))):
        pair = pairs[place]
        num_tokens -= num_unique_tokens(pair)
        if num_tokens < 0 and len(found) >= LEAST_PAIRS:
            break
        found.append(pair)
    return found


def _between(prompts: Sequence[Ids]) -> slice:
    """Return where prompts differ: between what all of them begin with, and what all end with."""
    least = min(map(len, prompts))
    begin = next((place for place in range(least) if len({ids[place] for ids in prompts}) > 1), 0)
    end = next((place for place in range(1, least - begin) if len({ids[-place] for ids in prompts}) > 1), 1)
    return slice(begin, 1 - end or None)


def _calibrated(tested: Sequence[_Damaged], judged: Sequence[Sequence[Seen]], num_train: int, seed: int) -> Calibration:
    agreed = [seen[0].against(seen[1]).first or 0.0 for seen in judged]
    agreement = resampled(agreed, [one.pair.prompt_id for one in tested], (0.0, 1.0), seed).interval()
    fooled: dict[str, list[float]] = {kind: [] for kind in UNSEEN}
    for one, (sound, _, *damaged) in zip(tested, judged, strict=True):
        for kind, seen in zip(one.kinds, damaged, strict=True):
            fooled[kind].append(float(seen.against(sound).first == FIRST))
    shares = {kind: sum(found) / len(found) for kind, found in fooled.items() if found}
    return Calibration(agreement, shares, sum(map(len, fooled.values())), num_train)
