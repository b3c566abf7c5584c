"""What a cause is, what is found of one, and what is said of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tiebreak.diagnosis.signals import Signals

Level = Literal["fault", "warning"]


@dataclass(frozen=True)
class Finding:
    """That a cause is at work in a run."""

    says: str
    """One sentence: what happened, in numbers."""
    evidence: tuple[str, ...]
    do: str
    """A setting and a value, or a command."""
    step: int | None = None
    """Where it shows first, or the checkpoint to go back to."""
    level: Level = "fault"


@dataclass(frozen=True)
class Cause:
    """One thing that goes wrong with preference training."""

    name: str
    title: str
    meaning: str
    """Plain words, for the page about it."""
    reads: str
    """What is read, and from where on it counts, with the reason."""
    do: str
    """What mends it; what is found of a run says it with values."""
    look: Callable[[Signals], Finding | None]
    explains: tuple[str, ...] = ()
    """Causes that are effects where this one is at work: they become its evidence."""


@dataclass(frozen=True)
class Diagnosis:
    """A cause that was found, as it is told, shown and kept."""

    cause: str
    title: str
    says: str
    evidence: tuple[str, ...]
    do: str
    step: int | None
    level: Level

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"evidence": list(self.evidence)}

    def lines(self) -> list[str]:
        """Return it as a reader takes it."""
        return [f"{self.title}: {self.says}", *(f"  · {told}" for told in self.evidence), f"  → {self.do}"]


def diagnosed(causes: Sequence[Cause], signals: Signals) -> list[Diagnosis]:
    """Return what is wrong with a run, the cause before its effects; what another one explains is its evidence."""
    found: list[tuple[Cause, Finding]] = []
    for cause in causes:
        if finding := cause.look(signals):
            found.append((cause, finding))
    told: list[Diagnosis] = []
    # What only may be so explains nothing that is.
    explaining = [(cause.name, cause.explains) for cause, finding in found if finding.level == "fault"]
    explained = {name for _, explains in explaining for name in explains}
    for cause, finding in found:
        if cause.name in explained:
            continue
        its = dict(explaining).get(cause.name, ())
        effects = [f"{other.title.lower()}: {one.says}" for other, one in found if other.name in its]
        whole = replace(finding, evidence=(*finding.evidence, *effects))
        told.append(Diagnosis(cause.name, cause.title, whole.says, whole.evidence, whole.do, whole.step, whole.level))
    return told
