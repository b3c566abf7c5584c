"""How few arcs close the circles of a directed graph: a small feedback arc set.

Owns which arcs those are. Exact where a knot (a strongly connected component) is small; a greedy order, improved node
by node, where it is not: the general problem is NP-hard. Knows neither prompts nor pairs.
"""

from __future__ import annotations

from functools import cache
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_EXACT = 16
"""Nodes of a knot up to which all orders are looked at: 2^n sets, milliseconds."""
MAX_DENSE = 512
"""Nodes up to which the greedy order is improved."""
WINDOW = 10
TINY = 1e-9
"""What sums of costs differ by for their rounding alone."""


def knots(source: Ints, target: Ints, num_nodes: int) -> Ints:
    """Return for each arc the knot that it lies in, a number, or -1 where it is on no circle. Linear time."""
    from scipy.sparse import csr_matrix  # noqa: PLC0415  loaded where it is used: `import tiebreak` stays fast
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    edges = csr_matrix((np.ones(len(source), dtype=np.int8), (source, target)), shape=(num_nodes, num_nodes))
    component = connected_components(edges, directed=True, connection="strong")[1].astype(np.int64)
    return np.where(component[source] == component[target], component[source], -1)


def closing(source: Ints, target: Ints, cost: Floats) -> NDArray[np.bool_]:
    """Mark the arcs of one knot without which no circle is left, of the least cost that was found.

    `cost` is above 0. With up to MAX_EXACT nodes none is less; nodes are tried in their own order, so that the same
    arcs come of the same graph.
    """
    names, ends = np.unique(np.concatenate([source, target]), return_inverse=True)
    if len(names) == len(source):  # a single ring
        return np.asarray(np.arange(len(cost)) == cost.argmin())
    source, target = ends[: len(source)], ends[len(source) :]
    if len(names) > MAX_DENSE:
        order = _greedy(source, target, cost, len(names))
    else:
        costs = np.zeros((len(names), len(names)))
        np.add.at(costs, (source, target), cost)
        exact = len(names) <= MAX_EXACT
        order = _best(costs) if exact else _improved(costs, _greedy(source, target, cost, len(names)))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return np.asarray(place[source] > place[target])


def _best(costs: Floats) -> list[int]:
    """Return the order of nodes whose backward arcs cost least: dynamic programming over sets (Lawler 1964)."""
    num = len(costs)
    back = np.zeros((num, 1 << num))  # [node, set]: what its arcs into the set cost where it comes last
    for node in range(num):
        back[:, 1 << node : 2 << node] = back[:, : 1 << node] + costs[:, node, None]
    least, last = np.zeros(1 << num), np.zeros(1 << num, dtype=np.int64)
    for some, members, before in _sets_by_size(num):
        total = least[before] + back[members, before]
        first = total.argmin(axis=1)
        rows = np.arange(len(some))
        last[some], least[some] = members[rows, first], total[rows, first]
    order, rest = [], (1 << num) - 1
    while rest:
        order.append(int(last[rest]))
        rest ^= 1 << order[-1]
    return order[::-1]


@cache
def _sets_by_size(num: int) -> tuple[tuple[Ints, Ints, Ints], ...]:
    """Return the sets of `num` nodes, as bits, by size: sets, their members, what is left without each of these."""
    inside = np.arange(1 << num)[:, None] >> np.arange(num) & 1
    found = []
    for size in range(1, num + 1):
        some = np.flatnonzero(inside.sum(axis=1) == size)
        members = np.nonzero(inside[some])[1].reshape(len(some), size)
        found.append((some, members, some[:, None] ^ (1 << members)))
    return tuple(found)


def _greedy(source: Ints, target: Ints, cost: Floats, num: int) -> list[int]:
    """Return an order with few backward arcs: sources first, sinks last, else what gives most more than it takes.

    Eades, Lin and Smyth 1993. O(arcs × log nodes).
    """
    arcs: list[list[tuple[int, float, int]]] = [[] for _ in range(num)]
    gives, takes = np.zeros(num), np.zeros(num)
    degree = [np.bincount(ends, minlength=num).tolist() for ends in (source, target)]
    np.add.at(gives, source, cost)
    np.add.at(takes, target, cost)
    for start, end, price in zip(source.tolist(), target.tolist(), cost.tolist(), strict=True):
        arcs[start].append((end, price, 1))
        arcs[end].append((start, -price, 0))
    surplus = (gives - takes).tolist()

    def key(node: int) -> tuple[bool, bool, float, int]:
        """Return what sinks are first by, sources next, then the largest surplus."""
        return degree[0][node] > 0, degree[1][node] > 0, -surplus[node], node

    heap = [key(node) for node in range(num)]
    heapify(heap)
    left: list[int] = []
    right: list[int] = []
    done = [False] * num
    while heap:
        found = heappop(heap)
        node = found[-1]
        if done[node] or found != key(node):
            continue  # an entry that is out of date
        done[node] = True
        (left if degree[0][node] else right).append(node)
        for other, price, side in arcs[node]:
            if not done[other]:
                degree[side][other] -= 1
                surplus[other] += price
                heappush(heap, key(other))
    return left + right[::-1]


def _improved(costs: Floats, order: list[int]) -> list[int]:
    """Return the order after every node, and every run of WINDOW nodes, stands where its backward arcs cost least."""
    before = np.inf
    while (now := _backward(costs, order)) < before - TINY:
        before = now
        order = _sifted(costs, order)
        for start in range(0, len(order) - 1, WINDOW // 2):
            run = order[start : start + WINDOW]
            better = [run[place] for place in _best(costs[np.ix_(run, run)])]
            if _backward(costs, better) < _backward(costs, run) - TINY:
                order = [*order[:start], *better, *order[start + WINDOW :]]
    return order


def _backward(costs: Floats, order: list[int]) -> float:
    return float(np.tril(costs[np.ix_(order, order)]).sum())


def _sifted(costs: Floats, order: list[int]) -> list[int]:
    """Return the order after each node in turn has been put where its own backward arcs cost least."""
    for node in range(len(order)):
        others = np.array([other for other in order if other != node])
        ahead = np.concatenate([[0.0], np.cumsum(costs[node, others])])  # arcs to those that come before
        behind = np.concatenate([np.cumsum(costs[others, node][::-1])[::-1], [0.0]])
        total, now = ahead + behind, order.index(node)
        best = int(total.argmin())
        if total[best] < total[now] - TINY:
            order = [*others[:best].tolist(), node, *others[best:].tolist()]
    return order
