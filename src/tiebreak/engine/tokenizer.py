"""The tokenizer of a model: loaded, given its template, and asked what ends a turn.

Owns what a tokenizer must have to be used, and what its template is told. Nothing is unpickled and no code from a model
repository runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import transformers

from tiebreak.config import ModelConfig
from tiebreak.data.panics import is_panic, unsaid
from tiebreak.data.templates import GIVEN, fault_of, names_read, reads_clock, with_defaults
from tiebreak.engine.sources import Source, explained
from tiebreak.errors import ConfigError, ModelError, nearest, one_line
from tiebreak.secrecy import masked


def load_tokenizer(
    config: ModelConfig,
    source: Source,
    trained: Path | None = None,
    template_advice: str = "name a Jinja file as model.chat_template",
) -> Any:
    """Return the tokenizer of a model, or the one that a trained policy was saved with; raises ModelError.

    Its chat template has proven in a process of its own that it takes no more than a chat needs.
    """
    where, tokenizer = _read(source, trained)
    if config.chat_template and trained is None:  # a trained policy was saved with the template it was trained with
        try:
            tokenizer.chat_template = Path(config.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"model.chat_template {config.chat_template}: cannot be read ({error})") from None
    if config.chat_template_arguments and tokenizer.chat_template and trained is None:
        _tell(tokenizer, config.chat_template_arguments)
    if not tokenizer.chat_template:
        raise ModelError(f"{where}: has no chat template; {template_advice}")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{where}: the tokenizer names no EOS token; set eos_token in tokenizer_config.json")
    for template in _templates(tokenizer).values():
        tokens = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        if fault := fault_of(template, tokens):
            raise ModelError(f"{config.chat_template or where}: the chat template {fault}; it is not used")
    return tokenizer


def refuse_other_ids(tokenizer: Any, config: ModelConfig, source: Source) -> None:
    """Raise ModelError where ids that a tokenizer writes mean something else to another model.

    A model without a chat template has none to differ in; one that is named as model.chat_template is that of both.
    """
    where, theirs = _read(source, None)
    if theirs.get_vocab() != tokenizer.get_vocab():
        raise ModelError(
            f"{where}: has another vocabulary than the policy, so that ids would not mean the same to both; name a "
            "model with the policy's tokenizer"
        )
    if config.chat_template or not theirs.chat_template:
        return
    if config.chat_template_arguments:
        with contextlib.suppress(ConfigError):  # a template that reads no such name is another one
            _tell(theirs, config.chat_template_arguments)
    if theirs.chat_template != tokenizer.chat_template:
        raise ModelError(
            f"{where}: has another chat template than the policy, so that a chat is not of the same ids to both; where "
            "one template is right for both, name its file as model.chat_template"
        )


def _read(source: Source, trained: Path | None) -> tuple[str, Any]:
    """Return where the tokenizer of a model lies, and the tokenizer as it lies there."""
    beside_adapter = source.adapter is not None and (Path(source.adapter) / "tokenizer_config.json").exists()
    where = trained or (source.adapter if beside_adapter else source.base)
    revision = None if trained else source.revision
    if (Path(str(where)) / "config.json").is_file():
        with explained(f"{where}: config.json"):  # else its faults would be told as those of a tokenizer
            transformers.AutoConfig.from_pretrained(str(where), trust_remote_code=False)
    try:
        with unsaid():
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(where), revision=revision, trust_remote_code=False
            )
    except BaseException as error:  # transformers raises a dozen types for a missing tokenizer
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        cause = masked(one_line(error, 120))
        raise ModelError(f"{where}: holds no tokenizer that loads; add tokenizer.json ({cause})") from None
    return str(where), tokenizer


def now_for(config: ModelConfig, tokenizer: Any) -> datetime | None:
    """Return what a template that reads the clock is told: the day that is set, else today; None where none reads it.

    A whole day, so that the tokens of a run, and what its reference said of them, are those of any other of that day.
    """
    if not any(map(reads_clock, _templates(tokenizer).values())):
        return None
    day = date.today() if config.chat_template_date is None else date.fromisoformat(config.chat_template_date)
    return datetime.combine(day, time.min)


def _templates(tokenizer: Any) -> dict[str, str]:
    """Return the chat templates by name; tools may have one of their own."""
    found = tokenizer.chat_template
    return found if isinstance(found, dict) else {"default": found}


def _tell(tokenizer: Any, arguments: Mapping[str, Any]) -> None:
    """Write the arguments into the templates as defaults; raises ConfigError for a name that none of them reads."""
    given = GIVEN | tokenizer.special_tokens_map.keys()
    read = frozenset[str]().union(*map(names_read, _templates(tokenizer).values())) - given
    for name in arguments:
        if name not in read:
            key = f"model.chat_template_arguments.{name}"
            cause = "is given to every template" if name in given else "is no name that the chat template reads"
            raise ConfigError(f"{key}: {cause}.{nearest(name, read)}")
    told = {name: with_defaults(source, arguments) for name, source in _templates(tokenizer).items()}
    tokenizer.chat_template = told if isinstance(tokenizer.chat_template, dict) else told["default"]


def eos_ids(tokenizer: Any, generation: Any) -> tuple[int, ...]:
    """Return every id that ends a turn, the tokenizer's own first; `generation` holds a model's settings."""
    also = generation.eos_token_id
    others = also if isinstance(also, list) else [also]
    if not all(one is None or type(one) is int for one in others):
        raise ModelError(f"generation_config.json: eos_token_id is {str(also)[:60]}, wanted one or several token ids")
    return tuple(dict.fromkeys(i for i in (tokenizer.eos_token_id, *others) if i is not None))


def suggested_generation(source: Source) -> Any:
    """Return the generation settings beside the weights, where there are any."""
    with explained(source.base):
        try:
            return transformers.GenerationConfig.from_pretrained(str(source.base), revision=source.revision)
        except OSError:
            return transformers.GenerationConfig()
