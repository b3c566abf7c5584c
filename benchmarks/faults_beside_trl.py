"""What a fault does to a run: the same faults, one by one, through tiebreak's command line and through TRL 1.16.

    python benchmarks/faults_beside_trl.py                      # the table of docs/reliability.md
    python benchmarks/faults_beside_trl.py --only trl --case killed_in_save --json

A tiny random Llama, 24 pairs, LoRA with dropout, 3 epochs of 6 steps, a checkpoint every 4 steps, two kept; one thread.
Each run is a process of its own. "Bit-equal" compares the final adapter with that of the same side's undisturbed run.
"Silent" means that stderr holds no line which the undisturbed and the ordinarily resumed run do not print as well
(digits aside). Faults of tiebreak come from TIEBREAK_FAULT, those of TRL from `faults_trl_case.py`; damage on disk is
done by the same functions here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from faults_laboratory import STOP_AT, Finding, Laboratory, Weights, compare
from faults_sides import SAVE_STEPS, Canary, Ended, Side, Tiebreak, Trl, ended, flip_bytes
from faults_stage import Stage

NAN_AT = 5


def ordinary(lab: Laboratory) -> Finding:
    """Stopped in the middle of an epoch, resumed"""
    lab.restore_stopped()
    found = lab.finding(lab.run())
    return Finding([lab.first_exit or 0, *found.exits], found.message, found.weights)


def killed(lab: Laboratory) -> Finding:
    """SIGKILL between two saves, resumed"""
    return twice(lab, "kill", STOP_AT)


def killed_in_save(lab: Laboratory) -> Finding:
    """SIGKILL while the second checkpoint is written (weights there, optimizer not), resumed"""
    found = twice(lab, "kill_save", 2 * SAVE_STEPS)
    whole = f"{lab.side.checkpoints()[0].name} lies there whole" if found.exits[-1] else ""
    return Finding(found.exits, found.message, found.weights, [whole] if whole else [])


def optimizer_missing(lab: Laboratory) -> Finding:
    """The optimizer's file of the newest checkpoint is missing"""
    return damaged(lab, lambda newest: (newest / lab.side.optimizer_file).unlink())


def bytes_flipped(lab: Laboratory) -> Finding:
    """100 bytes flipped in the weights of the newest checkpoint"""
    return damaged(lab, lambda newest: flip_bytes(newest / lab.side.weights_file))


def nan_in_loss(lab: Laboratory) -> Finding:
    """NaN in the loss of step 5"""
    lab.clear()
    found = lab.finding(lab.run("nan", NAN_AT))
    return Finding(found.exits, found.message, found.weights, logged(lab.side.log()))


def nan_in_model(lab: Laboratory) -> Finding:
    """NaN in the model's embedding of a token that stands in one pair"""
    lab.clear()
    found = lab.finding(lab.run(model=lab.stage.poisoned))
    return Finding(found.exits, found.message, found.weights, logged(lab.side.log()))


def terminated(lab: Laboratory) -> Finding:
    """SIGTERM in step 10, resumed, with dropout"""
    return twice(lab, "term", STOP_AT)


def terminated_with_checkpoint(lab: Laboratory) -> Finding:
    """The same with TRL's `enable_jit_checkpoint` (steps of 0.6 s, as it waits 3 s); tiebreak always checkpoints"""
    if isinstance(lab.side, Tiebreak):
        return Finding([], "as above")
    lab.clear()
    first = lab.run("term", 6, enable_jit_checkpoint=True, seconds_per_step=0.6)
    newest = lab.side.checkpoints()[-1].name
    found = lab.finding(first, lab.run(enable_jit_checkpoint=True))
    return Finding(found.exits, found.message, found.weights, [f"resumed from {newest}"])


def two_at_once(lab: Laboratory) -> Finding:
    """Two runs in one folder at once (20 epochs), one of them with twice the learning rate"""
    settings: dict[str, dict[str, Any]] = {"first": {"epochs": 20}, "second": {"epochs": 20, "learning_rate": 2e-3}}
    alone = {}
    for name, changes in settings.items():
        lab.clear()
        lab.run(**changes)
        alone[name] = lab.weights()
    lab.clear()
    processes = [lab.side.start(**changes) for changes in settings.values()]
    runs = [ended(process) for process in processes]
    refused = next((run for run in runs if run.code > 0), runs[-1])
    same = [name for name, weights in alone.items() if weights and compare(lab.weights(), weights) == "bit-equal"]
    owner = f"bit-equal to the {same[0]} run alone" if same else "final weights are those of neither"
    kept = "" if refused.code else "the other's are lost"
    return Finding([run.code for run in runs], lab.message(refused), owner, [kept] if kept else [], ", ")


