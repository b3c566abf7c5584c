"""A sweep: trials that differ in a few settings, and the best of them, measured again where nobody had looked.

Owns the course of it: trial after trial, the ranking, the last word on the best, one page. A sweep that was killed goes
on with the trial that it was at. What one trial is, which is next and where it runs have files of their own.

    OUT/sweep.json      settings, trials, ranking, luck        OUT/trials/NAME     the run of a trial
    OUT/sweep.html      all of it on a page                    OUT/best.yaml       the configuration of the best
    OUT/trials.jsonl    how each trial ended                   OUT/confirming.jsonl   pairs that no trial sees
    OUT/reference       what the reference said and answered, for all trials
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak import files, folders
from tiebreak.campaigns.campaign import Planned
from tiebreak.campaigns.launchers import journal_of, launcher_of
from tiebreak.campaigns.proposals import proposed
from tiebreak.campaigns.ranking import Measurements, compared_with, luck_of, ranked
from tiebreak.campaigns.trials import DONE, FAILED, IN_USE, Ended, Journal, Trial, named, wanted
from tiebreak.config import Sweep, dump_config, load_sweep, quoted
from tiebreak.config.gate import DEFAULT_RULES
from tiebreak.data.whole import data_digests
from tiebreak.errors import DataError, InUse, RunError
from tiebreak.progress import OnlyNew, Progress, Silent
from tiebreak.reporting.sweep import write_sweep_page
from tiebreak.runs import Run
from tiebreak.training.launched import refuse_several
from tiebreak.training.preemption import listening
from tiebreak.training.resumption import flat
from tiebreak.verbs import evaluate

SCHEMA = 1
RUNNING = "running"
MOST_ATTEMPTS = 50
"""How often settings are drawn that are known already, before a search counts as exhausted."""
_FREE = ("grid", "trials", "best_by", "launcher", "at_once", "slurm")
"""What may change between two attempts at a sweep: more trials, another place, another reading of them."""


@dataclass(frozen=True)
class Swept:
    """A sweep that was carried out: its folder, and sweep.json."""

    folder: Path
    found: Mapping[str, Any]

    @property
    def best(self) -> Run:
        """The run of the best trial."""
        return Run(self.folder / "trials" / str(self.found["best"]))

    @property
    def page(self) -> Path:
        """All of it on one page."""
        return self.folder / "sweep.html"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"sweep": str(self.folder), "page": str(self.page), **self.found}


def sweep_of(
    config: Sweep | str | Path, overrides: Sequence[str] | Mapping[str, Any], grid: Sequence[str] | Mapping[str, Any]
) -> Sweep:
    """Return a sweep as a program names one: read, or as it is, to which nothing can be added."""
    if not isinstance(config, Sweep):
        return load_sweep(config, overrides, grid)
    if overrides or grid:
        raise TypeError("overrides and grid go with a YAML file; give a changed Sweep instead")
    return config


def sweep(asked: Sweep, progress: Progress | None = None) -> Swept:
    """Carry out the trials of a sweep, or those that are missing, and say which is best and how much of it was luck.

    Raises RunError where the folder holds a sweep of something else, or no trial could be trained; InUse where another
    process has the run of a trial, once the others beside it have ended; Preempted where a signal ended it.
    """
    refuse_several("tiebreak sweep")
    told, folder = OnlyNew(progress or Silent()), asked.folder
    with folders.locked(folder, told.warn), listening():
        _begin(asked)
        launcher = launcher_of(asked.settings, folder, told)
        journal, tried = journal_of(folder), set[str]()
        while trials := _next(asked, journal, tried):
            held = list[Ended]()
            for ended in launcher.launch(trials):
                if ended.state == IN_USE:
                    held.append(ended)
                    continue
                journal.note(ended)
                tried.add(ended.key)
                _heed(ended, wanted(asked, journal.ended), folder)
                told.say(f"{ended.name}: {ended.state}" + (f" ({ended.says})" if ended.says else ""))
            if held:
                names = ", ".join(one.name for one in held)
                raise InUse(
                    f"{names}: not tried yet, since another process has the run; once that has ended, the same "
                    f"command goes on ({held[0].says})"
                )
        if asked.settings.search and len(journal.ended) < asked.settings.trials:
            told.warn(f"the search ended after {len(journal.ended)} trials: it finds no other settings in its ranges")
        files.write_json(folder / "sweep.json", _found(asked, journal, told))
        found = files.read_json_object(folder / "sweep.json")
        write_sweep_page(found, folder / "sweep.html")
    return Swept(folder, found)


def _begin(asked: Sweep) -> None:
    """Note what the sweep is of, or prove that the folder holds trials of the same; raises RunError where not."""
    folder, base = asked.folder, asked.base
    identity = {
        **{key: value for key, value in flat(base).items() if not key.startswith(("output.", "gate."))},
        **{f"sweep.{key}": value for key, value in asked.settings.model_dump(mode="json").items() if key not in _FREE},
        "the data": sorted(data_digests(base.data).values()),
    }
    document = folder / "sweep.json"
    if not document.exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunError(f"{folder}: is not empty and no sweep; choose another output.dir")
        files.write_json(document, {"schema": SCHEMA, "status": RUNNING, "identity": identity})
    files.refuse_links(folder)
    for name in ("trials", "reference"):
        (folder / name).mkdir(exist_ok=True)
    known = files.read_json_object(document)
    before = known.get("identity")
    if known.get("schema") != SCHEMA or not isinstance(before, dict):
        raise RunError(f"{document}: is not as this version of tiebreak writes it; choose another output.dir")
    if changed := [key for key in {**before, **identity} if before.get(key) != identity.get(key)]:
        raise RunError(
            f"{folder}: holds trials of another configuration ({', '.join(changed)} changed); put it back, or choose "
            "another output.dir"
        )


def _next(asked: Sweep, journal: Journal, tried: set[str]) -> list[Trial]:
    """Return the trials that come next: none where the sweep is done.

    The first one comes alone: what it asks of the reference is stored for all others. What was refused in an earlier
    attempt is tried again.
    """
    ended = [one for one in wanted(asked, journal.ended) if one.state != FAILED or one.key in tried]
    is_known = any(one.state == DONE for one in ended)
    if asked.settings.grid:
        known = {one.key for one in ended}
        missing = [one for one in (_trial(asked, told) for told in asked.combinations()) if one.key not in known]
        return missing if is_known else missing[:1]
    left = asked.settings.trials - len(ended)
    num = min(left, asked.settings.at_once if is_known and asked.settings.launcher != "here" else 1)
    values = _values(asked, ended) if left > 0 else {}
    found, known = list[Trial](), {one.key for one in ended}
    for attempt in range(MOST_ATTEMPTS):
        if len(found) < num:
            trial = _trial(asked, asked.meant(proposed(asked.settings, ended, values, attempt)))
            found += [] if trial.key in known else [trial]
            known.add(trial.key)
    return found


def _trial(asked: Sweep, settings: Mapping[str, Any]) -> Trial:
    name = named(settings)
    return Trial(settings, Planned(name, asked.config(settings, name)))


def _heed(ended: Ended, others: Sequence[Ended], folder: Path) -> None:
    """Stop where no trial can come to a good end, as soon as that is known."""
    if ended.state == FAILED and not any(one.state == DONE for one in others):
        raise RunError(f"{ended.name}: {ended.says}")
    aside = folder / "confirming.jsonl"
    if aside.exists() and not aside.stat().st_size:
        raise DataError(
            "no held-out prompt is set aside to measure the best on; raise data.heldout_share or sweep.confirm_share, "
            "or bring more prompts"
        )


def _measured(asked: Sweep, ended: Sequence[Ended]) -> dict[str, Measurements]:
    return {
        one.name: Measurements.of(Run(asked.folder / "trials" / one.name)) for one in ended if one.state == DONE
    }  # fmt: skip


def _values(asked: Sweep, ended: Sequence[Ended]) -> dict[str, float]:
    """Return what a search makes larger, of each trial that was trained to its end."""
    if not (found := _measured(asked, ended)):
        return {}
    by_rate = asked.settings.best_by == "win_rate"
    ranking = ranked(found, asked.settings.best_by, asked.settings.seed, _least_gap(asked))
    # One that has not moved is as good as the start is, whatever the signs of its gaps are.
    return {
        one.name: (one.matched.mean if one.matched else 0.5) if by_rate else one.accuracy.mean if one.has_moved else 0.5
        for one in ranking.standings
    }


def _least_gap(asked: Sweep) -> float:
    """Return the mean gap (nats) that the gate takes for rounding."""
    rule = asked.base.gate.rules.get("moved") or DEFAULT_RULES["moved"]
    return rule.value if rule.measure == "logratio_gap" and rule.value is not None else 0.0


# ------------------------------------------------------------------------------------------------------- the last word


def _found(asked: Sweep, journal: Journal, progress: Progress) -> dict[str, Any]:
    """Return sweep.json."""
    ended, settings, folder = wanted(asked, journal.ended), asked.settings, asked.folder
    others = [one for one in journal.ended if one.key not in {one.key for one in ended}]
    found = _measured(asked, ended)
    if not found:
        raise RunError(f"{folder}: no trial was trained to its end: " + "; ".join(f"{e.name} {e.state}" for e in ended))
    ranking = ranked(found, settings.best_by, settings.seed, _least_gap(asked))
    best = ranking.standings[0].name
    default = next((e.name for e in ended if _same(asked, e.settings)), None)
    luck, unknown = None, "one trial alone was trained to its end: there is none to hold it against"
    if len(found) > 1:
        against = compared_with(ranking, default)
        confirming = {name: _confirmed(asked, name, journal, progress) for name in (best, against)}
        luck = luck_of(best, against, found, confirming, ranking, settings.seed)
    told = next(one for one in ended if one.name == best)
    config = asked.config(told.settings, best)
    trained = config.model_copy(
        update={
            "data": config.data.model_copy(update={"set_aside": 0.0}),
            "output": config.output.model_copy(update={"dir": str(folder / "best")}),
        }
    )
    files.write_text(folder / "best.yaml", dump_config(trained))
    return {
        **files.read_json_object(folder / "sweep.json"),
        "status": DONE,
        "settings": settings.model_dump(mode="json"),
        "best": best,
        "best_settings": dict(told.settings),
        "decided_by": ranking.best_by,
        "tied": {"trials": [*ranking.tied], "broken_by": "logratio_gap" if ranking.tied else None},
        "least_gap": ranking.least_gap,
        "best_has_moved": ranking.standings[0].has_moved,
        "best_by_accuracy": ranking.best_by_accuracy,
        "best_by_win_rate": ranking.best_by_win_rate,
        "default": default,
        "matched_kl": ranking.matched_kl,
        "win_rate_is_weak": any(one.win_rate.weak for one in found.values() if one.win_rate),
        "num_pairs": ranking.num_pairs,
        "num_left_out": ranking.num_left_out,
        "ranking": [one.as_dict() for one in ranking.standings],
        "luck": luck and {**luck.as_dict(), "says": luck.says},
        "no_luck_because": None if luck else unknown,
        "trials": [asdict(one) | {"run": f"trials/{one.name}"} for one in ended],
        "not_asked_any_more": [asdict(one) | {"run": f"trials/{one.name}"} for one in others],
        "reference": _passes(asked, journal),
        "command": f"tiebreak train {quoted(str(folder / 'best.yaml'))}",
    }


def _same(asked: Sweep, settings: Mapping[str, Any]) -> bool:
    """Say whether a trial is the configuration without any change."""
    return asked.config(settings) == asked.base


def _confirmed(asked: Sweep, name: str, journal: Journal, progress: Progress) -> Measurements:
    """Measure a trial on the pairs that no trial saw, once; of answers only where they decide."""
    known, _ = journal.confirmed.get(name, ("", 0))
    run, kept = Run(asked.folder / "trials" / name), Run(asked.folder / known)
    own = run.config.evaluation
    # Where answers did not decide when it was measured, and now do, it has none.
    lacks = asked.settings.best_by == "win_rate" and own.num_samples and not kept.samples
    if not known or not kept.evaluation_file.exists() or lacks:
        left_out: dict[str, Any] = {"tasks": [], "lm_eval": None, "neutral_probe": False}
        left_out |= {} if asked.settings.best_by == "win_rate" else {"num_samples": 0, "num_draws": 0}
        changed = {f"evaluation.{key}": value for key, value in left_out.items() if getattr(own, key)}
        progress.say(f"{name}: measured again, on prompts that no trial was chosen by")
        found = evaluate.evaluate(run, progress, data=str(asked.folder / "confirming.jsonl"), overrides=changed)
        known = os.path.relpath(found["folder"], asked.folder)
        journal.note_confirmed(name, known, int(found["num_reference_asked"]))
    return Measurements.of(Run(asked.folder / known))


def _passes(asked: Sweep, journal: Journal) -> dict[str, Any]:
    """Return how often the reference was asked about pairs, beside how many there are: one pass is all of them once.

    Those that no trial saw, which the last word is about, are counted apart.
    """
    ended = journal.ended
    pairs = [
        int(data["num_train_pairs"]) + int(data["num_heldout_pairs"])
        for one in ended
        if (run := Run(asked.folder / "trials" / one.name)).data_file.exists()
        for data in [run.data]
    ]
    num_pairs, num_asked = max(pairs, default=0), sum(one.num_reference_asked for one in ended)
    last_word = sum(num for _, num in journal.confirmed.values())
    told = {"num_pairs": num_pairs, "num_asked": num_asked, "passes": num_asked / max(num_pairs, 1)}
    return told | {"num_asked_confirming": last_word}
