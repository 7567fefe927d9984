"""Regions below a smallest area go to the neighbour that they share most border with."""

import heapq

import numpy as np
from jaxtyping import Float64, Int

from pixelwise.parcels.regions import Borders


def merge_small(
    keys: Int[np.ndarray, " n"],
    areas: Float64[np.ndarray, " n"],
    borders: Borders,
    lengths: Float64[np.ndarray, " pairs"],
    minimum: float,
) -> Int[np.ndarray, " n"]:
    """Return for each region the one that it has become part of: itself, if it stays.

    The smallest goes first. It joins the neighbour with the longest shared border; among equals the larger one, then
    the one that comes first. Regions of one key that it lay between become one as well. A region without any
    neighbour stays, so that no area is lost.

    Args:
        areas: in the unit of ``minimum``.
        borders: between regions, at least those of all regions below the minimum.
        lengths: of each shared border.
    """
    parent, area = list(range(len(keys))), areas.tolist()
    # Only small regions ask for their neighbours, so no others keep them.
    around: dict[int, dict[int, float]] = {i: {} for i in np.flatnonzero(areas < minimum).tolist()}
    for one, other, length in zip(borders.first.tolist(), borders.second.tolist(), lengths.tolist(), strict=True):
        for inner, outer in ((one, other), (other, one)):
            if inner in around:
                around[inner][outer] = length

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def absorb(into: int, other: int) -> None:
        parent[other] = into
        area[into] += area[other]
        theirs = around.pop(other, {})
        if area[into] >= minimum:
            around.pop(into, None)
            return
        mine = around[into]
        for neighbour, length in theirs.items():
            mine[neighbour] = mine.get(neighbour, 0.0) + length

    waiting = [(area[i], i) for i in around]
    heapq.heapify(waiting)
    while waiting:
        size, small = heapq.heappop(waiting)
        if small not in around or size != area[small]:
            continue
        shared: dict[int, float] = {}
        for neighbour, length in around[small].items():
            there = root(neighbour)
            if there != small:
                shared[there] = shared.get(there, 0.0) + length
        if not shared:
            continue
        around[small] = shared
        chosen = max(shared, key=lambda i: (shared[i], area[i], -i))
        absorb(chosen, small)
        for neighbour in sorted(shared):
            if neighbour != chosen and keys[neighbour] == keys[chosen]:
                absorb(chosen, root(neighbour))
        if chosen in around:
            heapq.heappush(waiting, (area[chosen], chosen))
    return np.array([root(i) for i in range(len(keys))], np.int64)
