"""The verb judge: a judge's word on a file of pairs, or on what a run answered before and after.

Owns what the two answers of each question are, and the file of what was said, which a judge that was cut off goes on
with.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import JudgeConfig
from tiebreak.data.whole import read_pairs
from tiebreak.data.writer import writing
from tiebreak.errors import DataError, RunError, require_name
from tiebreak.evaluation.judges.calibration import Agreement, agreement
from tiebreak.evaluation.judges.capped import Estimate, Spent
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.judge import TIE, Preference, Question, unsaid
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.fingerprint import derive_seed, fingerprint
from tiebreak.maths.length_control import length_controlled
from tiebreak.maths.paired import resampled
from tiebreak.maths.stats import Estimate as Mean
from tiebreak.progress import Progress, Silent
from tiebreak.reporting.numbers import shown
from tiebreak.runs import Run, as_a_run_writes

PAIRS, SAMPLES = ("chosen", "rejected"), ("after", "before")
"""The answer whose wins are counted, and the one beside it."""


@dataclass(frozen=True)
class Asked:
    """The questions of a file, the prompt of each, and what the two answers are called."""

    path: str
    sides: tuple[str, str]
    questions: Sequence[Question]
    prompts: Sequence[str]
    left_out: Mapping[str, int]
    """How many records of the file give no question, by reason: nobody won, or they are broken."""

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """Characters of both answers of each question."""
        return [(len(one.first), len(one.second)) for one in self.questions]


@dataclass(frozen=True)
class Judged:
    """What a judge said of a file. Of a dry run, only what it would take."""

    path: str
    sides: tuple[str, str]
    judge: Mapping[str, Any]
    num: int
    num_prompts: int
    left_out: Mapping[str, int]
    """How many records of the file gave no question, by reason."""
    estimate: Estimate
    not_judged: Mapping[str, int]
    """How many questions have no verdict, by reason."""
    win_rate: Mean | None = None
    """How often the first side wins; a tie is one half. None where nothing was judged."""
    length_controlled: Mean | None = None
    """As if the answers were of the same length; None where that cannot be told."""
    ties: float | None = None
    flip_rate: float | None = None
    spent: Spent | None = None
    agreement: Agreement | None = None
    """With people, where the judge is calibrated."""

    def lines(self) -> list[str]:
        """Return it for people."""
        first, second = self.sides
        named = self.judge.get("reward") or self.judge.get("model") or ""
        told = [f"{self.path}: {self.num} questions of {self.num_prompts} prompts, {first} against {second}"]
        if self.left_out:
            told += [f"left out: {', '.join(f'{num} {reason}' for reason, num in self.left_out.items())}"]
        told += [f"judge: {self.judge['kind']}{':' if named else ''}{named}"]
        if self.win_rate is None:
            said = self._unsaid() if self.not_judged else [self.estimate.says]
            return [*told, *said, *(self.agreement.lines() if self.agreement else [])]
        told += [f"{first} wins: {shown(asdict(self.win_rate), 'share')}, a tie is one half"]
        if self.length_controlled is not None:
            told += [f"at the same length: {shown(asdict(self.length_controlled), 'share')}"]
        else:
            told += ["at the same length: not known, the answers differ in length all alike"]
        told += [f"ties: {self.ties:.1%}; changed by the order of the answers: {self.flip_rate:.1%}", *self._unsaid()]
        if self.spent is not None:
            rough = " or so" if self.spent.is_rough else ""
            cost = "not priced" if self.spent.cost is None else f"cost {self.spent.cost:.4g}"
            told += [
                f"calls: {self.spent.num_calls} ({self.spent.num_kept} answers were kept), {self.spent.tokens_in:,} "
                f"tokens sent{rough}, {self.spent.tokens_out:,} answered; {cost}"
            ]
        return told + (self.agreement.lines() if self.agreement else [])

    @property
    def lacks(self) -> str | None:
        """How many questions have no verdict, and why; None where all have one, or nothing was asked."""
        num, reasons = self._unjudged()
        return f"{num} of {self.num} questions have no verdict ({reasons})" if num else None

    def _unsaid(self) -> list[str]:
        num, reasons = self._unjudged()
        return [f"not judged: {num} ({reasons})"] if num else []

    def _unjudged(self) -> tuple[int, str]:
        return sum(self.not_judged.values()), ", ".join(f"{num} {reason}" for reason, num in self.not_judged.items())

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        calibrated = None if self.agreement is None else self.agreement.as_dict()
        return {**asdict(self), "agreement": calibrated}


def judge(
    path: str | Path,
    settings: JudgeConfig,
    progress: Progress | None = None,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    kept: str | Path | None = None,
    calibrate: bool = False,
    dry_run: bool = False,
    seed: int = 0,
) -> Judged:
    """Ask a judge about each pair of a file (chosen against rejected), or each sample of a run (after against before).

    `format` and `columns` say how pairs are read, where the file does not. `out` gets a row for each question as it is
    judged, and is gone on with where it holds rows of the same judge; `kept` is where raw answers of servers are kept,
    else in the user's cache. With `calibrate`, what people chose is what the judge is held against. A dry run asks
    nothing. Raises DataError or RunError where there is nothing to judge, ConfigError where the settings make no judge,
    JudgeError where it stopped half-way.
    """
    progress = progress or Silent()
    for what, name in (("the file to judge", path), ("--out", out), ("--kept", kept)):
        if name is not None:
            require_name(name, what)
    asked = questions_of(path, format, columns)
    if calibrate and asked.sides != PAIRS:
        raise DataError(f"{path}: is no file of pairs that people judged; calibrate needs chosen and rejected")
    spent: list[Spent] = []
    given = Given(progress, None if kept is None else Path(kept), spent=spent.append)
    kind = JUDGES[settings.kind]
    estimate = kind.estimate(settings, asked.questions, given)
    told = {**settings.model_dump(mode="json"), "identity": None}
    counts = len(asked.questions), len(set(asked.prompts)), asked.left_out, estimate
    if dry_run:
        return Judged(asked.path, asked.sides, told, *counts, {})
    with kind.make(settings, given) as opened:
        told["identity"] = opened.identity
        with _rows(None if out is None else Path(out), asked, opened.identity) as rows:
            missing = [place for place in range(len(asked.questions)) if place not in rows.known]
            with progress.stage("judged", len(asked.questions)) as advance:
                advance(len(rows.known))

                def done(made: Sequence[tuple[int, Preference]]) -> None:
                    rows.take([(missing[place], preference) for place, preference in made])
                    advance(len(made))

                said = opened.prefer([asked.questions[place] for place in missing], done)
            preferences = [
                one for _, one in sorted([*rows.known.items(), *zip(missing, said, strict=True)], key=lambda it: it[0])
            ]
    found = _summary(asked, preferences, seed)
    if calibrate:
        found["agreement"] = agreement(preferences, asked.prompts, asked.lengths, seed=seed)
    return Judged(asked.path, asked.sides, told, *counts, **found, spent=spent[0] if spent else None)


def questions_of(path: str | Path, format: str = "auto", columns: Mapping[str, str] | None = None) -> Asked:
    """Return the questions of a run folder, of a file of samples, or of pairs in any form that is read."""
    place = Path(path)
    if place.is_dir() and Run(place).manifest_file.exists():
        files.refuse_links(place)
        if not (run := Run(place)).samples:
            raise RunError(f"{place}: the run holds no answers to judge; evaluate makes them, with num_samples above 0")
        return _of_samples(run.samples_file, run.samples)
    if place.is_file() and place.name.endswith(".jsonl"):
        with place.open(encoding="utf-8", errors="replace") as file, contextlib.suppress(ValueError, RecursionError):
            first = json.loads(file.readline())
            if isinstance(first, dict) and {"prompt", "before", "after"} <= first.keys():
                if (run := Run(place.parent)).manifest_file.exists():  # it is of a run, or of one of its evaluations
                    run.verify(run.path / place.name)
                return _of_samples(place, files.read_jsonl(place))
    found = read_pairs(path, format, columns=columns)
    questions = [Question.of_pair(pair) for pair in found.pairs]
    return Asked(str(path), PAIRS, questions, [pair.prompt_id for pair in found.pairs], found.reasons)


def _of_samples(path: Path, rows: Sequence[Mapping[str, Any]]) -> Asked:
    with as_a_run_writes(path.parent):
        return Asked(
            str(path), SAMPLES, [Question.of_sample(row) for row in rows], [str(row["prompt_id"]) for row in rows], {}
        )


def _summary(asked: Asked, preferences: Sequence[Preference], seed: int) -> dict[str, Any]:
    """Return the win rate over what was judged, and the reasons for what was not."""
    places = [place for place, one in enumerate(preferences) if one.first is not None]
    if not places:
        return {"not_judged": unsaid(preferences)}
    wins = [float(preferences[place].first or 0.0) for place in places]
    prompts = [asked.prompts[place] for place in places]
    lengths = [asked.lengths[place] for place in places]
    stream = derive_seed(seed, "judge")
    return {
        "not_judged": unsaid(preferences),
        "win_rate": resampled(wins, prompts, (0.0, 1.0), stream).interval(),
        "length_controlled": length_controlled(wins, [float(one - two) for one, two in lengths], prompts, stream),
        "ties": sum(win == TIE for win in wins) / len(wins),
        "flip_rate": sum(preferences[place].flipped for place in places) / len(places),
    }


# ------------------------------------------------------------------------------------------------- what was said, kept


class _Rows:
    """A file of what was said, written as it comes; `known` is what stood in it already, by place."""

    def __init__(self, path: Path | None, asked: Asked, identity: str) -> None:
        self._path, self._asked, self._identity = path, asked, identity
        self._keys = [
            fingerprint([one.chat.as_dict(), one.first, one.second]) for one in asked.questions
        ]  # fmt: skip
        self._rows = self._kept()
        self.known = {place: _preference(row) for place, row in self._rows.items()}

    def take(self, made: Sequence[tuple[int, Preference]]) -> None:
        """Append what was said of some questions."""
        for place, preference in made:
            self._rows[place] = self._row(place, preference)
        if self._path is not None:
            with writing(self._path), self._path.open("a", encoding="utf-8") as file:
                file.writelines(_line(self._rows[place]) for place, _ in made)
                file.flush()
                os.fsync(file.fileno())

    def settle(self) -> None:
        """Write all that is known anew, in the order of the questions."""
        if self._path is not None:
            with writing(self._path):
                files.write_jsonl(self._path, [self._rows[place] for place in sorted(self._rows)])

    def _kept(self) -> dict[int, dict[str, Any]]:
        """Return what the file holds of these questions; what was not judged then is asked again.

        Raises DataError where it holds what another judge, or somebody else, wrote: nothing is overwritten.
        """
        if self._path is None or not self._path.exists():
            return {}
        found: dict[int, dict[str, Any]] = {}
        try:
            *lines, torn = self._path.read_text(encoding="utf-8").split("\n")
            if torn and not lines:  # nothing says that this is one of ours
                raise ValueError
            for row in map(json.loads, lines):
                place = int(row["index"])
                if row["judge"] != self._identity or row["key"] != self._keys[place]:
                    raise ValueError
                if row["preference"] is not None:
                    _preference(row)
                    found[place] = row
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise DataError(
                f"{self._path}: already exists and is not of this file and this judge; choose another name"
            ) from None
        return found

    def _row(self, place: int, preference: Preference) -> dict[str, Any]:
        question, (first, second) = self._asked.questions[place], self._asked.sides
        return {
            "index": place,
            "key": self._keys[place],
            "judge": self._identity,
            "prompt_id": self._asked.prompts[place],
            "sides": [first, second],
            "preference": preference.first,
            "flipped": preference.flipped,
            "at_first": preference.at_first,
            "characters": [len(question.first), len(question.second)],
            "says": preference.says,
        }


@contextlib.contextmanager
def _rows(path: Path | None, asked: Asked, identity: str) -> Iterator[_Rows]:
    """Give the file of what is said; whatever ends the judging, it is left whole and in order."""
    rows = _Rows(path, asked, identity)
    rows.settle()
    try:
        yield rows
    finally:
        rows.settle()


def _preference(row: Mapping[str, Any]) -> Preference:
    at_first = None if row["at_first"] is None else float(row["at_first"])
    return Preference(float(row["preference"]), bool(row["flipped"]), str(row["says"]), at_first)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
