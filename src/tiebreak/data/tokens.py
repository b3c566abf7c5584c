"""Examples as token ids by the million: an Arrow table that reads like a tuple of pairs, or of thumbs.

Owns how token ids are kept after rendering: of each example its prompt and all its completions in one list, and their
lengths in another, however many completions there are. Knows no tokenizer and no text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Any, Self, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tiebreak.data.scratch import IN_MEMORY_BYTES, Rows, Scratch
from tiebreak.records import FACTS, Tokenized, TokenizedPair, TokenizedThumb, num_unique_tokens

BLOCK = 1024
"""Examples that become a batch at once."""
_FACTS = (*FACTS, "liked")
SCHEMA = pa.schema(
    [
        ("example_id", pa.binary(32)),
        ("prompt_id", pa.binary(32)),
        ("ids", pa.list_(pa.int32())),
        ("lengths", pa.list_(pa.int32())),
        ("num_truncated", pa.int32()),
        ("weight", pa.float32()),
        *((name, pa.float64()) for name in _FACTS),
    ]
)
"""`lengths` are those of the prompt, and of each completion; `ids` are all of them, end to end. What nobody stated is
NaN."""


def prompt_digest(ids: NDArray[np.int32]) -> bytes:
    """Return a digest of the token ids of a prompt."""
    return hashlib.blake2b(ids.tobytes(), digest_size=16).digest()


class TokenTable(Sequence[Tokenized]):
    """Examples in a table; an item is made when it is asked for, a slice shares the table.

    Made by `of` and `joined`. Costs some 100 bytes an example and 4 a token, in memory or, from 32 MiB on, in a file.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @classmethod
    def of(cls, examples: Iterable[Tokenized], folder: Path | None = None) -> TokenTable:
        """Return examples as a table; raises ValueError where an id is no fingerprint of 64 hexadecimal digits."""
        if isinstance(examples, cls) and not folder:
            return examples
        with TokenSink(folder) as sink:
            source = iter(examples)
            while block := list(islice(source, BLOCK)):
                sink.add(_batch(block))
            return sink.table()

    @classmethod
    def joined(
        cls, tables: Iterable[TokenTable], folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES
    ) -> TokenTable:
        """Return tables as one, in their order; they are taken one by one, so memory stays flat."""
        with TokenSink(folder, in_memory_bytes) as sink:
            for table in tables:
                sink.append(table)
            return sink.table()

    @property
    def num_unique_tokens(self) -> NDArray[np.int64]:
        """Tokens of the prompt, counted once, and of all completions, an entry for each example."""
        return self._of_rows(np.concatenate([batch.ids_at[1:] - batch.ids_at[:-1] for batch in self._batches]))

    @property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """Tokens of the prompt, an entry for each example."""
        return self._lengths(0)

    def completion_lengths(self, place: int) -> NDArray[np.int64]:
        """Return the tokens of the completion at a place, an entry for each example; each has to have one there."""
        return self._lengths(place + 1)

    @property
    def longest_completions(self) -> NDArray[np.int64]:
        """Tokens of the longest completion, an entry for each example."""
        lengths = [
            np.maximum.reduceat(np.where(_is_prompt(batch), 0, batch.lengths), batch.lengths_at[:-1])
            for batch in self._batches
            if len(batch.lengths)
        ]
        return self._of_rows(np.concatenate(lengths) if lengths else np.zeros(0, np.int64))

    def lengths_of(self, *, good: bool) -> NDArray[np.int64]:
        """Return the tokens of completions that are good, or bad: of pairs the chosen or rejected one."""
        liked = self.stated("liked")
        if np.isnan(liked).all():
            return self.completion_lengths(0 if good else 1)
        of_side: NDArray[np.int64] = self.completion_lengths(0)[liked == good]
        return of_side

    @property
    def num_truncated(self) -> NDArray[np.int64]:
        """Prompt tokens cut off, an entry for each example."""
        return self._of_rows(np.concatenate([batch.num_truncated for batch in self._batches]))

    @property
    def weights(self) -> NDArray[np.float32]:
        """Factor on the loss of every example."""
        return np.concatenate([batch.weight for batch in self._batches])[self._rows.places]

    def stated(self, name: str) -> NDArray[np.float64]:
        """Return a fact of every example, NaN where nobody stated it."""
        return np.concatenate([batch.facts[name] for batch in self._batches])[self._rows.places]

    @property
    def num_prompts(self) -> int:
        """Different prompts."""
        return len(self._different_prompts)

    def prompt_ids(self) -> list[str]:
        """Return the content hashes of all different prompts, sorted."""
        return [bytes(name).hex() for name in self._different_prompts.tolist()]

    def prompt_digests(self) -> NDArray[Any]:
        """Return a digest of the token ids of each example's prompt: what the model is shown, whatever its text was."""
        digests = [
            prompt_digest(batch.ids[start : start + length])
            for batch in self._batches
            for start, length in zip(
                batch.ids_at[:-1].tolist(), batch.lengths[batch.lengths_at[:-1]].tolist(), strict=True
            )
        ]
        return np.array(digests, "V16")[self._rows.places]

    def digest(self) -> str:
        """Return the digest of the ids, weights and facts of all examples in their order."""
        names = np.concatenate([batch.example_id for batch in self._batches])[self._rows.places]
        facts = b"".join(self.stated(name).tobytes() for name in FACTS)
        facts += b"" if np.isnan(liked := self.stated("liked")).all() else liked.tobytes()
        return hashlib.sha256(names.tobytes() + self.weights.tobytes() + facts).hexdigest()

    def ids_digest(self) -> str:
        """Return the digest of all token ids and of how they are cut into prompts and completions."""
        columns = [hashlib.sha256() for _ in range(3)]  # one each, or the digest would be of the batches, too
        for own in map(_Batch, self._rows.batches()):
            for column, values in zip(columns, (own.ids, own.lengths, np.diff(own.lengths_at)), strict=True):
                column.update(np.ascontiguousarray(values).data)
        return hashlib.sha256(b"".join(column.digest() for column in columns)).hexdigest()

    def example_id(self, index: int) -> str:
        """Return the content hash of an example, without making it."""
        batch, row = self._rows.located(index)
        return bytes(self._batches[batch].example_id[row]).hex()

    def prompt_id(self, index: int) -> str:
        """Return the content hash of an example's prompt, without making it."""
        batch, row = self._rows.located(index)
        return bytes(self._batches[batch].prompt_id[row]).hex()

    def selected(self, indices: Sequence[int] | NDArray[Any]) -> TokenTable:
        """Return the examples at some places in the order given, or where a mask is true; the table is shared."""
        return TokenTable(self._rows.chosen(indices))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the examples as batches of the schema."""
        return self._rows.batches()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Tokenized: ...
    @overload
    def __getitem__(self, index: slice) -> TokenTable: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Tokenized | TokenTable:
        if isinstance(index, slice):
            return TokenTable(self._rows.chosen(index))
        return self._made(*self._rows.located(index))

    def __iter__(self) -> Iterator[Tokenized]:
        return (self._made(*self._rows.batch_of(place)) for place in self._rows.places.tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenTable, (self._rows,)

    def __repr__(self) -> str:
        return f"TokenTable({len(self)} examples)"

    def _made(self, number: int, row: int) -> Tokenized:
        batch = self._batches[number]
        ids = batch.ids[batch.ids_at[row] : batch.ids_at[row + 1]].tolist()
        lengths = batch.lengths[batch.lengths_at[row] : batch.lengths_at[row + 1]].tolist()
        prompt, *completions = [tuple(ids[a:b]) for a, b in pairwise(accumulate(lengths, initial=0))]
        names = bytes(batch.example_id[row]).hex(), bytes(batch.prompt_id[row]).hex()
        num_cut, weight = int(batch.num_truncated[row]), float(batch.weight[row])
        if len(completions) == 1:
            liked = bool(batch.facts["liked"][row])
            return TokenizedThumb(*names, prompt, completions[0], liked, num_cut, weight)
        facts = [None if math.isnan(value := float(batch.facts[name][row])) else value for name in FACTS]
        chosen, rejected = completions
        return TokenizedPair(*names, prompt, chosen, rejected, num_cut, weight, *facts)

    def _lengths(self, place: int) -> NDArray[np.int64]:
        return self._of_rows(np.concatenate([batch.lengths[batch.lengths_at[:-1] + place] for batch in self._batches]))

    def _of_rows(self, column: NDArray[Any]) -> NDArray[np.int64]:
        return column[self._rows.places].astype(np.int64)

    @cached_property
    def _batches(self) -> list[_Batch]:
        return [_Batch(batch) for batch in self._rows.table.to_batches()] or [_Batch(_batch([]))]

    @cached_property
    def _different_prompts(self) -> NDArray[Any]:
        return np.unique(np.concatenate([batch.prompt_id for batch in self._batches])[self._rows.places])


class TokenSink:
    """Takes tables one after the other, keeps them out of memory, and is one table in the end; used in a `with`."""

    def __init__(self, folder: Path | None = None, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self._scratch = Scratch(SCHEMA, folder, in_memory_bytes)

    def __enter__(self) -> Self:
        self._scratch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._scratch.__exit__(*error)

    def append(self, table: TokenTable) -> None:
        """Add the examples of a table; raises TiebreakError where the disk is full."""
        for batch in table.batches():
            self.add(batch)

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch of the schema; raises TiebreakError where the disk is full."""
        self._scratch.append(batch)

    def table(self) -> TokenTable:
        """Return all examples in their order, after which none can be added."""
        return TokenTable(Rows(self._scratch.table()))


