"""Rounds: the model answers, a judge decides, the pairs train it, and again.

Owns the order of the stations, and which model starts, is compared with, and answers. Each station reads a file and
writes one; a loop that was killed goes on with the station that it was at. On-policy DPO in the sense of Dong et al.
2024 (2405.07863) and Xiong et al. 2023 (2312.11456); with two answers and a step a round, online DPO (Guo et al. 2024).

    OUT/rounds.json, rounds.html   the ledger, and all of it on a page
    OUT/heldout/                   what the first model says to held-out prompts: samples, verdicts, pairs, answers
    OUT/round-01/                  samples, verdicts, pairs; train/ is an ordinary run; answers to held-out prompts
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tiebreak import faults, files
from tiebreak.campaigns.appraisal import Appraisal
from tiebreak.campaigns.bench import Bench
from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.campaigns.halting import why_end
from tiebreak.campaigns.ledger import DONE, PAGE, WAITING, Entry, Ledger, best_of, no_earlier
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import JudgeConfig, Rounds, load_rounds
from tiebreak.engine.answers.answerer import Chat
from tiebreak.engine.models import load_renderer
from tiebreak.errors import RunError, Waiting
from tiebreak.evaluation.judges.given import Given
from tiebreak.evaluation.judges.table import JUDGES, named
from tiebreak.progress import OnlyNew, Progress, Silent
from tiebreak.reporting.rounds import write_rounds_page
from tiebreak.runs import Run
from tiebreak.stations.couples import couple
from tiebreak.stations.harvest import harvest, read_answered, sampling_of, tally
from tiebreak.stations.rows import Answered, Verdict
from tiebreak.stations.walk import Walk, digest_of, open_walk

Until = Literal["sampled", "judged", "paired"]
LEAST_SECONDS = 0.05


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


def rounds_of(config: Rounds | str | Path, overrides: Sequence[str] | Mapping[str, Any]) -> Rounds:
    """Return a loop as a program names one: read, or as it is, to which nothing can be added."""
    if not isinstance(config, Rounds):
        return load_rounds(config, overrides)
    if overrides:
        raise TypeError("overrides go with a YAML file; give changed Rounds instead")
    return config


def rounds(asked: Rounds, progress: Progress | None = None, *, until: Until | None = None) -> Looped:
    """Carry out the rounds that are missing, and say which one is the best.

    `until` ends the loop after a station of the round that is under way. Raises RunError where the folder holds a loop
    of other settings, or no round could be trained; JudgeError where a judge stopped half-way; Preempted where a signal
    ended it.
    """
    told, folder = OnlyNew(progress or Silent()), asked.folder
    with files.locked(folder, told.warn):
        base = asked.base
        renderer, context = load_renderer(base.model, base.data, told.say)
        walk = open_walk(asked.settings, base.data, renderer, context.most, told)
        _check(asked, walk)
        ledger = Ledger.begun(asked, walk.counts)
        loop = _Loop(asked, walk, ledger, told)
        try:
            ended = loop.go(until)
        except Waiting:
            ledger.note(status=WAITING)
            raise
        except _Enough as enough:
            ended = True
            ledger.note(stopped={"why": enough.why, "says": enough.says})
            if best_of(ledger.rounds, folder) is None:
                raise RunError(f"{folder}: {enough.says}") from None
        ledger.note(status=DONE if ended else WAITING, best=best_of(ledger.rounds, folder))
        write_rounds_page(ledger.told, loop.answers_of_best(), folder / PAGE)
    return Looped(folder, ledger.told)


def _check(asked: Rounds, walk: Walk) -> None:
    """Refuse a judge that cannot be one before anything is sampled."""
    given = Given(answered=[(chat, ()) for chat in (*walk.prompts, *walk.heldout)], folder=asked.folder)
    judges: list[JudgeConfig] = [asked.settings.judge]
    judges += [asked.base.evaluation.judge] if asked.base.evaluation.judge else []
    for one in judges:
        JUDGES[one.kind].check(one, given)


class _Enough(Exception):  # noqa: N818 - no error: what a round found ends the loop
    """The loop ends within a round."""

    def __init__(self, why: str, says: str) -> None:
        super().__init__(says)
        self.why, self.says = why, says


class _Loop:
    """The stations of all rounds in their order."""

    def __init__(self, asked: Rounds, walk: Walk, ledger: Ledger, progress: Progress) -> None:
        self._asked, self._walk, self._ledger, self._progress = asked, walk, ledger, progress
        self._settings, self._lineup = asked.settings, Lineup(asked, progress)
        self._bench = Bench(asked, self._lineup, progress)
        self._appraisal = Appraisal(asked, self._lineup, walk.heldout, progress)

    def go(self, until: Until | None) -> bool:
        """Carry out what is missing, and return whether the loop has ended.

        Raises _Enough where what was found within a round ends it.
        """
        self._ledger.note(judge=named(self._settings.judge))
        self._hold_out()
        for number in range(1, self._settings.count + 1):
            chats = self._walk.round_of(number)
            place = self._lineup.place(number)
            place.mkdir(exist_ok=True)
            answered = self._sampled(number, chats, place)
            if until == "sampled":
                return False
            verdicts = self._judged(number, answered, place)
            if until == "judged":
                return False
            self._paired(number, answered, verdicts, place)
            if until == "paired":
                return False
            self._trained(number)
            self._measured(number)
            if end := why_end(self._ledger.rounds[:number], self._settings.stop):
                self._ledger.note(stopped=end)
                break
        return True

    # ------------------------------------------------------------------------------------------------------- stations

    def _hold_out(self) -> None:
        """Let the first model answer held-out prompts: its pairs are held out in every round, its answers judged."""
        place, entry = self._lineup.heldout, dict(self._ledger.told.get("heldout") or {"seconds": {}})
        if entry.get("state") == "measured":
            return
        place.mkdir(exist_ok=True)
        chats = self._walk.heldout
        with self._timed(entry, "sample"):
            answered = self._drawn(0, chats, place / "samples.jsonl", entry)
        with self._timed(entry, "judge"):
            ruled = self._bench.rule(0, answered, place / "verdicts.jsonl", self._ledger.cost)
        coupled = couple(
            answered, ruled.verdicts, self._settings.pairing, self._settings.guards, name="heldout", seed=self._seed
        )
        account = coupled.account.as_dict()
        self._ledger.note(heldout=entry | {"samples": tally(answered), "judge": ruled.as_dict(), "pairs": account})
        if not coupled.pairs:
            told = ", ".join(f"{num} {reason}" for reason, num in coupled.account.prompts.items() if num)
            raise RunError(
                f"{place}: the first model's answers to {len(chats)} held-out prompts give no pair ({told}); bring "
                "more prompts, draw more answers, or take a judge or guards that leave some"
            )
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        with self._timed(entry, "measure"):
            entry |= self._appraisal.of_first()
        known = {"samples": tally(answered), "judge": ruled.as_dict(), "pairs": account, "cost": ruled.cost}
        self._ledger.note(heldout=entry | known | {"state": "measured", "measuring_cost": self._appraisal.cost})

    def _sampled(self, number: int, chats: Sequence[Chat], place: Path) -> list[Answered]:
        entry = self._ledger.fill(number)
        with self._timed(entry, "sample"):
            answered = self._drawn(number, chats, place / "samples.jsonl", entry)
        told = tally(answered)
        prompts = {"count": len(chats), "digest": digest_of(chats), "used_before": (number - 1) * len(chats)}
        self._ledger.fill(number, prompts=prompts, samples=told, state=no_earlier(entry, "sampled"))
        cut_off = 1 - told["finished"]
        if "finished" in self._settings.guards and cut_off > self._settings.stop.cut_off:
            most = self._settings.sampling.max_new_tokens
            raise _Enough(
                "cut_off",
                f"round {number}: {cut_off:.0%} of the answers were cut off at {most} tokens; raise "
                "rounds.sampling.max_new_tokens, or allow more with rounds.stop.cut_off",
            )
        return answered

    def _judged(self, number: int, answered: Sequence[Answered], place: Path) -> Sequence[Verdict]:
        entry = self._ledger.fill(number)
        with self._timed(entry, "judge"):
            ruled = self._bench.rule(number, answered, place / "verdicts.jsonl", self._ledger.cost)
            told = ruled.as_dict() | self._bench.drift(number, self._walk.heldout)
        self._ledger.fill(number, judge=told, cost=ruled.cost, state=no_earlier(entry, "judged"))
        return ruled.verdicts

    def _paired(self, number: int, answered: Sequence[Answered], verdicts: Sequence[Verdict], place: Path) -> None:
        settings, entry = self._settings, self._ledger.fill(number)
        coupled = couple(answered, verdicts, settings.pairing, settings.guards, name=place.name, seed=self._seed)
        faults.point("rounds:pairs")
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        account = coupled.account
        self._ledger.fill(number, pairs=account.as_dict(), state=no_earlier(entry, "paired"))
        if account.unusable_share > settings.stop.unusable_prompts or not coupled.pairs:
            told = ", ".join(f"{num} {reason}" for reason, num in account.prompts.items() if num)
            raise _Enough(
                "unusable_prompts",
                f"round {number}: {account.unusable_share:.0%} of {account.num_prompts} prompts give no pair ({told})",
            )

    def _trained(self, number: int) -> None:
        entry, settings = self._ledger.fill(number), self._settings
        with self._timed(entry, "train"):
            [(_, run)] = carry_out([Planned(f"round {number}", self._lineup.config(number))], self._progress)
        manifest = run.manifest
        self._ledger.fill(
            number,
            state=no_earlier(entry, "trained"),
            train=str(run.path.relative_to(self._asked.folder)),
            start={"is": settings.start, "digest": manifest["model"]},
            reference={"is": settings.reference, "digest": manifest["reference"]},
            mix=[self._file(one) for one in run.data["files"]],
            num_steps=manifest["num_steps"],
        )

    def _file(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is kept of a file that was trained on or held out; one of the loop by its place in it."""
        path, folder = Path(told["path"]), self._asked.folder
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        return {"path": name, "sha256": told["sha256"], "num_records": told["num_records"]}

    def _measured(self, number: int) -> None:
        entry = self._ledger.fill(number)
        if entry["state"] == "measured":
            return
        with self._timed(entry, "measure"):
            measured = self._appraisal.of(number)
        self._ledger.fill(number, state="measured", measured=measured, measuring_cost=self._appraisal.cost)

    # --------------------------------------------------------------------------------------------------------- pieces

    @property
    def _seed(self) -> int:
        return self._settings.sampling.seed

    def _drawn(self, number: int, chats: Sequence[Chat], path: Path, entry: Entry) -> list[Answered]:
        """Return answers of the policy that goes into a round; 0: of the first model, to held-out prompts."""
        sampling = sampling_of(self._settings.sampling, number)
        if path.exists():
            return read_answered(path, chats, sampling.num)

        def checked(told: Mapping[str, Any]) -> None:
            entry["on_policy"] = dict(told)

        with self._lineup.answering(max(0, number - 1), chats, checked) as answerer:
            return harvest(answerer, chats, sampling, path, self._progress)

    @contextlib.contextmanager
    def _timed(self, entry: Entry, station: str) -> Iterator[None]:
        """Add the seconds of a station to an entry, of all goes together."""
        began = time.monotonic()
        try:
            yield
        finally:
            taken = time.monotonic() - began
            if taken >= LEAST_SECONDS:  # a station that is passed again only reads its file
                entry["seconds"][station] = round(entry["seconds"].get(station, 0.0) + taken, 1)

    def answers_of_best(self) -> list[dict[str, Any]]:
        """Return the held-out answers of the best round beside the first model's, prompt by prompt."""
        best = self._ledger.told.get("best")
        if not best:
            return []
        wins = self._ledger.rounds[best["round"] - 1]["measured"]["vs_first"]["wins"]
        return self._appraisal.beside_first(best["round"], wins)
