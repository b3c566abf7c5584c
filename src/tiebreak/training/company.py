"""The company that a run is in: what was made once for all runs of a campaign, and who else looks on.

Owns how runs of one process share what is equal for them: pairs that were read and examined, their tokens, and what the
reference answered. A run that is alone shares nothing and is watched by its own watchers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tiebreak.fingerprint import fingerprint

if TYPE_CHECKING:  # the pairs come before torch
    from tiebreak.engine.ranks import Ranks
    from tiebreak.evaluation.watching import Watcher

T = TypeVar("T")


@dataclass(frozen=True)
class Company:
    """What a run shares with others; by default it is alone."""

    answers: Path | None = None
    """Folder of what the reference answered, by content; None: each run asks it."""
    aside: Path | None = None
    """File of the held-out pairs that no run looks at, written by the first one; None: nobody wants them."""
    watchers: Sequence[Watcher] = ()
    """Who looks on besides a run's own watchers, before them."""
    ranks: Ranks | None = None
    """The processes that train each run together; None: this one."""
    made: dict[str, Any] = field(default_factory=dict)
    """What was made for all, by the fingerprint of what it was made of."""

    def once(self, of: Sequence[Any], make: Callable[[], T]) -> T:
        """Return what `make` makes of values that JSON takes: of equal ones it is called once."""
        key = fingerprint([*of])
        if key not in self.made:
            self.made[key] = make()
        found: T = self.made[key]
        return found
