"""min_max by its definition: residuals from scratch, every move, every assignment."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def residuals(a: np.ndarray, b: np.ndarray, levels: np.ndarray, codes: np.ndarray) -> F64:
    """a x - b of one problem, [K]."""
    return a.astype(np.float64) @ levels.astype(np.float64)[codes] - b.astype(np.float64)


def moved(codes: np.ndarray, moves: str, frozen: np.ndarray, count: int) -> list[np.ndarray]:
    """Every assignment that one move of a local search leads to."""
    found = []
    free = [j for j in range(len(codes)) if not frozen[j]]
    if moves == "single":
        for j in free:
            for by in (-1, 1):
                if 0 <= codes[j] + by < count:
                    other = codes.copy()
                    other[j] += by
                    found.append(other)
    else:
        for i in free:
            for j in free:
                if codes[j] == codes[i] + 1:
                    other = codes.copy()
                    other[i] += 1
                    other[j] -= 1
                    found.append(other)
    return found


def least(a: np.ndarray, b: np.ndarray, levels: np.ndarray) -> float:
    """The smallest largest residual of all assignments."""
    every = np.array(list(product(range(len(levels)), repeat=a.shape[1])))
    x = levels.astype(np.float64)[every]
    return float(np.abs(x @ a.T.astype(np.float64) - b.astype(np.float64)).max(axis=1).min())