def memory_ran_out(lab: Laboratory) -> Finding:
    """Memory runs out once in step 5, without dropout (TRL with `auto_find_batch_size`)"""
    changes: dict[str, Any] = {"dropout": 0.0}
    changes |= {"auto_find_batch_size": True} if isinstance(lab.side, Trl) else {}
    lab.clear()
    lab.run(**changes)
    wanted = lab.weights()
    lab.clear()
    found = lab.finding(lab.run("oom", NAN_AT, **changes), wanted=wanted)
    steps = max((row["step"] for row in lab.side.log()), default=0)
    return replace(found, notes=[f"{steps} optimizer steps, undisturbed {lab.num_steps}"])


def learning_rate_changed(lab: Laboratory) -> Finding:
    """Twice the learning rate when resumed"""
    found = damaged(lab, learning_rate=2e-3)
    return replace(found, notes=["the new rate had no effect"] if found.weights == "bit-equal" else [])


def beta_changed(lab: Laboratory) -> Finding:
    """Another beta (0.1 → 0.5) when resumed"""
    return damaged(lab, beta=0.5)


def data_changed(lab: Laboratory) -> Finding:
    """One completion of the data changed when resumed"""
    lab.stage.write_pairs(changed=True)
    try:
        return damaged(lab)
    finally:
        lab.stage.write_pairs()


def reference_stored(lab: Laboratory) -> Finding:
    """The same run again, with the reference log-probabilities that the first one stored"""
    first, second, weights = with_stored_reference(lab)
    found = lab.finding(second, wanted=weights)
    return replace(found, exits=[first.code, second.code])


def reference_flipped(lab: Laboratory) -> Finding:
    """One bit flipped in one of these, and the same run again"""
    with_stored_reference(lab)
    wanted = lab.weights()
    which = lab.side.flip_reference()
    lab.clear()
    found = lab.finding(lab.run(**stored(lab)), wanted=wanted)
    margins = [abs(row["rewards/margins"]) for row in lab.side.log() if "rewards/margins" in row]
    largest = [f"largest margin logged {max(margins):.1e}"] if margins else []
    return replace(found, notes=[which, *largest])


PICKLES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin")


def pickles(lab: Laboratory) -> Finding:
    """A pickle that runs code when it is loaded, planted in turn as each of TRL's four pickle files"""
    lab.restore_stopped()
    there = sum(path.suffix in (".pt", ".pth", ".bin", ".pkl") for path in lab.side.checkpoints()[-1].iterdir())
    ran, found = [], Finding(between=", ")
    for name in PICKLES:
        trace = lab.stage.folder / f"canary-{lab.side.name}-{name}"
        one = damaged(lab, lambda newest, name=name, trace=trace: torch.save(Canary(trace), newest / name))
        found.exits += one.exits
        found.message = found.message or one.message
        found.weights = "" if any(found.exits) else one.weights
        ran += [name] if trace.exists() else []
    note = f"code ran from {', '.join(ran)}" if ran else "the code did not run"
    return replace(found, notes=[f"{there} pickle files in a checkpoint", note])


CASES: tuple[Callable[[Laboratory], Finding], ...] = (
    ordinary,
    killed,
    killed_in_save,
    optimizer_missing,
    bytes_flipped,
    nan_in_loss,
    nan_in_model,
    memory_ran_out,
    terminated,
    terminated_with_checkpoint,
    two_at_once,
    learning_rate_changed,
    beta_changed,
    data_changed,
    reference_stored,
    reference_flipped,
    pickles,
)


def twice(lab: Laboratory, fault: str, at: int) -> Finding:
    """Run into a fault, then run again."""
    lab.clear()
    first = lab.run(fault, at)
    return lab.finding(first, lab.run())


