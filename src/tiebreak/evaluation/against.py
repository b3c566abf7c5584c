"""What a run was measured against, by its files, and when two runs were measured against one model.

Owns that rule: a change against one model is no number to hold beside a change against another. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiebreak.engine.sources import contents

_Where = tuple[str, str | None]
"""What a model is: its content, or its id on a hub with the revision that was asked for."""


@dataclass(frozen=True)
class Against:
    """What a run was measured against; None: its files do not say."""

    weights: str | None
    """The digest of its weights as they lay in memory, which another dtype changes."""
    model: _Where | None
    base: _Where | None
    """What `model` stands on; itself where it is no adapter."""
    bits: str | None
    """How its base model lay in four bits; None: it did not."""
    form: str | None = None
    """What else `weights` hang on: what they were in memory, in which dtype, and who read them; None: not known."""

    @classmethod
    def of(cls, manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> Against:
        """Return what a manifest says, beside settings by dotted key: what a named model has no word of is in those."""
        revision, base_revision = settings.get("model.revision"), manifest.get("base_revision")
        told = {"identity": manifest.get("model"), "base_identity": manifest.get("base_identity")}
        bits = _bits(manifest)
        if named := manifest.get("reference_model"):
            if settings.get("reference.revision") or settings.get("model.name") != settings.get("reference.model"):
                revision = settings.get("reference.revision")
            told, bits = named, _bits(named) if "quantization" in named else bits
            base_revision = named.get("base_revision", revision)
        weights = manifest.get("reference_weights")
        digest = str(weights) if weights else None
        # A version that had no such fact in its manifest may have had the setting.
        if not told["identity"] or not told["base_identity"] or (settings.get("reference.model") and not named):
            return cls(digest, None, None, None)
        is_base = told["identity"] == told["base_identity"]
        model, base = str(told["identity"]), _where(str(told["base_identity"]), base_revision)
        return cls(digest, base if is_base else _where(model, revision), base, bits, _form(manifest))


def same_reference(one: Against, two: Against) -> bool | None:
    """Whether two runs were measured against one model; None where that cannot be known.

    One digest is one model. So is one content, whatever the digests: a base model with its adapter switched off may lie
    in another dtype than a frozen copy of it, and an adapter may be merged or hang. A folder and a hub id may be one.
    What a hub id, a branch or a tag leads to may have changed between two runs: two digests of one form tell that it
    has, and without these it is not known.
    """
    if one.weights is not None and one.weights == two.weights:
        return True
    if not (one.model and one.base and two.model and two.base):
        return None
    if one.bits != two.bits:
        return False
    pairs = ((one.model, two.model), (one.base, two.base))
    others = [(here, there) for here, there in pairs if here != there]
    if others:
        return False if any(_is_content(here) == _is_content(there) for here, there in others) else None
    if _stays(one.model) and _stays(one.base):
        return True
    return False if one.weights and two.weights and one.form and one.form == two.form else None


def _where(identity: str, revision: Any) -> _Where:
    content = contents(identity)
    return content, None if content != identity or revision is None else str(revision)


def _stays(where: _Where) -> bool:
    """Whether a place holds the same for ever: content by its digest, or a commit."""
    return _is_content(where) or re.fullmatch(r"[0-9a-f]{40}", where[1] or "") is not None


def _is_content(where: _Where) -> bool:
    return where[0].startswith("sha256:")


def _bits(told: Mapping[str, Any]) -> str | None:
    """Return how weights lay in four bits, whichever version of the library did it."""
    found = told.get("quantization")
    return repr(sorted((k, v) for k, v in found.items() if k != "library")) if found else None


def _form(manifest: Mapping[str, Any]) -> str | None:
    """Return how weights lay and who read them: only of two that are alike do two digests tell two models."""
    read_by = manifest.get("versions")
    if not isinstance(read_by, Mapping):
        return None
    # Whether they are those of a policy without its adapter, of a copy, or of a model that is named.
    how = manifest.get("method") == "none", bool(manifest.get("reference_model")), manifest.get("dtype")
    return repr((*how, *(read_by.get(name) for name in ("tiebreak", "transformers", "peft"))))
