"""The largest of many scores, and what scores may be."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subbyte.errors import NotFiniteError, RangeError, ShapeError

__all__ = ["Reduce", "Score", "largest", "largest_columns"]

Score = Literal["gradient", "gradient_weight"]
"""|G| or |G * W|, G the gradient of the loss."""
Reduce = Literal["mean_abs", "abs_mean", "square"]
"""Over sequences: the mean of |G|, |mean of G|, or the mean of G squared."""


def largest(score: NDArray[np.floating[Any]], count: int) -> NDArray[np.bool_]:
    """Where the `count` largest scores are: [O, I] bool, exactly that many of them true. Of equal ones, the first.

    score   [O, I] f32 or f64, finite
    Raises RangeError (count), ShapeError, NotFiniteError.

    >>> largest(np.float32([[1, 3, 3], [2, 3, 0]]), 2)
    array([[False,  True,  True],
           [False, False, False]])
    """
    flat = _checked(score, count, score.size).reshape(-1)
    mask = np.zeros(flat.size, np.bool_)
    if count:
        least = np.partition(flat, flat.size - count)[flat.size - count]
        mask[flat > least] = True
        mask[np.flatnonzero(flat == least)[: count - int(mask.sum())]] = True
    return mask.reshape(score.shape)


def largest_columns(weight: NDArray[np.floating[Any]], count: int) -> NDArray[np.int32]:
    """The `count` columns of `weight` [O, I] with the largest 2-norm: [count] i32, rising. Of equal ones, the first.

    Raises RangeError (count), ShapeError, NotFiniteError.
    """
    weight = _checked(weight, count, weight.shape[-1])
    norms = np.einsum("oi,oi->i", weight, weight, dtype=np.float64)
    return np.sort(np.argsort(-norms, kind="stable")[:count]).astype(np.int32)


def _checked(array: NDArray[Any], count: int, most: int) -> NDArray[Any]:
    if array.ndim != 2:
        raise ShapeError("score", list(array.shape), "two axes")
    if not 0 <= count <= most:
        raise RangeError("count", count, f"0 to {most}")
    if not np.isfinite(array).all():
        raise NotFiniteError("score", "NaN or infinity", "finite numbers")
    return array
