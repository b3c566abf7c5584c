"""From a run to its signals: where each part stands, and what is said where one cannot be read.

A run that is at work, was cut off, is damaged or of another version has parts that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tiebreak.config import AdapterConfig, EvaluationConfig, LossConfig, ReferenceConfig, TrainingConfig
from tiebreak.config.settings import LEARNING_RATES
from tiebreak.diagnosis.signals import Found, Measure, Pull, Row, Settings, Signals
from tiebreak.diagnosis.wholeness import lacking, refuse_other_schema, refuse_other_settings, rows_of_numbers
from tiebreak.errors import RunError, TiebreakError, one_line
from tiebreak.folders import is_at_work, require_folder
from tiebreak.maths.intervals import Share
from tiebreak.reporting.numbers import is_number
from tiebreak.runs import DONE, RUNNING, Run, as_a_run_writes

_Value = TypeVar("_Value")


def signals_of(run: Run) -> Signals:
    """Return all that can be read of a run; raises RunError where a folder is no run at all."""
    require_folder(run.path)
    if not run.manifest_file.exists() and not run.config_file.exists():
        raise RunError(f"{run.path}: is no run: it holds neither run.json nor config.yaml; train makes one")
    unknown: list[str] = []

    def read(what: str, part: Callable[[], _Value], otherwise: _Value) -> _Value:
        try:
            with as_a_run_writes(run.path):
                return part()
        except (TiebreakError, OSError) as error:
            unknown.append(f"{what}: {one_line(error, 300)}")
            return otherwise

    manifest: Mapping[str, Any] = read("how it ended", lambda: run.manifest, {})
    read("its form", lambda: refuse_other_schema(manifest), None)
    if "status" not in manifest and not run.config_file.exists():
        raise RunError(unknown[0] if unknown else f"{run.manifest_file}: is not that of a run; train makes one")
    status = str(manifest["status"]) if "status" in manifest else None
    signals = Signals(
        status=status,
        error=one_line(manifest["error"], 500) if manifest.get("error") else None,
        at_work=status == RUNNING and is_at_work(run.path),
        num_steps=read("its steps", lambda: _count(manifest.get("num_steps")), None),
        num_taken=read("its steps", lambda: _count(manifest.get("num_steps_done")), None),
        artefact_step=read("its artefact", lambda: _count(manifest.get("artefact_step")), None),
        settings=read("its settings", lambda: _settings(run, manifest), None),
        warnings=read("its warnings", lambda: [str(one["text"]) for one in manifest.get("warnings") or ()], []),
    )
    signals = read("its steps and probes", lambda: with_rows(signals, rows_of_numbers(run.metrics)), signals)
    signals = read("what the doctor found", lambda: with_audit(signals, run.audit), signals)
    pairs: list[dict[str, Any]] = read("its held-out pairs", lambda: run.rows(run.heldout_pairs_file), [])
    rows: list[dict[str, Any]] = read("what it measured at the end", lambda: run.rows(run.measures_file), [])
    signals = replace(
        signals,
        texts=read("its held-out pairs", lambda: _texts(pairs), ()),
        evidence=read("its evidence", lambda: _evidence(run.rows(run.evidence_file)), ()),
        measures=read("what it measured at the end", lambda: _measures(rows), {}),
    )
    keys: set[str] = read("what it measured at the end", lambda: {str(row["key"]) for row in rows}, set())
    lacks: dict[str, str] = read("what it counted", lambda: _lacking(run, signals, len(pairs), keys), {})
    unread = {what: lack for what, lack in lacks.items() if not any(one.startswith(what) for one in unknown)}
    is_over = status in (DONE, None)
    return replace(
        signals,
        unknown=tuple(dict.fromkeys((*unknown, *(f"{what}: {lack}" for what, lack in unread.items() if is_over)))),
        unmeasured=tuple(f"{what}: not there yet" for what in unread if not is_over and what not in _ALWAYS_THERE),
    )


_ALWAYS_THERE = ("its held-out pairs",)
"""Written before the first step: a run at work may not have come so far, which its steps say."""


def _lacking(run: Run, signals: Signals, num_pairs: int, measured: Collection[str]) -> dict[str, str]:
    data = run.data if run.data_file.exists() else {}
    evaluation = run.evaluation if run.evaluation_file.exists() else {}
    found = lacking(signals, num_pairs, measured, data, evaluation)
    return found if run.audit_file.exists() else {"what the doctor found": "the run holds nothing of it"} | found


def seen_so_far(settings: Settings, rows: Sequence[Row], audit: Row, warnings: Sequence[str]) -> Signals:
    """Return the signals of a run that is at work, from what it has recorded by now."""
    signals = Signals(status=RUNNING, at_work=True, settings=settings, warnings=tuple(warnings))
    return with_audit(with_rows(signals, rows), audit)


def settings_of(
    loss: LossConfig,
    adapter: AdapterConfig,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    reference: ReferenceConfig,
) -> Settings:
    """Return what was asked for, as far as a diagnosis depends on it."""
    usual, rule = LEARNING_RATES[adapter.kind], evaluation.rule
    safe = loss.safe("beta") if loss.pulls_by_beta else None
    return Settings(
        objective=loss.name,
        learning_rate=training.learning_rate or usual,
        usual_rate=usual,
        epochs=training.epochs,
        beta=Pull(getattr(loss, "beta"), safe.low, safe.high) if safe else None,  # noqa: B009 - not of every loss
        max_new_tokens=evaluation.max_new_tokens,
        rule=(rule.name, rule.pattern) if rule else None,
        keeps_scale=loss.keeps_scale,
        starts_at_reference=reference.model is None,
        drops_out=adapter.dropout > 0,
        learns_bad=loss.learns_bad,
    )


def _settings(run: Run, manifest: Mapping[str, Any]) -> Settings:
    config = run.config
    refuse_other_settings(run, config.model_dump(mode="json"), manifest)
    return settings_of(config.loss, config.adapter, config.training, config.evaluation, config.reference)


def with_rows(signals: Signals, rows: Sequence[Row]) -> Signals:
    """Return the signals with the rows of metrics: of steps, of probes, of looks at answers."""
    steps, probes, looks = (
        tuple(row for row in rows if is_number(row.get(key))) for key in ("loss", "heldout/loss", "sampled/repetition")
    )
    rollbacks = tuple(row for row in rows if "rollback" in row)
    return replace(signals, steps=steps, probes=probes, looks=looks, rollbacks=rollbacks)


def with_audit(signals: Signals, audit: Row) -> Signals:
    """Return the signals with what the doctor found."""
    found = {
        str(one["code"]): Found(int(one["count"]), float(one["share"]), one_line(one.get("detail", ""), 200))
        for one in audit.get("findings", ())
    }
    shortcut = audit.get("shortcut") or {}
    by_length, by_surface = (_share(shortcut, name) for name in ("length", "features"))
    return replace(signals, found=found, by_length=by_length, by_surface=by_surface)


def _share(shortcut: Row, name: str) -> Share | None:
    told = shortcut.get(name)
    if not told:
        return None
    num = int(shortcut.get("num_pairs") or shortcut.get("num_completions") or 0)
    return Share(float(told["accuracy"]), float(told["low"]), float(told["high"]), num, int(shortcut["num_clusters"]))


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _texts(rows: Sequence[Row]) -> tuple[tuple[str, str, str], ...]:
    """Return prompt, chosen and rejected of each held-out pair; of completions on their own, none."""
    return tuple(
        (str(row["input"]["messages"]), _said(row["preferred_output"]), _said(row["non_preferred_output"]))
        for row in rows
        if "preferred_output" in row
    )


def _said(output: Sequence[Row]) -> str:
    return str(output[-1].get("content") or "")


def _evidence(rows: Sequence[Row]) -> tuple[Row, ...]:
    keys = ("chosen_num_tokens", "rejected_num_tokens", "margin")
    if wrong := [key for row in rows for key in keys if not is_number(row[key])]:
        raise RunError(f"evidence.jsonl: has no number as a {wrong[0]!r}")
    return tuple({"prompt_id": str(row["prompt_id"])} | {key: float(row[key]) for key in keys} for row in rows)


def _measures(rows: Sequence[Row]) -> dict[str, Measure]:
    """Return each measure by its key; what is no number is left out with its item."""
    found = {}
    for row in rows:
        items = zip(row["prompts"], row["before"], row["after"], strict=True)
        kept = [(str(p), float(a), float(b)) for p, a, b in items if is_number(a) and is_number(b)]
        if kept:
            found[str(row["key"])] = Measure(*map(tuple, zip(*kept, strict=True)))
    return found
