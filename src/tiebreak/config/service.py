"""The settings of `tiebreak serve`: what clients may ask for, how much of it, and where jobs run.

Owns what the operator says. What a client may set is known to the service's contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from tiebreak.config.judges import is_address
from tiebreak.config.loading import build_config, read_yaml
from tiebreak.config.section import Place, Section, require_known_keys
from tiebreak.config.settings import Config
from tiebreak.errors import ConfigError, one_line

_THE_SERVICES = {
    "data.train": "a client names it as training_file",
    "data.heldout": "a client names it as validation_file",
    "output.dir": "each job has a folder of its own",
    "distributed": "a job is one process; a launcher starts others",
}
"""What the settings of a model may not say, and why."""

STANDS_IN = ("{job}", "{attempt}", "{folder}", "{python}", "{command}", "{handle}")
"""What words of a launcher's commands may hold: the job's id, the number of its attempt, its folder, the Python that
runs the service, its worker's command as one word for a shell, and what submitting it printed."""


class LimitsConfig(Section):
    """How much the service takes at all."""

    workers: int = Field(1, ge=1, le=1024, description="Jobs that run at the same time.")
    queue: int = Field(50, ge=1, le=100_000, description="Jobs that wait at the same time, of all keys.")
    file_mb: int = Field(512, ge=1, le=8192, description="Most megabytes of a file.")
    retention_days: int = Field(
        90, ge=1, le=36_500, description="Days after which folders of ended jobs are removed, but for their models."
    )
    attempts: int = Field(
        3, ge=1, le=100, description="How often a worker that dies, or is stopped by others, is started again."
    )
    chat_queue: int = Field(8, ge=0, le=10_000, description="Chat requests of each key that wait behind one.")
    chat_idle_minutes: float = Field(
        10.0, gt=0, le=10_000, description="Minutes without a question after which a model leaves the memory."
    )


class QuotasConfig(Section):
    """How much one key may ask for."""

    jobs_at_once: int = Field(10, ge=1, description="Jobs that have not ended.")
    jobs_a_day: int = Field(20, ge=1, description="Jobs created in 24 hours.")
    gb: float = Field(5.0, gt=0, description="Gigabytes of files.")
    tokens_a_minute: int = Field(100_000, ge=1, description="Tokens of chats, read and written.")


class WebhookConfig(Section):
    """An address that is told how jobs ended."""

    url: str = Field(description="Address, https://…; http:// is for this machine alone.")
    secret_file: Place = Field(description="File that holds its secret, whsec_…; beside this one.")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        here = is_address(value) and urlsplit(value).hostname in ("127.0.0.1", "localhost", "::1")
        if not is_address(value) or not (here or value.startswith("https://")):
            raise ValueError("wanted https://…, or http:// on this machine")
        return value


class ServingConfig(Section):
    """Who answers chats: a process of this machine, or a server for load."""

    upstream: str | None = Field(
        None, description="Address of an OpenAI-compatible server, as http://127.0.0.1:8000/v1; null: answered here."
    )
    lora: Literal["load", "listed"] = Field(
        "load", description="load: adapters are given to it by POST load_lora_adapter; listed: it knows them."
    )

    @field_validator("upstream")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise ValueError("wanted an address, like http://127.0.0.1:8000/v1")
        return value


class LauncherConfig(Section):
    """Where workers run: on this machine, or where commands of a scheduler put them, over a shared folder."""

    kind: Literal["local", "command"] = Field(
        "local", description="local: a process here; command: by the words below."
    )
    submit: tuple[str, ...] = Field(
        (), strict=False, description="Words that submit a job and print its handle, as [sbatch, --parsable, …]."
    )
    handle: str = Field(
        r"(\S+)\s*\Z", description="Pattern whose first group is the handle in what submitting printed."
    )
    status: tuple[str, ...] = Field((), strict=False, description="Words that print the state of {handle}.")
    states: dict[str, Literal["running", "done", "lost"]] = Field(
        {}, description="What the scheduler's words mean; running: also while it waits. Other words are reported."
    )
    cancel: tuple[str, ...] = Field((), strict=False, description="Words that end {handle}: SIGTERM, then SIGKILL.")
    poll_seconds: float = Field(5.0, gt=0, le=3600, description="Seconds between two questions about a job.")

    @model_validator(mode="after")
    def _says_how(self) -> LauncherConfig:
        if self.kind == "command":
            for name in ("submit", "status", "cancel", "states"):
                if not getattr(self, name):
                    raise ValueError(f"kind command needs {name}")
        return self