class _Batch:
    """The columns of a batch as arrays that share its memory: `*_at` say where the list of each row begins."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.example_id, self.prompt_id = _names(batch["example_id"]), _names(batch["prompt_id"])
        (self.ids, self.ids_at), (self.lengths, self.lengths_at) = _list(batch["ids"]), _list(batch["lengths"])
        self.num_truncated = batch["num_truncated"].to_numpy()
        self.weight = batch["weight"].to_numpy()
        self.facts = {name: batch[name].to_numpy() for name in _FACTS}


def _is_prompt(batch: _Batch) -> NDArray[np.bool_]:
    """Say of each length whether it is a prompt's."""
    found = np.zeros(len(batch.lengths), np.bool_)
    found[batch.lengths_at[:-1]] = True
    return found


def _names(column: pa.FixedSizeBinaryArray) -> NDArray[Any]:
    # V32, since numpy's own texts lose zero bytes at their end.
    if not len(column):
        return np.zeros(0, "V32")
    return np.frombuffer(column.buffers()[1], "V32")[column.offset : column.offset + len(column)]


def _list(column: pa.ListArray) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the values of all rows, and where each row begins and the last one ends."""
    starts = column.offsets.to_numpy()
    first, last = (int(starts[0]), int(starts[-1])) if len(starts) else (0, 0)
    return column.values.to_numpy()[first:last], starts - first if len(starts) else np.zeros(1, np.int32)


def _batch(examples: Sequence[Tokenized]) -> pa.RecordBatch:
    parts = [(example.prompt_ids, *example.completions) for example in examples]
    every = chain.from_iterable(chain.from_iterable(parts))
    sizes = np.array([num_unique_tokens(example) for example in examples], np.int64)
    columns = [
        pa.array([_digest(example.example_id) for example in examples], pa.binary(32)),
        pa.array([_digest(example.prompt_id) for example in examples], pa.binary(32)),
        _listed(np.fromiter(every, np.int32, count=int(sizes.sum())), sizes),
        _listed(np.array([len(part) for some in parts for part in some], np.int32), np.array(list(map(len, parts)))),
        pa.array([example.num_truncated for example in examples], pa.int32()),
        pa.array([example.weight for example in examples], pa.float32()),
        *(pa.array(np.array([getattr(example, name, None) for example in examples], np.float64)) for name in _FACTS),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _listed(values: NDArray[np.int32], sizes: NDArray[np.int64]) -> pa.ListArray:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _digest(name: str) -> bytes:
    raw = bytes.fromhex(name)
    if len(raw) != 32 or raw.hex() != name:
        raise ValueError(f"{name!r} is not a fingerprint of 64 hexadecimal digits")
    return raw
