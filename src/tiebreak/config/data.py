"""The settings of preference data: sources, forms, columns, pairing, split, limits.

Owns these settings alone; `settings` holds all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tiebreak.config.section import Place, Section, Store

BUNDLED_PAIRS = "bundled"
MOST_TOKENS = 10**9
"""The greatest `data.max_length`: it drops nothing."""


def _as_texts(value: Any) -> Any:
    """Return a mapping of columns with numbers and yes/no as text, and what stands under a key as `key.name`."""
    if not isinstance(value, Mapping):
        return value
    flat: dict[Any, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            rest = {f"{key}.{name}": inner for name, inner in item.items() if name != "column"}
            flat |= ({key: item["column"]} if "column" in item else {}) | rest
        else:
            flat[key] = item
    return {key: _as_text(item) for key, item in flat.items()}


def _as_text(value: Any) -> Any:
    """Return a number as text, yes and no in each way that YAML writes them, several words with `|` between them."""
    if isinstance(value, bool):
        return "true|yes|on" if value else "false|no|off"
    if isinstance(value, list | tuple):
        return "|".join(str(_as_text(item)) for item in value)
    return str(value) if isinstance(value, int | float) else value


Columns = Annotated[dict[str, str], BeforeValidator(_as_texts)]
"""Which column is what: `{winner: {column: label, first: 0, second: 1}}` is `{winner: label, winner.first: "0", …}`."""


class SourceConfig(Section):
    """One of several sources that are mixed."""

    path: Place = Field(description="File, folder, glob, hub data set or 'bundled'.")
    weight: float = Field(1.0, gt=0, description="Times that each training pair is used; 0.5 takes every second one.")
    format: str = Field("auto", description="Form of the rows; auto detects it.")
    columns: Columns | None = Field(None, description="Which column is what, as data.columns.")


def _as_mix(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    return [{"path": item} if isinstance(item, str) else item for item in value]


Mix = Annotated[tuple[SourceConfig, ...], BeforeValidator(_as_mix), Field(strict=False, min_length=1)]


class DataConfig(Section):
    """Which pairs are learned from and which are held out."""

    train: Place | Mix = Field(
        BUNDLED_PAIRS,
        description="Preference pairs: file, folder, glob, hf:OWNER/NAME@SPLIT or 'bundled'; or a list to mix, "
        "each with path and weight.",
    )
    format: str = Field("auto", description="Form of the rows, as docs/data.md names it; auto detects it.")
    columns: Columns | None = Field(
        None, description="Which column is what, where no form fits: {prompt: question, chosen: better, …}."
    )
    pairing: Literal["best_worst", "best_second", "best_random", "all", "none", "good"] = Field(
        "best_worst",
        description="How several judged completions of a prompt become pairs; none: each is learned from on its own, "
        "as good or bad (kto asks for it); good: the good ones alone, and demonstrations (sft_unpaired).",
    )
    turns: Literal["last", "all"] = Field(
        "last", description="Of a demonstration that is a dialogue: learn the last answer, or every one."
    )
    min_margin: float = Field(0.0, ge=0, description="Least difference of two scores that makes a pair of them.")
    allow: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        (), description="Codes of the doctor's errors ('tiebreak check') that training accepts."
    )
    heldout: Place | None = Field(None, description="File of held-out pairs; null: split off the training file.")
    heldout_prompts: Place | None = Field(
        None, description="File of prompts that no training pair may ask, beside those of held-out pairs; null: none."
    )
    heldout_share: float = Field(0.1, gt=0, lt=1, description="Share of prompts held out, chosen by prompt hash.")
    set_aside: float = Field(
        0.0, ge=0, lt=1, description="Share of held-out prompts that a run never looks at: for a sweep's last word."
    )
    max_pairs: int | None = Field(
        None, ge=2, le=10**9, description="Use only the first N usable pairs of the training file."
    )
    max_length: int = Field(1024, ge=8, le=MOST_TOKENS, description="Most tokens of prompt plus completion.")
    truncation: Literal["drop", "prompt_start"] = Field(
        "drop", description="A pair that is too long: drop it, or cut the oldest prompt tokens, equally for both sides."
    )
    max_dropped_share: float = Field(0.1, ge=0, le=1, description="Stop when more than this share is unusable.")
    store: Store = Field(
        "auto",
        description="Folder in which tokens and the doctor's findings are kept for the next start; auto: in the user's "
        "cache, what took long; off: none.",
    )

    @property
    def placeless(self) -> dict[str, Any]:
        """All but where files lie, and where something is kept of them, for JSON: the rest is how they are read."""
        return self.model_dump(mode="json", exclude={"train", "heldout", "heldout_prompts", "store"})

    @property
    def keeps_apart(self) -> bool:
        """Whether completions are learned from on their own, and not in pairs."""
        return self.pairing in ("none", "good")

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """Where training pairs come from, each with its own form."""
        if isinstance(self.train, str):
            return (SourceConfig(path=self.train, format=self.format, columns=self.columns),)
        common = {"format": self.format, "columns": self.columns}
        return tuple(
            source if source.columns or source.format != "auto" else source.model_copy(update=common)
            for source in self.train
        )

    @property
    def train_specs(self) -> str | list[str]:
        """What is named as training pairs: one, or several."""
        return self.train if isinstance(self.train, str) else [source.path for source in self.train]

    @property
    def train_paths(self) -> str:
        """The places of the training pairs, as messages give them."""
        return ", ".join(source.path for source in self.sources)

    @property
    def heldout_sources(self) -> tuple[SourceConfig, ...]:
        """Where held-out pairs come from, where a file of them is named."""
        if self.heldout is None:
            return ()
        return (SourceConfig(path=self.heldout, format=self.format, columns=self.columns),)
