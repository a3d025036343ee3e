"""One-dimensional searches over a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from subbyte.errors import NotFiniteError, RangeError

__all__ = ["grid_search"]

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
    usable = [k for k, value in enumerate(losses) if not math.isnan(value)]
    if not usable:
        raise NotFiniteError("losses of the search", f"NaN at all {len(grid)} points", "a finite loss at one of them")
    return grid[min(usable, key=losses.__getitem__)], losses
