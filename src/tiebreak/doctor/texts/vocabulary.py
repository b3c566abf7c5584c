"""Which words one completion has and the other has not, as a sparse matrix.

Owns tokens and their hashes for the label-noise model. Knows nothing of labels; a row is chosen minus rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np

NUM_COLUMNS = 2**16
MAX_CHARACTERS = 20_000
"""Of longer completions only the beginning is read."""

_WORD = re.compile(r"\w+|[^\w\s]")


def word_differences(pairs: Iterable[tuple[str, str]], num_columns: int = NUM_COLUMNS, bigrams: bool = True) -> Any:
    """Return a CSR matrix [pairs, num_columns] of unit rows: +1 for words only of the first text, −1 of the second.

    Words are lower-cased runs of letters and digits, single other signs, and (`bigrams`) every two neighbours. What
    both texts contain cancels. Columns are hashes (Weinberger et al. 2009) by CRC-32, the same in every process. Rows
    are divided by the root of the number of their entries, so that long texts are not sure of everything.
    """
    from scipy.sparse import csr_matrix  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast

    columns: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for first, second in pairs:
        one, other = _hashes(first, bigrams), _hashes(second, bigrams)
        only = np.array(sorted(one - other), dtype=np.int64), np.array(sorted(other - one), dtype=np.int64)
        signs = np.concatenate([np.ones(len(only[0])), -np.ones(len(only[1]))])
        columns.append(np.concatenate(only) % num_columns)
        values.append(signs / max(len(signs), 1) ** 0.5)
    starts = np.cumsum([0, *(len(row) for row in columns)])
    flat = (np.concatenate(values), np.concatenate(columns)) if columns else (np.zeros(0), np.zeros(0, dtype=np.int64))
    matrix = csr_matrix((*flat, starts), shape=(len(columns), num_columns))
    matrix.sum_duplicates()
    return matrix


def _hashes(text: str, bigrams: bool) -> set[int]:
    words = _WORD.findall(text[:MAX_CHARACTERS].lower())
    grams = set(words)
    if bigrams:
        grams.update(f"{a} {b}" for a, b in pairwise(words))
    return {crc32(gram.encode("utf-8", "surrogatepass")) for gram in grams}