def damaged(lab: Laboratory, damage: Callable[[Path], object] = lambda _: None, **changes: Any) -> Finding:
    """Damage the newest checkpoint of a run that was stopped, and resume it."""
    lab.restore_stopped()
    damage(lab.side.checkpoints()[-1])
    return lab.finding(lab.run(**changes))


def stored(lab: Laboratory) -> dict[str, Any]:
    """Return the settings with which this side stores what the reference said; tiebreak always does."""
    return {"precompute_ref_log_probs": True} if isinstance(lab.side, Trl) else {}


def with_stored_reference(lab: Laboratory) -> tuple[Ended, Ended, Weights | None]:
    """Run twice, the second time with what the first has stored; return both, and the weights of the first."""
    lab.clear()
    lab.side.forget_reference()
    first = lab.run(**stored(lab))
    weights = lab.weights()
    lab.clear()
    return first, lab.run(**stored(lab)), weights


def logged(log: list[dict[str, Any]]) -> list[str]:
    """Return in words what the log says after the first number that is not finite."""
    rows = [row for row in log if "loss" in row and "grad_norm" in row]
    bad = [row for row in rows if row["grad_norm"] != row["grad_norm"] or row["loss"] != row["loss"]]
    if not bad:
        return []
    losses = sorted({str(row["loss"]) for row in bad})
    return [f"from step {bad[0]['step']} on {len(bad)} steps logged with loss {' or '.join(losses)} and grad_norm nan"]


# --------------------------------------------------------------------------------------------------------------- edges


def main() -> None:
    """Run the cases and print a table, or JSON."""
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stage = Stage(Path(folder))
        stage.set_up()
        sides: list[Side] = [side(stage) for side in (Tiebreak, Trl) if arguments.only in (None, side.name)]
        cases = [case for case in CASES if not arguments.case or case.__name__ in arguments.case]
        found = {side.name: findings(Laboratory(side, stage), cases) for side in sides}
    result = {"machine": machine(), "cases": rows(cases, found)}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2) if arguments.json else "\n".join(table(result)))


def findings(lab: Laboratory, cases: Sequence[Callable[[Laboratory], Finding]]) -> dict[str, Finding]:
    """Run every case; one that cannot be run says so."""
    found: dict[str, Finding] = {}
    for case in cases:
        try:
            if not lab.undisturbed:
                lab.set_up()
            found[case.__name__] = case(lab)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, it is this case that has no finding
            found[case.__name__] = not_run(error)
        print(f"{lab.side.name} {case.__name__}: {cell(found[case.__name__])}", file=sys.stderr, flush=True)
    return found


def not_run(error: Exception) -> Finding:
    return Finding(notes=["not run: " + " ".join(f"{type(error).__name__}: {error}".split())[:200]])


def rows(cases: Sequence[Callable[[Laboratory], Finding]], found: dict[str, dict[str, Finding]]) -> list[Any]:
    """Return the findings case by case."""
    return [
        {
            "case": case.__name__,
            "what": case.__doc__,
            **{
                side: {**asdict(some[case.__name__]), "words": cell(some[case.__name__])}
                for side, some in found.items()
            },
        }
        for case in cases
    ]


def cell(finding: Finding) -> str:
    """Return a finding in words; without a process there is nothing but the note."""
    return finding.words() if finding.exits else "; ".join([finding.message, *finding.notes]).strip("; ")


def table(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a markdown table."""
    sides = [name for name in ("tiebreak", "trl") if name in result["cases"][0]]
    versions = result["machine"]["versions"]
    yield f"| what happens | {' | '.join(f'{name} {versions[name]}' for name in sides)} |"
    yield "|---|" + "---|" * len(sides)
    for row in result["cases"]:
        yield f"| {row['what']} | {' | '.join(row[name]['words'] for name in sides)} |"


def machine() -> dict[str, Any]:
    """Return the versions and the machine that the table belongs to."""
    names = ("tiebreak", "trl", "transformers", "peft", "torch", "accelerate", "datasets")
    versions = {name: metadata.version(name) for name in names}
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("tiebreak", "trl"), help="one side alone")
    parser.add_argument(
        "--case", action="append", choices=[case.__name__ for case in CASES], metavar="NAME", help="may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--out", help="also write the JSON object to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
