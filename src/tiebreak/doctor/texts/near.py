"""Near-duplicates: MinHash signatures of texts, and clusters of rows whose signatures agree.

Owns what "nearly the same" means: the Jaccard similarity of the sets of runs of five words, estimated by MinHash
(Broder 1997; signatures by rensa) and looked up by bands (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
3.4) in sorted columns, whose memory stays flat. It knows columns, no texts' origin.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from tiebreak.doctor.texts.wordhashes import Hashes, Offsets, Words, ngrams

Signatures = NDArray[np.uint16]
Labels = NDArray[np.int64]

SHINGLE = 5
"""Words in a run. Texts with fewer are near-duplicates only where they are equal in normal form."""
SLOTS = 32
"""Hashes in the signature of one text: an estimate near 0.85 has a standard deviation of 0.063."""
_ROWS = 4
"""Slots in a band: of two texts at the threshold 0.85, one of 8 bands agrees with probability 0.997."""
_NEIGHBOURS = 4
_BLOCK = 65536
"""Rows compared at once."""
_SEED = 1


def signatures_of(found: Words) -> Signatures:
    """Return the signatures of texts whose words are known."""
    hashes, offsets = ngrams(found, SHINGLE)
    return minhashes(hashes, offsets)


def minhashes(hashes: Hashes, offsets: Offsets) -> Signatures:
    """Return, for each text and slot, the low 16 bits of its MinHash over the hashes of its runs; no text is empty."""
    if not len(offsets):
        return np.empty((0, SLOTS), np.uint16)
    ends = np.append(offsets, len(hashes)).astype(np.uint64)
    found = RMinHash.digest_matrix_from_flat_token_hashes(hashes.astype(np.uint64), ends, SLOTS, _SEED)
    return np.array(found.to_rows(), np.uint32).astype(np.uint16)


def similarities(signatures: Signatures, first: Labels, second: Labels) -> NDArray[np.float64]:
    """Return the smallest estimated Jaccard over the parts of each two rows; a part is SLOTS columns wide."""
    found = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        equal = signatures[first[part]] == signatures[second[part]]
        found[part] = equal.reshape(len(equal), -1, SLOTS).mean(axis=2).min(axis=1)
    return found


def clusters(signatures: Signatures, threshold: float = 0.85) -> Labels:
    """Return for each row the index of the first row of its cluster: rows that are near-duplicates, or joined by some.

    Rows may have several parts, SLOTS columns each (prompt, chosen, rejected); two are near-duplicates where every part
    is. Time and memory are linear in rows whatever they hold: a row of a full bucket meets its neighbours in the order
    of the next band and the first of the bucket, not everybody.
    """
    # First of each distinct signature once, ascending; `labels` says of each row which of these is its own.
    _, firsts, inverse = np.unique(_row_keys(signatures), return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    firsts, labels = firsts[order], np.argsort(order)[inverse]
    joined = np.arange(len(firsts))
    for keys in pairwise(_band_keys(signatures, firsts)):
        left, right = _candidates(*keys)
        apart = joined[left] != joined[right]
        left, right = left[apart], right[apart]
        near = similarities(signatures, firsts[left], firsts[right]) >= threshold
        if near.any():
            joined = _joined(joined, left[near], right[near])
    return np.asarray(firsts[joined][labels])


def _row_keys(columns: Signatures) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each row."""
    keys = np.zeros(len(columns), np.uint64)
    for column in columns.T:
        keys = (keys ^ column) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _band_keys(signatures: Signatures, rows: Labels) -> Iterator[NDArray[np.uint64]]:
    """Yield the keys of every band, and those of the first again; columns are dealt out, so that bands mix parts."""
    num_bands = signatures.shape[1] // _ROWS
    for band in (*range(num_bands), 0):
        yield _row_keys(signatures[:, band::num_bands][rows])


def _candidates(keys: NDArray[np.uint64], next_keys: NDArray[np.uint64]) -> tuple[Labels, Labels]:
    """Return rows of equal keys, two by two: each with its bucket's first and with the few that sort before it."""
    order = np.argsort(keys, kind="stable")
    equal = np.zeros(len(keys) + 1, bool)
    equal[1:-1] = keys[order][1:] == keys[order][:-1]
    shared = order[equal[1:] | equal[:-1]]
    shared = shared[np.lexsort((shared, next_keys[shared], keys[shared]))]
    bucket = keys[shared]
    begins = np.ones(len(shared), bool)
    begins[1:] = bucket[1:] != bucket[:-1]
    start = np.maximum.accumulate(np.where(begins, np.arange(len(shared)), 0))
    left, right = [shared[start]], [shared]
    for distance in range(1, _NEIGHBOURS + 1):
        inside = np.flatnonzero(np.arange(len(shared)) - start > distance)
        left.append(shared[inside - distance])
        right.append(shared[inside])
    return np.concatenate(left), np.concatenate(right)


def _joined(labels: Labels, left: Labels, right: Labels) -> Labels:
    """Return labels after joining the clusters of `left` and `right`: the smallest row of each connected component."""
    # scipy is loaded where it is used, so that reading pairs does not wait for it.
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    edges = coo_array((np.ones(len(left), np.int8), (labels[left], labels[right])), shape=(len(labels), len(labels)))
    _, component = connected_components(edges, directed=False)
    component = component[labels]
    smallest = np.full(len(labels), len(labels), np.int64)
    np.minimum.at(smallest, component, np.arange(len(labels)))
    return np.asarray(smallest[component])
