"""The verb evaluate: measure a finished run again, on its own held-out pairs or on others.

Owns which pairs a trained policy may be judged on.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tiebreak import folders, runs
from tiebreak.config import Config, DataConfig, SourceConfig, command, in_quotes, quoted, reading
from tiebreak.data.account import Side
from tiebreak.data.preparation import render_side
from tiebreak.data.reader import is_told_alike, pairing_of
from tiebreak.data.render import Renderer
from tiebreak.data.whole import PairFile, read_pairs
from tiebreak.engine.model import Model
from tiebreak.engine.reference.kinds import Another, Reference
from tiebreak.errors import ConfigError, DataError, ModelError, RunError, one_line, require_name
from tiebreak.evaluation import leave
from tiebreak.evaluation.made_of import made_before, settings_digest
from tiebreak.evaluation.measuring import Measured
from tiebreak.fingerprint import file_digest, fingerprint
from tiebreak.progress import Noting, Progress, Silent
from tiebreak.records import Dropped, Source
from tiebreak.reporting.page import write_report
from tiebreak.runs import Run, as_a_run_writes, open_run
from tiebreak.secrecy import has_password, masked
from tiebreak.training.checkpoint import MANIFEST, Checkpoints
from tiebreak.training.parts import Weights
from tiebreak.training.resumption import flat
from tiebreak.training.trained import Loaded, go_by, heldout_pairs, load, load_trained, measure_trained, own_side
from tiebreak.verbs.gate import recorded_overrides
from tiebreak.verbs.why import write_diagnoses


def evaluate(
    run: Run,
    progress: Progress | None = None,
    *,
    data: str | None = None,
    against: str | None = None,
    checkpoints: bool = False,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> dict[str, Any]:
    """Measure a trained run again; return evaluation.json.

    On its own held-out pairs and against the reference it was trained with, the run's evaluation and report are written
    anew. On another file of pairs (`data`; pairs whose prompt was trained on are left out), `against` another run or
    model, with `overrides` of settings of `evaluation` and `gate`, and for each of the run's `checkpoints`, the same
    files are written into a folder of RUN/evaluations, and the run's own stay as they are: it is not promoted on what
    was asked otherwise. What is returned says what was used. Whatever was cut off goes on where it was. Raises
    RunError, and changes nothing, where a file that this stands on is not what was written; what an evaluation wrote is
    none of these, and is made anew.
    """
    progress = progress or Silent()
    if checkpoints and (data or against):
        raise ConfigError("evaluate: checkpoints are measured on the run's own held-out pairs, against its reference")
    for option, name in (("--data", data), ("--against", against)):
        if name is not None:
            require_name(name, option)
    asked = _Asked(run, _changed(run, overrides), progress)
    with folders.locked(run.path):
        run.verify(*run.trained_files, *run.given_files)
        if checkpoints:
            return _of_checkpoints(asked)
        if data is not None or against is not None or overrides:
            return _beside(asked, data, against)
        loaded = load_trained(run, progress)
        measured = asked.measured(loaded, own_side(run, loaded.policy), run)
        _tell_dropped(asked)
        measured.write(run)
        told = run.manifest
        finished = told.get("num_steps_done") == told.get("num_steps") is not None or bool(told.get("stopped"))
        status = {"status": runs.DONE, "error": None} if finished else {}
        with as_a_run_writes(run.path):
            run.update_manifest(**{key: measured.evaluation[key] for key in ("verdict", "overridden")}, **status)
        write_diagnoses(run)
        write_report(run)
    return measured.evaluation


def _tell_dropped(asked: _Asked) -> None:
    """Warn of overrides and people's words that were recorded: they are about what was measured, which goes."""
    with contextlib.suppress(RunError):  # what an evaluation wrote may be damaged
        if gone := recorded_overrides(asked.run, asked.config.gate):
            rules = ", ".join(f"{rule} ({reason})" for rule, reason in gone.items())
            again = in_quotes(f"tiebreak gate {quoted(str(asked.run.path))} --record --set gate.overrides.RULE=REASON")
            asked.progress.warn(f"what was overridden is measured anew and counts again: {rules}; {again} overrides it")
        if "human_win_rate" in asked.run.evaluation:
            asked.progress.warn("what people said goes with what was measured; review --results brings it back")


