"""One-dimensional searches over a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from subbyte.errors import NotFiniteError, RangeError

__all__ = ["grid_search", "halving_search"]

T = TypeVar("T")


def grid_search(loss: Callable[[T], float], grid: Sequence[T]) -> tuple[T, list[float]]:
    """The point of `grid` with the strictly smallest loss (the first of equals), and all losses in order.

    Losses that are NaN are skipped. Raises RangeError (empty grid), NotFiniteError (every loss is NaN).

    >>> grid_search(lambda x: (x - 2) ** 2, [0, 1, 2, 3])
    (2, [4, 1, 0, 1])
    """
    if not grid:
        raise RangeError("grid", "no points", "at least one")
    losses = [loss(point) for point in grid]
    return grid[_ranked(losses)[0]], losses


def halving_search(
    loss: Callable[[T, slice], float], grid: Sequence[T], parts: int
) -> tuple[T, list[tuple[float, int]]]:
    """The point of `grid` whose loss is the smallest over the parts of some data, found by successive halving.

    loss      of a point over some of the parts, 0 to `parts`: what is to be summed over all
    returns   the point; for each the sum of its losses over the parts that it saw, and their number

    All points see the first part, the better half of them as many parts again, and so on: until one is left, or all
    parts are seen. With n points and enough parts that is about n (log2(n) + 2) / 2 calls of a part, not n times all of
    them (Karnin et al., 2013, "Almost optimal exploration in multi-armed bandits", whose rounds cost the same each).
    Points that are dropped lost on the same parts. Raises as `grid_search`.

    >>> halving_search(lambda x, part: (part.stop - part.start) * (x - 2) ** 2, [0, 1, 2, 3], 8)
    (2, [(4.0, 1), (2.0, 2), (0.0, 2), (1.0, 1)])
    """
    if not grid:
        raise RangeError("grid", "no points", "at least one")
    sums = [0.0] * len(grid)
    seen = [0] * len(grid)
    left, start = list(range(len(grid))), 0
    while start < parts:
        stop = min(max(2 * start, 1), parts)
        for k in left:
            sums[k] += loss(grid[k], slice(start, stop))
            seen[k] = stop
        ranked = _ranked([sums[k] for k in left])
        left = [left[k] for k in ranked[: -(-len(left) // 2)]]
        start = parts if len(left) == 1 else stop
    return grid[left[0]], list(zip(sums, seen, strict=True))


def _ranked(losses: Sequence[float]) -> list[int]:
    """The places of the losses, the smallest first, the first of equals first; without NaN."""
    usable = [k for k, value in enumerate(losses) if not math.isnan(value)]
    if not usable:
        raise NotFiniteError("losses of the search", f"NaN at all {len(losses)} points", "a finite loss at one of them")
    return sorted(usable, key=losses.__getitem__)
