"""The verb why: what is wrong with a run, from what can be read of it, whether it is done, at work or dead.

Owns the form of diagnoses.json, and which of a run's parts it depends on that none is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiebreak.diagnosis.cause import Diagnosis
from tiebreak.diagnosis.causes import diagnoses
from tiebreak.diagnosis.reading import signals_of
from tiebreak.diagnosis.unsettled import unsettled
from tiebreak.files import as_json
from tiebreak.runs import Run

SCHEMA = 1


@dataclass(frozen=True)
class Why:
    """What is wrong with a run, and what cannot be known."""

    run: str
    status: str | None
    diagnoses: Sequence[Diagnosis]
    """The cause before its effects."""
    unknown: Sequence[str]
    """Parts that cannot be read: what they would show is not known."""
    not_yet: Sequence[str]
    """Parts that are not there because the run is not at its end."""
    unsettled: str | None
    """What so few pairs and answers cannot tell, in one line; it is no fault."""
    step: int
    num_steps: int | None

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong, as far as the run has come."""
        return not self.diagnoses and not self.unknown

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "schema": SCHEMA,
            "run": self.run,
            "status": self.status,
            "step": self.step,
            "num_steps": self.num_steps,
            "diagnoses": [one.as_dict() for one in self.diagnoses],
            "unknown": list(self.unknown),
            "not_yet": list(self.not_yet),
            "unsettled": self.unsettled,
        }

    def lines(self) -> list[str]:
        """Return it as a reader takes it."""
        of = f" of {self.num_steps}" if self.num_steps else ""
        found = [line for one in self.diagnoses for line in one.lines()]
        if not found:
            so_far = "" if self.status == "done" else f" so far (step {self.step}{of})"
            found = [f"nothing wrong is known of {self.run}{so_far}"]
            found += [f"not to be seen: {self.unsettled}"] if self.unsettled else []
        return [*found, *(f"cannot be known: {one}" for one in self.unknown), *(f"open: {one}" for one in self.not_yet)]


def why(run: Run) -> Why:
    """Return what is wrong with a run; raises RunError where a folder is none. Nothing is written, no model loaded."""
    signals = signals_of(run)
    return Why(
        str(run.path),
        signals.status,
        diagnoses(signals),
        signals.unknown,
        signals.unmeasured,
        unsettled(signals),
        signals.last_step,
        signals.num_steps,
    )


def write_diagnoses(run: Run) -> list[Diagnosis]:
    """Keep what is wrong with a run that is measured as diagnoses.json, and return it."""
    found = diagnoses(signals_of(run))
    run.keep({run.diagnoses_file: as_json({"schema": SCHEMA, "diagnoses": [one.as_dict() for one in found]})})
    return found
