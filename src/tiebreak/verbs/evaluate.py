"""The verb evaluate: measure a finished run again, on its own held-out pairs or on others.

Owns which pairs a trained policy may be judged on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tiebreak import files, runs
from tiebreak.config import DataConfig, SourceConfig, command, in_quotes, reading
from tiebreak.data.account import Side
from tiebreak.data.formats import Pairing
from tiebreak.data.preparation import render_side
from tiebreak.data.reader import PairFile, is_told_alike, read_pairs
from tiebreak.doctor.triage import shortcuts
from tiebreak.errors import DataError
from tiebreak.evaluation.measuring import Measured, measure
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Progress, Silent
from tiebreak.records import Dropped, Pair, Source
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.secrecy import has_password
from tiebreak.training.trained import Loaded, load_trained


def evaluate(run: Run, progress: Progress | None = None, *, data: str | None = None) -> dict[str, Any]:
    """Measure a trained run again; return evaluation.json.

    On its own held-out pairs, the run's evaluation and report are written anew. On another file nothing is written;
    pairs whose prompt was trained on are left out, and the result says what was used.
    """
    progress = progress or Silent()
    if data is not None:
        return _on_other_pairs(run, data, progress)
    with files.locked(run.path):
        loaded = load_trained(run, progress)
        side, _ = render_side(read_pairs(run.heldout_pairs_file).pairs, loaded.policy.renderer(run.config.data))
        measured = _measured(run, loaded, side, progress)
        measured.write(run)
        finished = run.manifest.get("num_steps_done") == run.manifest.get("num_steps") is not None
        status = {"status": runs.DONE, "error": None} if finished else {}
        with as_a_run_writes(run.path):
            run.update_manifest(
                verdict=measured.evaluation["verdict"], overridden=measured.evaluation["overridden"], **status
            )
        write_report(run)
    return measured.evaluation


def as_the_run_reads(data: DataConfig, path: str) -> SourceConfig:
    """Return how another file is read: by the form or the columns that the run states, where it is in that form or has
    these columns, else by its own rows.

    Raises DataError where the run states several, and more than one of them fits.
    """
    by_its_rows = SourceConfig.model_construct(path=path, format="auto", columns=None)
    if has_password(path):  # refused where it is read
        return by_its_rows
    stated: list[SourceConfig] = []
    for source in (*data.heldout_sources, *data.sources):
        own = SourceConfig(path=source.path, format=source.format, columns=source.columns)
        how = own.model_copy(update={"path": path})
        if how not in stated and (how.columns or how.format != "auto"):
            stated.append(how)
    pairing = Pairing(data.pairing, data.min_margin)
    fitting = [how for how in stated if is_told_alike(how, pairing)]
    if len(fitting) > 1:
        ways = [
            command("convert", reading(DataConfig(train=path, format=how.format, columns=how.columns)), "OUT.jsonl",
                    "--to", "tiebreak")
            for how in fitting
        ]  # fmt: skip
        raise DataError(
            f"{path}: the run reads files in several ways, and more than one fits; measure on OUT.jsonl of "
            + " or ".join(map(in_quotes, ways))
        )
    return fitting[0] if fitting else by_its_rows


def _on_other_pairs(run: Run, data: str, progress: Progress) -> dict[str, Any]:
    stated = run.config.data
    how = as_the_run_reads(stated, data)
    found = read_pairs(
        data,
        how.format,
        stated.max_dropped_share,
        columns=how.columns,
        pairing=Pairing(stated.pairing, stated.min_margin),
    )
    if how.columns or how.format != "auto":
        progress.say(f"{data}: read as the run states it ({how.columns or how.format})")
    unseen, trained_on = _without_trained_prompts(run, found)
    loaded = load_trained(run, progress)
    side, unrendered = render_side(unseen, loaded.policy.renderer(run.config.data))
    dropped = [*found.dropped, *trained_on, *unrendered]
    if dropped:
        progress.warn(f"{len(dropped)} of {found.num_records} records not used; the first: {dropped[0].detail}")
    if not side.pairs:
        raise DataError(f"{data}: no pair is left to measure on; the first dropped: {dropped[0].detail}")
    account = {
        "path": found.path,
        "sha256": found.digest,
        "format": found.format,
        "columns": how.columns,
        "num_records": found.num_records,
        "num_dropped": len(dropped),
        "dropped_by_reason": dict(Counter(item.reason for item in dropped).most_common()),
    }
    return {**_measured(run, loaded, side, progress).evaluation, "data": account}


def _without_trained_prompts(run: Run, found: PairFile) -> tuple[list[Pair], Sequence[Dropped]]:
    with as_a_run_writes(run.path):
        seen = set(run.train_prompt_ids)
    unseen = [pair for pair in found.pairs if pair.prompt_id not in seen]
    detail = "the run was trained on this prompt"
    nowhere = Source(found.path, 0)
    return unseen, [
        Dropped(pair.source or nowhere, "trained_prompt", detail) for pair in found.pairs if pair.prompt_id in seen
    ]


def _measured(run: Run, loaded: Loaded, side: Side, progress: Progress) -> Measured:
    config = run.config
    with as_a_run_writes(run.path):
        told = shortcuts(run.audit)
    return measure(
        loaded.policy,
        loaded.reference,
        Objective.of(config.loss),
        side,
        config.evaluation,
        config.gate,
        told=told,
        seed=config.training.seed,
        cut=loaded.budget.cut,
        progress=progress,
    )