@dataclass(frozen=True)
class _Asked:
    """Which run is measured, by which settings."""

    run: Run
    config: Config
    progress: Progress

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not the run's own, by their dotted keys."""
        own = flat(self.run.config)
        return {key: value for key, value in flat(self.config).items() if own.get(key) != value}

    def measured(self, loaded: Loaded, side: Side, into: Run, reference: Reference | None = None) -> Measured:
        """Measure a policy on pairs, against its own reference or another one; what was warned of is kept, too."""
        against, budget, told = reference or loaded.reference, loaded.budget, Noting(self.progress)
        found = measure_trained(self.run, self.config, loaded.policy, against, budget, side, told, into=into)
        warnings = [masked(one_line(text, 500)) for text in told.warnings]
        return replace(found, evaluation=found.evaluation | ({"warnings": warnings} if warnings else {}))


def _changed(run: Run, overrides: Sequence[str] | Mapping[str, Any]) -> Config:
    keys = overrides if isinstance(overrides, Mapping) else [text.partition("=")[0].strip() for text in overrides]
    for key in keys:
        if not key.startswith(("evaluation.", "gate.")):
            raise ConfigError(f"--set {key}: only settings of evaluation and of the gate are read here")
    config = run.config_with(overrides)
    leave.require(config.evaluation, keys, run.path)
    leave.give(config.evaluation, keys)
    return config


def _of_checkpoints(asked: _Asked) -> dict[str, Any]:
    """Measure the policy as it was at each checkpoint that is whole; what was measured by these settings stays."""
    run, progress = asked.run, asked.progress
    left_out: list[str] = []
    found = Checkpoints(run, {}, 2, left_out.append, known=run.manifest["identities"], holds=[Weights.name]).whole()
    for fault in left_out:
        progress.warn(f"{fault}; left out")
    if not found:
        raise RunError(f"{run.path}: holds no whole checkpoint; training keeps training.keep_checkpoints of them")
    settings = settings_digest(run, asked.config.evaluation, asked.config.model_dump(mode="json"))
    made_of = {path: fingerprint([settings, file_digest(path / MANIFEST)]) for path in found}
    into = {path: Run(run.evaluations_folder / path.name) for path in found}
    known = {path: told for path in found if (told := made_before(into[path], made_of[path]))}
    if known:
        progress.say(f"measured before, by the same settings: {', '.join(path.name for path in known)}")
    if missing := [path for path in found if path not in known]:
        loaded = load_trained(run, progress)
        side = own_side(run, loaded.policy)
        for path in missing:
            progress.say(f"{path.name}:")
            Weights(loaded.policy).restore(load_file(path / f"{Weights.name}.safetensors"))
            _make(into[path])
            # They speak for the files beside them.
            for file in (into[path].evaluation_file, into[path].manifest_file):
                file.unlink(missing_ok=True)
            measured = asked.measured(loaded, side, into[path])
            measured = replace(measured, evaluation=measured.evaluation | {"made_of": made_of[path]})
            measured.write(into[path])
            known[path] = measured.evaluation
    rows = [{"checkpoint": path.name, "folder": str(into[path].path), **known[path]} for path in found]
    return {"checkpoints": rows, "left_out": left_out}


def _make(into: Run) -> None:
    """Make the folder of an evaluation, and not that of its run, which may have been deleted meanwhile."""
    into.path.parent.mkdir(exist_ok=True)
    into.path.mkdir(exist_ok=True)