Models = Annotated[dict[str, Any], Field(min_length=1)]


class ServeConfig(Section):
    """All that the operator of a service says."""

    models: Models = Field(
        description="What clients may train: a name, and the settings of a run that begins with it, or a YAML of them."
    )
    organization: str = Field(
        "tiebreak", pattern=r"^[a-z0-9-]{1,40}$", description="Stands in names of models: ft:base:organization:…"
    )
    export: Literal["adapter", "merged"] = Field(
        "adapter", description="Form of the models that jobs make; what is trained whole is always merged."
    )
    promote: Literal["always", "verdict"] = Field(
        "always", description="always: a trained model gets a name; verdict: only one that passes its gate."
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="How much is taken at all.")
    quotas: QuotasConfig = Field(QuotasConfig(), description="How much of each key, unless it has its own.")
    launcher: LauncherConfig = Field(LauncherConfig(), description="Where workers run.")
    webhooks: tuple[WebhookConfig, ...] = Field((), strict=False, description="Who is told how jobs ended.")
    serving: ServingConfig = Field(ServingConfig(), description="Who answers chats.")

    @field_validator("models", mode="after")
    @classmethod
    def _are_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if not name or len(name) > 100 or ":" in name or "/" in name or not name.isprintable():
                raise ValueError(f"{name!r}: wanted names without : and /, as clients write them")
        return value


BUNDLED_SERVE = Path(__file__).parents[1] / "bundled" / "serve.yaml"


def load_serve(path: Path | str | None = None) -> tuple[ServeConfig, dict[str, Config]]:
    """Return the settings of a service, and for each model that it names those of a run that begins with it.

    None: the bundled model. Files of secrets are beside the one that names them. Raises ConfigError, naming the key.
    """
    where = BUNDLED_SERVE if path is None else Path(path)
    tree = read_yaml(where)
    require_known_keys(str(where), "serve", tree, ServeConfig, "models")
    try:
        settings = ServeConfig.model_validate(tree)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(f"{where}: {place}: {one_line(fault['msg'].removeprefix('Value error, '))}") from None
    hooks = tuple(
        hook.model_copy(update={"secret_file": str(where.parent / hook.secret_file)}) for hook in settings.webhooks
    )
    settings = settings.model_copy(update={"webhooks": hooks})
    return settings, {name: _model(where, name, told) for name, told in settings.models.items()}


def _model(where: Path, name: str, told: Any) -> Config:
    """Return what a run of a model is told; paths of YAML files are beside the one that names them."""
    place = f"{where}: models.{name}"
    if isinstance(told, str):
        file = where.parent / expanduser(told)  # noqa: PTH111 - Path's own raises for a user who is not known
        told, place = read_yaml(file), str(file)
    if not isinstance(told, Mapping) or not isinstance(told.get("model"), Mapping):
        raise ConfigError(f"{place}: wanted settings of a run, at least model: {{name: …}}, or a YAML of them")
    for key, reason in _THE_SERVICES.items():
        section, _, last = key.partition(".")
        if section in told and (not last or last in (told[section] or {})):
            raise ConfigError(f"{place}: {key} is not for you to say: {reason}")
    return _settled(build_config(told, where=place), where.parent, place)


def _settled(config: Config, beside: Path, place: str) -> Config:
    """Return settings with a model that is a folder by its whole path: a service may be started anywhere."""
    name = config.model.name
    for folder in (beside / name, Path(name)):
        if folder.is_dir():
            return config.model_copy(update={"model": config.model.model_copy(update={"name": str(folder.absolute())})})
    if name.startswith(("/", "./", "../", "~")):
        raise ConfigError(f"{place}: model.name {name}: no such folder")
    return config
