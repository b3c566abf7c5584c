"""What a review leaves: pairs to train on, what nobody decided, its results, and evidence for the gate of its run.

Owns these files and when a win rate is evidence. All of it is made anew from the logs each time.

    pairs.jsonl       a row for each item with a majority, in the form tiebreak
    undecided.jsonl   the others with their votes, in the form votes: reports of agreement need them as well
    results.json      every number
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak import files, folders
from tiebreak.config import in_quotes, quoted
from tiebreak.data.formats.pairing import soft_label
from tiebreak.errors import DataError, RunError
from tiebreak.evaluation.rows import Row
from tiebreak.fingerprint import derive_seed, file_digest
from tiebreak.records import Message, Pair, Preference
from tiebreak.records import Vote as Cast
from tiebreak.records.judged import Origin
from tiebreak.reporting.page import write_report
from tiebreak.review.desk import Review
from tiebreak.review.evidence import FAST, Results
from tiebreak.review.folder import as_lines
from tiebreak.review.items import EQUAL, Item
from tiebreak.review.results import alpha_of, is_fast
from tiebreak.review.votes import Vote
from tiebreak.runs import Run, as_a_run_writes, open_run

MEASURE = "human_win_rate"
PAIRS, UNDECIDED, RESULTS = "pairs.jsonl", "undecided.jsonl", "results.json"


@dataclass(frozen=True)
class Outcome:
    """What was written."""

    results: Results
    num_pairs: int
    num_undecided: int
    pairs_alpha: float | None
    """Krippendorff's alpha over pairs.jsonl alone, as its reader sees it; that of `results` is over both files."""
    run: Path | None = None
    """Whose evaluation holds the win rate now."""
    not_evidence: str = ""
    """Why no run holds it."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        pairs = {"num": self.num_pairs, "num_undecided": self.num_undecided, "alpha": self.pairs_alpha}
        run = None if self.run is None else str(self.run)
        return self.results.as_dict() | {"pairs": pairs, "run": run, "not_evidence": self.not_evidence}


def conclude(review: Review, exclude: Collection[str] = (), named: Path | None = None) -> Outcome:
    """Write what the votes of a review come to, into its folder and, of a run, into that run's evaluation.

    `exclude` names annotators whose votes do not count, or `fast`; results.json says so. The run is the first one that
    holds the answers that were reviewed: that which is `named`, where it lay, or beside the review. Where it is gone,
    in use or answers otherwise by now, its evaluation stays as it is, and the outcome says why.
    """
    found = review.results(exclude)
    votes = _counted(review, exclude)
    decided, undecided = _sorted(review.items.values(), votes)
    among = [vote for pair_votes in (votes[item.id] for item, _ in decided) for vote in pair_votes]
    alpha, _ = alpha_of(review.items, among, derive_seed(review.settings.seed, "review", "alpha"))
    files.write_bytes(review.folder / PAIRS, as_lines(_pair_row(review, *one, votes) for one in decided))
    files.write_bytes(review.folder / UNDECIDED, as_lines(_undecided_row(item, votes[item.id]) for item in undecided))
    try:
        run, reason = _into_run(review, found, named)
    except (RunError, DataError) as error:
        run, reason = None, str(error)
    outcome = Outcome(
        found, len(decided), len(undecided), None if alpha is None else alpha.value, run, reason
    )  # fmt: skip
    files.write_json(review.folder / RESULTS, outcome.as_dict())
    return outcome


def _counted(review: Review, exclude: Collection[str]) -> dict[str, list[Vote]]:
    """Return the first votes that count by item, in the order of the annotators."""
    found: dict[str, list[Vote]] = {name: [] for name in review.items}
    for name in review.annotators:
        for vote in review.votes(name) if name not in exclude else ():
            fast = FAST in exclude and is_fast(vote, review.items[vote.item])
            if vote.verdict and not vote.again and not fast:
                found[vote.item].append(vote)
    return found


def _sorted(items: Iterable[Item], votes: Mapping[str, Sequence[Vote]]) -> tuple[list[tuple[Item, str]], list[Item]]:
    """Return items with the side that more votes are for, and those with votes that give no pair."""
    decided, undecided = [], []
    for item in items:
        verdicts = [vote.verdict for vote in votes[item.id]]
        a, b = verdicts.count("a"), verdicts.count("b")
        if a != b and item.a.strip() and item.b.strip():  # of an empty answer no pair is made
            decided.append((item, "a" if a > b else "b"))
        elif verdicts:
            undecided.append(item)
    return decided, undecided


def _pair_row(review: Review, item: Item, winner: str, votes: Mapping[str, Sequence[Vote]]) -> dict[str, Any]:
    cast = votes[item.id]
    chosen, rejected = (item.a, item.b) if winner == "a" else (item.b, item.a)
    told = tuple(Cast(_choice(vote, winner), vote.annotator) for vote in cast)
    origin = {name: value for name, value in item.origin.items() if name in Origin.__dataclass_fields__}
    pair = Pair(
        item.prompt,
        Message("assistant", chosen),
        Message("assistant", rejected),
        item.tools,
        preference=Preference(soft_label=soft_label(told), votes=told),
        origin=Origin(**origin),
    )
    tags: dict[str, list[str]] = {vote.annotator: list(vote.tags) for vote in cast if vote.tags}
    notes = {vote.annotator: vote.note for vote in cast if vote.note}
    clearly = [vote.annotator for vote in cast if vote.strength]
    more = {"tags": tags, "notes": notes, "clearly": clearly}
    beside = {"of": review.folder.name, "item": item.id} | {name: value for name, value in more.items() if value}
    return pair.as_dict() | {"reviewed": beside}  # a column called review may be what a prompt is about


def _choice(vote: Vote, winner: str) -> Any:
    if vote.verdict not in ("a", "b"):
        return "tie"
    return "chosen" if vote.verdict == winner else "rejected"


def _undecided_row(item: Item, votes: Sequence[Vote]) -> dict[str, Any]:
    """Return a row whose votes no majority decides; both bad is a tie that also says so."""
    told = item.as_dict()
    row = {"item": item.id, "prompt": told["prompt"], "completion_a": item.a, "completion_b": item.b}
    words = {"a": "completion_a", "b": "completion_b"}
    row["votes"] = [
        {"choice": words.get(str(vote.verdict), "tie"), "annotator": vote.annotator} for vote in votes
    ]  # fmt: skip
    bad = [vote.annotator for vote in votes if vote.verdict == "both_bad"]
    return row | ({"tools": list(item.tools)} if item.tools else {}) | ({"both_bad": bad} if bad else {})


# ------------------------------------------------------------------------------------------------- evidence of a run


def _into_run(review: Review, found: Results, named: Path | None) -> tuple[Path | None, str]:
    """Write the win rate into the run that was reviewed; return whose it is, or why there is none."""
    if review.settings.source.get("kind") != "run":
        return None, "this is no review of a run"
    run = _run_of(review, named)
    with folders.locked(run.path, otherwise="run the same command again"):
        run.verify(run.config_file, *run.given_files, *run.measured_files)
        _require_its_answers(run, review)
        reason = "nobody voted" if found.win_rate is None else ""
        if found.chosen_actively:
            reason = "items were chosen by how close they are: a win rate over them says nothing of the rest"
        with as_a_run_writes(run.path):
            _write_down(run, None if reason else found)
    return (None, reason) if reason else (run.path, "")


def _run_of(review: Review, named: Path | None) -> Run:
    """Return the run that holds the answers that were reviewed; runs and reviews are moved, and names taken anew."""
    beside = review.folder.resolve()
    places = [named, Path(str(review.settings.source["path"])), beside.with_name(beside.name.removesuffix(".review"))]
    errors: list[Exception] = []
    for place in places:
        if place is None or place.resolve() == beside:
            continue
        try:
            _require_its_answers(run := open_run(place), review)
        except (RunError, DataError) as error:
            errors.append(error)
        else:
            return run
    raise next((error for error in errors if isinstance(error, _OtherAnswers)), errors[0])


class _OtherAnswers(RunError):  # noqa: N818 - named for what was found
    """A run answers otherwise than when it was reviewed."""


def _require_its_answers(run: Run, review: Review) -> None:
    """Raise RunError where a run does not hold the answers of a review, or the review's items are not from them."""
    again = f"review it again, with another --out than {quoted(str(review.folder))}"
    if not run.samples_file.exists() or file_digest(run.samples_file) != review.settings.source["digest"]:
        raise _OtherAnswers(
            f"{run.path}: answers otherwise than when it was reviewed, and what people said is about other answers; "
            f"{again}"
        )
    if not review.is_of(run.path):
        raise RunError(f"{run.path}: its answers give other items than those of {review.folder}; {again}")


