"""The stations of a loop of rounds in their order: what is there is read, what is missing is made.

Owns that order, and what within a round ends the loop. What each station does is known to `stations`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tiebreak import faults, files
from tiebreak.campaigns.appraisal import Appraisal
from tiebreak.campaigns.bench import Bench
from tiebreak.campaigns.campaign import Planned, carry_out
from tiebreak.campaigns.halting import why_end
from tiebreak.campaigns.ledger import Entry, Ledger, best_of, no_earlier
from tiebreak.campaigns.lineup import Lineup
from tiebreak.config import Rounds
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import CapReached, RunError, one_line
from tiebreak.evaluation.judges.table import named
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Progress
from tiebreak.stations.couples import couple
from tiebreak.stations.harvest import harvest, read_answered, sampling_of, tally
from tiebreak.stations.rows import Answered, Verdict
from tiebreak.stations.walk import Walk, digest_of

Until = Literal["sampled", "judged", "paired"]
LEAST_SECONDS = 0.05


class Enough(Exception):  # noqa: N818 - no error: what a round found ends the loop
    """The loop ends within a round."""

    def __init__(self, why: str, says: str) -> None:
        super().__init__(says)
        self.why, self.says = why, says


class Relay:
    """The stations of all rounds in their order."""

    def __init__(self, asked: Rounds, walk: Walk, ledger: Ledger, progress: Progress) -> None:
        self._asked, self._walk, self._ledger, self._progress = asked, walk, ledger, progress
        self._settings, self._lineup = asked.settings, Lineup(asked, progress)
        self._bench = Bench(asked, self._lineup, progress)
        self._appraisal = Appraisal(asked, self._lineup, walk.heldout, progress)

    def go(self, until: Until | None) -> bool:
        """Carry out what is missing, and return whether the loop has ended.

        Raises Enough where what was found within a round ends it.
        """
        self._ledger.note(judge=named(self._settings.judge))
        self._lineup.keep_apart(self._walk)
        self._hold_out()
        for number in range(1, self._settings.count + 1):
            chats = self._walk.round_of(number)
            place = self._lineup.place(number)
            place.mkdir(exist_ok=True)
            ends_after = until if until and not self._ledger.is_beyond(number, until) else None
            answered = self._sampled(number, chats, place)
            if ends_after == "sampled":
                return False
            verdicts = self._judged(number, answered, place)
            if ends_after == "judged":
                return False
            self._paired(number, answered, verdicts, place)
            if ends_after == "paired":
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
            for name in entry["files"]:
                if (place / name).exists():
                    self._proven(entry, place / name)
            return
        place.mkdir(exist_ok=True)
        chats = self._walk.heldout
        with self._timed(entry, "sample"):
            answered = self._drawn(0, chats, place / "samples.jsonl", entry)
        self._proven(entry, place / "samples.jsonl")
        self._heed_cut_off("held-out prompts", tally(answered))
        with self._timed(entry, "judge"), self._within_budget("held-out prompts"):
            ruled = self._bench.rule(0, answered, place / "verdicts.jsonl", self._left)
        coupled = couple(
            answered, ruled.verdicts, self._settings.pairing, self._settings.guards, name="heldout", seed=self._seed
        )
        account = coupled.account.as_dict()
        entry |= {"samples": tally(answered), "judge": ruled.as_dict(), "pairs": account, "cost": ruled.cost}
        self._ledger.note(heldout=entry)
        if not coupled.pairs:
            told = ", ".join(f"{num} {reason}" for reason, num in coupled.account.prompts.items() if num)
            raise RunError(
                f"{place}: the first model's answers to {len(chats)} held-out prompts give no pair ({told}); bring "
                "more prompts, draw more answers, or take a judge or guards that leave some"
            )
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        with self._timed(entry, "measure"), self._within_budget("held-out prompts"):
            entry |= self._appraisal.of_first(self._left)
        for name in ("verdicts.jsonl", "pairs.jsonl", "answers.jsonl"):
            self._proven(entry, place / name)
        self._ledger.note(heldout=entry | {"state": "measured", "measuring_cost": self._appraisal.cost_of(0)})

    def _sampled(self, number: int, chats: Sequence[Chat], place: Path) -> list[Answered]:
        entry = self._ledger.fill(number)
        with self._timed(entry, "sample"):
            answered = self._drawn(number, chats, place / "samples.jsonl", entry)
        self._proven(entry, place / "samples.jsonl")
        told = tally(answered)
        prompts = {"count": len(chats), "digest": digest_of(chats), "used_before": (number - 1) * len(chats)}
        self._ledger.fill(number, prompts=prompts, samples=told, state=no_earlier(entry, "sampled"))
        self._heed_cut_off(f"round {number}", told)
        return answered

    def _heed_cut_off(self, name: str, told: Mapping[str, Any]) -> None:
        """End the loop where a guard would hold back most answers, since they were cut off."""
        cut_off, most = 1 - told["finished"], self._settings.sampling.max_new_tokens
        if "finished" in self._settings.guards and cut_off > self._settings.stop.cut_off:
            raise Enough(
                "cut_off",
                f"{name}: {cut_off:.0%} of the answers were cut off at {most} tokens; begin another loop with a larger "
                "rounds.sampling.max_new_tokens, ask for shorter answers (rounds.asked_as), or allow more with "
                "rounds.stop.cut_off",
            )

    def _judged(self, number: int, answered: Sequence[Answered], place: Path) -> Sequence[Verdict]:
        entry = self._ledger.fill(number)
        with self._timed(entry, "judge"), self._within_budget(f"round {number}"):
            first = self._ledger.told["heldout"]["judge"]["identity"]
            ruled = self._bench.rule(number, answered, place / "verdicts.jsonl", self._left, first)
            told = ruled.as_dict() | self._bench.drift(number, self._walk.heldout)
        self._proven(entry, place / "verdicts.jsonl")
        self._ledger.fill(number, judge=told, cost=ruled.cost, state=no_earlier(entry, "judged"))
        return ruled.verdicts

    def _paired(self, number: int, answered: Sequence[Answered], verdicts: Sequence[Verdict], place: Path) -> None:
        settings, entry = self._settings, self._ledger.fill(number)
        coupled = couple(answered, verdicts, settings.pairing, settings.guards, name=place.name, seed=self._seed)
        faults.point("rounds:pairs")
        files.write_jsonl(place / "pairs.jsonl", [pair.as_dict() for pair in coupled.pairs])
        self._proven(entry, place / "pairs.jsonl")
        account = coupled.account
        self._ledger.fill(number, pairs=account.as_dict(), state=no_earlier(entry, "paired"))
        if account.unusable_share > settings.stop.unusable_prompts or not coupled.pairs:
            told = ", ".join(f"{num} {reason}" for reason, num in account.prompts.items() if num)
            raise Enough(
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
            start={"is": settings.start, "digest": manifest["start_weights"]},
            reference={"is": settings.reference, "digest": manifest["reference_weights"]},
            mix=[self._file(one) for one in run.data["files"]],
            num_steps=manifest["num_steps"],
        )

    def _file(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is kept of a file that was trained on or held out; one of the loop by its place in it."""
        path, folder = Path(told["path"]), self._asked.folder
        name = str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
        return {"path": name, "sha256": told["sha256"], "num_records": told["num_records"]}

    def _measured(self, number: int) -> None:
        entry, answers = self._ledger.fill(number), self._lineup.place(number) / "answers.jsonl"
        if entry["state"] == "measured" and self._appraisal.is_whole(entry["measured"]):
            if answers.exists():
                self._proven(entry, answers)
            return
        with self._timed(entry, "measure"), self._within_budget(f"round {number}"):
            measured = self._appraisal.of(number, self._left)
        self._proven(entry, answers)
        self._ledger.fill(number, state="measured", measured=measured, measuring_cost=self._appraisal.cost_of(number))
        self._ledger.note(best=best_of(self._ledger.rounds, self._asked.folder))

    # --------------------------------------------------------------------------------------------------------- pieces

    @property
    def _left(self) -> float | None:
        """What may still be spent on judging; None where nothing bounds it."""
        cost = self._settings.stop.cost
        return None if cost is None else max(0.0, cost - self._ledger.cost)

    @contextlib.contextmanager
    def _within_budget(self, name: str) -> Iterator[None]:
        """End the loop where the next call could go beyond what it may cost; a judge's own cap is an error as ever."""
        try:
            yield
        except CapReached as error:
            if self._settings.stop.cost is None:
                raise
            raise Enough(
                "cost",
                f"{name}: the next call could take the cost of judging above rounds.stop.cost "
                f"{self._settings.stop.cost:g}; raise it, and the same command goes on ({one_line(error, 200)})",
            ) from None

    @property
    def _seed(self) -> int:
        return self._settings.sampling.seed

    def _proven(self, entry: Entry, path: Path) -> None:
        """Note the digest of a station's file, or prove that the file is still the one that was written."""
        digest, known = file_digest(path), entry.setdefault("files", {})
        if known.setdefault(path.name, digest) != digest:
            raise RunError(
                f"{path}: is not what was written, and later stations stand on it; bring it back from a copy, or begin "
                "another loop"
            )

    def _drawn(self, number: int, chats: Sequence[Chat], path: Path, entry: Entry) -> list[Answered]:
        """Return answers of the policy that goes into a round; 0: of the first model, to held-out prompts."""
        sampling = sampling_of(self._settings.sampling, number)
        if path.exists():
            return read_answered(path, chats, sampling.num)

        def checked(told: Mapping[str, Any]) -> None:
            entry["on_policy"] = dict(told)
            self._ledger.note()

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
