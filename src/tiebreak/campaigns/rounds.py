"""Rounds: the model answers, a judge decides, the pairs train it, and again.

Owns the order of the stations, and which model starts, is compared with, and answers. Each station reads a file and
writes one; a loop that was killed goes on with the station that it was at. On-policy DPO in the sense of Dong et al.
2024 (2405.07863) and Xiong et al. 2023 (2312.11456); with two answers and a step a round, online DPO (Guo et al. 2024).

    OUT/rounds.json, rounds.html   the ledger, and all of it on a page
    OUT/heldout/                   what the first model says to held-out prompts: samples, verdicts, pairs, answers
    OUT/round-01/                  samples, verdicts, pairs; train/ is an ordinary run; answers to held-out prompts
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from tiebreak import files
from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.campaigns.halting import why_end
from tiebreak.campaigns.ledger import DONE, PAGE, WAITING, Entry, Ledger, best_of
from tiebreak.config import Config, ModelConfig, Rounds, quoted
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.model import Model
from tiebreak.engine.models import load_frozen
from tiebreak.errors import RunError
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES
from tiebreak.evaluation.judging import named
from tiebreak.fingerprint import derive_seed
from tiebreak.progress import OnlyNew, Progress, Silent
from tiebreak.reporting.numbers import shown
from tiebreak.reporting.rounds import write_rounds_page
from tiebreak.runs import Run
from tiebreak.stations import standing
from tiebreak.stations.couples import couple
from tiebreak.stations.harvest import harvest
from tiebreak.stations.rows import Answered
from tiebreak.stations.ruling import rule
from tiebreak.stations.walk import Walk, read_walk

T = TypeVar("T")
Until = Literal["sampled", "judged", "paired"]


@dataclass(frozen=True)
class Looped:
    """A loop that was carried out, as far as it got: its folder, and rounds.json."""

    folder: Path
    found: Mapping[str, Any]

    @property
    def page(self) -> Path:
        """All of it on one page."""
        return self.folder / PAGE

    @property
    def best(self) -> Run | None:
        """The run of the best round; None where none is measured."""
        best = self.found.get("best")
        return Run(self.folder / str(best["run"])) if best else None

    @property
    def next(self) -> str | None:
        """What to do with the best round, as a command."""
        best = self.found.get("best")
        return str(best["command"]) if best else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"rounds": str(self.folder), "page": str(self.page), **self.found}


def rounds(asked: Rounds, progress: Progress | None = None, *, until: Until | None = None) -> Looped:
    """Carry out the rounds that are missing, and say which one is the best.

    `until` ends the loop after a station of the round that is under way. Raises RunError where the folder holds a loop
    of other settings, or no round could be trained; JudgeError where a judge stopped half-way; Preempted where a signal
    ended it.
    """
    told, folder = OnlyNew(progress or Silent()), asked.folder
    with files.locked(folder, told.warn):
        walk = read_walk(asked, told)
        ledger = Ledger.begun(asked, walk.digests)
        loop = _Loop(asked, walk, ledger, told)
        try:
            loop.go(until)
        except _Enough as enough:
            ledger.note(stopped={"why": enough.why, "says": enough.says})
            if best_of(ledger.rounds) is None:
                raise RunError(f"{folder}: {enough.says}") from None
        best = loop.crown()
        if best or not until:
            ledger.note(status=DONE if not until else WAITING)
        write_rounds_page(ledger.told, loop.answers_of_best(), folder / PAGE)
    return Looped(folder, ledger.told)


class _Enough(Exception):  # noqa: N818 - no error: what a round found ends the loop
    """The loop ends within a round."""

    def __init__(self, why: str, says: str) -> None:
        super().__init__(says)
        self.why, self.says = why, says


class _Loop:
    """The stations of all rounds in their order."""

    def __init__(self, asked: Rounds, walk: Walk, ledger: Ledger, progress: Progress) -> None:
        self._asked, self._walk, self._ledger, self._progress = asked, walk, ledger, progress
        self._settings, self._base = asked.settings, asked.base
        self._heldout = asked.folder / "heldout"

    def go(self, until: Until | None) -> None:
        """Carry out what is missing; raises _Enough where what was found ends the loop."""
        self._ledger.note(judge=named(self._settings.judge), prompts=self._walk.as_dict())
        self._hold_out()
        for number in range(1, self._settings.count + 1):
            if not self._walk.round(number):
                raise _Enough("prompts", f"round {number}: no prompt is left")
            if self._round(number, until):
                return
            if end := why_end(self._ledger.rounds[:number], self._settings.stop):
                self._ledger.note(stopped=end)
                return

    def _round(self, number: int, until: Until | None) -> bool:
        """Carry out a round; return whether it was ended before its training."""
        place = self._place(number)
        place.mkdir(exist_ok=True)
        answered = self._sampled(number, place)
        if until == "sampled":
            return True
        verdicts = self._judged(number, place, answered)
        if until == "judged":
            return True
        self._paired(number, place, answered, verdicts)
        if until == "paired":
            return True
        self._trained(number, place)
        self._measured(number, place)
        return False

    # ------------------------------------------------------------------------------------------------------- stations

    def _hold_out(self) -> None:
        """Let the first model answer held-out prompts: its pairs are held out in every round, its answers judged."""
        place = self._heldout
        place.mkdir(exist_ok=True)
        told = dict(self._ledger.told.get("heldout") or {"seconds": {}})
        with self._timed(told, "sample"):
            answered = self._drawn(0, self._walk.heldout, place / "samples.jsonl", "held-out prompts")
            told["samples"] = summary(answered)
        with self._timed(told, "judge"):
            ruled = self._ruled(0, answered, place / "verdicts.jsonl")
            told |= {"judge": ruled.as_dict(), "cost": ruled.cost}
        coupled = couple(
            answered, ruled.verdicts, self._settings.pairing, self._settings.guards, name="heldout", seed=self._seed(0)
        )
        told["pairs"] = coupled.account.as_dict()
        if not coupled.pairs:
            raise RunError(
                f"{place}: the first model's answers to {len(answered)} held-out prompts give no pair "
                f"({coupled.account.says}); bring more prompts or a judge that tells them apart"
            )
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        with self._timed(told, "measure"), self._frozen(0) as model:
            answers = self._greedy(model, place / "answers.jsonl")
        told |= self._counted(answers, 0)
        self._ledger.note(heldout=told)

    def _sampled(self, number: int, place: Path) -> list[Answered]:
        entry = self._ledger.fill(number)
        chats = self._walk.round(number)
        with self._timed(entry, "sample"):
            answered = self._drawn(number, chats, place / "samples.jsonl", f"round {number}")
        told = summary(answered)
        self._ledger.fill(number, state="sampled", prompts=self._walk.of_round(number), samples=told)
        cut_off = 1 - told["finished"]
        if "finished" in self._settings.guards and cut_off > self._settings.stop.cut_off:
            raise _Enough(
                "cut_off",
                f"round {number}: {cut_off:.0%} of the answers were cut off at {self._settings.sampling.max_new_tokens} "
                "tokens; raise rounds.sampling.max_new_tokens, or allow it with rounds.stop.cut_off",
            )
        return answered

    def _judged(self, number: int, place: Path, answered: Sequence[Answered]) -> list[Verdict]:
        entry = self._ledger.fill(number)
        with self._timed(entry, "judge"):
            ruled = self._ruled(number, answered, place / "verdicts.jsonl")
        self._ledger.fill(number, state="judged", judge=ruled.as_dict(), cost=ruled.cost)
        return [*ruled.verdicts]

    def _paired(
        self, number: int, place: Path, answered: Sequence[Answered], verdicts: Sequence[Verdict]
    ) -> None:
        settings = self._settings
        coupled = couple(
            answered, verdicts, settings.pairing, settings.guards, name=place.name, seed=self._seed(number)
        )
        account = coupled.account
        entry = self._ledger.fill(number, pairs=account.as_dict())
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        without = sum(account.without_pair.values()) / max(account.num_prompts, 1)
        if without > settings.stop.unusable_prompts or not coupled.pairs:
            raise _Enough("unusable", f"round {number}: {without:.0%} of the prompts give no pair ({account.says})")
        if entry["state"] == "judged":
            self._ledger.fill(number, state="paired")

    def _trained(self, number: int, place: Path) -> None:
        entry = self._ledger.fill(number)
        config = self._config(number, place)
        with self._timed(entry, "train"):
            [(_, run)] = carry_out([Planned(f"round {number}", config)], self._progress)
        manifest = run.manifest
        known = {
            "train": str(run.path.relative_to(self._asked.folder)),
            "start": {"is": self._settings.start, "digest": manifest["model"]},
            "reference": {"is": self._settings.reference, "digest": manifest["reference"]},
            "num_steps": manifest.get("num_steps"),
        }
        self._ledger.fill(number, state="trained", **known)

    def _measured(self, number: int, place: Path) -> None:
        """Measure a round's policy on held-out prompts, against the first model and the round before."""
        entry = self._ledger.fill(number)
        if entry["state"] == "measured":
            return
        with self._timed(entry, "measure"):
            with self._frozen(number) as policy:
                answers = self._greedy(policy, place / "answers.jsonl")
                drawn = standing.drawn(self._settings.sampling, self._settings.measure_draws)
                draws = harvest(policy, self._walk.heldout, drawn, place / "draws.jsonl", self._progress) if drawn.num else []
                own = standing.token_logps(policy, draws, drawn)
            others = {"kl_first": 0} | ({"kl_previous": number - 1} if number > 1 else {})
            prompts = [one.prompt_id for one in draws for _ in one.answers]
            measured: dict[str, Any] = {}
            for key, other in others.items() if draws else ():
                with self._frozen(other) as model:
                    kl = standing.divergence(own, standing.token_logps(model, draws, drawn), prompts, self._seed(number))
                measured[key] = kl and asdict(kl)
            measured |= self._against(number, answers)
        self._ledger.fill(number, state="measured", measured=measured | self._counted(answers, number))