def _write_down(run: Run, found: Results | None) -> None:
    """Put the win rate in, in the place of an earlier one, or take that out; the verdict is that of `tiebreak gate`."""
    rows = [row for row in run.rows(run.measures_file) if row["key"] != MEASURE]
    evaluation = dict(run.evaluation)
    table = [row for row in evaluation["table"] if row.get("key") != MEASURE]
    had = MEASURE in evaluation
    evaluation.pop(MEASURE, None)
    if found is None and not had:
        return
    if found is not None and found.win_rate is not None:
        prompts, wins = zip(*found.values.values(), strict=True)
        equal = found.left_out.get(EQUAL)
        note = f"of answers that differ ({equal} do not)" if equal else ""  # no part of its name: that is compared
        row = Row.of(MEASURE, prompts, [0.5] * len(wins), wins, note=note, doubt="; ".join(found.doubts))
        rows.append(row.as_dict())
        told = {"name": f"{row.name}, {note}"} if note else {}
        table.append(row.table(derive_seed(run.config.training.seed, "bootstrap")) | told)
        evaluation[MEASURE] = {
            "value": found.win_rate.value,
            "low": found.win_rate.low,
            "high": found.win_rate.high,
            "items": found.num_judged_items,
            "annotators": sum(one.num_votes > 0 and not one.excluded for one in found.people),
            "alpha": None if found.alpha is None else found.alpha.value,
            "position_bias": None if found.position_bias is None else asdict(found.position_bias),
            "excluded": list(found.excluded),
            "left_out": dict(found.left_out),
            "doubts": list(found.doubts),
        }
    evaluation["table"] = table
    run.keep({run.measures_file: files.as_jsonl(rows), run.evaluation_file: files.as_json(evaluation)})
    write_report(run)


def next_step(outcome: Outcome, folder: Path) -> str:
    """Return what to do with it."""
    if outcome.run is not None:
        return f"next: {in_quotes(f'tiebreak gate {quoted(str(outcome.run))}')} decides with it"
    if not outcome.num_pairs:
        return f"next: {in_quotes(f'tiebreak review {quoted(str(folder))}')} shows what is to be compared"
    return f"next: {in_quotes(f'tiebreak check {quoted(str(folder / PAIRS))}')} reads the pairs"
