"""A server that answers with a round's weights: how it gets them.

Owns the three ways: an adapter that a running server loads, a command that is started with each round's weights and
stopped again, and a server that somebody else sees to. Whether it serves them is found out by `stations.on_policy`.
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
from tiebreak.engine.model import Model
from tiebreak.errors import ModelError
from tiebreak.files import whole_folder
from tiebreak.fingerprint import file_digest
from tiebreak.progress import Progress
from tiebreak.stations.started import served_copy, started

MAX_RANK = 16
"""Of adapters that vLLM takes unless it is started with --max-lora-rank; SGLang likewise."""
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class Weights:
    """What a server is to answer with."""

    model: Model
    folder: Path | None
    """Where `Model.save` wrote it; None for the model that the loop starts from."""


@dataclass(frozen=True)
class _Serving:
    config: ServedConfig
    endpoint: Endpoint
    weights: Weights
    work: Path
    """A folder for the log of a command."""
    loop: Path
    """A folder for the record of what was started, and for weights that it cannot read otherwise."""
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
    model = weights.model
    with WAYS[config.weights](_Serving(config, endpoint, weights, work, loop, progress)) as there:
        yield Server(there, model.renderer(DataConfig()), model.eos_ids, model.identity)


@contextlib.contextmanager
def _by_adapter(serving: _Serving) -> Iterator[Endpoint]:
    """The first model is served under its name; a later policy is an adapter on it."""
    folder = serving.weights.folder
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
    """A command reads a folder of whole weights: an adapter is added into them first, as an export does it."""
    weights, config = serving.weights, serving.config
    merged = served_copy(serving.loop)
    if weights.model.is_adapter and (weights.folder is not None or weights.model.source.adapter is not None):
        with serving.progress.stage("weights for the server", None), whole_folder(merged) as building:
            save_whole(weights.model, building)
        place = str(merged.absolute())
    else:
        place = weights.model.source.base if weights.folder is None else str(weights.folder.absolute())
    try:
        words = [word.replace("{model}", place) for word in config.command]
        where = serving.work, serving.progress
        with started(words, serving.endpoint, config.start_seconds, *where, loop=serving.loop):
            yield serving.endpoint
    finally:
        shutil.rmtree(merged, ignore_errors=True)


@contextlib.contextmanager
def _as_served(serving: _Serving) -> Iterator[Endpoint]:
    yield serving.endpoint


WAYS: Mapping[str, Callable[[_Serving], AbstractContextManager[Endpoint]]] = {
    "adapter": _by_adapter,
    "command": _by_command,
    "as_served": _as_served,
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
