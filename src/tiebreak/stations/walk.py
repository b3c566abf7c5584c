"""Prompts of a loop: which are held out, and which are answered in which round.

Owns the split and the order of the walk. Both are pure functions of prompts and settings, so that a loop that begins
again needs no memory of where it was. What a prompt is, is known to `data.asking`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiebreak.config import DataConfig
from tiebreak.config.rounds import RoundsConfig
from tiebreak.data.asking import PromptFile, read_prompts
from tiebreak.data.render import Renderer
from tiebreak.data.split import is_heldout
from tiebreak.engine.answers.answerer import Chat
from tiebreak.errors import DataError, RenderError
from tiebreak.evaluation.samples import choose_prompts
from tiebreak.files import write_jsonl
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Advance, Progress
from tiebreak.records import Asked


@dataclass(frozen=True)
class Walk:
    """The prompts of a loop, each once."""

    prompts: tuple[Chat, ...]
    """Those to be answered in rounds, none of them held out."""
    heldout: tuple[Chat, ...]
    """Those that rounds are measured on."""
    per_round: int
    seed: int
    counts: Mapping[str, Any]
    """What became of the rows that were read."""
    barred: tuple[Asked, ...] = ()
    """All that is on the held-out side, measured on or not: as it is written, and as it is asked."""

    def write_barred(self, path: Path) -> None:
        """Write the prompts that no round may be trained on, for `data.heldout_prompts`."""
        write_jsonl(path, map(_as_row, self.barred))

    def round_of(self, number: int) -> list[Chat]:
        """Return the prompts of a round, counted from 1, in the order of the walk.

        None comes twice before all were used, and none twice in a round; a lap that begins within a round puts what
        this round has had already last. A loop of fewer prompts than a round wants has all of them in every round.
        """
        size = min(self.per_round, len(self.prompts))
        by_id = {chat.prompt_id: chat for chat in self.prompts}
        place = (number - 1) * size
        taken: list[str] = []
        order: list[str] = []
        for lap in range((place + size - 1) // len(by_id) + 1):
            already = set(order[len(order) - lap * len(by_id) % size :])
            hashes = {one: fingerprint(["walk", self.seed, lap, one]) for one in by_id}
            order = sorted(by_id, key=lambda one: (one in already, hashes[one]))
            start = lap * len(by_id)
            taken += order[max(place - start, 0) : max(place + size - start, 0)]
        return [by_id[one] for one in taken]


def digest_of(chats: Sequence[Chat]) -> str:
    """Return the fingerprint of prompts in their order, with all that their rows say."""
    return fingerprint([[chat.as_dict(), dict(chat.columns), chat.is_text] for chat in chats])


def open_walk(
    settings: RoundsConfig, data: DataConfig, renderer: Renderer, positions: int | None, progress: Progress
) -> Walk:
    """Read the prompts of a loop and split them; says what became of them, in a line each.

    A prompt is left out where the template does not write all of it, where `data.max_length` has no room for an answer,
    and where the longest answer ends beyond the model's `positions`. Raises DataError where no prompt is left to walk
    or to measure on.
    """
    source = read_prompts(settings.prompts, data.max_dropped_share)
    _tell(source, progress)
    apart: PromptFile | None = None
    if settings.heldout is not None:
        if source.held_out:
            raise DataError(
                f"{settings.prompts}: holds files that are held out by their names, and rounds.heldout names "
                f"{settings.heldout}; name the files to walk, or a pattern that only they match"
            )
        apart = read_prompts(settings.heldout, data.max_dropped_share)
        _tell(apart, progress)
    told, aside, num_overlapping = _split(source, apart, data.heldout_share)
    as_written = aside
    # Behind the split: a prompt is on the side that it is on in every other run, however it is asked.
    told, aside = ([_asked_as(settings.asked_as, one) for one in side] for side in (told, aside))
    if num_overlapping:
        progress.say(f"{settings.prompts}: {num_overlapping} prompts are held out, and are not walked")
    with progress.stage("prompts", len(told) + len(aside)) as advance:
        fit = _Fit(renderer, positions, settings.sampling.max_new_tokens, data)
        walked, measured = ([one for one in side if fit.takes(one, advance)] for side in (told, aside))
    fit.tell(progress)
    chosen = choose_prompts(measured, settings.num_heldout)
    _refuse_empty(settings, walked, chosen, fit)
    if len(walked) < settings.per_round:
        progress.say(
            f"a round has {len(walked)} prompts: rounds.per_round is {settings.per_round}, and there are no more"
        )
    counts = {
        "num_records": source.num_records,
        "num_walked": len(walked),
        "num_heldout": len(chosen),
        "num_heldout_at_hand": len(measured),
        "num_repeated": source.num_repeated,
        "num_answered": source.num_answered,
        "num_overlapping": num_overlapping,
        "dropped": source.reasons,
        "unfit": dict(fit.reasons.most_common()),
        "digest": source.digest,
    }
    chats, measured_on = (
        tuple(Chat(one.prompt, one.tools, one.columns, one.is_text) for one in side) for side in (walked, chosen)
    )
    barred = tuple({one.prompt_id: one for one in (*as_written, *aside)}.values())
    return Walk(chats, measured_on, settings.per_round, settings.sampling.seed, counts, barred)


def _as_row(one: Asked) -> dict[str, Any]:
    """Return a prompt as `data.asking` reads it."""
    extras = {"tools": list(one.tools), "group": one.origin.group}
    return {
        "prompt": [message.as_dict() for message in one.prompt],
        **{key: told for key, told in extras.items() if told},
    }


def _asked_as(form: str | None, one: Asked) -> Asked:
    """Return a prompt whose last message is asked in another form."""
    if form is None:
        return one
    *before, last = one.prompt
    asked = replace(last, content=form.replace("{prompt}", last.content))
    return replace(one, prompt=(*before, asked))


class _Fit:
    """Which prompts can be answered and learned from, and why others cannot."""

    def __init__(self, renderer: Renderer, positions: int | None, room: int, data: DataConfig) -> None:
        self._renderer, self._positions, self._room, self._data = renderer, positions, room, data
        self._num_short = 0
        self.reasons: Counter[str] = Counter()
        self.firsts: dict[str, str] = {}

    def takes(self, one: Asked, advance: Advance) -> bool:
        """Say whether a prompt fits, and count it."""
        advance(1)
        try:
            length = len(self._renderer.asked(one.prompt, one.tools))
            if self._positions is not None and length + self._room > self._positions:
                told = f"{length} tokens and an answer of {self._room}"
                raise RenderError("no_room", f"{told} are more than the model's {self._positions} positions")
        except RenderError as error:
            self.reasons[error.reason] += 1
            self.firsts.setdefault(error.reason, f"{one.source}: {error}")
            return False
        self._num_short += length + self._room + 1 > self._data.max_length
        return True

    def tell(self, progress: Progress) -> None:
        """Say what does not fit, or only just."""
        for reason, count in self.reasons.most_common():
            progress.warn(f"{count} prompts are left out ({reason}), the first at {self.firsts[reason]}")
        if self._num_short:
            progress.warn(
                f"{self._num_short} prompts leave less than rounds.sampling.max_new_tokens {self._room} of "
                f"data.max_length {self._data.max_length}: pairs of long answers to them would be "
                f"{_BEYOND[self._data.truncation]}; raise data.max_length"
            )


_BEYOND = {"drop": "dropped", "prompt_start": "cut at the start of their prompts"}


def _split(source: PromptFile, apart: PromptFile | None, share: float) -> tuple[list[Asked], list[Asked], int]:
    """Return the prompts to walk, those that are held out, and how many of the walk's own file were left out for it."""
    heldout = list(apart.asked) if apart is not None else [
        one for one in source.asked if (one.prompt_id in source.held_out if source.held_out else is_heldout(one, share))
    ]  # fmt: skip
    keys = {key for one in heldout for key in (one.prompt_id, one.split_key)}
    walked = [one for one in source.asked if one.prompt_id not in keys and one.split_key not in keys]
    return walked, heldout, len(source.asked) - len(walked) - (len(heldout) if apart is None else 0)


def _tell(source: PromptFile, progress: Progress) -> None:
    """Say what a file of prompts held."""
    told = [f"{len(source.asked)} prompts"]
    told += [f"{source.num_repeated} that repeat one"] if source.num_repeated else []
    answers = f"{source.num_answered} rows hold answers, which are not used: the model writes its own"
    told += [answers] if source.num_answered else []
    progress.say(f"{source.path}: {'; '.join(told)}")
    if source.dropped:
        first = source.dropped[0]
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.reasons.items())
        progress.warn(f"{source.path}: {reasons} dropped, the first at {first.source}: {first.detail}")


def _refuse_empty(settings: RoundsConfig, walked: Sequence[Asked], heldout: Sequence[Asked], fit: _Fit) -> None:
    cause = f" The first that is left out: {next(iter(fit.firsts.values()))}." if fit.firsts else ""
    if not walked:
        raise DataError(f"{settings.prompts}: no prompt is left to answer.{cause}")
    if not heldout:
        raise DataError(
            f"{settings.heldout or settings.prompts}: no prompt is held out to measure on: raise data.heldout_share, "
            f"name a file as rounds.heldout, or bring more prompts.{cause}"
        )
