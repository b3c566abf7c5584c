"""What a cause is, what is found of one, and what is said of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """Return what is wrong with a run, the cause before its effects; what another one explains is its evidence.

    So are the effects of its effects. Something is named wherever anything was found.
    """
    found = {cause.name: (cause, finding) for cause in causes if (finding := cause.look(signals))}
    # What only may be so explains nothing that is.
    explains = {
        name: [effect for effect in cause.explains if effect in found] if finding.level == "fault" else []
        for name, (cause, finding) in found.items()
    }
    explained = {effect for effects in explains.values() for effect in effects}
    reached: dict[str, set[str]] = {}
    for name in sorted(found, key=explained.__contains__):
        if not any(name in effects for effects in reached.values()):
            reached[name] = _effects(name, explains)
    told: list[Diagnosis] = []
    for name, (cause, finding) in found.items():
        if name in reached:
            effects = [f"{one.title.lower()}: {of.says}" for key, (one, of) in found.items() if key in reached[name]]
            evidence = (*finding.evidence, *effects)
            told.append(Diagnosis(name, cause.title, finding.says, evidence, finding.do, finding.step, finding.level))
    return told


def _effects(name: str, explains: Mapping[str, Sequence[str]]) -> set[str]:
    """Return all that a cause leads to, over however many others."""
    waiting, met = [name], {name}
    while waiting:
        new = set(explains[waiting.pop()]) - met
        met |= new
        waiting += new
    return met - {name}
