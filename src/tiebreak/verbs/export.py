"""The verb export: a folder that any serving stack loads, proven to be the trained model before it is called done.

Owns what an artefact holds. It is loaded again with nothing but transformers and peft, and has to give the same
log-probabilities for held-out pairs as the model had in memory when its training ended. One exception has to be asked
for: an adapter that was trained on a base model in four bits, added to that as it is, is another model, by so much as
is measured and told.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from tiebreak import faults, files, seals
from tiebreak.data.locations import hub_name
from tiebreak.data.preparation import render_side
from tiebreak.engine.arithmetic import name_of
from tiebreak.engine.artefact import load_artefact, save_whole, told_of_adapter, unheard_ends
from tiebreak.engine.model import Model
from tiebreak.engine.noise import evaluation_mode
from tiebreak.engine.provenance import provenance
from tiebreak.errors import ConfigError, ExportError, require_name
from tiebreak.fingerprint import file_digest
from tiebreak.maths.logps import Logps
from tiebreak.progress import Progress, Silent
from tiebreak.records import Tokenized
from tiebreak.reporting.card import Origin, model_card
from tiebreak.runs import Run, as_a_run_writes
from tiebreak.secrecy import has_password, masked
from tiebreak.training.trained import NUM_CHECKED_PAIRS, Loaded, heldout_pairs

Form = Literal["merged", "adapter"]
Onto = Literal["trained", "original"]
CLOSE = 0.2
"""Share of what training moved, by which an artefact may differ that is not in the trained model's precision."""


