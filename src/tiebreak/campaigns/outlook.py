"""What a sweep would try, and what it takes: for whoever asks before it is begun.

Owns that estimate; nothing is written and no model is loaded.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tiebreak.campaigns.launchers import journal_of
from tiebreak.campaigns.trials import DONE, named, wanted
from tiebreak.config import Between, Sweep


@dataclass(frozen=True)
class Outlook:
    """What a sweep would do, and take."""

    folder: Path
    trials: Sequence[Mapping[str, Any]]
    """Of a grid, what each trial says; of a search nothing, since each is drawn when others have ended."""
    searched: Mapping[str, str]
    num_trials: int
    num_ended: int
    evaluation: Mapping[str, int]
    seconds: float | None
    """For the trials that are missing, as long as those took that are done; None where none is."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "folder": str(self.folder)}

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        yield f"{self.folder}: {self.num_trials} trials, {self.num_ended} of them ended"
        yield from (f"  {named(one)}" for one in self.trials)
        yield from (f"  {key}: {told}" for key, told in self.searched.items())
        told = self.evaluation
        yield (
            f"each trial: {told['epochs']} passes over the training pairs, {told['probes']} probes of up to "
            f"{told['probe_pairs']} held-out pairs, {told['answers']} answers of up to {told['max_new_tokens']} tokens"
        )
        yield "once for all: one pass of the reference over all pairs, and its own answers; the best is measured twice"
        if self.seconds is not None:
            yield f"what is missing takes about {self.seconds / 60:.0f} min, by the trials that are done"


def outlook(asked: Sweep) -> Outlook:
    """Return what a sweep would do; nothing is written."""
    trials, config = [*asked.combinations()] if asked.settings.grid else [], asked.base
    ended = wanted(asked, journal_of(asked.folder).ended)
    num = len(trials) or asked.settings.trials
    done = [one.seconds for one in ended if one.state == DONE]
    settings = config.evaluation
    evaluation = {
        "epochs": config.training.epochs,
        "probes": settings.probes,
        "probe_pairs": settings.probe_pairs,
        "answers": settings.num_samples + settings.drawn_prompts * settings.num_draws,
        "max_new_tokens": settings.max_new_tokens,
    }
    searched = {key: _told(told) for key, told in asked.settings.search.items()}
    left = max(num - len(ended), 0)
    return Outlook(
        asked.folder, trials, searched, num, len(ended), evaluation, statistics.fmean(done) * left if done else None
    )  # fmt: skip


def _told(told: Between | tuple[Any, ...]) -> str:
    if isinstance(told, tuple):
        return f"one of {', '.join(map(str, told))}"
    return f"{told.low:g} to {told.high:g}" + (", by factors" if told.log else "")
