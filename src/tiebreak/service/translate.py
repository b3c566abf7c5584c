"""From a request to the configuration of a run: one table, and nothing that a client could set beside it.

Owns which setting each field of the contract is, and what `auto` becomes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiebreak.config import Config, build_config
from tiebreak.config.losses.gaps import Dpo
from tiebreak.config.losses.loss import Loss
from tiebreak.config.losses.thumbs import SftUnpaired
from tiebreak.config.service import ServeConfig
from tiebreak.errors import ConfigError
from tiebreak.service import catalog, shelf
from tiebreak.service.contract import JobRequest
from tiebreak.service.jobs import Job
from tiebreak.service.refusals import Refusal
from tiebreak.service.store import Store

SETTINGS = {
    "n_epochs": "training.epochs",
    "batch_size": "training.pairs_per_step",
    "beta": "loss.beta",
    "learning_rate_multiplier": "training.learning_rate",
}
"""Which setting each hyperparameter is; the multiplier is of the operator's rate."""

OBJECTIVES: Mapping[str, Loss] = {"dpo": Dpo(), "supervised": SftUnpaired()}
"""What a method is learned with where the operator's loss learns from something else."""

TRAINING, VALIDATION = "training.jsonl", "validation.jsonl"


def accepted(
    store: Store, asked: JobRequest, models: Mapping[str, Config], settings: ServeConfig, key: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a request as it is kept, and what became of all that it leaves to the operator.

    Raises Refusal, naming the field, where a model or file is not there, or where a setting does not go with the
    operator's.
    """
    try:
        model = catalog.find(store, models, settings, key, asked.model)
    except Refusal as refusal:  # of a body that is wrong, and not of an address
        raise Refusal(400, str(refusal), param="model", code=refusal.code) from None
    for field in ("training_file", "validation_file"):
        if (name := getattr(asked, field)) is not None:
            _require_file(store, name, key, field)
    if asked.training_file == asked.validation_file:
        raise Refusal(
            400, "validation_file: is the training file; wanted other prompts, or none: some are held out then",
            param="validation_file", code="invalid_value",
        )  # fmt: skip
    body, base = asked.model_dump(exclude_none=True), _base(models, model)
    try:
        config = _configured(asked, base, Path("job"), asked.told.given)
    except ConfigError as error:
        raise _not_taken(asked, base, error) from None
    return body, {"seed": config.training.seed, "method": asked.kind, "hyperparameters": _resolved(asked, config)}


def configuration(store: Store, models: Mapping[str, Config], settings: ServeConfig, job: Job) -> Config:
    """Return the settings of a job's run; raises ConfigError or Refusal where the operator's do not admit it now."""
    asked = JobRequest.model_validate(job.body)
    model = catalog.find(store, models, settings, job.key, asked.model, also_deleted=True)
    seeded = asked.model_copy(update={"seed": job.resolved["seed"]})
    return _configured(seeded, _base(models, model), store.job_folder(job.id), seeded.told.given)


def lay_out(store: Store, job: Job) -> None:
    """Give the folder of a job its files, as second names of those that were uploaded: deleted ones stay readable here.

    Raises Refusal where a file is gone.
    """
    folder = store.job_folder(job.id)
    folder.mkdir(exist_ok=True, mode=0o700)
    for field, name in (("training_file", TRAINING), ("validation_file", VALIDATION)):
        if (file := job.body.get(field)) is None or (folder / name).exists():
            continue
        source = store.file_path(_file(store, file, job.key, field).id)
        try:
            os.link(source, folder / name)
        except FileNotFoundError:  # deleted meanwhile
            raise _no_file(field, file) from None
        except OSError:  # a file system without second names
            with contextlib.suppress(FileExistsError):
                shutil.copyfile(source, folder / f".{name}")
                (folder / f".{name}").rename(folder / name)


def _file(store: Store, name: str, key: str, field: str) -> shelf.File:
    try:
        return shelf.find(store, name, key)
    except Refusal:  # of a body that is wrong, and not of an address
        raise _no_file(field, name) from None


def _no_file(field: str, name: str) -> Refusal:
    return Refusal(400, f"{field}: there is no file {name[:80]!r}", param=field, code="file_not_found")


def _require_file(store: Store, name: str, key: str, field: str) -> None:
    file = _file(store, name, key, field)
    if file.purpose != shelf.UPLOADED:
        raise Refusal(
            400, f"{field}: the file {name} is for {file.purpose}, and wanted is one for {shelf.UPLOADED}", param=field,
            code="invalid_purpose",
        )  # fmt: skip
    if file.status != "processed":
        raise Refusal(400, f"{field}: the file {name} is {file.status}", param=field, code="file_not_ready")


def _base(models: Mapping[str, Config], model: catalog.Offered) -> Config:
    """Return the operator's settings for a model; one that a job made is read from its artefact."""
    if model.base not in models:
        raise ConfigError(f"model: {model.base} is not offered any more")
    config = models[model.base]
    if model.folder is None:
        return config
    if model.step is not None:
        raise Refusal(
            400, "model: a checkpoint can be asked, and not trained further; name the job's model", param="model",
            code="invalid_value",
        )  # fmt: skip
    return config.model_copy(
        update={"model": config.model.model_copy(update={"name": str(model.folder), "revision": None})}
    )


def _not_taken(asked: JobRequest, base: Config, error: ConfigError) -> Refusal:
    """Return the answer to values that the contract admits and settings of a run do not, in the client's names."""
    for name, value in asked.told.given.items():
        try:
            _configured(asked, base, Path("job"), {name: value})
        except ConfigError as fault:
            param, wanted = asked.place_of(name), str(fault).rpartition("; ")[2]
            makes = f", a learning rate of {value * base.learning_rate:g} here" * (name == "learning_rate_multiplier")
            return Refusal(400, f"{param}: found {value:g}{makes}; {wanted}", param=param, code="invalid_value")
    return Refusal(400, f"The settings of this job do not go together: {error}", code="invalid_value")


def _configured(asked: JobRequest, base: Config, folder: Path, given: Mapping[str, int | float]) -> Config:
    """Return the settings of a run in a folder: the operator's, with what is asked and these hyperparameters."""
    tree = base.model_dump(mode="json")
    if (objective := OBJECTIVES[asked.kind]).learns_from != base.loss.learns_from:
        tree["loss"] = {"name": objective.name}
        del tree["data"]["pairing"]
    tree["data"]["train"] = str(folder / TRAINING)
    if asked.validation_file is not None:
        tree["data"]["heldout"] = str(folder / VALIDATION)
    tree["output"]["dir"] = str(folder / "run")
    if base.data.store == "auto":  # texts of a client go with the job, and stay in no cache of the operator's
        tree["data"]["store"] = str(folder / "prepared")
    if asked.seed is not None:
        tree["training"]["seed"] = asked.seed
    for name, value in given.items():
        section, _, key = SETTINGS[name].partition(".")
        if section == "loss" and key not in tree[section]:
            raise Refusal(
                400,
                f"{name}: the objective {tree['loss']['name']} of this model has none",
                param=asked.place_of(name),
                code="invalid_value",
            )
        tree[section][key] = value * base.learning_rate if name == "learning_rate_multiplier" else value
    return build_config(tree, where="job")


def _resolved(asked: JobRequest, config: Config) -> dict[str, Any]:
    told = asked.told.given
    found = {
        "n_epochs": config.training.epochs,
        "batch_size": config.training.pairs_per_step,
        "learning_rate_multiplier": float(told.get("learning_rate_multiplier", 1.0)),
    }
    beta = config.model_dump(mode="json")["loss"].get("beta")
    return found | ({"beta": beta} if asked.kind == "dpo" and beta is not None else {})
