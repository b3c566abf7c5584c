"""All that is measured on one set of held-out pairs, and the files it is kept in.

Owns the order: evidence on pairs, answers, summary.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak import files
from tiebreak.config import DataConfig, EvaluationConfig, GateConfig
from tiebreak.data.account import Side
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Reference
from tiebreak.engine.scorer import Cut
from tiebreak.evaluation.capabilities.asking import measure_tasks
from tiebreak.evaluation.capabilities.harness import measure_lm_eval
from tiebreak.evaluation.capabilities.taskfiles import load_tasks
from tiebreak.evaluation.draws import draw
from tiebreak.evaluation.gate import not_heard
from tiebreak.evaluation.heldout import Evidence
from tiebreak.evaluation.judges.given import Fitting, Given
from tiebreak.evaluation.judging import judge_answers
from tiebreak.evaluation.kept import KeptRows
from tiebreak.evaluation.measures import draw_rows, probe_rows, rows, summarise
from tiebreak.evaluation.probe import NeutralProbe
from tiebreak.evaluation.rows import Row
from tiebreak.evaluation.samples import AnswerFiles, sample
from tiebreak.evaluation.thumbs import held_out
from tiebreak.fingerprint import derive_seed
from tiebreak.maths.objectives import Objective
from tiebreak.progress import Progress
from tiebreak.records import Tokenized
from tiebreak.runs import Run


@dataclass(frozen=True)
class Measured:
    """Before and after: the summary with its verdict, one row a measure, one a pair, an answered prompt, a question."""

    evaluation: dict[str, Any]
    rows: Sequence[Row]
    evidence: Sequence[Evidence]
    samples: Sequence[dict[str, Any]]
    draws: Sequence[dict[str, Any]]
    judgements: Sequence[dict[str, Any]]
    tasks: Sequence[dict[str, Any]]

    def write(self, run: Run) -> None:
        """Keep everything in the run folder, or in one of its evaluations; what was kept until now may go."""
        run.keep(
            {
                run.evidence_file: files.as_jsonl(row.as_dict() for row in self.evidence),
                run.samples_file: files.as_jsonl(self.samples),
                run.draws_file: files.as_jsonl(self.draws),
                run.judgements_file: files.as_jsonl(self.judgements),
                run.tasks_file: files.as_jsonl(self.tasks),
                run.measures_file: files.as_jsonl(row.as_dict() for row in self.rows),
                run.evaluation_file: files.as_json(self.evaluation),
            }
        )
        run.seal(run.metrics_file, run.judge_file)  # of an attempt that was cut off once it had trained
        for file in (run.answers_file, run.kept_file):
            file.unlink(missing_ok=True)
        shutil.rmtree(run.tasks_folder, ignore_errors=True)


def measure(
    policy: Model,
    reference: Reference,
    objective: Objective,
    pairs: Side,
    settings: EvaluationConfig,
    gate: GateConfig,
    *,
    told: Sequence[str] = (),
    seed: int,
    cut: Cut,
    progress: Progress,
    into: Run,
    train: Sequence[Tokenized],
    data: DataConfig,
    judge: Path,
    answers: Path | None = None,
) -> Measured:
    """Measure policy against reference on held-out pairs.

    `told` are facts about the run that the verdict's first line names; `seed` is the run's. What is generated and
    scored is kept in the folder of `into` until all of it is written there: cut off, it goes on where it was. The
    data's own judge is fitted on `train`, by settings of `data`, and kept in the file `judge`. What the reference
    answers is kept in the folder `answers`, where one is named: other runs with this reference do not ask it again.
    """
    kept, said = KeptRows(into.kept_file), AnswerFiles(into.answers_file, answers)
    evidence = held_out(policy, reference, objective, pairs.tokenized, cut).evidence(progress=progress, kept=kept)
    samples = sample(policy, reference, pairs.pairs, settings, progress, said)
    draws = draw(
        policy, reference, pairs.pairs, settings,
        seed=seed, cut=cut, progress=progress, said=said, kept=kept,
    )  # fmt: skip
    measured = rows(evidence, samples, objective, settings.rule) + draw_rows(draws, settings.draw_temperature)
    fitting = Fitting(reference, train, pairs.tokenized, data, cut, seed, judge)
    judged = judge_answers(samples, pairs.pairs, settings, Given(progress, fitting=fitting), seed)
    if judged:
        measured += judged.measured()
    tasks = [
        *measure_tasks(policy, reference, load_tasks(settings.tasks), cut, progress, into.tasks_folder),
        *(
            measure_lm_eval(policy, reference, settings.lm_eval, progress, into.tasks_folder)
            if settings.lm_eval
            else ()
        ),
    ]
    measured += [one.row() for one in tasks]
    if settings.neutral_probe:
        measured += probe_rows(NeutralProbe(policy, reference, cut).rows(progress))
    judge_told = judged.as_dict(derive_seed(seed, "judge")) if judged else None
    blind = _blind_spots(samples, judge_told)
    summary = summarise(measured, len(samples), gate, [*told, *blind], seed, judge_told)
    summary["tasks"] = [one.summary() for one in tasks]
    answered = [line for one in tasks for line in one.lines()]
    return Measured(summary, measured, evidence, samples, draws, judged.rows() if judged else [], answered)


def _blind_spots(samples: Sequence[dict[str, Any]], judge: dict[str, Any] | None) -> Iterator[str]:
    """Yield what could not be seen, for the verdict's first line."""
    cut_off = sum(not one["after"]["finished"] for one in samples)
    if cut_off > len(samples) / 2:
        yield f"{cut_off} of {len(samples)} answers are cut off, so how long they would be is not known"
    if unheard := not_heard(judge):
        yield unheard