@dataclass(frozen=True)
class Artefact:
    """What was written and how closely it reproduces the trained model (largest difference of a summed logp, nats)."""

    path: str
    form: Form
    num_checked_pairs: int
    max_logps_difference: float
    tolerance: float
    dtype: str
    """Of most of its weights."""
    quantization: str | None = None
    """How the base model lay in four bits that the adapter was trained on; None: it did not."""
    onto: Onto = "trained"
    """Whether weights are of the base model as it was trained on, or as its files hold it."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def export(
    run: Run,
    loaded: Loaded,
    out: str | Path,
    form: Form | None = None,
    progress: Progress | None = None,
    finish: Callable[[Path, Artefact], None] = lambda _folder, _artefact: None,
    *,
    onto: Onto = "trained",
    accept: Collection[str] = (),
) -> Artefact:
    """Write the trained policy to a new folder; raises ExportError where the reloaded model differs from what training
    saw, RunError where a file of the run is not what was written.

    `form` merged holds all weights, in the dtype of its base model's files where the training survives that, and one
    line says what it cost or why not; adapter holds the adapter alone and names its base. The default is merged; where
    the base model lay in four bits it is the adapter, and merged holds the numbers that those stand for. `onto`
    original adds the adapter to the base model as its files hold it, which differs: by more than a fifth of what
    training moved only where `accept` names the difference.
    `finish` is given the hidden folder with all of it just before it appears, to put something beside it.
    """
    progress, target, policy = progress or Silent(), checked_target(out), loaded.policy
    run.verify()
    form = _form(form, policy, onto, accept)
    origin = _origin(run, policy, onto)
    card = model_card(run, form, origin)
    pairs = _checked_pairs(run, policy)
    expected, tolerance = _seen_in_training(run, loaded, pairs, progress)
    faults.point("export")
    _sweep(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(out), files.whole_folder(target, new=True) as folder, _held(folder):
        dtype, difference, tolerance = _written(loaded, folder, form, onto, expected, tolerance, pairs, progress)
        if not difference <= tolerance and not (onto == "original" and "difference" in accept):
            rounded = form == "merged" and policy.is_adapter and dtype != name_of(torch.float32)
            raise ExportError(f"{out}: not written: {_too_far(form, onto, difference, tolerance, dtype, rounded)}")
        artefact = Artefact(str(out), form, len(pairs), difference, tolerance, dtype, origin.quantization, onto)
        with as_a_run_writes(run.path):
            _describe(folder, run, artefact, origin, card)
        finish(folder, artefact)
    return artefact


def _too_far(form: Form, onto: Onto, difference: float, tolerance: float, dtype: str, rounded: bool) -> str:
    if onto == "original":
        return (
            f"on the base model as it is the adapter is off by {difference:.3g} nats, more than {tolerance:.3g}, a "
            "fifth of what training moved; --onto trained keeps what was trained, --accept difference writes this"
        )
    cause = f"; a merge in {dtype} may round a small update away: --form adapter keeps it" if rounded else ""
    return f"the reloaded {form} model differs by {difference:.3g} nats, more than {tolerance:.3g}{cause}"


@contextlib.contextmanager
def _alone(out: str | Path) -> Iterator[None]:
    """Say where something took the place of an artefact while it was made."""
    try:
        yield
    except FileExistsError:
        raise ConfigError(
            f"{out}: appeared while the artefact was made, and is left as it is; choose another --out"
        ) from None


def _written(
    loaded: Loaded,
    folder: Path,
    form: Form,
    onto: Onto,
    expected: Logps,
    tolerance: float,
    pairs: Sequence[Tokenized],
    progress: Progress,
) -> tuple[str, float, float]:
    """Write an artefact and load it again; return its dtype, how far its log-probabilities are off, and may be.

    Where the dtype of the base model's files rounds too much of the training away, weights stay as wide as they are.
    """
    policy, ours = loaded.policy, next(loaded.policy.network.parameters()).dtype

    def difference() -> float:
        progress.say("loading it again and comparing log-probabilities")
        return float((expected.sums - _score(load_artefact(folder, policy), pairs).sums).abs().max())

    progress.say(f"writing the {form} model")
    if form == "adapter":
        for line in told_of_adapter(policy):
            progress.say(line)
        policy.save(folder)
        return name_of(ours), difference(), tolerance
    written = save_whole(policy, folder, original=onto == "original")
    dtype, base, apart = name_of(written.dtype), name_of(written.base), difference()
    if onto == "original":
        moved = _moved(loaded, expected, pairs)
        progress.say(
            f"added to the base model as it is, and not in four bits as it was trained: log-probabilities of held-out "
            f"pairs differ by up to {apart:.2g} nats from the trained model's, and training moved them by {moved:.2g}"
        )
        return dtype, apart, max(tolerance, CLOSE * moved)
    if written.dtype == ours:
        than = f", and not {base} as those of its base model" if written.base != ours else ""
        progress.say(f"its weights are {dtype}, as they were trained{than}")
        return dtype, apart, tolerance
    most = CLOSE * _moved(loaded, expected, pairs)
    if apart <= most:
        progress.say(f"its weights are {dtype}, as those of its base model: log-probabilities moved {apart:.2g} nats")
        return dtype, apart, most
    for place in folder.iterdir():  # a tokenizer of several templates has a folder for them
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    save_whole(policy, folder, as_base=False)
    progress.say(
        f"its weights are {name_of(ours)}, and not {dtype} as those of its base model: that would move log-"
        f"probabilities by {apart:.2g} nats, and training moved them by {most / CLOSE:.2g}"
    )
    return name_of(ours), difference(), tolerance


def checked_target(out: str | Path) -> Path:
    """Return the folder that `out` leads to; raises ConfigError where an artefact could not take its place."""
    require_name(out, "--out")
    if str(out).encode("utf-8", "replace").decode() != str(out) or "\0" in str(out):
        raise ConfigError(f"--out {str(out)!a}: is no name of UTF-8, and libraries cannot write there")
    if has_password(str(out)):
        raise ConfigError(f"--out {masked(str(out))}: a user or token before the host of an address would be written")
    target = Path(os.path.realpath(out))  # a link stays a link, and what it leads to is replaced
    if fault := _in_the_way(target):
        raise ConfigError(f"{out or '.'}: {fault}; choose another --out")
    return target


def _in_the_way(target: Path) -> str | None:
    if target.is_symlink():
        return "is a link that leads to itself"
    if target.exists():
        if not target.is_dir() or any(target.iterdir()):
            return "exists and is not an empty folder"
        if target.samefile(os.curdir):
            return "is the folder that this command runs in, which cannot be replaced"
        return "is a mount point, which cannot be replaced" if target.is_mount() else None
    above = next(parent for parent in target.parents if parent.exists())
    return None if above.is_dir() else f"{above} is a file"


def _sweep(target: Path) -> None:
    """Remove what exports to this very folder left beside it when they were killed; a live one holds its own."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}{re.escape(files.PART)}")
    for left in target.parent.iterdir() if target.parent.is_dir() else ():
        if ours.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            with contextlib.suppress(OSError), _held(left, or_fail=True):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path, *, or_fail: bool = False) -> Iterator[None]:
    """Lock a folder that is being built or swept; a file system without locks is no error, but nothing is swept."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.nullcontext() if or_fail else contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _form(form: Form | None, policy: Model, onto: Onto, accept: Collection[str]) -> Form:
    quantization = policy.source.quantization if policy.is_adapter else None
    if set((accept,) if isinstance(accept, str) else accept) - {"difference"}:
        raise ConfigError(f"--accept {' '.join(accept)}: wanted difference")
    if onto == "original" and (quantization is None or form == "adapter"):
        told = "an adapter alone is added to nothing" if quantization else "the base model was not quantised"
        raise ConfigError(f"--onto original: {told}; leave it out")
    if form is None and quantization and onto == "trained":
        return "adapter"
    if form == "adapter" and not policy.is_adapter:
        raise ConfigError("--form adapter: the run trained all weights and has no adapter; use merged")
    if form != "adapter" and (cause := policy.unmergeable):
        raise ConfigError(
            f"the adapter cannot be merged into its base model: {cause}; --form adapter writes it as it is"
        )
    return form or "merged"


def _checked_pairs(run: Run, policy: Model) -> list[Tokenized]:
    pairs = heldout_pairs(run).judged
    side, _ = render_side(pairs[:NUM_CHECKED_PAIRS], policy.renderer(run.config.data))
    return list(side.tokenized)


def _seen_in_training(run: Run, loaded: Loaded, pairs: Sequence[Tokenized], progress: Progress) -> tuple[Logps, float]:
    """Return what the policy said of pairs when its training ended, and how far an artefact may be off.

    Raises ExportError where the policy, loaded, does not say the same.
    """
    found = _score(loaded.policy, pairs)
    with as_a_run_writes(run.path):
        kept = run.manifest.get("trained_logps")
        if kept is None:
            progress.say("the run keeps nothing of what its training saw; the export is held against the loaded model")
            return found, _tolerance(loaded, found, pairs)
        sums = [float(one) for pair in pairs for one in kept["pairs"][pair.example_id]]
        expected = replace(found, sums=torch.tensor(sums, dtype=found.sums.dtype, device=found.sums.device))
    tolerance = _tolerance(loaded, expected, pairs, narrow=kept["dtype"] != str(torch.float32))
    if not (apart := float((expected.sums - found.sums).abs().max())) <= tolerance:
        raise ExportError(
            f"{run.path}: its policy, loaded, differs by {apart:.3g} nats from what its training saw, more than "
            f"{tolerance:.3g}; other versions of libraries may be why (run.json tells those of the training)"
        )
    return expected, tolerance


def _score(model: Model, pairs: Sequence[Tokenized]) -> Logps:
    with evaluation_mode(model.network), torch.no_grad():
        return model.score(pairs).summed()


def _tolerance(loaded: Loaded, expected: Logps, pairs: Sequence[Tokenized], *, narrow: bool = False) -> float:
    """Return how far a summed log-probability may be off.

    In fp32, merging an adapter moves a token's log-probability by some 1e-5 nats; 1e-4 is allowed. Narrower weights
    round more coarsely, which is fine as long as it is small beside what training did: a fifth of the mean distance
    between policy and reference. A lost adapter is off by all of it. `narrow`: training had narrower weights.
    """
    rounding = 1e-4 * int(expected.num_tokens.max())
    if loaded.policy.dtype == torch.float32 and not narrow:
        return rounding
    return max(rounding, CLOSE * _moved(loaded, expected, pairs))


def _moved(loaded: Loaded, expected: Logps, pairs: Sequence[Tokenized]) -> float:
    """Return by how much training moved a summed log-probability, on average."""
    return float((expected.sums - loaded.reference.logps(pairs).summed().sums).abs().mean())


def _origin(run: Run, policy: Model, onto: Onto) -> Origin:
    """Return what is known of the base model and of the data, for the card."""
    base = provenance(policy.source)
    names = (hub_name(source.path) for source in run.config.data.sources)
    known = tuple(dict.fromkeys(name for name in names if name))
    quantization = policy.source.quantization if policy.is_adapter else None
    told = quantization.told if quantization else None
    return Origin(base.hub_id, base.terms, known, told, onto == "original", unheard_ends(policy))


def _describe(folder: Path, run: Run, artefact: Artefact, origin: Origin, card: str) -> None:
    files.write_text(folder / "README.md", card)
    digests = {name: file_digest(folder / name) for name in seals.files_in(folder)}
    # An artefact is passed on: where things lay here, and what was said of them, stays in the run.
    made = {key: value for key, value in run.manifest.items() if key not in _OF_THIS_MACHINE}
    made_of = {
        "artefact": {key: value for key, value in artefact.as_dict().items() if key != "path"},
        "run": made | {"base_model": origin.base_model},
        "files_sha256": digests,
    }
    (folder / "tiebreak.json").write_text(json.dumps(made_of, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_OF_THIS_MACHINE = ("model_folder", "model_name", "model_base", "reference_model", "run_folder", "error", "warnings")
