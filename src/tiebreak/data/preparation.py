"""The data of a run: read, split, rendered, every record accounted for.

Owns the order of those stations and the counts that the report shows. One pass; memory holds arrays of numbers, token
ids and held-out texts go to unlinked temporary files once they are large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiebreak import faults
from tiebreak.config import DataConfig
from tiebreak.data.account import HELDOUT_PROMPT, Side, account_of, refuse_dropped_share, refuse_empty
from tiebreak.data.asking import Barred, read_barred
from tiebreak.data.containers import Block
from tiebreak.data.reader import HELDOUT, TRAIN, DataFile, open_data, read_block, settled
from tiebreak.data.render import Renderer
from tiebreak.data.split import is_set_aside
from tiebreak.data.spool import PairSink
from tiebreak.data.tokens import TokenSink, TokenTable
from tiebreak.data.workers import mapped, num_workers_for
from tiebreak.errors import RenderError
from tiebreak.fingerprint import fingerprint
from tiebreak.progress import Progress, Silent
from tiebreak.records import Dropped, Judgement, Record, Source, Tokenized


@dataclass(frozen=True)
class PreparedData:
    """Both sides of the split and the account of how they came about."""

    train: TokenTable
    heldout: Side
    aside: Side
    """What is held out, too, and that the run never looks at."""
    dropped: tuple[Dropped, ...]
    report: dict[str, Any]
    fingerprint: str

    @cached_property
    def all_pairs(self) -> TokenTable:
        """The pairs of both sides."""
        return TokenTable.joined((self.train, TokenTable.of(self.heldout.tokenized)))


def prepare(
    data: DataConfig,
    renderer: Renderer,
    progress: Progress | None = None,
    num_workers: int | None = None,
    files: Sequence[DataFile] = (),
) -> PreparedData:
    """Read, split and render the pairs of a run; raises DataError where a side of the split stays empty.

    `files` are those of `data`, where they are open already.
    """
    progress, files = progress or Silent(), files or open_data(data)
    num_workers = num_workers or num_workers_for(file.path for file in files)
    with TokenSink() as train, TokenSink() as heldout, PairSink() as texts:
        reading = _Reading(data, renderer, num_workers, _Sinks(train, heldout, texts))
        # Held-out files first: training pairs on their prompts are left out.
        for file in sorted(files, key=lambda file: file.side != HELDOUT):
            with progress.stage(f"tokens {file.name}", None) as advance:
                for part in reading.parts(file):
                    advance(reading.take(part, file))
        return reading.prepared(files)


def fingerprint_of(train: TokenTable, heldout: TokenTable) -> str:
    """Return the fingerprint of what is trained on and what is held out for the run, in tokens."""
    return fingerprint([train.digest(), heldout.digest()])


def render_side(pairs: Iterable[Judgement], renderer: Renderer) -> tuple[Side, list[Dropped]]:
    """Return what can be rendered and what cannot, with the reason."""
    kept: list[tuple[Judgement, Tokenized]] = []
    dropped: list[Dropped] = []
    pairs = list(pairs)
    for pair, made in zip(pairs, renderer.examples(pairs), strict=True):
        if isinstance(made, RenderError):
            dropped.append(_drop(pair, made.reason, str(made)))
        else:
            kept.append((pair, made))
    return Side(tuple(pair for pair, _ in kept), tuple(tokens for _, tokens in kept)), dropped


def _drop(pair: Judgement, reason: str, detail: str) -> Dropped:
    return Dropped(pair.source or Source("(given in Python)", 0), reason, detail)


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class _Part:
    """What became of some records: the training side as numbers only, the held-out side with its texts."""

    num_records: int
    num_used: int
    num_pairs: int
    num_kept: int
    train: TokenTable
    lines: NDArray[np.int64]
    heldout: TokenTable
    texts: tuple[Judgement, ...]
    dropped: tuple[Dropped, ...]
    waiting: tuple[Record, ...] = ()


@dataclass(frozen=True)
class _Rules:
    """What a worker needs to know to make a `_Part`."""

    renderer: Renderer
    heldout_share: float
    heldout_groups: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Sinks:
    """Where pairs go: token ids of both sides, and the text of what is held out."""

    train: TokenSink
    heldout: TokenSink
    texts: PairSink


class _Reading:
    """Collects parts of all files in their order; what grows with the pairs goes to the sinks."""

    def __init__(self, data: DataConfig, renderer: Renderer, num_workers: int, sinks: _Sinks) -> None:
        self._data = data
        self._rules = _Rules(renderer, data.heldout_share)
        self._num_workers = num_workers if data.max_pairs is None else 1
        self._sinks = sinks
        self._left = data.max_pairs
        self._places: list[tuple[str, NDArray[np.int64]]] = []
        self._dropped: list[Dropped] = []
        self._counts: Counter[str] = Counter()
        self._by_file: Counter[str] = Counter()
        self._barred = read_barred(data.heldout_prompts, renderer) if data.heldout_prompts else Barred()
        self._groups: set[str] = set(self._barred.groups)

    def parts(self, file: DataFile) -> Iterator[_Part]:
        """Yield what becomes of the file's records, block by block; thumbs are paired at its end."""
        waiting: list[Record] = []
        blocks = ((block, file) for block in self._within_limit(file))
        # Held-out files come first, so every group of theirs is known by now.
        rules = replace(self._rules, heldout_groups=frozenset(self._groups) if file.side == TRAIN else frozenset())
        for part in mapped(partial(_block_part, rules), blocks, self._num_workers):
            waiting += part.waiting
            yield part
        if waiting:
            paired = list(settled(waiting, file.pairing))
            yield _part(list(self._limited(paired)) if file.side != HELDOUT else paired, file, rules)

    def _limited(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield records until `max_pairs` training pairs are read; the rest is only counted."""
        for record in records:
            if self._left is not None and self._left <= 0:
                self._counts["beyond"] += 1
                continue
            self._left = None if self._left is None else self._left - len(record.judged)
            yield record

    def _within_limit(self, file: DataFile) -> Iterator[Block]:
        """Yield blocks until `max_pairs` training pairs are read, the last one cut; the rest is only counted."""
        for block in file.blocks():
            kept = block if self._left is None or file.side == HELDOUT else self._cut(block, file, self._left)
            self._counts["beyond"] += len(block) - len(kept)
            if len(kept):
                yield kept

    def _cut(self, block: Block, file: DataFile, num_left: int) -> Block:
        lines = set()
        for record in read_block(block, file) if num_left > 0 else ():
            lines.add(record.source.line)
            num_left -= len(record.judged)
            if num_left <= 0:
                break
        self._left = num_left
        return block.only(lines)

    def take(self, part: _Part, file: DataFile) -> int:
        """Add a part; return how many records it was made of."""
        faults.point("tokens")
        self._sinks.train.append(part.train)
        self._sinks.heldout.append(part.heldout)
        for pair in part.texts:
            self._sinks.texts.append(pair)
            if pair.origin.group is not None:
                self._groups.add(pair.origin.group)
        self._places.append((file.name, part.lines))
        self._dropped += part.dropped
        self._counts.update(records=part.num_records, used=part.num_used, pairs=part.num_pairs, kept=part.num_kept)
        self._by_file[file.name] += part.num_records
        return part.num_records

    def prepared(self, files: Sequence[DataFile]) -> PreparedData:
        """Return all parts as one, without training pairs on held-out prompts."""
        held = self._sinks.heldout.table()
        texts = self._sinks.texts.spool()
        train, leaked = self._without_heldout_prompts(self._sinks.train.table(), held)
        heldout, aside = Side(texts, held), Side((), ())
        if self._data.set_aside:
            out = np.array([is_set_aside(pair, self._data.set_aside) for pair in texts], dtype=np.bool_)
            aside, held = Side(texts.selected(out), held.selected(out)), held.selected(~out)
            heldout = Side(texts.selected(~out), held)
        dropped = self._dropped + leaked
        refuse_empty(self._data, train, heldout, dropped)
        refuse_dropped_share(self._data, dropped, num_sound=self._counts["kept"])
        report = {
            "files": [file.as_dict(self._by_file[file.name]) for file in files],
            "num_records": self._counts["records"] + self._counts["beyond"],
            "num_used_records": self._counts["used"],
            "num_pairs": self._counts["pairs"],
            "num_beyond_max_pairs": self._counts["beyond"],
            "num_set_aside_pairs": len(aside.pairs),
            **account_of(self._data, train, held, dropped),
        }
        return PreparedData(train, heldout, aside, tuple(dropped), report, fingerprint_of(train, held))

    def _without_heldout_prompts(self, train: TokenTable, heldout: TokenTable) -> tuple[TokenTable, list[Dropped]]:
        """Drop training pairs whose prompt is held out: measured on them, anything looks good.

        Whole prompts of the same tokens are the same one, such as two that differ in blanks which the template trims.
        """
        taken = {*heldout.prompt_ids(), *self._barred.ids}
        out = np.array([train.prompt_id(row) in taken for row in range(len(train))], dtype=np.bool_)
        whole = heldout.prompt_digests()[heldout.num_truncated == 0]
        whole = np.concatenate([whole, np.array(self._barred.digests, whole.dtype)])
        out |= np.isin(train.prompt_digests(), whole) & (train.num_truncated == 0)
        if not out.any():
            return train, []
        names = [name for name, lines in self._places for _ in range(len(lines))]
        lines = np.concatenate([lines for _, lines in self._places])
        detail = "the prompt is also held out"
        # A source's weight may repeat a pair; it is dropped once.
        once = {(names[row], int(lines[row]), train.example_id(row)) for row in np.flatnonzero(out).tolist()}
        dropped = [Dropped(Source(name, line), HELDOUT_PROMPT, detail) for name, line, _ in sorted(once)]
        return train.selected(~out), dropped


def _block_part(rules: _Rules, item: tuple[Block, DataFile]) -> _Part:
    block, file = item
    found = read_block(block, file)
    part = _part([record for record in found if not record.waits], file, rules)
    return replace(part, waiting=tuple(record for record in found if record.waits))


def _part(found: Sequence[Record], file: DataFile, rules: _Rules) -> _Part:
    pairs = [one for record in found for one in record.judged]
    apart = [pair for pair in pairs if pair.origin.group not in rules.heldout_groups]
    side, unrendered = render_side(apart, rules.renderer)
    held = [file.holds_out(pair, rules.heldout_share) for pair in side.pairs]
    both = list(zip(side.pairs, side.tokenized, held, strict=True))
    train = [(pair, tokens) for pair, tokens, out in both if not out for _ in range(file.times(pair))]
    return _Part(
        num_records=len(found),
        num_used=sum(record.dropped is None for record in found),
        num_pairs=len(pairs),
        train=TokenTable.of(tokens for _, tokens in train),
        lines=np.array([pair.source.line if pair.source else 0 for pair, _ in train], dtype=np.int64),
        heldout=TokenTable.of(tokens for _, tokens, out in both if out),
        texts=tuple(pair for pair, _, out in both if out),
        num_kept=len(side.pairs),
        dropped=(
            *(record.dropped for record in found if record.dropped),
            *unrendered,
            *_in_heldout_group(pairs, rules),
        ),
    )


def _in_heldout_group(pairs: Sequence[Judgement], rules: _Rules) -> Iterator[Dropped]:
    for pair in pairs:
        if pair.origin.group in rules.heldout_groups:
            yield _drop(pair, HELDOUT_PROMPT, "its group is also held out")
