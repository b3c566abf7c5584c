"""Who is who in a loop of rounds: the model of each round, what it starts from, what it is compared with, who answers.

Owns the folders of rounds, and the configuration of a round's run. Round 0 is the first model; no run made it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tiebreak.config import Config, ModelConfig, Rounds
from tiebreak.engine.answers.answerer import Answerer, Chat
from tiebreak.engine.answers.server import Server
from tiebreak.engine.memory import release_cached
from tiebreak.engine.model import Model
from tiebreak.engine.models import load_frozen
from tiebreak.progress import Progress
from tiebreak.runs import Run
from tiebreak.stations.on_policy import check_on_policy
from tiebreak.stations.served import Weights, serving
from tiebreak.stations.walk import Walk


class Lineup:
    """The models of a loop."""

    def __init__(self, asked: Rounds, progress: Progress) -> None:
        self._asked, self._progress = asked, progress
        self._settings, self._base = asked.settings, asked.base
        self.heldout = asked.folder / "heldout"
        """Where the first model's answers to held-out prompts are."""

    def keep_apart(self, walk: Walk) -> None:
        """Write which prompts no round may be trained on, whatever is mixed in; before the first is."""
        self.heldout.mkdir(parents=True, exist_ok=True)
        walk.write_barred(self._barred)

    @property
    def _barred(self) -> Path:
        return self.heldout / "prompts.jsonl"

    def place(self, number: int) -> Path:
        """Return the folder of a round, counted from 1."""
        return self._asked.folder / f"round-{number:02d}"

    def run(self, number: int) -> Run:
        """Return the run that a round trains, or has trained."""
        return Run(self.place(number) / "train")

    def name(self, number: int) -> str:
        """Return what the policy of a round is called in messages."""
        return f"round {number}'s policy" if number else "the first model"

    def model(self, number: int) -> ModelConfig:
        """Return the policy of a round; 0: the first model."""
        if not number:
            return self._base.model
        told = {"name": str(self.run(number).policy_folder), "revision": None, "base": None}
        return self._base.model.model_copy(update=told)

    @contextlib.contextmanager
    def frozen(self, number: int) -> Iterator[Model]:
        """Give the policy of a round, only to be asked; its weights are gone afterwards, whoever still has it."""
        if number:
            self.run(number).verify(self.run(number).policy_folder)
        model = load_frozen(self.model(number), self._progress.say, self._base.quantization)
        try:
            yield model
        finally:
            model.network.to("meta")
            release_cached(model.device)

    @contextlib.contextmanager
    def answering(
        self, number: int, chats: Sequence[Chat], note: Callable[[Mapping[str, Any]], None]
    ) -> Iterator[Answerer]:
        """Give who answers with the policy of a round; `note` is told how a server was found to serve it.

        Raises ModelError where a server does not serve it.
        """
        engine = self._settings.engine
        if engine == "local":
            with self.frozen(number) as policy:
                yield policy
            return
        weights = Weights(partial(self.frozen, number), self.run(number).policy_folder if number else None)
        work = self.place(number + 1) if number else self.heldout
        with serving(engine, weights, work, self._progress, loop=self._asked.folder) as server:
            if self._settings.on_policy:
                note(self._checked(server, number, chats))
            yield server

    def _checked(self, server: Server, number: int, chats: Sequence[Chat]) -> Mapping[str, Any]:
        sampling = self._settings.sampling
        return check_on_policy(
            server,
            partial(self.frozen, number),
            chats,
            whose=self.name(number),
            seed=sampling.seed,
            max_new_tokens=sampling.max_new_tokens,
            others={self.name(0): partial(self.frozen, 0)} if number else None,
        ).as_dict()

    def config(self, number: int) -> Config:
        """Return the configuration of a round's run: its own pairs and the mix, its start and its reference."""
        settings, place = self._settings, self.place(number)
        last = number - 1
        start, reference = (last if one == "previous" else 0 for one in (settings.start, settings.reference))
        own = str(place / "pairs.jsonl")
        mixed = [one.model_dump(exclude_defaults=True) for one in settings.mix or ()]
        model = self.model(start)
        told: dict[str, Any] = {
            "data.train": [{"path": own, "format": "tiebreak"}, *mixed] if mixed else own,
            "data.format": "auto",
            "data.columns": None,
            "data.heldout": str(self.heldout / "pairs.jsonl"),
            "data.heldout_prompts": str(self._barred) if mixed else None,  # a round's own are never held out
            "output.dir": str(self.run(number).path),
            "model": model.model_dump(exclude_defaults=True),
        }
        if reference != start:
            other = self.model(reference)
            told |= {"reference.model": other.name, "reference.revision": other.revision, "reference.base": other.base}
        if not self._base.evaluation.num_samples:
            told["evaluation.judge"] = None  # the loop asks it, and a run without answers has nothing to ask
        if settings.keep_optimizer and last:
            told["training.moments_from"] = str(self.run(last).path)
        return self._asked.config(told)