def _beside(asked: _Asked, data: str | None, against: str | None) -> dict[str, Any]:
    """Measure on other pairs, against another model, by other settings, or several of these."""
    run, progress = asked.run, asked.progress
    found = _others(asked, data) if data is not None else _Others(heldout_pairs(run), None)
    _require_facts(found.found, asked.config)
    loaded = load_trained(run, progress)
    seen, reference = _trained_prompts(run), None
    if against is not None:
        other, more = _opponent(asked, against, loaded.policy)
        seen, reference = seen | more, Another(other)
    side, account = _rendered(found, seen, loaded.policy.renderer(run.config.data), progress)
    said = ({} if against is None else {"against": against}) | ({} if data is None else {"data": account})
    said |= {"settings": asked.changed} if asked.changed else {}
    words = [re.sub(r"[^\w.]+", "-", Path(word).name)[:40] for word in (data, against) if word] or ["settings"]
    into = Run(run.evaluations_folder / f"{'-'.join(words)}-{fingerprint([data, against, asked.changed])[:8]}")
    _make(into)
    into.manifest_file.unlink(missing_ok=True)  # what was measured there before goes
    measured = asked.measured(loaded, side, into, reference)
    told = measured.evaluation | said | {"num_reference_asked": loaded.reference.num_asked}
    replace(measured, evaluation=told).write(into)
    return {**told, "folder": str(into.path)}


def _require_facts(found: PairFile, config: Config) -> None:
    for fact in config.loss.facts:
        if lacking := [pair for pair in found.pairs if getattr(pair.preference, fact) is None]:
            told = f"states no {fact.replace('_', ' ')}, which the run's objective reads"
            raise DataError(f"{lacking[0].source}: {told}; {len(lacking)} of {len(found.pairs)} pairs are so")


def _opponent(asked: _Asked, name: str, policy: Model) -> tuple[Model, set[str]]:
    """Return another run's policy, or a model by its name, and the prompts that it is known to be trained on."""
    other, prompts = Run(name), set[str]()
    if other.manifest_file.exists():
        opened = open_run(name)
        found, prompts = load_trained(opened, asked.progress).policy, _trained_prompts(opened)
        go_by(asked.run)  # it is this one that is measured, in its own arithmetic
    else:
        found = load(asked.config.of_model(name), say=asked.progress.say).policy
    if found.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise ModelError(f"{name}: has another vocabulary than {asked.run.path}; log-probabilities cannot be compared")
    return found, prompts


def _trained_prompts(run: Run) -> set[str]:
    with as_a_run_writes(run.path):
        return set(run.train_prompt_ids)


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
    pairing = pairing_of(data)
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


@dataclass(frozen=True)
class _Others:
    """Pairs of a file, and the columns that it was read by."""

    found: PairFile
    columns: Mapping[str, str] | None


def _others(asked: _Asked, data: str) -> _Others:
    """Read a file as the run reads its own, where it is in that form."""
    stated = asked.config.data
    how = as_the_run_reads(stated, data)
    pairing = pairing_of(stated)
    found = read_pairs(data, how.format, stated.max_dropped_share, columns=how.columns, pairing=pairing)
    if how.columns or how.format != "auto":
        asked.progress.say(f"{data}: read as the run states it ({how.columns or how.format})")
    return _Others(found, how.columns)


def _rendered(others: _Others, seen: Set[str], renderer: Renderer, progress: Progress) -> tuple[Side, dict[str, Any]]:
    """Return the pairs whose prompts were not `seen` in training, as tokens, and the account of them."""
    found, nowhere = others.found, Source(others.found.path, 0)
    trained_on = [
        Dropped(pair.source or nowhere, "trained_prompt", "it was trained on this prompt")
        for pair in found.judged
        if pair.prompt_id in seen
    ]
    side, unrendered = render_side([pair for pair in found.judged if pair.prompt_id not in seen], renderer)
    if dropped := [*found.dropped, *trained_on, *unrendered]:
        progress.warn(f"{len(dropped)} of {found.num_records} records not used; the first: {dropped[0].detail}")
    if not side.pairs:
        raise DataError(f"{found.path}: no pair is left to measure on; the first dropped: {dropped[0].detail}")
    return side, {
        "path": found.path,
        "sha256": found.digest,
        "format": found.format,
        "columns": others.columns,
        "num_records": found.num_records,
        "num_dropped": len(dropped),
        "dropped_by_reason": dict(Counter(item.reason for item in dropped).most_common()),
    }
