"""A server that answers with a round's weights: how it gets them.

Owns the three ways: an adapter that a running server loads, a command that is started with each round's weights and
stopped again, and a server that somebody else sees to. Whether it serves them is found out by `stations.on_policy`. The
policy is in this process's memory only until what is asked of it is known: a server may need the room.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.config.rounds import ServedConfig
from tiebreak.engine.answers.server import Endpoint, Server
from tiebreak.engine.answers.steering import load_adapter, unload_adapter
from tiebreak.engine.artefact import save_whole
from tiebreak.engine.lora_kinds import changed_by
from tiebreak.engine.model import Model
from tiebreak.errors import ModelError
from tiebreak.files import whole_folder
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Progress
from tiebreak.stations.started import served_copy, started

MAX_RANK = 16
"""Of adapters that vLLM takes unless it is started with --max-lora-rank; SGLang likewise."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


Opened = Callable[[], AbstractContextManager[Model]]
"""A model that is loaded whenever it is called for, and in memory no longer than it is asked."""


@dataclass(frozen=True)
class Weights:
    """What a server is to answer with."""

    opened: Opened
    folder: Path | None
    """Where `Model.save` wrote it; None for the model that the loop starts from."""


@dataclass(frozen=True)
class _Serving:
    config: ServedConfig
    endpoint: Endpoint
    folder: Path | None
    """Where the policy was written; None for the model that the loop starts from."""
    place: str
    """Folder or hub id of whole weights, where a way reads them; else empty."""
    work: Path
    """A folder for the log of a command."""
    loop: Path
    """A folder for the record of what was started."""
    progress: Progress


@contextlib.contextmanager
def serving(config: ServedConfig, weights: Weights, work: Path, progress: Progress, *, loop: Path) -> Iterator[Server]:
    """Give the server, which has the weights as far as can be seen to from here; what was started is stopped again.

    A command says what it does in the folder `work`; what would be left of it by a kill is in the folder of the `loop`,
    where `stations.started.clear_left_behind` finds it. Raises ModelError where it does not get them.
    """
    endpoint = Endpoint(
        config.model,
        config.base_url,
        config.key_variable,
        config.num_at_once,
        config.num_retries,
        config.timeout_seconds,
    )
    way = WAYS[config.weights]
    with contextlib.ExitStack() as until_then:
        with weights.opened() as model:
            spoken = model.renderer(DataConfig()), model.eos_ids, model.identity
            laid = _laid_out(model, weights.folder, loop, progress) if way.reads_whole else contextlib.nullcontext("")
            place = until_then.enter_context(laid)
        asked = _Serving(config, endpoint, weights.folder, place, work, loop, progress)
        yield Server(until_then.enter_context(way.serve(asked)), *spoken)


@contextlib.contextmanager
def _laid_out(model: Model, folder: Path | None, loop: Path, progress: Progress) -> Iterator[str]:
    """Give where whole weights are: an adapter is added into them first, as an export does it."""
    # One that is only asked has its adapter in its weights already; the folder that it is of holds the adapter alone.
    if model.source.adapter is None and (folder is None or not model.is_adapter):
        yield model.source.base if folder is None else str(folder.absolute())
        return
    merged = served_copy(loop)
    try:
        with progress.stage("weights for the server", None), whole_folder(merged) as building:
            save_whole(model, building)
        yield str(merged.absolute())
    finally:
        shutil.rmtree(merged, ignore_errors=True)


@contextlib.contextmanager
def _by_adapter(serving: _Serving) -> Iterator[Endpoint]:
    """The first model is served under its name; a later policy is an adapter on it."""
    folder = serving.folder
    if folder is None:
        yield serving.endpoint
        return
    check_servable(folder, serving.progress)
    # A name of the content: servers keep what they know by name.
    loaded = load_adapter(serving.endpoint, f"tiebreak-{file_digest(folder / _WEIGHTS)[:16]}", folder)
    try:
        yield loaded
    finally:
        unload_adapter(serving.endpoint, loaded)


@contextlib.contextmanager
def _by_command(serving: _Serving) -> Iterator[Endpoint]:
    """A command reads whole weights."""
    config, where = serving.config, (serving.work, serving.progress)
    words = [word.replace("{model}", serving.place) for word in config.command]
    with started(words, serving.endpoint, config.start_seconds, *where, loop=serving.loop):
        yield serving.endpoint


@contextlib.contextmanager
def _as_served(serving: _Serving) -> Iterator[Endpoint]:
    yield serving.endpoint


@dataclass(frozen=True)
class _Way:
    serve: Callable[[_Serving], AbstractContextManager[Endpoint]]
    reads_whole: bool = False
    """Whether it is given whole weights, and not an adapter or nothing."""


WAYS: Mapping[str, _Way] = {
    "adapter": _Way(_by_adapter),
    "command": _Way(_by_command, reads_whole=True),
    "as_served": _Way(_as_served),
}


def check_servable(folder: Path, progress: Progress) -> None:
    """Raise ModelError where a folder is no adapter that vLLM or SGLang loads, naming what is in the way.

    `vllm/lora/peft_helper.py` (0.33) refuses modules that are trained whole, DoRA, biases, aLoRA and replicated layers.
    A rank above their default is said: it takes an option at their start.
    """
    try:
        settings: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        found = [said for name, said in _REFUSED.items() if settings.get(name) not in (None, False, "none", [], {})]
        ranks = [settings.get("r"), *(settings.get("rank_pattern") or {}).values()]
        rank = max((one for one in ranks if isinstance(one, int)), default=0)
    except (OSError, ValueError, AttributeError, TypeError):
        raise ModelError(
            f"{folder}: is no adapter that a server could load, and rounds.engine.weights is adapter; train one "
            "(adapter.kind lora), or set rounds.engine.weights to command"
        ) from None
    if not (folder / _WEIGHTS).is_file():
        raise ModelError(f"{folder}: has no {_WEIGHTS}, which servers read")
    if cause := changed_by(settings) if not found else None:
        raise ModelError(f"{folder}: {_CONFIG}: {cause}, or set rounds.engine.weights to command")
    if found:
        raise ModelError(
            f"{folder}: servers do not load an adapter with {' or '.join(found)}; train a plain one, or set "
            "rounds.engine.weights to command"
        )
    if rank > MAX_RANK:
        progress.say(f"the adapter has rank {rank}: a server takes it that was started with --max-lora-rank {rank}")


_REFUSED = {
    "modules_to_save": "modules that are trained whole (modules_to_save)",
    "use_dora": "DoRA",
    "bias": "biases",
    "lora_bias": "biases (lora_bias)",
    "alora_invocation_tokens": "aLoRA",
    "layer_replication": "replicated layers",
    "use_qalora": "QALoRA",
}
