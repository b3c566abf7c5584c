"""What a server is told besides prompts: an adapter to load, one to forget; and whether anybody is there.

Owns these requests and what a refusal means. vLLM takes adapters below /v1 (where VLLM_ALLOW_RUNTIME_LORA_UPDATING is
set), SGLang at the root; vLLM then knows one by the name of a model, SGLang wants it beside the model's.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from tiebreak.engine.answers.server import Endpoint
from tiebreak.engine.answers.wire import Unusable, Wire
from tiebreak.errors import ModelError

_LOAD, _UNLOAD = "load_lora_adapter", "unload_lora_adapter"
_POLL_SECONDS = 5.0


def load_adapter(endpoint: Endpoint, name: str, folder: Path) -> Endpoint:
    """Return where the adapter in a folder answers, under a name that stands for its content.

    Raises ModelError where the server is not there or does not take it. The server reads the folder itself.
    """
    wire = _wire(endpoint)
    path = str(folder.absolute())
    try:
        with contextlib.suppress(wire.openai.NotFoundError):
            _ask(wire, f"{_base(endpoint)}/{_LOAD}", {"lora_name": name, "lora_path": path, "load_inplace": True})
            return replace(endpoint, model=name)
        with contextlib.suppress(wire.openai.NotFoundError):
            _ask(wire, f"{_root(endpoint)}/{_LOAD}", {"lora_name": name, "lora_path": path})
            return replace(endpoint, adapter=name)
    except (wire.openai.OpenAIError, Unusable, TimeoutError) as error:
        raise ModelError(
            f"{endpoint.where}: does not load the adapter {path}: {type(error).__name__}: {wire.told(error)}"
        ) from None
    finally:
        wire.close()
    raise ModelError(
        f"{endpoint.where}: takes no adapter while it runs (no {_LOAD}); start vLLM with --enable-lora and "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or SGLang with --enable-lora, or set rounds.engine.weights to command"
    )


def unload_adapter(endpoint: Endpoint, loaded: Endpoint) -> None:
    """Let the server forget an adapter; one that cannot, or is gone, keeps it."""
    at_root = loaded.adapter is not None
    wire = _wire(endpoint)
    with contextlib.suppress(wire.openai.OpenAIError, Unusable, TimeoutError):
        base = _root(endpoint) if at_root else _base(endpoint)
        _ask(wire, f"{base}/{_UNLOAD}", {"lora_name": loaded.adapter or loaded.model})
    wire.close()


def is_there(endpoint: Endpoint) -> bool:
    """Whether anybody answers at an address, and is ready to."""
    wire = _wire(replace(endpoint, num_retries=0, timeout_seconds=min(_POLL_SECONDS, endpoint.timeout_seconds)))
    try:
        wire.ask(lambda client: client.get(f"{_base(endpoint)}/models", cast_to=str))
    except wire.openai.APIStatusError as error:
        return bool(error.status_code < 500)  # some servers list no models, and say 503 while they load
    except (wire.openai.OpenAIError, Unusable, TimeoutError):
        return False
    finally:
        wire.close()
    return True


def _ask(wire: Wire, address: str, body: dict[str, object]) -> None:
    """Send a request; an adapter that is loaded already is well, since its name is of its content."""
    try:
        wire.ask(lambda client: client.post(address, cast_to=str, body=body))
    except wire.openai.BadRequestError as error:
        if "already" not in wire.told(error):
            raise


def _wire(endpoint: Endpoint) -> Wire:
    return Wire(endpoint.base_url, endpoint.key_variable, endpoint.timeout_seconds, 0, endpoint.num_retries)


def _base(endpoint: Endpoint) -> str:
    return (endpoint.base_url or "").rstrip("/")


def _root(endpoint: Endpoint) -> str:
    return _base(endpoint).removesuffix("/v1")
